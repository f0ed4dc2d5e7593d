"""Bulk data that is not in the channel's memory: what the front end does in each data phase.

Pure. A `Stream` is one request's: what it sends, where it receives, how far both are, and the chunk
of buffer memory that everything passes through. The chunk is reserved before the request is sent,
so nothing can run out in the middle, and a phase moves at most so much: that is the back-pressure.
The back end's half is in serving.py.

Corner cases:
- A request that is sent again, to another back end, starts again from the beginning.
- A caller whose deadline has passed has his memory back at once: it is neither read nor written any
  more, and each phase that follows is answered with 0 bytes.
"""

from __future__ import annotations

from transport.buffers import LocalBuffer
from transport.errors import RemoteProtocolError

CHUNK = 1 << 20
"""Bytes of a phase at most."""


class Stream:
    """``send`` and ``receive`` are views of bytes, either may be empty."""

    def __init__(self, send: memoryview, receive: memoryview, chunk: LocalBuffer) -> None:
        self.send = send
        self.receive = receive
        self.chunk = chunk
        self.sent = self.received = 0
        self._over = False
        self._told = False  # the back end, that it is over

    def abandon(self) -> None:
        """The caller has gone, with his memory."""
        self._over = True
        self.send = self.receive = memoryview(b"")

    def restart(self) -> None:
        """The back end is a new one."""
        self.sent = self.received = 0
        self._told = False

    def pull(self, limit: int) -> int:
        """Put what comes next into the chunk, at most ``limit`` bytes; returns how many.

        Raises:
            RemoteProtocolError: nothing is left, or nothing is asked for; see descriptors.py.
        """
        if self._over:
            return self._end()
        count = min(limit, self.chunk.size, len(self.send) - self.sent)
        if count < 1:
            raise RemoteProtocolError(f"a phase of {limit} bytes of a stream that is at its end")
        self.chunk.view[:count] = self.send[self.sent : self.sent + count]
        self.sent += count
        return count

    def push(self, count: int) -> int:
        """Take ``count`` bytes out of the chunk.

        Raises:
            RemoteProtocolError: there is no room for so many, or they are none.
        """
        if self._over:
            return self._end()
        if not 1 <= count <= min(self.chunk.size, len(self.receive) - self.received):
            raise RemoteProtocolError(f"{count} bytes are not what the request has room for")
        self.receive[self.received : self.received + count] = self.chunk.view[:count]
        self.received += count
        return count

    def _end(self) -> int:
        if self._told:
            raise RemoteProtocolError("a phase of a stream whose caller has gone")
        self._told = True
        return 0
