"""One viewer: its socket, its handshake, what it said, and its output, which is bounded.

Its errors are raised to the display, which closes it, alone. At most one band of an update waits
to be sent (besides the little that the handshake says); the next one is encoded when that is gone.

A new pixel format or encoding counts from the next update on: one that has begun goes on as it was.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Final

from examples.framebuffer import rfb
from examples.framebuffer.cursor import cursor_rectangle
from examples.framebuffer.encodings import Encoders
from examples.framebuffer.handshake import CLOSE, GREETING, READY, Handshake
from examples.framebuffer.messages import (
    ClientMessage,
    KeyEvent,
    Parser,
    PointerEvent,
    SetEncodings,
    SetPixelFormat,
    UpdateRequest,
)
from examples.framebuffer.pace import Begin, Pace
from examples.framebuffer.pixels import COLOUR_MAP, NATIVE, Converter, PixelFormat
from examples.framebuffer.surface import Picture

_RECEIVE: Final = 64 << 10  # bytes


class Viewer:
    """A connected viewer.

    Attributes:
        number: for messages about it.
        socket: non-blocking.
        ready: it has got through its handshake.
        ending: nothing more is taken from it; it is closed when its output is sent.
        closed: its socket is closed.
        sent: bytes so far.
    """

    def __init__(self, number: int, connected: socket.socket, handshake: Handshake) -> None:
        self.number = number
        self.socket = connected
        self.ready = self.ending = self.closed = False
        self.why = ""
        self.sent = 0
        self.watched = (False, False)  # the display's note: for reading, for writing
        self._handshake = handshake
        self._parser = Parser()
        self._out = memoryview(GREETING)
        self._pace: Pace | None = None
        self._encoders = Encoders()
        self._wanted = self._format = NATIVE
        self._converter = Converter(NATIVE)
        self._encoding = rfb.RAW

    @property
    def pending(self) -> bool:
        """Something waits to be sent, or to be encoded."""
        return bool(self._out) or (self._pace is not None and self._pace.busy)

    @property
    def done(self) -> bool:
        """All that it will ever get is sent."""
        return self.ending and not self._out

    @property
    def pace(self) -> Pace | None:
        """What it has seen; None during its handshake."""
        return self._pace

    # --- input ------------------------------------------------------------------------------------

    def receive(self, picture: Picture, name: bytes) -> list[KeyEvent | PointerEvent]:
        """Take in what has arrived, once; returns what it does with its keyboard and mouse.

        Args:
            picture: what it is to see.
            name: the desktop's.

        Raises:
            RemoteProtocolError: it does not speak this protocol.
            OSError: the connection is lost.
        """
        try:
            data = self.socket.recv(_RECEIVE)
        except (BlockingIOError, InterruptedError):
            return []
        if not data:
            self.ending, self._out = True, memoryview(b"")
            return []
        if not self.ready:
            self._out = memoryview(bytes(self._out) + self._handshake.receive(data))
            if self._handshake.outcome == CLOSE:
                self.ending, self.why = True, self._handshake.why
            if self._handshake.outcome != READY:
                return []
            self.ready, data = True, self._handshake.leftover
            mode = picture.mode
            self._pace = Pace(mode.width, mode.height)
            init = rfb.SERVER_INIT.pack(mode.width, mode.height, NATIVE.pack(), len(name))
            self._out = memoryview(bytes(self._out) + init + name)
        return list(self._input(self._parser.receive(data)))

    def _input(self, messages: Iterator[ClientMessage]) -> Iterator[KeyEvent | PointerEvent]:
        assert self._pace is not None
        for message in messages:
            match message:
                case SetPixelFormat(wanted):
                    self._wanted = wanted
                case SetEncodings(encodings):
                    self._pace.set_encodings(encodings)
                case UpdateRequest():
                    self._pace.request(message)
                case KeyEvent() | PointerEvent():
                    yield message

    # --- output -----------------------------------------------------------------------------------

    def advance(self, picture: Picture) -> None:
        """Encode what comes next, if everything before is sent; then send.

        Raises:
            OSError: the connection is lost.
        """
        pace = self._pace
        if pace is not None and not self._out and not self.ending:
            if not pace.busy:
                update = pace.begin()
                if update is not None:
                    self._out = memoryview(self._begin(update))
            if pace.busy:
                self._out = memoryview(bytes(self._out) + self._band(pace, picture))
        self._send()

    def _begin(self, update: Begin) -> bytes:
        assert self._pace is not None
        self._encoding = self._pace.encoding
        parts = []
        if self._wanted != self._format:
            parts += self._change_format(self._wanted)
        parts.append(rfb.FRAMEBUFFER_UPDATE.pack(0, update.rectangles))
        if update.resize is not None:
            parts.append(rfb.RECTANGLE.pack(0, 0, *update.resize, rfb.DESKTOP_SIZE))
        if update.cursor:
            parts.append(cursor_rectangle(self._converter))
        for copy in update.copies:
            parts.append(rfb.RECTANGLE.pack(*copy.rect, rfb.COPYRECT))
            parts.append(rfb.COPY_SOURCE.pack(copy.source_x, copy.source_y))
        return b"".join(parts)

    def _change_format(self, wanted: PixelFormat) -> list[bytes]:
        self._format, self._converter = wanted, Converter(wanted)
        return [] if wanted.true_colour else [COLOUR_MAP]

    def _band(self, pace: Pace, picture: Picture) -> bytes:
        rect = pace.band
        pixels, sequence = picture.cut(rect)
        pace.next_band(sequence)
        header = rfb.RECTANGLE.pack(*rect, self._encoding)
        return header + self._encoders.encode(self._encoding, pixels, self._converter)

    def _send(self) -> None:
        if self._out:
            try:
                count = self.socket.send(self._out)
            except (BlockingIOError, InterruptedError):
                return
            self.sent += count
            self._out = self._out[count:]

    def abort(self) -> None:
        """Have the kernel forget what it still has to send, too: nobody may ever read it."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def close(self) -> None:
        """Close the socket at once. Idempotent."""
        self.closed = True
        self._out = memoryview(b"")
        self.socket.close()
