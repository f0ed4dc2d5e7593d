"""What a viewer says after its handshake: bytes in, messages out. Pure.

What a viewer may make us remember is bounded: a message is collected until it is whole, and none
may be longer than its limit. A text for the clipboard is skipped as it comes, since nobody here
has a clipboard; it has a limit all the same, because whoever says 4 GiB means no clipboard.

Specification: rfbproto.rst, "Client to Server Messages".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct
from typing import Any, Final

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


def _message(kind: int, fields: tuple[Any, ...]) -> ClientMessage | None:
    """The message of these fields; None for a text, of which nothing is kept."""
    match kind:
        case rfb.SET_PIXEL_FORMAT:
            return SetPixelFormat(PixelFormat.parse(*fields))
        case rfb.SET_ENCODINGS:
            return SetEncodings(fields)
        case rfb.FRAMEBUFFER_UPDATE_REQUEST:
            return UpdateRequest(bool(fields[0]), Rect(*fields[1:]))
        case rfb.KEY_EVENT:
            return KeyEvent(bool(fields[0]), fields[1])
        case rfb.POINTER_EVENT:
            return PointerEvent(*fields)
    return None
