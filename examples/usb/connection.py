"""One client, of USB/IP or usbredir: its socket, its session, and what it has not been sent yet. No
actor, no epoll.

Rules: nothing blocks. A client that does not read what it gets is not read from either (`full`);
what it can make us hold is bounded by its session. Its device is let go by the server.
"""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Final

from examples.usb.usbip_session import CLOSING, Event, Session
from examples.usb.usbredir_session import RedirSession

if TYPE_CHECKING:
    from examples.usb.plug import Plug

_PIECE: Final = 256 << 10  # bytes of one recv
_FULL: Final = 4 << 20  # bytes that a client may leave unread
_IOV: Final = 64  # pieces for one sendmsg


class Connection:
    """The client ``number``.

    Attributes:
        socket: non-blocking.
        session: the pure part.
        plug: the device that it has imported.
        watched: the server's note: for reading, for writing.
    """

    def __init__(
        self, number: int, connected: socket.socket, session: Session | RedirSession
    ) -> None:
        self.number = number
        self.socket = connected
        self.session = session
        self.plug: Plug | None = None
        self.watched = (False, False)
        self.closed = False
        self._out: deque[bytes | memoryview] = deque()
        self._left = 0
        self.reply(session.greeting)

    @property
    def pending(self) -> bool:
        """Something waits to be sent."""
        return bool(self._out)

    @property
    def full(self) -> bool:
        """It has to read before it is read from."""
        return self._left > _FULL

    @property
    def done(self) -> bool:
        """It has got all that it will ever get."""
        return self.session.state == CLOSING and not self._out

    def receive(self) -> list[Event] | None:
        """What it wants of us, by one system call; None when it has gone.

        Raises:
            OSError: the connection is lost.
            RemoteProtocolError: these are no commands.
        """
        try:
            data = self.socket.recv(_PIECE)
        except (BlockingIOError, InterruptedError):
            return []
        return self.feed(data) if data else None

    def feed(self, data: bytes) -> list[Event]:
        """The same for bytes that are here; none, for those that the session has kept."""
        events, output = self.session.receive(data)
        self.reply(output)
        return events

    def reply(self, data: bytes) -> None:
        """Have it sent by `send`."""
        if data:
            self._out.append(data)
            self._left += len(data)

    def send(self) -> None:
        """Send as much as the client takes now.

        Raises:
            OSError: the connection is lost.
        """
        while self._out:
            batch = [self._out[place] for place in range(min(_IOV, len(self._out)))]
            try:
                sent = self.socket.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                return
            self._left -= sent
            while self._out and sent >= len(self._out[0]):
                sent -= len(self._out.popleft())
            if sent:
                self._out[0] = memoryview(self._out[0])[sent:]

    def close(self) -> None:
        """Close the socket. Idempotent."""
        self.closed = True
        self.socket.close()
        self._out.clear()
