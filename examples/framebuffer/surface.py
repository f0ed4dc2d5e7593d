"""The surface: pixels that the drawer writes and the display reads, at the same time.

It is a region that belongs to the drawer and is granted read-only: the kernel lets no display write
into it. Its first page is the header, which the drawer alone writes and the display believes only
after `checked`; behind it lie the pixels, as many as the largest mode needs.

    word  0  MAGIC        3  height in pixels           6  bytes from the region's start to them
          1  generation   4  bytes from row to row      7  sequence
          2  width        5  depth: 32 or 16

Who owns the memory, and what is left of it:
- The display dies: the memory is the drawer's, so the picture is still there, and granted anew to
  the display's successor (after a revocation: fresh pages, in case somebody holds the old ones).
- The drawer dies: its grant is withdrawn. The display's pages keep what was drawn last, as those of
  every read-only grant do; it copies that once (`Picture.keep`) and lets go of the pages.
- Both: the picture is lost, and the drawer's successor draws a new one.

Rules:
1. A mode change makes the generation odd, writes the rest and makes it even again. A reader that
   finds it odd, or changed, keeps what it had: the RESIZE that says so is on its way.
2. What is drawn may be seen half drawn, as on any screen; the UPDATE behind it repairs that.
3. The sequence counts the COPYs that were begun, and is raised before the first pixel moves. A
   display that read pixels under an older sequence read them from before that COPY.

Depth 32 is XRGB8888 (0x00RRGGBB), depth 16 is RGB565, both in the machine's byte order.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from examples.framebuffer.damage import Rect
from hypervisor import Region
from transport import RemoteProtocolError

HEADER_BYTES: Final = 4096
MAX_SIDE: Final = 16384  # pixels
_MAGIC: Final = 0x7866_6231  # "xfb1"
_MAGIC_WORD, _GENERATION, _WIDTH, _SEQUENCE = 0, 1, 2, 7
_TYPES: Final = {32: np.uint32, 16: np.uint16}


class Mode(NamedTuple):
    """How pixels lie: sizes in pixels, ``stride`` and ``offset`` in bytes, ``depth`` in bits."""

    width: int
    height: int
    stride: int
    depth: int
    offset: int

    @property
    def whole(self) -> Rect:
        """All of the screen."""
        return Rect(0, 0, self.width, self.height)


def packed_mode(width: int, height: int, depth: int = 32) -> Mode:
    """The mode without gaps between its rows.

    Raises:
        ValueError: no mode is like that.
    """
    if depth not in _TYPES or not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise ValueError(f"{width}x{height} with {depth} bits per pixel is not a mode")
    return Mode(width, height, width * depth // 8, depth, HEADER_BYTES)


def checked(mode: Mode, size: int) -> Mode:
    """The mode, if its pixels lie within ``size`` bytes of a surface.

    Raises:
        RemoteProtocolError: they do not, or it is no mode.
    """
    width, height, stride, depth, offset = mode
    if depth not in _TYPES or not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE):
        raise RemoteProtocolError(f"the surface claims the mode {mode}")
    pixel = depth // 8
    last = offset + stride * (height - 1) + width * pixel
    if stride < width * pixel or offset < HEADER_BYTES or last > size or (stride | offset) % pixel:
        raise RemoteProtocolError(f"{mode} does not lie in a surface of {size} bytes")
    return mode


def pixels_of(view: memoryview, mode: Mode) -> npt.NDArray[Any]:
    """The pixels themselves, row by row, as an array that shares the surface's memory."""
    kind = np.dtype(_TYPES[mode.depth])
    shape, strides = (mode.height, mode.width), (mode.stride, kind.itemsize)
    return np.ndarray(shape, kind, buffer=view, offset=mode.offset, strides=strides)


