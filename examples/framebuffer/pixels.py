"""Pixels as a viewer wants them: its pixel format, and the way there from ours. Pure.

Ours are 32 bits, 0x00RRGGBB, in the machine's order (XRGB8888). A viewer's *value* is a number of
8, 16 or 32 bits; `Converter.values` makes them, with the machine's byte order, so that encoders can
compare them. Bytes come last: `pixels` (PIXEL), `cpixels` (CPIXEL, ZRLE's), `tpixels` (TPIXEL,
Tight's).

An intensity c of 0 to 255 becomes (c * max + 127) // 255, the nearest one that the format has.

A viewer that asks for a colour map gets one that never changes: value v is the colour that v is in
a true-colour format of 3, 3 and 2 bits (`COLOUR_MAP`).

Specification: rfbproto.rst, "Representation of Pixel Data", "SetPixelFormat", "ZRLE Encoding" and
"Tight Encoding".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from examples.framebuffer import rfb
from transport import RemoteProtocolError

Values = npt.NDArray[Any]
"""Pixels, each a number; uint8, uint16 or uint32."""
Octets = npt.NDArray[np.uint8]
"""One row of bytes for each pixel."""

_TYPES: Final = {8: np.uint8, 16: np.uint16, 32: np.uint32}


@dataclass(frozen=True)
class PixelFormat:
    """A PIXEL_FORMAT of the protocol; shifts and maxima are those of the value."""

    bits_per_pixel: int
    depth: int
    big_endian: bool
    true_colour: bool
    red_max: int
    green_max: int
    blue_max: int
    red_shift: int
    green_shift: int
    blue_shift: int

    @classmethod
    def parse(cls, data: bytes) -> PixelFormat:
        """Read the 16 bytes of a SetPixelFormat.

        Raises:
            RemoteProtocolError: no pixel can look like that.
        """
        bits, depth, big, true, *rest = rfb.PIXEL_FORMAT.unpack(data)
        wanted = cls(bits, depth, bool(big), bool(true), *rest)
        if bits not in _TYPES or not 0 < depth <= bits:
            raise RemoteProtocolError(f"no pixel has {bits} bits and depth {depth}")
        if not wanted.true_colour:
            if bits != 8:
                raise RemoteProtocolError(f"a colour map for {bits} bits per pixel is too large")
            return wanted
        taken = 0
        for top, shift in wanted.channels:
            mask = (1 << top.bit_length()) - 1 << shift
            if mask >> bits or taken & mask:
                raise RemoteProtocolError("the colours do not fit side by side into a pixel")
            taken |= mask
        return wanted

    def pack(self) -> bytes:
        """The 16 bytes."""
        return rfb.PIXEL_FORMAT.pack(
            self.bits_per_pixel,
            self.depth,
            self.big_endian,
            self.true_colour,
            *(top for top, _ in self.channels),
            *(shift for _, shift in self.channels),
        )

    @property
    def channels(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """(maximum, shift) of red, green and blue."""
        return (
            (self.red_max, self.red_shift),
            (self.green_max, self.green_shift),
            (self.blue_max, self.blue_shift),
        )


NATIVE: Final = PixelFormat(32, 24, False, True, 255, 255, 255, 16, 8, 0)
"""Ours, and what a viewer gets that asks for nothing else."""
RGB332: Final = PixelFormat(8, 8, False, True, 7, 7, 3, 5, 2, 0)

COLOUR_MAP: Final = rfb.SET_COLOUR_MAP_ENTRIES.pack(1, 0, 256) + b"".join(
    rfb.COLOUR.pack((v >> 5) * 65535 // 7, (v >> 2 & 7) * 65535 // 7, (v & 3) * 65535 // 3)
    for v in range(256)
)
"""The message for a viewer without true colour."""


class Converter:
    """From our pixels to those of ``wanted``.

    Attributes:
        size, csize, tsize: bytes of a PIXEL, a CPIXEL and a TPIXEL.
    """

    def __init__(self, wanted: PixelFormat) -> None:
        true = wanted if wanted.true_colour else RGB332
        self.size = wanted.bits_per_pixel // 8
        self._channels = true.channels
        self._native = true.channels == NATIVE.channels and self.size == 4
        self._type = np.dtype(_TYPES[wanted.bits_per_pixel])
        self._wire = self._type.newbyteorder(">" if wanted.big_endian else "<")
        levels = np.arange(256, dtype=np.uint32)
        self._tables = [(levels * top + 127) // 255 << shift for top, shift in true.channels]
        self._cpixel = slice(None)
        self._three = False
        if self.size == 4 and wanted.depth <= 24:
            used = 0
            for top, shift in true.channels:
                used |= top << shift
            if not used >> 24:
                self._cpixel = slice(1, 4) if wanted.big_endian else slice(3)
            elif not used & 0xFF:
                self._cpixel = slice(3) if wanted.big_endian else slice(1, 4)
            self._three = wanted.depth == 24 and all(top == 255 for top, _ in true.channels)
        self.csize = 3 if self._cpixel != slice(None) else self.size
        self.tsize = 3 if self._three else self.size

    def values(self, ours: npt.NDArray[np.uint32]) -> Values:
        """Each pixel as the viewer's number."""
        if self._native:
            return ours & np.uint32(0xFFFFFF)
        red, green, blue = self._tables
        mixed: Values = red[ours >> 16 & 0xFF] | green[ours >> 8 & 0xFF] | blue[ours & 0xFF]
        return mixed.astype(self._type)

    def pixels(self, values: Values) -> Octets:
        """PIXELs, in the viewer's byte order."""
        wire = np.ascontiguousarray(values.reshape(-1), self._wire)
        return wire.view(np.uint8).reshape(-1, self.size)

    def cpixels(self, values: Values) -> Octets:
        """CPIXELs: PIXELs without the byte that no colour needs."""
        return self.pixels(values)[:, self._cpixel]

    def tpixels(self, values: Values) -> Octets:
        """TPIXELs: red, green and blue where each is a whole byte, else PIXELs."""
        if not self._three:
            return self.pixels(values)
        flat = values.reshape(-1)
        return np.stack([(flat >> shift).astype(np.uint8) for _, shift in self._channels], axis=1)
