"""The Tight encoding, without JPEG and gradients: one colour, a palette, or pixels. Pure.

Each of the last three has a zlib stream of its own, as its statistics differ: 0 for pixels, 1 for
two colours, 2 for more. What is shorter than 12 bytes is not deflated.

Specification: rfbproto.rst, "Tight Encoding".
"""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np

from examples.framebuffer.pixels import Converter, Values
from examples.framebuffer.runs import packed, runs_of

MAX_WIDTH: Final = 2048  # pixels
_FILL: Final = 0x80
_FILTER: Final = 0x40
_PALETTE_FILTER: Final = 1
_PIXELS, _TWO, _MORE = 0, 1, 2  # the streams
_NOT_DEFLATED: Final = 12  # bytes
_PALETTE_MOST: Final = 256


class Deflate(Protocol):
    """A zlib stream that the viewer follows."""

    def __call__(self, stream: str, data: bytes) -> bytes: ...


def tight(values: Values, converter: Converter, deflate: Deflate) -> bytes:
    """Encode a rectangle of at most `MAX_WIDTH` columns."""
    runs = runs_of(values.reshape(-1))
    if len(runs.values) == 1:
        return bytes([_FILL]) + converter.tpixels(runs.values).tobytes()
    colours, indices = np.unique(runs.values, return_inverse=True)
    count = len(colours)
    if count > _PALETTE_MOST or count * converter.tsize >= values.size:
        data = converter.tpixels(values).tobytes()
        return bytes([_PIXELS << 4]) + _body(_PIXELS, data, deflate)
    stream = _TWO if count == 2 else _MORE
    spread = np.repeat(indices.astype(np.uint8), runs.lengths).reshape(values.shape)
    head = bytes([_FILTER | stream << 4, _PALETTE_FILTER, count - 1])
    palette = converter.tpixels(colours).tobytes()
    return head + palette + _body(stream, packed(spread, 1 if count == 2 else 8), deflate)


def _body(stream: int, data: bytes, deflate: Deflate) -> bytes:
    if len(data) < _NOT_DEFLATED:
        return data
    deflated = deflate(f"tight-{stream}", data)
    return _compact(len(deflated)) + deflated


def _compact(length: int) -> bytes:
    """A length in one, two or three bytes."""
    low, middle, high = length & 0x7F, length >> 7 & 0x7F, length >> 14
    if high:
        return bytes([low | 0x80, middle | 0x80, high])
    return bytes([low | 0x80, middle]) if middle else bytes([low])
