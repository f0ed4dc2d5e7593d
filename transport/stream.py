"""Bulk data that is not in the channel's memory: what the front end does in each data phase.

Pure. A `Stream` is one request's: what it sends, where it receives, how far both are, and the chunk
of buffer memory that everything passes through. The chunk is reserved before the request is sent,
so nothing can run out in the middle, and a phase moves at most so much: that is the back-pressure.
The back end's half is in serving.py.

Corner case: a request that is sent again, to another back end, starts again from the beginning.
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

    def restart(self) -> None:
        """The back end is a new one."""
        self.sent = self.received = 0

    def pull(self, limit: int) -> int:
        """Put what comes next into the chunk, at most ``limit`` bytes; returns how many."""
        count = min(limit, self.chunk.size, len(self.send) - self.sent)
        self.chunk.view[:count] = self.send[self.sent : self.sent + count]
        self.sent += count
        return count

    def push(self, count: int) -> int:
        """Take ``count`` bytes out of the chunk.

        Raises:
            RemoteProtocolError: there is no room for so many.
        """
        if count > min(self.chunk.size, len(self.receive) - self.received):
            raise RemoteProtocolError(f"{count} bytes more than the request has room for")
        self.receive[self.received : self.received + count] = self.chunk.view[:count]
        self.received += count
        return count
