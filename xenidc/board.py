"""The interactive ``xenidc top``: what a key does to it, and what it shows. Pure; who reads keys
and draws is screen.py.

Up and down choose a channel; what is done to a domain is done to the one that serves it. Killing
asks first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xenidc import show
from xenidc.figures import Row

SORTS = ("channel", "per_second", "bytes_per_second", "p99", "in_flight", "restarts")
HELP = "up, down: choose   s: sort   p: pause or unpause   k: kill   r: restart   q: end"


class Do(NamedTuple):
    """Ask the machine for it (requests.py)."""

    what: str
    domain: str


class End(NamedTuple):
    """Nothing more is to be shown."""


class Board:
    """Give it rows, keys, and what came of what it asked for; it says what is to be shown.

    Attributes:
        said: a question, or what came of the last `Do`.
    """

    def __init__(self) -> None:
        self.said = ""
        self._rows: list[Row] = []
        self._sort = 0
        self._chosen: str | None = None  # a channel
        self._doomed: str | None = None  # a domain, that "y" will kill
        self._keys: dict[str, Callable[[], Do | End | None]] = {
            "up": lambda: self._move(-1),
            "down": lambda: self._move(1),
            "s": self._next_sort,
            "p": self._pause,
            "k": self._kill,
            "r": lambda: self._on_domain("restart"),
            "q": End,
        }

    def take(self, rows: Sequence[Row]) -> None:
        """These are the channels now."""
        self._rows = sorted(rows, key=self._order)
        names = [row["channel"] for row in self._rows]
        if self._chosen not in names:
            self._chosen = names[0] if names else None

    def press(self, key: str) -> Do | End | None:
        """What is to be done; None: show it again."""
        doomed, self._doomed = self._doomed, None
        self.said = ""
        if doomed is not None:
            return Do("kill", doomed) if key == "y" else None
        return self._keys[key]() if key in self._keys else None

    def lines(self) -> list[str]:
        """What is shown; the chosen channel has a mark."""
        head, *lines = show.top(self._rows)
        marked = [
            f"{'>' if row['channel'] == self._chosen else ' '} {line}"
            for row, line in zip(self._rows, lines, strict=True)
        ]
        return [f"  {head}", *marked, "", f"by {SORTS[self._sort]}.  {self.said}".rstrip(), HELP]

    def _order(self, row: Row) -> tuple[Any, ...]:
        name = SORTS[self._sort]
        if name == "channel":
            return (row["channel"],)
        return (row[name] is None, -(row[name] or 0), row["channel"])

    def _move(self, by: int) -> None:
        names = [row["channel"] for row in self._rows]
        if self._chosen is not None:
            at = names.index(self._chosen) + by
            self._chosen = names[min(max(at, 0), len(names) - 1)]

    def _next_sort(self) -> None:
        self._sort = (self._sort + 1) % len(SORTS)
        self.take(self._rows)

    def _row(self) -> Row | None:
        return next((row for row in self._rows if row["channel"] == self._chosen), None)

    def _on_domain(self, what: str) -> Do | None:
        row = self._row()
        return None if row is None else Do(what, row["to"])

    def _pause(self) -> Do | None:
        row = self._row()
        paused = row is not None and row["domain_state"] == "paused"
        return self._on_domain("unpause" if paused else "pause")

    def _kill(self) -> None:
        row = self._row()
        if row is not None:
            self._doomed = row["to"]
            self.said = f"kill {row['to']!r} with SIGKILL? y for yes"
