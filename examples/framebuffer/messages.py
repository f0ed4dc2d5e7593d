"""What a viewer says after its handshake: bytes in, messages out. Pure.

What a viewer may make us remember is bounded: a message is collected until it is whole, and none
may be longer than its limit. A text for the clipboard is skipped as it comes, since nobody here
has a clipboard; it has a limit all the same, because a length that is meant to overflow something is
not to be humoured.

Specification: rfbproto.rst, "Client to Server Messages".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Final

from examples.framebuffer import rfb
from examples.framebuffer.damage import Rect
from examples.framebuffer.pixels import PixelFormat
from transport import RemoteProtocolError

ENCODINGS_LIMIT: Final = 1024  # some name forty
CUT_TEXT_LIMIT: Final = 1 << 20  # bytes


@dataclass(frozen=True)
class SetPixelFormat:
    """Pixels shall look like this from the next update on."""

    wanted: PixelFormat


@dataclass(frozen=True)
class SetEncodings:
    """Encodings and pseudo-encodings that the viewer knows, the best first."""

    encodings: tuple[int, ...]


@dataclass(frozen=True)
class UpdateRequest:
    """The viewer wants ``rect``: what changed of it, or all of it if not ``incremental``."""

    incremental: bool
    rect: Rect


@dataclass(frozen=True)
class KeyEvent:
    """A key, named by its X keysym, is pressed or released."""

    down: bool
    keysym: int


@dataclass(frozen=True)
class PointerEvent:
    """The pointer is at ``x``, ``y``, with ``buttons`` pressed (a mask, 1 is the left one)."""

    buttons: int
    x: int
    y: int


ClientMessage = SetPixelFormat | SetEncodings | UpdateRequest | KeyEvent | PointerEvent

_LAYOUTS: Final = {
    rfb.SET_PIXEL_FORMAT: Struct(">x3x16s"),
    rfb.SET_ENCODINGS: Struct(">xxH"),
    rfb.FRAMEBUFFER_UPDATE_REQUEST: Struct(">xBHHHH"),
    rfb.KEY_EVENT: Struct(">xBxxI"),
    rfb.POINTER_EVENT: Struct(">xBHH"),
    rfb.CLIENT_CUT_TEXT: Struct(">x3xI"),
}


class Parser:
    """One viewer's stream of messages."""

    def __init__(self) -> None:
        self._input = bytearray()
        self._skip = 0  # bytes of a text that are still to come

    def receive(self, data: bytes | memoryview) -> Iterator[ClientMessage]:
        """Take in what has arrived; every message that is whole now.

        Raises:
            RemoteProtocolError: this is no message, or more than we take. Close its connection.
        """
        self._input += data
        while self._input:
            if self._skip:
                skipped = min(self._skip, len(self._input))
                del self._input[:skipped]
                self._skip -= skipped
                continue
            kind = self._input[0]
            layout = _LAYOUTS.get(kind)
            if layout is None:
                raise RemoteProtocolError(f"{kind} is no message of a viewer")
            if len(self._input) < layout.size:
                return
            fields = layout.unpack_from(self._input)
            end = layout.size
            if kind == rfb.SET_ENCODINGS:
                if fields[0] > ENCODINGS_LIMIT:
                    raise RemoteProtocolError(f"{fields[0]} encodings are too many")
                end += 4 * fields[0]
                if len(self._input) < end:
                    return
                fields = Struct(f">{fields[0]}i").unpack_from(self._input, layout.size)
            elif kind == rfb.CLIENT_CUT_TEXT:
                if fields[0] > CUT_TEXT_LIMIT:
                    raise RemoteProtocolError(f"a text of {fields[0]} bytes is too long")
                self._skip = fields[0]
            del self._input[:end]
            message = _message(kind, fields)
            if message is not None:
                yield message


def _message(kind: int, fields: tuple[int, ...] | tuple[bytes]) -> ClientMessage | None:
    match kind, fields:
        case rfb.SET_PIXEL_FORMAT, (bytes(data),):
            return SetPixelFormat(PixelFormat.parse(data))
        case rfb.SET_ENCODINGS, _:
            return SetEncodings(tuple(map(int, fields)))
        case rfb.FRAMEBUFFER_UPDATE_REQUEST, (int(incremental), int(x), int(y), int(w), int(h)):
            return UpdateRequest(bool(incremental), Rect(x, y, w, h))
        case rfb.KEY_EVENT, (int(down), int(keysym)):
            return KeyEvent(bool(down), keysym)
        case rfb.POINTER_EVENT, (int(buttons), int(x), int(y)):
            return PointerEvent(buttons, x, y)
    return None
