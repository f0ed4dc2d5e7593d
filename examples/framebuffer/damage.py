"""Rectangles, and the part of a picture that somebody has not seen yet. Pure.

`Damage` is a set of pixels, kept as disjoint rectangles. Adding is a union and `discard` takes
away, both exact until there would be more than `LIMIT` rectangles: then their common cover takes
their place, so that a drawer of many small things costs bounded time and memory. It may therefore
hold pixels that did not change; it never lacks one that did.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

LIMIT: Final = 32  # rectangles


class Rect(NamedTuple):
    """``width`` times ``height`` pixels, the left upper one at ``x``, ``y``."""

    x: int
    y: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column behind it."""
        return self.x + self.width

    @property
    def bottom(self) -> int:
        """The first row below it."""
        return self.y + self.height

    @property
    def empty(self) -> bool:
        """It has no pixels."""
        return self.width <= 0 or self.height <= 0

    def clipped(self, other: Rect) -> Rect:
        """What both have; `empty` if that is nothing."""
        x, y = max(self.x, other.x), max(self.y, other.y)
        return Rect(x, y, min(self.right, other.right) - x, min(self.bottom, other.bottom) - y)

    def cover(self, other: Rect) -> Rect:
        """The smallest one around both."""
        x, y = min(self.x, other.x), min(self.y, other.y)
        return Rect(x, y, max(self.right, other.right) - x, max(self.bottom, other.bottom) - y)

    def moved(self, dx: int, dy: int) -> Rect:
        """The same size elsewhere."""
        return Rect(self.x + dx, self.y + dy, self.width, self.height)

    def without(self, other: Rect) -> list[Rect]:
        """At most four rectangles that are this one except for the other."""
        hole = self.clipped(other)
        if hole.empty:
            return [self]
        pieces = (
            Rect(self.x, self.y, self.width, hole.y - self.y),
            Rect(self.x, hole.bottom, self.width, self.bottom - hole.bottom),
            Rect(self.x, hole.y, hole.x - self.x, hole.height),
            Rect(hole.right, hole.y, self.right - hole.right, hole.height),
        )
        return [piece for piece in pieces if not piece.empty]


class Damage:
    """See the module's text. False when it is empty; iterates over its rectangles."""

    def __init__(self, rects: Iterable[Rect] = ()) -> None:
        self._rects: list[Rect] = []
        for rect in rects:
            self.add(rect)

    def __iter__(self) -> Iterator[Rect]:
        return iter(self._rects)

    def __len__(self) -> int:
        return len(self._rects)

    def add(self, rect: Rect) -> None:
        """Have all of ``rect`` in it."""
        new = [] if rect.empty else [rect]
        for old in self._rects:
            new = [piece for part in new for piece in part.without(old)]
        self._keep(self._rects + new)

    def discard(self, rect: Rect) -> None:
        """Have nothing of ``rect`` in it, if that is possible within `LIMIT`."""
        self._keep([piece for old in self._rects for piece in old.without(rect)])

    def clipped(self, rect: Rect) -> list[Rect]:
        """The parts of it that lie in ``rect``."""
        parts = (old.clipped(rect) for old in self._rects)
        return [part for part in parts if not part.empty]

    def clear(self) -> None:
        """Have nothing in it."""
        self._rects = []

    def _keep(self, rects: list[Rect]) -> None:
        if len(rects) > LIMIT:
            cover = rects[0]
            for rect in rects[1:]:
                cover = cover.cover(rect)
            rects = [cover]
        self._rects = rects
