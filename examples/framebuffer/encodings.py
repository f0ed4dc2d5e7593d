"""The encodings that we have, and the zlib streams of one viewer. Pure.

`Encoders.encode` turns a rectangle of our pixels into the body that follows its header. A stream
lives as long as its viewer: everything that was deflated before is context for what comes next, so
what has been encoded must be sent, in order.

Specification: rfbproto.rst, "Encodings" and "Pseudo-encodings".
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from examples.framebuffer import rfb
from examples.framebuffer.hextile import hextile
from examples.framebuffer.pixels import Converter, Values
from examples.framebuffer.tight import tight
from examples.framebuffer.zrle import zrle_tiles

KNOWN: Final = (rfb.TIGHT, rfb.ZRLE, rfb.HEXTILE, rfb.ZLIB, rfb.RAW)
_LEVEL: Final = 1  # of 9: on a fast line a higher one costs more than it saves


class Encoders:
    """What encodes for one viewer."""

    def __init__(self) -> None:
        self._streams: dict[str, zlib._Compress] = {}

    def encode(self, encoding: int, ours: npt.NDArray[np.uint32], converter: Converter) -> bytes:
        """The body of a rectangle in one of the encodings that are `KNOWN`."""
        values: Values = converter.values(ours)
        if encoding == rfb.HEXTILE:
            return hextile(values, converter)
        if encoding == rfb.TIGHT:
            return tight(values, converter, self._deflate)
        if encoding == rfb.RAW:
            return converter.pixels(values).tobytes()
        if encoding == rfb.ZRLE:
            data = self._deflate("zrle", zrle_tiles(values, converter))
        else:
            data = self._deflate("zlib", converter.pixels(values).tobytes())
        return rfb.LENGTH.pack(len(data)) + data

    def _deflate(self, stream: str, data: bytes) -> bytes:
        compressor = self._streams.get(stream)
        if compressor is None:
            compressor = self._streams[stream] = zlib.compressobj(_LEVEL)
        return compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH)


def chosen(offered: Sequence[int]) -> int:
    """The viewer's best encoding for pixels that we have; RAW needs no offer."""
    return next((encoding for encoding in offered if encoding in KNOWN), rfb.RAW)
