"""Actors and messages that several tests of this folder use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from actors import Actor, ChildSpec, Down, Exit, Message, Ref, Started, Supervisor, System

PATIENCE = 10.0
"""Seconds; nothing takes that long unless it hangs."""


class Say(Message):
    """Answered by ``text``."""

    text: str


class Fail(Message):
    """Raises what is named."""

    error: str = "ValueError"
    text: str = "broken"


class Hold(Message):
    """Keeps the actor busy until the test opens its gate."""


class Leave(Message):
    """The actor ends itself."""


class Seen(Message):
    """Answered by everything that the actor has received, in order."""


class WhoAreYou(Message):
    """Answered by the actor's own Ref."""


class Do(Message):
    """A `Doer` calls what its test has given it, and answers with the result."""

    value: Any = None


ERRORS: dict[str, type[BaseException]] = {
    "ValueError": ValueError,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": SystemExit,
    "GeneratorExit": GeneratorExit,
}


class Gate:
    """Where an actor waits: a test knows that it is there, and decides when it goes on."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._opened = threading.Event()

    def pass_through(self) -> None:
        self._reached.set()
        assert self._opened.wait(PATIENCE)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(PATIENCE)

    def open(self) -> None:
        self._opened.set()


class Recorder(Actor):
    """Remembers what it receives; does what the messages above say."""

    def __init__(self, gate: Gate | None = None, log: list[str] | None = None) -> None:
        super().__init__()
        self.gate = gate
        self.seen: list[str] = []
        self.log = log if log is not None else []

    def on_start(self) -> None:
        self.log.append(f"{self.name} started")

    def on_stop(self) -> None:
        self.log.append(f"{self.name} stopped ({self.exit_reason})")

    def on_receive(self, message: Message) -> Any:
        match message:
            case Say(text):
                self.seen.append(text)
                return text
            case Fail(error, text):
                raise ERRORS[error](text)
            case Hold() if self.gate is not None:
                self.gate.pass_through()
            case Leave():
                self.exit()
            case Seen():
                return self.seen
            case WhoAreYou():
                return self.ref
            case Exit(_, name, reason):
                self.seen.append(f"Exit {name} {reason}")
            case Down(_, name, reason):
                self.seen.append(f"Down {name} {reason}")
            case _:
                return super().on_receive(message)
        return None


class Patient(Recorder):
    """An exception in answering an ask does not end it."""

    fails_on_ask = False


class Doer(Patient):
    """On `Do` it calls what its test has given it, with itself and the value."""

    def __init__(self, do: Callable[[Any, Any], Any], gate: Gate | None = None) -> None:
        super().__init__(gate)
        self.do = do

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Do):
            return self.do(self, message.value)
        if isinstance(message, Started):
            self.seen.append(f"Started {message.name}")
            return None
        return super().on_receive(message)


class Pooled(Recorder):
    pooled = True


class PooledDoer(Doer):
    pooled = True


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def busy(
    system: System,
    gate: Gate,
    actor_class: type[Recorder] = Recorder,
    log: list[str] | None = None,
) -> Ref:
    """An actor that handles a `Hold`, and nothing else before the gate opens."""
    ref = system.start(actor_class, gate, log, name="busy")
    ref.tell(Hold())
    gate.wait_until_reached()
    return ref


def supervise(system: System, *specs: ChildSpec, intensity: int = 1, period: float = 5.0) -> Ref:
    return system.start(Supervisor, list(specs), intensity=intensity, period=period, name="top")
