"""The live view of a running topology: an actor that is told of each change of a domain's state.

On a terminal, where rich is there, it draws the supervision tree anew at each change; elsewhere a
line says what has changed. It is woken by `DomainChanged` alone: nothing is drawn while nothing
happens.
"""

from __future__ import annotations

import importlib.util
from typing import Any, TextIO

from actors import Actor, Message
from hypervisor import DomainChanged
from xenidc import show
from xenidc.requests import answer
from xenidc.running import Running


class Lines(Actor):
    """A line for each change, on ``out``."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, DomainChanged)
        print(f"{message.name}: {message.state}", file=self._out, flush=True)


class Drawn(Actor):
    """The tree of ``running``, drawn on a terminal."""

    def __init__(self, running: Running) -> None:
        super().__init__()
        self._running = running

    def on_start(self) -> None:
        from rich.live import Live  # noqa: PLC0415 - only where it is there

        self._live: Any = Live(auto_refresh=False)  # else a thread of its own would poll
        self._live.start()
        self._draw()

    def on_stop(self) -> None:
        self._live.stop()

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, DomainChanged)
        self._draw()

    def _draw(self) -> None:
        from rich.text import Text  # noqa: PLC0415 - as above

        lines = show.tree(answer(self._running, {"do": "tree"}))
        self._live.update(Text("\n".join(lines)), refresh=True)


def can_draw(out: TextIO) -> bool:
    """Whether ``out`` is a terminal, and rich is there to draw on it."""
    return out.isatty() and importlib.util.find_spec("rich") is not None
