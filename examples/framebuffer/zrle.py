"""The tiles of the ZRLE encoding, 64 by 64 pixels each, before they are deflated. Pure.

A tile is written in the shortest of the ways that there are: solid, a packed palette of up to 16
colours, runs, runs with a palette of up to 127 colours, or raw.

Specification: rfbproto.rst, "ZRLE Encoding".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from examples.framebuffer.pixels import Converter, Octets, Values
from examples.framebuffer.runs import Numbers, joined, packed, runs_of

TILE: Final = 64
_RUNS: Final = 128  # plain; with a palette of n colours 128 + n
_ONE_MORE: Final = 128  # beside a palette index: a length follows
_PACKED_MOST: Final = 16
_PALETTE_MOST: Final = 127


def zrle_tiles(values: Values, converter: Converter) -> bytes:
    """The tiles of a rectangle, row by row."""
    height, width = values.shape
    return b"".join(
        _tile(np.ascontiguousarray(values[y : y + TILE, x : x + TILE]), converter)
        for y in range(0, height, TILE)
        for x in range(0, width, TILE)
    )


def _tile(tile: Values, converter: Converter) -> bytes:
    size = converter.csize
    runs = runs_of(tile.reshape(-1))
    if len(runs.values) == 1:
        return b"\1" + converter.cpixels(runs.values).tobytes()
    more = (runs.lengths - 1) // 255  # bytes of 255 that a length begins with
    best, way = tile.size * size, "raw"
    plain = len(runs.values) * (size + 1) + int(more.sum())
    if plain < best:
        best, way = plain, "runs"
    colours, indices = np.unique(runs.values, return_inverse=True)
    count, bits = len(colours), 0
    if count <= _PALETTE_MOST:
        longer = runs.lengths > 1
        indexed = count * size + len(indices) + int(longer.sum()) + int(more[longer].sum())
        if indexed < best:
            best, way = indexed, "palette"
    if count <= _PACKED_MOST:
        bits = 1 if count == 2 else 2 if count <= 4 else 4
        if count * size + tile.shape[0] * -(-tile.shape[1] * bits // 8) <= best:
            way = "packed"
    if way == "raw":
        return b"\0" + converter.cpixels(tile).tobytes()
    if way == "runs":
        return bytes([_RUNS]) + _with_lengths(converter.cpixels(runs.values), runs.lengths)
    palette = converter.cpixels(colours).tobytes()
    if way == "packed":
        spread = np.repeat(indices.astype(np.uint8), runs.lengths).reshape(tile.shape)
        return bytes([count]) + palette + packed(spread, bits)
    return bytes([_RUNS + count]) + palette + _indexed(indices, runs.lengths)


def _with_lengths(pixels: Octets, lengths: Numbers) -> bytes:
    """Each pixel, and behind it the length of its run: 255 as often as it goes, and the rest."""
    rest = ((lengths - 1) % 255).astype(np.uint8)[:, None]
    more = (lengths - 1) // 255
    if not more.any():
        return joined(pixels, rest)
    width = pixels.shape[1]
    ends = np.cumsum(width + 1 + more)
    out = np.full(int(ends[-1]), 255, dtype=np.uint8)
    for place in range(width):
        out[ends - 1 - more - width + place] = pixels[:, place]
    out[ends - 1] = rest[:, 0]
    return out.tobytes()


def _indexed(indices: Numbers, lengths: Numbers) -> bytes:
    """Runs by palette index: one byte for a single pixel, else the index marked and a length."""
    longer = lengths > 1
    more = (lengths - 1) // 255
    ends = np.cumsum(1 + longer + more)
    out = np.full(int(ends[-1]), 255, dtype=np.uint8)
    out[ends - 1 - longer - more] = indices + _ONE_MORE * longer
    out[ends[longer] - 1] = (lengths[longer] - 1) % 255
    return out.tobytes()