class Surface:
    """The drawer's side.

    Args:
        mode: the first one.
        memory: bytes for pixels, for the largest mode that there will be; None: for the first.
    """

    def __init__(self, mode: Mode, memory: int | None = None) -> None:
        size = mode.stride * mode.height
        self.region = Region(
            HEADER_BYTES + max(size, memory or 0), name="xenidc-surface", readonly_to_peers=True
        )
        self._words = self.region.view[:HEADER_BYTES].cast("Q")
        self._words[_MAGIC_WORD] = _MAGIC
        self.set_mode(mode)

    def set_mode(self, mode: Mode) -> None:
        """Change the mode; the pixels are what they are.

        Raises:
            ValueError: the surface has not that much memory.
        """
        if mode.offset + mode.stride * mode.height > self.region.size:
            raise ValueError(f"{mode} needs more memory than the surface has")
        self._words[_GENERATION] += 1
        for place, value in enumerate(mode):
            self._words[_WIDTH + place] = value
        self._words[_GENERATION] += 1
        self.mode = mode
        self.pixels = pixels_of(self.region.view, mode)

    def begin_copy(self) -> int:
        """Raise the sequence; returns it."""
        self._words[_SEQUENCE] += 1
        return self._words[_SEQUENCE]


class Picture:
    """The display's side: a surface that is mapped at ``view``, or what was kept of one.

    Raises:
        RemoteProtocolError: what is there is no surface.
    """

    def __init__(self, view: memoryview) -> None:
        if len(view) <= HEADER_BYTES:
            raise RemoteProtocolError(f"{len(view)} bytes are no surface")
        self._view = view
        self._words = view[:HEADER_BYTES].cast("Q")
        if self._words[_MAGIC_WORD] != _MAGIC:
            raise RemoteProtocolError("there is no surface in what was granted")
        self._generation: int | None = None
        self._kept = False
        self.mode = Mode(1, 1, 4, 32, HEADER_BYTES)
        self._pixels: npt.NDArray[Any] = np.zeros((1, 1), dtype=np.uint32)
        self.look()

    @classmethod
    def blank(cls, width: int, height: int) -> Picture:
        """A black one, of nobody."""
        surface = Surface(packed_mode(width, height))
        picture = cls(surface.region.view)
        picture.keep()
        surface.region.close()
        return picture

    def look(self) -> bool:
        """Read the header again if it has changed; True if the mode has.

        Raises:
            RemoteProtocolError: it is not a mode of this surface.
        """
        if self._kept:
            return False
        generation = self._words[_GENERATION]
        if generation == self._generation or generation % 2:
            return False
        mode = Mode(*self._words[_WIDTH:_SEQUENCE])
        if self._words[_GENERATION] != generation:
            return False
        self.mode = checked(mode, len(self._view))
        self._generation = generation
        self._pixels = pixels_of(self._view, mode)
        return True

    def cut(self, rect: Rect) -> tuple[npt.NDArray[np.uint32], int]:
        """A copy of those pixels as XRGB8888, black outside the screen; and the sequence."""
        inside = rect.clipped(self.mode.whole)
        if inside == rect:
            part = self._pixels[rect.y : rect.bottom, rect.x : rect.right].copy()
        else:
            part = np.zeros((rect.height, rect.width), dtype=self._pixels.dtype)
            if not inside.empty:
                y, x = inside.y - rect.y, inside.x - rect.x
                part[y : y + inside.height, x : x + inside.width] = self._pixels[
                    inside.y : inside.bottom, inside.x : inside.right
                ]
        return _as_xrgb(part), self.sequence

    @property
    def sequence(self) -> int:
        """How many COPYs the drawer has begun."""
        return 0 if self._kept else self._words[_SEQUENCE]

    def keep(self) -> None:
        """Copy the pixels, and need the surface no longer."""
        self._pixels = self._pixels.copy()
        self._kept = True
        self._view = memoryview(b"")
        self._words = self._view.cast("Q")


def _as_xrgb(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    if pixels.dtype == np.uint32:
        return pixels
    wide = pixels.astype(np.uint32)
    red, green, blue = wide >> 11, wide >> 5 & 0x3F, wide & 0x1F
    red, green, blue = red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2
    return (red << 16 | green << 8 | blue).astype(np.uint32)
