"""What a drawer and a display say to each other: Xen's virtual frame buffer and keyboard. Pure.

The words are those of Xen's public headers io/fbif.h and io/kbdif.h, and so are the layouts: every
event is 40 bytes, its first one says what it is. Xen has two devices, each with a page for its
events; here one connection carries both, so that a viewer's click cannot be separated from the
picture that was clicked on. Pixels never pass here: see surface.py for them.

    front end (draws)   -> UPDATE   these pixels have changed
                        -> RESIZE   the mode has: look at the surface's header
                        -> COPY     these pixels are those, moved (ours, not Xen's)
    back end (displays) -> REFRESH_PERIOD  somebody looks, or nobody does
                        -> KEY, POS        keys and buttons by Linux's codes, the pointer in pixels

COPY carries the surface's ``sequence`` at its beginning; see surface.py. Events are level-triggered
where that is possible: a RESIZE names a mode, but what counts is the header by the time it is read.

Corner case: fbif's REFRESH_PERIOD and kbdif's MOTION have the same number. MOTION (a mouse without
a place) is never sent here.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from examples.framebuffer.damage import Rect
from transport import RemoteProtocolError

DEVICE: Final = "vfb"
EVENT_BYTES: Final = 40  # XENFB_OUT_EVENT_SIZE, XENFB_IN_EVENT_SIZE, XENKBD_IN_EVENT_SIZE
RING_BYTES: Final = 4096  # of each side, a hundred events

NO_REFRESH: Final = 0  # XENFB_NO_REFRESH

BTN_LEFT: Final = 0x110  # linux/input-event-codes.h
BTN_RIGHT: Final = 0x111
BTN_MIDDLE: Final = 0x112

_REFRESH_PERIOD, _UPDATE, _RESIZE = 1, 2, 3  # XENFB_TYPE_*
_COPY = 128
_KEY, _POS = 3, 4  # XENKBD_TYPE_*

_UPDATE_LAYOUT: Final = Struct("<B3x4i20x")
_RESIZE_LAYOUT: Final = Struct("<B3x5i16x")
_COPY_LAYOUT: Final = Struct("<B3x6iQ4x")
_REFRESH_LAYOUT: Final = Struct("<B3xI32x")
_KEY_LAYOUT: Final = Struct("<BB2xI32x")
_POS_LAYOUT: Final = Struct("<B3x3i24x")


@dataclass(frozen=True)
class Update:
    """These pixels have changed."""

    rect: Rect

    def pack(self) -> bytes:
        return _UPDATE_LAYOUT.pack(_UPDATE, *self.rect)


@dataclass(frozen=True)
class Resize:
    """The surface's mode has changed; ``stride`` and ``offset`` in bytes, ``depth`` 32 or 16."""

    width: int
    height: int
    stride: int
    depth: int
    offset: int

    def pack(self) -> bytes:
        values = (self.width, self.height, self.stride, self.depth, self.offset)
        return _RESIZE_LAYOUT.pack(_RESIZE, *values)


@dataclass(frozen=True)
class Copy:
    """``rect`` now has what was at ``source_x``, ``source_y`` before, in the same size."""

    rect: Rect
    source_x: int
    source_y: int
    sequence: int

    @property
    def source(self) -> Rect:
        """Where the pixels come from."""
        return Rect(self.source_x, self.source_y, self.rect.width, self.rect.height)

    def pack(self) -> bytes:
        values = (*self.rect, self.source_x, self.source_y, self.sequence)
        return _COPY_LAYOUT.pack(_COPY, *values)


@dataclass(frozen=True)
class RefreshPeriod:
    """How often the display looks, in milliseconds; `NO_REFRESH`: nobody does."""

    period: int

    def pack(self) -> bytes:
        return _REFRESH_LAYOUT.pack(_REFRESH_PERIOD, self.period)


@dataclass(frozen=True)
class Key:
    """A key or button, by its Linux code."""

    pressed: bool
    keycode: int

    def pack(self) -> bytes:
        return _KEY_LAYOUT.pack(_KEY, self.pressed, self.keycode)


@dataclass(frozen=True)
class Position:
    """The pointer is at that pixel; the wheel has turned ``z`` steps, up is positive."""

    x: int
    y: int
    z: int = 0

    def pack(self) -> bytes:
        return _POS_LAYOUT.pack(_POS, self.x, self.y, self.z)


OutEvent = Update | Resize | Copy
InEvent = RefreshPeriod | Key | Position


def out_event(data: bytes) -> OutEvent:
    """Read what a front end said.

    Raises:
        RemoteProtocolError: it is none of the events above.
    """
    match data[0]:
        case 2:
            return Update(Rect(*_UPDATE_LAYOUT.unpack(data)[1:]))
        case 3:
            return Resize(*_RESIZE_LAYOUT.unpack(data)[1:])
        case 128:
            x, y, width, height, *source = _COPY_LAYOUT.unpack(data)[1:]
            return Copy(Rect(x, y, width, height), *source)
    raise RemoteProtocolError(f"a front end does not send events of type {data[0]}")


def in_event(data: bytes) -> InEvent:
    """Read what a back end said.

    Raises:
        RemoteProtocolError: it is none of the events above.
    """
    match data[0]:
        case 1:
            return RefreshPeriod(_REFRESH_LAYOUT.unpack(data)[1])
        case 3:
            _, pressed, keycode = _KEY_LAYOUT.unpack(data)
            return Key(bool(pressed), keycode)
        case 4:
            return Position(*_POS_LAYOUT.unpack(data)[1:])
    raise RemoteProtocolError(f"a back end does not send events of type {data[0]}")
