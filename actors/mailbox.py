"""An actor's mailbox: two lanes, two bounds, and an end that leaves nothing unanswered.

The data lane is bounded by count and by bytes. The control lane has neither bound and is taken
first: a flood of data can neither delay it nor have it refused. `close` is atomic with `put`:
every envelope was either taken, or is in what `close` returns, or was refused with CLOSED. So the
closer can answer all that was ever accepted, including the one in hand (`current`).

Who wakes whom: one consumer takes. Before it sleeps it arms the mailbox; the first put (or the
close) after that calls ``wake`` once, under the lock, and disarms it.
"""

from __future__ import annotations

import enum
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from actors.codec import Packet

if TYPE_CHECKING:
    from actors.future import Future


class Verdict(enum.Enum):
    """What became of a put."""

    ACCEPTED = "accepted"
    FULL = "full"
    CLOSED = "closed"


class Envelope:
    """A packet on its way, what kind of message it is, and who waits for an answer."""

    __slots__ = ("future", "kind", "packet")

    def __init__(self, kind: str, packet: Packet, future: Future | None = None) -> None:
        self.kind = kind
        self.packet = packet
        self.future = future


class Mailbox:
    """At most ``count`` envelopes and ``size`` bytes of data. `put` from any thread."""

    def __init__(self, count: int, size: int, wake: Callable[[], object]) -> None:
        self.control: deque[Envelope] = deque()
        self.data: deque[Envelope] = deque()
        self.closed = False
        self.current: Envelope | None = None
        self.wake = wake  # replaced by the consumer, never while armed
        self._count = count
        self._size = size
        self._bytes = 0
        self._armed = False
        self._lock = allocate_lock()

    @property
    def bytes(self) -> int:
        """Bytes of payload in the data lane."""
        return self._bytes

    def put(self, envelope: Envelope, control: bool = False) -> Verdict:
        """Queue it, unless the mailbox is closed or (data only) it has no room left."""
        with self._lock:
            if self.closed:
                return Verdict.CLOSED
            if control:
                self.control.append(envelope)
            else:
                size = self._bytes + len(envelope.packet.payload)
                if len(self.data) >= self._count or size > self._size:
                    return Verdict.FULL
                self._bytes = size
                self.data.append(envelope)
            if self._armed:
                self._armed = False
                self.wake()
            return Verdict.ACCEPTED

    def take_control(self) -> Envelope | None:
        """The oldest control envelope; it is `current` until `done`."""
        with self._lock:
            if not self.control:
                return None
            self.current = self.control.popleft()
            return self.current

    def take_data(self) -> Envelope | None:
        """The oldest data envelope; it is `current` until `done`."""
        with self._lock:
            if not self.data:
                return None
            self.current = self.data.popleft()
            self._bytes -= len(self.current.packet.payload)
            return self.current

    def done(self) -> None:
        """The consumer has dealt with `current`."""
        self.current = None

    def arm(self) -> bool:
        """Have the next put call ``wake``. False, and not armed, if there is no reason to sleep."""
        with self._lock:
            self._armed = not (self.control or self.data or self.closed)
            return self._armed

    def disarm(self) -> bool:
        """Back from sleep. False if ``wake`` was called meanwhile, or there was no sleep."""
        with self._lock:
            armed, self._armed = self._armed, False
            return armed

    def close(self) -> tuple[list[Envelope], Envelope | None]:
        """Refuse all from now on. What was queued (control first), and the one in hand."""
        with self._lock:
            self.closed = True
            left = [*self.control, *self.data]
            self.control.clear()
            self.data.clear()
            self._bytes = 0
            if self._armed:
                self._armed = False
                self.wake()
            return left, self.current
