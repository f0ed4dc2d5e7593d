"""Actors and messages that several tests of this folder use."""

from __future__ import annotations

import asyncio
from typing import Any

from actors import Actor, Down, Exit, Message, Ref


class Say(Message):
    """Answered by ``text``."""

    text: str


class Seen(Message):
    """Answered by everything that the actor has received, in order."""


class Fail(Message):
    """Raises ValueError."""


class Leave(Message):
    """The actor ends itself."""


class Pass(Message):
    """Asks the actors of ``path``, one through the other; answered by their names."""

    path: list[Ref]
    timeout: float = 5.0


class Hide(Message):
    """Never answered."""


class Recorder(Actor):
    """Remembers what it receives."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.hidden: list[Any] = []

    def on_receive(self, message: Message) -> Any:
        match message:
            case Say(text):
                self.seen.append(text)
                return text
            case Seen():
                return self.seen
            case Fail():
                raise ValueError("broken")
            case Leave():
                self.exit()
            case Pass([first, *rest], timeout):
                return [self.name, *first.ask(Pass(rest, timeout), timeout)]
            case Pass([]):
                return [self.name]
            case Hide():
                self.hidden.append(self.reply_later())
            case Exit(_, name, reason):
                self.seen.append(f"Exit {name} {reason}")
            case Down(_, name, reason):
                self.seen.append(f"Down {name} {reason}")
            case _:
                return super().on_receive(message)
        return None


class Pooled(Recorder):
    pooled = True


class Coroutine(Recorder):
    """The same; it asks without holding up its event loop."""

    async def on_receive(self, message: Message) -> Any:
        await asyncio.sleep(0)
        match message:
            case Pass([first, *rest], timeout):
                return [self.name, *await first.ask_async(Pass(rest, timeout), timeout)]
        return super().on_receive(message)


class Ticker(Recorder):
    """Remembers, too, that some time has passed, again and again."""

    def __init__(self, seconds: float, to: Ref | None = None) -> None:
        super().__init__()
        self.seconds = seconds
        self.to = to

    def on_start(self) -> None:
        self.every(self.seconds, Say("tick"))

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Say) and self.to is not None:
            self.to.tell(message)
        return super().on_receive(message)
