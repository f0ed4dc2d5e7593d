"""What one viewer has seen, and what it gets next, at its own pace. Pure.

The viewer's picture is always: ours, except for its `damage`. An update is made only when it has
asked for one and there is something to tell; how long it takes to ask again is its own affair,
meanwhile damage is only added up. So nothing waits for a slow viewer, and it skips what is over.

An update is a number of rectangles that is said first. The pixels of each are read when its turn
comes, a band at a time, so that a viewer never holds more than one band of output; whatever changes
meanwhile is damage again.

COPY: a viewer that knows CopyRect moves pixels of its own picture, if that is exact. It is when
nothing that it was sent is newer than the beginning of that COPY (`encoded`, the sequence of the
surface when pixels were read last; see surface.py). Then its picture afterwards is again ours
except for its damage, where damage within the source has moved along. Copies go first in the next
update, in their order. In all other cases the target is simply damaged.

Sizes: a viewer that knows DesktopSize is told the new one in an update of its own. One that does
not keeps the size that it has: what is outside is cut off, what is missing is black. Requests are
believed up to the largest size that the viewer was ever told, since one may be on its way when the
size changes; one of nothing, or of more, is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from examples.framebuffer import protocol as p
from examples.framebuffer import rfb
from examples.framebuffer.damage import Damage, Rect
from examples.framebuffer.encodings import chosen
from examples.framebuffer.messages import UpdateRequest
from transport import RemoteProtocolError

BAND_WIDTH: Final = 2048  # pixels: Tight's limit
BAND_HEIGHT: Final = 64  # rows: ZRLE's tiles, and a multiple of Hextile's
_COPIES_MOST: Final = 16
_RECTS_MOST: Final = 0xFFFF - _COPIES_MOST - 1  # the number of rectangles has 16 bits


@dataclass
class Begin:
    """The beginning of an update.

    Attributes:
        resize: the size to tell; then there is nothing else in it.
        cursor: tell the pointer's shape.
        copies: what the viewer moves itself.
        bands: how many rectangles of pixels follow.
    """

    resize: tuple[int, int] | None = None
    cursor: bool = False
    copies: list[p.Copy] = field(default_factory=list)
    bands: int = 0

    @property
    def rectangles(self) -> int:
        """How many rectangles the update has."""
        return (self.resize is not None) + self.cursor + len(self.copies) + self.bands


class Pace:
    """One viewer; ``width`` and ``height``: what its ServerInit says."""

    def __init__(self, width: int, height: int) -> None:
        self.encoding = rfb.RAW
        self.encoded = 0
        self._knows: frozenset[int] = frozenset()
        self._told = Rect(0, 0, width, height)
        self._largest = self._told
        self._actual = self._told
        self._damage = Damage([self._told])
        self._asked = Damage()
        self._copies: list[p.Copy] = []
        self._bands: deque[Rect] = deque()
        self._cursor_due = False

    # --- what the viewer says ---------------------------------------------------------------------

    def set_encodings(self, encodings: tuple[int, ...]) -> None:
        """The viewer knows these."""
        self.encoding = chosen(encodings)
        self._cursor_due = rfb.CURSOR in encodings and rfb.CURSOR not in self._knows
        self._knows = frozenset(encodings)

    def request(self, wanted: UpdateRequest) -> None:
        """The viewer asks for an update.

        Raises:
            RemoteProtocolError: for pixels that it cannot know of.
        """
        if wanted.rect.empty or wanted.rect.clipped(self._largest) != wanted.rect:
            raise RemoteProtocolError(f"an update of {tuple(wanted.rect)} was requested")
        rect = wanted.rect.clipped(self._told)
        self._asked.add(rect)
        if not wanted.incremental:
            self._damage.add(rect)

    # --- what the drawer says ---------------------------------------------------------------------

    def damaged(self, rect: Rect) -> None:
        """These pixels have changed."""
        self._damage.add(rect.clipped(self._told))

    def copied(self, copy: p.Copy) -> None:
        """These pixels were copied."""
        possible = (
            rfb.COPYRECT in self._knows
            and self.encoded < copy.sequence
            and len(self._copies) < _COPIES_MOST
            and copy.rect.clipped(self._told) == copy.rect
            and copy.source.clipped(self._told) == copy.source
        )
        if not possible:
            self.damaged(copy.rect)
            return
        source, (dx, dy) = copy.source, (copy.rect.x - copy.source_x, copy.rect.y - copy.source_y)
        stale = self._damage.clipped(source) + [
            part for band in self._bands if not (part := band.clipped(source)).empty
        ]
        self._damage.discard(copy.rect)
        for part in stale:
            self._damage.add(part.moved(dx, dy))
        self._copies.append(copy)

    def renewed(self, width: int, height: int) -> None:
        """There is another picture now, or another mode of it."""
        self._actual = Rect(0, 0, width, height)
        self.encoded = 0
        self._forget_copies()
        self._damage.add(self._told)

    # --- what it gets -----------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """An update has begun that is not all encoded."""
        return bool(self._bands)

    def begin(self) -> Begin | None:
        """Begin an update, if there is one to make; its pixels are then those of `next_band`."""
        if self._bands or not len(self._asked):
            return None
        if self._actual != self._told and rfb.DESKTOP_SIZE in self._knows:
            return self._begin_resize()
        whole = self._asked.clipped(self._told) == [self._told]
        if self._copies and not whole:
            self._forget_copies()
        visible = [part for asked in self._asked for part in self._damage.clipped(asked)]
        bands = [band for rect in visible for band in _bands(rect)][:_RECTS_MOST]
        update = Begin(None, self._cursor_due, self._copies, len(bands))
        if not update.rectangles:
            return None
        for band in bands:
            self._damage.discard(band)
        self._bands.extend(bands)
        self._copies = []
        self._cursor_due = False
        self._asked.clear()
        return update

    def next_band(self, sequence: int) -> None:
        """The pixels of the next band have been read, under that sequence of the surface."""
        self._bands.popleft()
        self.encoded = max(self.encoded, sequence)

    @property
    def band(self) -> Rect:
        """What is to be encoded next, while `busy`."""
        return self._bands[0]

    def _begin_resize(self) -> Begin:
        self._told = self._actual
        self._largest = self._largest.cover(self._told)
        self._copies = []
        self._damage = Damage([self._told])
        self._asked.clear()
        return Begin((self._told.width, self._told.height))

    def _forget_copies(self) -> None:
        """Have the pixels sent in place of the copies that were not."""
        for copy in self._copies:
            self._damage.add(copy.rect)
        self._copies = []


def _bands(rect: Rect) -> Iterator[Rect]:
    for y in range(rect.y, rect.bottom, BAND_HEIGHT):
        for x in range(rect.x, rect.right, BAND_WIDTH):
            width, height = min(BAND_WIDTH, rect.right - x), min(BAND_HEIGHT, rect.bottom - y)
            yield Rect(x, y, width, height)
