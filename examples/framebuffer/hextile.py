"""The Hextile encoding: tiles of 16 by 16 pixels, each raw or a background with rectangles. Pure.

A tile's background is its most frequent pixel; what differs is written as the runs of its rows,
each a rectangle one pixel high. If that would be longer than the pixels themselves, or are more
than 255, the tile is raw. Background and foreground are said again only when they change, and after
what makes a viewer forget them: both after a raw tile, the foreground after one with a colour for
each rectangle.

Specification: rfbproto.rst, "Hextile Encoding".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from examples.framebuffer.pixels import Converter, Octets, Values
from examples.framebuffer.runs import joined, runs_by_row

_TILE: Final = 16
_RAW, _BACKGROUND, _FOREGROUND, _SUBRECTS, _COLOURED = 1, 2, 4, 8, 16
_MOST: Final = 255  # rectangles in a tile


def hextile(values: Values, converter: Converter) -> bytes:
    """Encode a rectangle."""
    encoder = _Encoder(converter)
    tops, lefts = (range(0, side, _TILE) for side in values.shape)
    most, least = (
        reduce(reduce(values, tops, axis=0), lefts, axis=1)
        for reduce in (np.maximum.reduceat, np.minimum.reduceat)
    )
    solid = (most == least).tolist()
    colours = most.tolist()
    return b"".join(
        encoder.solid(colours[row][column])
        if solid[row][column]
        else encoder.tile(values[y : y + _TILE, x : x + _TILE])
        for row, y in enumerate(tops)
        for column, x in enumerate(lefts)
    )


class _Encoder:
    """One rectangle; what the viewer remembers from tile to tile."""

    def __init__(self, converter: Converter) -> None:
        self._converter = converter
        self._background: int | None = None
        self._foreground: int | None = None

    def solid(self, colour: int) -> bytes:
        """A tile of one colour."""
        return self._head(0, colour, None)

    def tile(self, tile: Values) -> bytes:
        """A tile of more than one."""
        runs = runs_by_row(tile)
        colours, kinds = np.unique(runs.values, return_inverse=True)
        weights = np.bincount(kinds, runs.lengths)
        common = int(weights.argmax())
        rest = kinds != common
        count, size = int(rest.sum()), self._converter.size
        coloured = len(colours) > 2
        if count > _MOST or count * (2 + size * coloured) + 2 * size > tile.size * size:
            self._background = self._foreground = None
            return bytes([_RAW]) + self._converter.pixels(tile).tobytes()
        places = _places(runs.starts[rest], runs.lengths[rest], tile.shape[1])
        background = int(colours[common])
        if coloured:
            head = self._head(_SUBRECTS | _COLOURED, background, None)
            self._foreground = None
            return head + bytes([count]) + joined(self._pixels(runs.values[rest]), places)
        foreground = int(colours[1 - common])
        head = self._head(_SUBRECTS, background, foreground)
        return head + bytes([count]) + places.tobytes()

    def _head(self, mask: int, background: int, foreground: int | None) -> bytes:
        colours = []
        if background != self._background:
            mask |= _BACKGROUND
            colours.append(background)
            self._background = background
        if foreground is not None and foreground != self._foreground:
            mask |= _FOREGROUND
            colours.append(foreground)
            self._foreground = foreground
        return bytes([mask]) + self._pixels(np.array(colours, dtype=np.uint32)).tobytes()

    def _pixels(self, values: Values) -> Octets:
        return self._converter.pixels(values)


def _places(starts: Values, lengths: Values, width: int) -> Octets:
    """For each run the two bytes x << 4 | y and (width - 1) << 4 | 0."""
    y, x = np.divmod(starts, width)
    places = np.empty((len(starts), 2), dtype=np.uint8)
    places[:, 0] = x << 4 | y
    places[:, 1] = lengths - 1 << 4
    return places
