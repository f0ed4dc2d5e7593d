"""One end of an event channel as its guest holds it: two eventfds, and what is masked and pending.

`EventChannel` is the pure `PortState` (upcall.py, whose rules R1 to R7 it keeps) with real
descriptors. D is the eventfd that wakes this end; W is an epoll set, readable exactly while D is
and the port is not masked. `Upcalls` puts many ports behind one W, to be served by priority.

Who wakes whom: `send` makes the other end's eventfd readable, without hypervisor or actor. It and
the closing of the descriptors exclude each other, so a number that the kernel has given to somebody
else's file is never written to: a send after the close raises `StalePort`.

Corner cases: a send after the *peer's* close is no error, as in Xen (`PortClosed` tells of it). A
close in one thread leaves another that sleeps on D or W asleep, as close(2) does: wake it first.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import AbstractContextManager
from typing import Protocol

from actors import Fd
from hypervisor.errors import BadPort, StalePort
from hypervisor.upcall import DEFAULT, PortState, Upcall


class EventChannel:
    """One end: a port number with its epoch, and the eventfds behind it. Thread-safe.

    Attributes:
        port, epoch: what names this end in hypercalls.
    """

    def __init__(self, port: int, epoch: int, mine: Fd, theirs: Fd | None) -> None:
        self.port = port
        self.epoch = epoch
        self._mine = mine
        self._theirs = theirs
        self._their_number = -1 if theirs is None else theirs.fileno()
        self._sending = threading.Lock()
        self._lock: AbstractContextManager[object] = threading.Lock()  # L
        self._state: _State = PortState()
        self._waits: select.epoll | None = None  # W, from the first `upcall_fileno` on
        self._shared = False  # W belongs to an `Upcalls`

    def fileno(self) -> int:
        """D: readable while an event has come that nobody has taken, masked or not.

        For who never masks: he sleeps on this, and then calls `consume`.
        """
        return self._mine.fileno()

    def upcall_fileno(self) -> int:
        """W: as `fileno`, but not readable while the port is masked. Then call `arrived`."""
        with self._lock:
            if self._waits is None:
                mine = self._mine.fileno()
                self._waits = select.epoll()
                self._waits.register(mine, select.EPOLLIN if self._state.waits else 0)
            return self._waits.fileno()

    def send(self) -> None:
        """Raise an event at the other end. Events coalesce; this never blocks.

        Raises:
            StalePort: this end has been closed.
            BadPort: it is a virtual IRQ's: not for sending.
        """
        with self._sending:
            if self._their_number < 0:
                raise self._not_for_sending()
            raise_event(self._their_number)

    def arrived(self) -> bool:
        """After a wake-up: True if there is an event to serve; then `consume`, and look.

        False: somebody else has it in hand, or the port is masked, and `unmask` will say so.
        """
        with self._lock:
            return self._read() and self._state.arrived()

    def consume(self) -> bool:
        """Take the event, masked or not; then look at the data. False: there was none."""
        with self._lock:
            return not self._state.closed and self._state.consume(self._read())

    def mask(self) -> None:
        """No wake-up on W from now on; events stay pending. Idempotent."""
        with self._lock:
            if not self._state.closed:
                self._state.mask()
                self._follow()

    def unmask(self) -> bool:
        """True: an event is pending that no wake-up will follow for: serve it now. Idempotent."""
        with self._lock:
            if self._state.closed:
                return False
            serve = self._state.unmask()
            self._follow()
            return serve

    @property
    def masked(self) -> bool:
        """Whether the port is masked."""
        return self._state.masked

    @property
    def pending(self) -> bool:
        """Whether there is an event that nobody has consumed."""
        with self._lock:
            if self._state.pending:
                return True
            if self._state.closed:
                return False
            poller = select.poll()
            poller.register(self._mine, select.POLLIN)
            return bool(poller.poll(0))

    def close_signals(self) -> None:
        """Close the descriptors; the port itself is closed by `Guest.close_port`. Idempotent."""
        with self._sending:
            self._their_number = -1
            if self._theirs is not None:
                self._theirs.close()
        with self._lock:
            if self._state.closed:
                return
            self._state.close()
            if self._waits is not None:
                self._waits.unregister(self._mine)  # others may hold D: close alone leaves it in
                if not self._shared:
                    self._waits.close()
            self._mine.close()

    def _join(self, lock: AbstractContextManager[object], waits: select.epoll, of: _Member) -> None:
        with self._lock:
            if self._waits is not None or self._state != PortState():
                raise BadPort(f"port {self.port} is in use already, or closed")
            self._lock, self._waits, self._state, self._shared = lock, waits, of, True

    def _read(self) -> bool:
        """Under L: take what is in D; False if there was nothing, or it is closed."""
        if self._state.closed:
            return False
        return clear_event(self._mine.fileno())

    def _follow(self) -> None:
        """Under L: D is in W exactly while the state says so (R2, R5)."""
        if self._waits is not None:
            self._waits.modify(self._mine, select.EPOLLIN if self._state.waits else 0)

    def _not_for_sending(self) -> BadPort:
        if self._state.closed or self._theirs is not None:
            return StalePort(f"port {self.port} has been closed")
        return BadPort(f"port {self.port} is a virtual IRQ's: not for sending")


class Upcalls:
    """What a guest sleeps on for many ports of its own: W, and whose turn it is.

    A smaller priority number is served first, strictly; equals in the order in which they came.
    Thread-safe; `close` it, after its channels or before them.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._upcall = Upcall()
        self._waits = select.epoll()
        self._members: dict[int, EventChannel] = {}
        self._ports: dict[int, int] = {}  # D -> port

    def fileno(self) -> int:
        """W: readable while a port that is not masked has an event; then call `take`."""
        return self._waits.fileno()

    def add(self, channel: EventChannel, priority: int = DEFAULT) -> None:
        """Serve a channel's port from now on, until it is closed.

        Raises:
            BadPort: it was masked, slept on or closed before, or its number is open here.
        """
        with self._lock:
            number = channel.fileno()
            member = _Member(self, channel.port, self._upcall.open(channel.port, priority))
            try:
                channel._join(self._lock, self._waits, member)  # noqa: SLF001 - the same concept
            except BadPort:
                self._upcall.close(channel.port)
                raise
            self._waits.register(number, select.EPOLLIN)
            self._members[channel.port], self._ports[number] = channel, channel.port
            member.number = number

    def take(self) -> EventChannel | None:
        """Consume the event whose turn it is, and return its channel; None if there is none.

        Never waits. Look at that channel's data, and then ask again.
        """
        with self._lock:
            for number, _ in self._waits.poll(0, max(1, len(self._ports))):
                if clear_event(number):
                    self._upcall.arrived(self._ports[number])
            port = self._upcall.first()
            if port is None:
                return None
            self._upcall.consume(port)
            return self._members[port]

    def set_priority(self, channel: EventChannel, priority: int) -> None:
        """What is pending there goes behind its new equals. `Guest.set_priority` for the table."""
        with self._lock:
            self._upcall.set_priority(channel.port, priority)

    def close(self) -> None:
        """Close the channels that are left (their descriptors), and W. Idempotent."""
        with self._lock:
            for channel in list(self._members.values()):
                channel.close_signals()
            self._waits.close()

    def _closed(self, port: int, number: int) -> None:
        self._upcall.close(port)
        del self._members[port], self._ports[number]


