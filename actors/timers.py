"""The timers of one actor: a heap of packets and when they are due. Pure: time is passed in.

A periodic timer is due again one period after it was due, so it does not drift; periods that
passed while its actor was busy are left out, not made up for.

Timers that are due at the same time fire in the order in which they were set. Cancelled timers
are thrown out when they come up, or all at once when most of the heap is cancelled, so that an
actor which sets and cancels a deadline per request stays small.
"""

from __future__ import annotations

import heapq

from actors.codec import Packet
from actors.errors import WrongType

_FEW = 64  # below this many, cancelled timers are not worth a sweep


class Timer:
    """A message that its actor will get; made by `Actor.after` and `Actor.every`."""

    __slots__ = ("_timers", "packet", "period", "trace")

    def __init__(
        self, timers: Timers, packet: Packet, period: float | None = None, trace: int = 0
    ) -> None:
        self._timers = timers
        self.packet: Packet | None = packet
        self.period = period
        self.trace = trace

    def cancel(self) -> None:
        """Do not deliver it; nothing if it was delivered already. Call it in the actor's thread."""
        if self.packet is not None:
            self.packet.close()
            self.packet = None
            self._timers.cancelled()


class Timers:
    """All timers of one actor, used by its thread alone."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._count = 0
        self._cancelled = 0

    def __len__(self) -> int:
        return len(self._heap)

    def add(
        self, when: float, packet: Packet, period: float | None = None, trace: int = 0
    ) -> Timer:
        """``period``: seconds after which it is due again. Raises WrongType if that cannot be."""
        if period is not None and packet.fds:
            packet.close()
            raise WrongType("a periodic message cannot hold descriptors: they are sent only once")
        timer = Timer(self, packet, period, trace)
        self._push(when, timer)
        return timer

    def _push(self, when: float, timer: Timer) -> None:
        heapq.heappush(self._heap, (when, self._count, timer))
        self._count += 1

    def cancelled(self) -> None:
        """A timer of this heap has been cancelled."""
        self._cancelled += 1
        if self._cancelled > _FEW and self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].packet is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float | None:
        """When the next one is due, or None."""
        while self._heap and self._heap[0][2].packet is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now: float) -> tuple[Packet, int] | None:
        """The packet and the trace of one timer that is due by ``now``, or None."""
        when = self.next()
        if when is None or when > now:
            return None
        timer = heapq.heappop(self._heap)[2]
        packet = timer.packet
        assert packet is not None
        if timer.period is None:
            timer.packet = None
        else:
            missed = (now - when) // timer.period
            self._push(when + (missed + 1) * timer.period, timer)
        return packet, timer.trace

    def clear(self) -> None:
        """Cancel all."""
        for _, _, timer in self._heap:
            if timer.packet is not None:
                timer.packet.close()
                timer.packet = None
        self._heap.clear()
        self._cancelled = 0
