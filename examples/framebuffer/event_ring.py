"""Events from one side of the surface to the other, and back: two rings of transport, one port.

Both sides have one. What does not fit into the ring waits here, in order; it is bounded by whoever
queues it (`waiting`). Who wakes whom: a side that published something signals the other if that has
asked to be woken. A side that took a third of a ring or more signals too, because the other may
wait for room: whoever finds a ring full has published all that is in it, the reader takes that in
two readings at most, and so one of them is that large.
"""

from __future__ import annotations

from collections import deque
from typing import Final, Protocol

from examples.framebuffer.protocol import EVENT_BYTES, RING_BYTES
from hypervisor import EventChannel, raise_event
from transport import Incoming, Outgoing, RemoteProtocolError, split_page

_ROUNDS: Final = 8  # readings before the rest of the actor has its turn


class Packable(Protocol):
    """An event."""

    def pack(self) -> bytes: ...


class EventRing:
    """One side.

    Args:
        page: ours.
        peer: the other side's.
        channel: signals it, and is signalled by it.
    """

    def __init__(self, page: memoryview, peer: memoryview, channel: EventChannel) -> None:
        ours, _ = split_page(page, 1, RING_BYTES)
        theirs, _ = split_page(peer, 1, RING_BYTES)
        self._incoming = Incoming(ours, theirs)
        self._outgoing = Outgoing(ours, theirs)
        self._channel = channel
        self._queue: deque[bytes] = deque()

    @property
    def waiting(self) -> int:
        """How many events have found no room yet."""
        return len(self._queue)

    def drop_waiting(self) -> None:
        """Forget what has found no room: something that says more takes its place."""
        self._queue.clear()

    def send(self, event: Packable) -> None:
        """Queue an event; `flush` shows it to the other side."""
        self._queue.append(event.pack())

    def flush(self) -> None:
        """Show the other side as much of the queue as fits.

        Raises:
            RemoteProtocolError: its page is corrupt.
        """
        count = min(len(self._queue), self._outgoing.room() // EVENT_BYTES)
        if count:
            self._outgoing.write(b"".join(self._queue.popleft() for _ in range(count)))
            if self._outgoing.publish():
                self._channel.send()

    def receive(self) -> list[bytes]:
        """All events that have come; afterwards the port is signalled at the next one.

        Raises:
            RemoteProtocolError: its page is corrupt.
        """
        self._channel.consume()
        data, large = b"", False
        for _ in range(_ROUNDS):
            read = self._incoming.read()
            data += read
            large = large or len(read) >= RING_BYTES // 3
            if not read and not self._incoming.arm():
                break
        else:
            raise_event(self._channel.fileno())  # there may be more, after others had their turn
        if large:
            self._channel.send()
        if len(data) % EVENT_BYTES:
            raise RemoteProtocolError(f"{len(data)} bytes are not whole events")
        return [data[at : at + EVENT_BYTES] for at in range(0, len(data), EVENT_BYTES)]