class _State(Protocol):
    """What an end asks: `PortState`, or one port of an `Upcall`."""

    @property
    def masked(self) -> bool: ...
    @property
    def pending(self) -> bool: ...
    @property
    def closed(self) -> bool: ...
    @property
    def waits(self) -> bool: ...
    def arrived(self) -> bool: ...
    def mask(self) -> None: ...
    def unmask(self) -> bool: ...
    def consume(self, found: bool = False) -> bool: ...
    def close(self) -> None: ...


class _Member:
    """One port of an `Upcalls`; every method under its lock."""

    def __init__(self, upcalls: Upcalls, port: int, state: PortState) -> None:
        self._upcalls = upcalls
        self._upcall = upcalls._upcall  # noqa: SLF001 - the same concept
        self._port = port
        self._state = state
        self.number = -1

    @property
    def masked(self) -> bool:
        return self._state.masked

    @property
    def pending(self) -> bool:
        return self._state.pending

    @property
    def closed(self) -> bool:
        return self._state.closed

    @property
    def waits(self) -> bool:
        return self._state.waits

    def arrived(self) -> bool:
        return self._upcall.arrived(self._port)

    def mask(self) -> None:
        self._upcall.mask(self._port)

    def unmask(self) -> bool:
        return self._upcall.unmask(self._port)

    def consume(self, found: bool = False) -> bool:
        return self._upcall.consume(self._port, found=found)

    def close(self) -> None:
        self._upcalls._closed(self._port, self.number)  # noqa: SLF001 - the same concept


def new_event() -> Fd:
    """An eventfd in the form that event channels use: non-blocking, closed on exec."""
    return Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


def raise_event(number: int) -> None:
    """Make the eventfd readable. One that is full is readable already."""
    try:
        os.eventfd_write(number, 1)
    except BlockingIOError:
        return


def clear_event(number: int) -> bool:
    """Make the eventfd not readable; False if it was not."""
    try:
        os.eventfd_read(number)
    except BlockingIOError:
        return False
    return True
