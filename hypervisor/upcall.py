"""The receiving guest's side of its ports: what is masked, what is pending, which is served next.

Pure: no descriptors, threads, clocks or actors. A sender raises a port's signal (an eventfd) by
itself; neither the hypervisor's table (event_channels.py) nor an actor is on that way, so mask,
pending and the order of service belong to the guest that receives. `PortState` is one port, with
the rules that whoever holds its eventfd must keep; `Upcall` is many ports, by priority. Both meet
real descriptors in channel_end.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hypervisor.errors import BadPort, HypercallError

HIGHEST, DEFAULT, LOWEST = 0, 7, 15  # EVTCHN_FIFO_PRIORITY_MAX, _DEFAULT and _MIN


@dataclass(slots=True)
class PortState:
    """One port at its receiving guest: what may wake, what waits.

    The port's eventfd D belongs to this port alone. W is what the guest sleeps on: an epoll set,
    level-triggered. L is the guest's lock, or its being one thread.

    R1  To send is one write to D and nothing else; a sender knows nothing of masks.
    R2  D is in W exactly while `waits`: changed under L, in one step with the state.
    R3  Who wakes up takes L, reads D, and calls `arrived` if, and only if, the read found a signal.
        Both are one step under L; otherwise a consumer slips in between, and the event that he has
        dealt with comes back.
    R4  A consumer takes L, reads D, calls `consume` with what the read found, lets go of L, and
        then looks at the data. Who looks first loses the signal that arrives before he consumes.
    R5  Unmask is the state first, then D back into W: what has been latched is in the answer, and
        what is still in D makes the level-triggered W ready. No third place exists.
    R6  An upcall that finds the port not `ready` does nothing: masked meanwhile (unmask answers for
        it) or consumed meanwhile.
    R7  The peer's close takes nothing away: what it sent before is still to be consumed. Our own
        close takes all; a wake-up that comes late finds no port.

    So an event is in D or is `pending`, until it is consumed, and in neither afterwards.
    """

    masked: bool = False
    pending: bool = False
    closed: bool = False

    @property
    def waits(self) -> bool:
        """D belongs in W."""
        return not (self.masked or self.closed)

    @property
    def ready(self) -> bool:
        """There is an event that may be served now."""
        return self.pending and not self.masked

    def arrived(self) -> bool:
        """A signal was read from D. True: make the upcall."""
        if self.closed:
            return False
        first, self.pending = not self.pending, True
        return first and not self.masked

    def mask(self) -> None:
        """No upcall begins after this. Idempotent."""
        self.masked = True

    def unmask(self) -> bool:
        """True: an event arrived while masked; make the upcall. Idempotent."""
        was, self.masked = self.masked, False
        return was and self.pending

    def consume(self, found: bool = False) -> bool:
        """Take the event, masked or not. ``found``: reading D found a signal just now.

        True: there was one; look at the data.
        """
        had, self.pending = self.pending or found, False
        return had and not self.closed

    def close(self) -> None:
        """This end is gone, and what was pending with it."""
        self.closed, self.pending = True, False


class _Levels:
    """Ports in sixteen queues by priority, the oldest first in each. All O(1)."""

    def __init__(self) -> None:
        self._queues: list[dict[int, None]] = [{} for _ in range(LOWEST + 1)]
        self._used = 0  # bit p: queue p is not empty

    def add(self, port: int, priority: int) -> None:
        self._queues[priority][port] = None
        self._used |= 1 << priority

    def remove(self, port: int, priority: int) -> None:
        queue = self._queues[priority]
        del queue[port]
        if not queue:
            self._used &= ~(1 << priority)

    def first(self) -> int | None:
        if not self._used:
            return None
        return next(iter(self._queues[(self._used & -self._used).bit_length() - 1]))

    def __iter__(self) -> Iterator[int]:
        for queue in self._queues:
            yield from queue


@dataclass(slots=True)
class _Slot:
    state: PortState
    priority: int
    queue: _Levels | None = None


class Upcall:
    """The ports of one receiving domain: `PortState` for each, and the order of service.

    A smaller priority number is served first, strictly, as in Xen's FIFO ABI; equals are served in
    the order in which they became ready. Every method is one step under L.
    """

    def __init__(self) -> None:
        self._slots: dict[int, _Slot] = {}
        self._ready = _Levels()
        self._held = _Levels()

    def open(self, port: int, priority: int = DEFAULT) -> PortState:
        """A new port, not masked, nothing pending. Its state is for reading only."""
        if port in self._slots:
            raise BadPort(f"port {port} is open already")
        slot = self._slots[port] = _Slot(PortState(), checked_priority(priority))
        return slot.state

    def close(self, port: int) -> None:
        """What is pending there is dropped. Idempotent."""
        slot = self._slots.pop(port, None)
        if slot is not None:
            slot.state.close()
            self._place(port, slot)

    def arrived(self, port: int) -> bool:
        """`PortState.arrived`; False for a port that has been closed meanwhile."""
        slot = self._slots.get(port)
        if slot is None:
            return False
        wake = slot.state.arrived()
        self._place(port, slot)
        return wake

    def mask(self, port: int) -> None:
        """`PortState.mask`."""
        slot = self._slot(port)
        slot.state.mask()
        self._place(port, slot)

    def unmask(self, port: int) -> bool:
        """`PortState.unmask`."""
        slot = self._slot(port)
        wake = slot.state.unmask()
        self._place(port, slot)
        return wake

    def consume(self, port: int, *, found: bool = False) -> bool:
        """`PortState.consume`; False for a port that has been closed meanwhile."""
        slot = self._slots.get(port)
        if slot is None:
            return False
        had = slot.state.consume(found)
        self._place(port, slot)
        return had

    def set_priority(self, port: int, priority: int) -> None:
        """What is pending there goes behind its new equals."""
        slot = self._slot(port)
        checked_priority(priority)
        if slot.queue is not None:
            slot.queue.remove(port, slot.priority)
            slot.queue.add(port, priority)
        slot.priority = priority

    def priority(self, port: int) -> int:
        """0 is served first, 15 last."""
        return self._slot(port).priority

    def first(self) -> int | None:
        """The port to serve next: pending, not masked, of the best priority."""
        return self._ready.first()

    def ready(self) -> list[int]:
        """Every port to serve, in the order of service."""
        return list(self._ready)

    def held(self) -> list[int]:
        """Every port with an event behind its mask, in the order of service."""
        return list(self._held)

    def _slot(self, port: int) -> _Slot:
        slot = self._slots.get(port)
        if slot is None:
            raise BadPort(f"there is no port {port}")
        return slot

    def _place(self, port: int, slot: _Slot) -> None:
        state = slot.state
        queue = None
        if state.pending:
            queue = self._held if state.masked else self._ready
        if queue is slot.queue:
            return
        if slot.queue is not None:
            slot.queue.remove(port, slot.priority)
        if queue is not None:
            queue.add(port, slot.priority)
        slot.queue = queue


def checked_priority(priority: int) -> int:
    """The priority, if it is one."""
    if not HIGHEST <= priority <= LOWEST:
        raise HypercallError(f"priority {priority} is not within {HIGHEST}..{LOWEST}")
    return priority
