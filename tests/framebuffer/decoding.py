"""A viewer's half of RFB, written from the specification and nothing of ours: for exact pixels.

Slow and plain on purpose: values are Python numbers, and every byte is accounted for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Read = Callable[[int], bytes]
Grid = npt.NDArray[np.uint32]

RAW, COPYRECT, HEXTILE, ZLIB, TIGHT, ZRLE = 0, 1, 5, 6, 7, 16
DESKTOP_SIZE, CURSOR = -223, -239


@dataclass(frozen=True)
class Format:
    """A pixel format as a viewer chooses it."""

    bits: int = 32
    depth: int = 24
    big: bool = False
    true: bool = True
    tops: tuple[int, int, int] = (255, 255, 255)
    shifts: tuple[int, int, int] = (16, 8, 0)

    def pack(self) -> bytes:
        head = struct.pack(">BBBB", self.bits, self.depth, self.big, self.true)
        return head + struct.pack(">HHHBBB3x", *self.tops, *self.shifts)

    @property
    def size(self) -> int:
        return self.bits // 8

    def pixel(self, data: bytes) -> int:
        return int.from_bytes(data, "big" if self.big else "little")

    def cpixel_size(self) -> int:
        return 3 if self._compact() else self.size

    def cpixel(self, data: bytes) -> int:
        where = self._compact()
        if not where:
            return self.pixel(data)
        return self.pixel(data) << (8 if where == "high" else 0)

    def _compact(self) -> str:
        if self.bits != 32 or self.depth > 24 or not self.true:
            return ""
        used = 0
        for top, shift in zip(self.tops, self.shifts, strict=True):
            used |= top << shift
        return "low" if used < 1 << 24 else "high" if not used & 0xFF else ""

    def tpixel_size(self) -> int:
        return 3 if self._bytewise() else self.size

    def tpixel(self, data: bytes) -> int:
        if not self._bytewise():
            return self.pixel(data)
        return sum(part << shift for part, shift in zip(data, self.shifts, strict=True))

    def _bytewise(self) -> bool:
        return self.bits == 32 and self.depth == 24 and self.true and self.tops == (255, 255, 255)

    def of(self, ours: Grid) -> Grid:
        """What an exact viewer has to have of 0xRRGGBB pixels."""
        out = np.zeros(ours.shape, dtype=np.uint64)
        for source, top, shift in zip((16, 8, 0), self.tops, self.shifts, strict=True):
            level = (ours >> source & 0xFF).astype(np.uint64)
            out |= (level * top + 127) // 255 << shift
        return out.astype(np.uint32)


NATIVE = Format()


@dataclass
class Decoder:
    """A viewer's picture, and its zlib streams.

    Attributes:
        seen: the encodings of the rectangles that have come.
    """

    width: int
    height: int
    format: Format = NATIVE
    seen: list[int] = field(default_factory=list)
    cursor: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.picture: Grid = np.zeros((self.height, self.width), dtype=np.uint32)
        self._streams: dict[str, zlib._Decompress] = {}

    def rectangle(self, read: Read) -> None:
        """Take one rectangle of an update from ``read``."""
        x, y, width, height, encoding = struct.unpack(">HHHHi", read(12))
        self.seen.append(encoding)
        if encoding == DESKTOP_SIZE:
            self.width, self.height = width, height
            self.picture = np.zeros((height, width), dtype=np.uint32)
            return
        if encoding == CURSOR:
            read(width * height * self.format.size + (width + 7) // 8 * height)
            self.cursor = (width, height)
            return
        assert x + width <= self.width
        assert y + height <= self.height
        target = self.picture[y : y + height, x : x + width]
        if encoding == COPYRECT:
            from_x, from_y = struct.unpack(">HH", read(4))
            target[:] = self.picture[from_y : from_y + height, from_x : from_x + width].copy()
            return
        decode = {
            RAW: self._raw,
            HEXTILE: self._hextile,
            ZLIB: self._zlib,
            TIGHT: self._tight,
            ZRLE: self._zrle,
        }[encoding]
        target[:] = decode(read, width, height)

    def _pixels(self, data: bytes) -> list[int]:
        size = self.format.size
        return [self.format.pixel(data[at : at + size]) for at in range(0, len(data), size)]

    def _raw(self, read: Read, width: int, height: int) -> Grid:
        data = read(width * height * self.format.size)
        kind = np.dtype(f"{'>' if self.format.big else '<'}u{self.format.size}")
        return np.frombuffer(data, kind).astype(np.uint32).reshape(height, width)

    def _inflate(self, stream: str, data: bytes) -> bytes:
        return self._streams.setdefault(stream, zlib.decompressobj()).decompress(data)

    def _zlib(self, read: Read, width: int, height: int) -> Grid:
        data = self._inflate("zlib", read(int.from_bytes(read(4), "big")))
        assert len(data) == width * height * self.format.size
        return self._raw(lambda _: data, width, height)

    def _hextile(self, read: Read, width: int, height: int) -> Grid:
        out = np.zeros((height, width), dtype=np.uint32)
        size = self.format.size
        background = foreground = None
        for y in range(0, height, 16):
            for x in range(0, width, 16):
                tile = out[y : y + 16, x : x + 16]
                mask = read(1)[0]
                if mask & 1:
                    tile[:] = self._raw(read, tile.shape[1], tile.shape[0])
                    background = foreground = None
                    continue
                if mask & 2:
                    background = self.format.pixel(read(size))
                if mask & 4:
                    foreground = self.format.pixel(read(size))
                assert background is not None
                tile[:] = background
                for _ in range(read(1)[0] if mask & 8 else 0):
                    colour = self.format.pixel(read(size)) if mask & 16 else foreground
                    assert colour is not None
                    place, extent = read(2)
                    left, top = place >> 4, place & 15
                    wide, high = (extent >> 4) + 1, (extent & 15) + 1
                    assert left + wide <= tile.shape[1]
                    assert top + high <= tile.shape[0]
                    tile[top : top + high, left : left + wide] = colour
                if mask & 16:
                    foreground = None
        return out

    def _zrle(self, read: Read, width: int, height: int) -> Grid:
        data = _Bytes(self._inflate("zrle", read(int.from_bytes(read(4), "big"))))
        out = np.zeros((height, width), dtype=np.uint32)
        for y in range(0, height, 64):
            for x in range(0, width, 64):
                tile = out[y : y + 64, x : x + 64]
                tile[:] = np.reshape(self._zrle_tile(data, *tile.shape), tile.shape)
        assert data.empty
        return out

    def _zrle_tile(self, data: _Bytes, height: int, width: int) -> list[int]:
        size, cpixel = self.format.cpixel_size(), self.format.cpixel
        kind, count = data(1)[0], width * height
        palette = [cpixel(data(size)) for _ in range(kind & 127)]
        if kind == 0:
            return [cpixel(data(size)) for _ in range(count)]
        if kind == 1:
            return palette * count
        if kind < 128:
            assert kind <= 16
            bits = 1 if kind == 2 else 2 if kind <= 4 else 4
            out = []
            for _ in range(height):
                row = data((width * bits + 7) // 8)
                each = 8 // bits
                indices = [
                    row[at // each] >> (8 - bits * (at % each + 1)) & (1 << bits) - 1
                    for at in range(width)
                ]
                out += [palette[index] for index in indices]
            return out
        out = []
        while len(out) < count:
            if kind == 128:
                value, runs = cpixel(data(size)), True
            else:
                index = data(1)[0]
                value, runs = palette[index & 127], bool(index & 128)
            length = 1
            while runs:
                byte = data(1)[0]
                length += byte
                runs = byte == 255
            out += [value] * length
        assert len(out) == count
        return out

    def _tight(self, read: Read, width: int, height: int) -> Grid:
        assert width <= 2048
        control = read(1)[0]
        assert control & 15 == 0
        size, tpixel = self.format.tpixel_size(), self.format.tpixel
        count = width * height
        if control == 0x80:
            return np.full((height, width), tpixel(read(size)), dtype=np.uint32)
        assert control < 0x80
        palette: list[int] = []
        if control & 0x40:
            assert read(1) == b"\1"
            palette = [tpixel(read(size)) for _ in range(read(1)[0] + 1)]
        bits = 8 * size if not palette else 1 if len(palette) == 2 else 8
        length = (width * bits + 7) // 8 * height
        if length < 12:
            data = read(length)
        else:
            data = self._inflate(f"tight-{control >> 4 & 3}", read(_compact(read)))
            assert len(data) == length
        if not palette:
            values = [tpixel(data[at : at + size]) for at in range(0, length, size)]
        elif bits == 8:
            values = [palette[index] for index in data]
        else:
            stride = (width + 7) // 8
            values = [
                palette[data[row * stride + at // 8] >> 7 - at % 8 & 1]
                for row in range(height)
                for at in range(width)
            ]
        assert len(values) == count
        return np.array(values, dtype=np.uint32).reshape(height, width)


def _compact(read: Read) -> int:
    length = 0
    for shift in (0, 7, 14):
        byte = read(1)[0]
        if shift == 14 or not byte & 0x80:
            return length | byte << shift
        length |= (byte & 0x7F) << shift
    return length


class _Bytes:
    """Bytes to be read one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __call__(self, count: int) -> bytes:
        assert self._at + count <= len(self._data)
        self._at += count
        return self._data[self._at - count : self._at]

    @property
    def empty(self) -> bool:
        return self._at == len(self._data)


def reader(data: bytes) -> _Bytes:
    """``data`` as something to read from; `empty` when all has been read."""
    return _Bytes(data)
