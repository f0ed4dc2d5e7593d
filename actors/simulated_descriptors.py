"""Descriptors in a simulated run: real ones, looked at between two things that happen.

Everything of a simulation is in one process and one thing happens at a time, so an eventfd, a pipe
or a memfd does what it always does, and does the same in each run. What a real runtime has the
kernel wait for, the scheduler looks at before it picks what is next, without waiting. A watched
descriptor that is ready makes its actor's next step one of the things that can happen, like a
message; a `SimulatedReadable` that is ready lets its stack go on. So how late a signal is seen is a
matter of whose turn comes first, and nothing more.

Rules: descriptors are known by the order in which an actor began to watch them, never by their
numbers, which depend on what else the process has open. A stream whose other end is outside of the
simulation makes it depend on the outside.

Corner case: a descriptor that was closed before it was unwatched ends the actor that watches it.
The kernel may forget it silently; what depends on that is a bug that a real run would hide.
"""

from __future__ import annotations

import itertools
import select
from typing import TYPE_CHECKING

from actors.errors import ActorError
from actors.runtime import FOREVER
from actors.simulated_tasks import Wait
from actors.waiting import Watch, Watches

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.scheduler import Scheduler


class Descriptors:
    """All that are watched or waited for in one run."""

    def __init__(self) -> None:
        self._pollers: dict[SimulatedPoller, None] = {}  # in the order of their making
        self._waits: dict[Wait, SimulatedReadable] = {}

    def look(self) -> None:
        """Whoever has something ready can go on now."""
        for poller in self._pollers:
            if poller.has_ready():
                poller.cell.mailbox.poke()
        for wait, readable in list(self._waits.items()):
            if readable.is_ready():
                wait.grant()

    def add(self, poller: SimulatedPoller) -> None:
        self._pollers[poller] = None

    def discard(self, poller: SimulatedPoller) -> None:
        self._pollers.pop(poller, None)

    def begin(self, wait: Wait, readable: SimulatedReadable) -> None:
        self._waits[wait] = readable

    def end(self, wait: Wait) -> None:
        self._waits.pop(wait, None)


class SimulatedPoller(Watches):
    """What one actor watches."""

    def __init__(self, scheduler: Scheduler, cell: Cell) -> None:
        super().__init__()
        self.cell = cell
        self._scheduler = scheduler
        self._numbers: dict[Watch, int] = {}
        self._next_number = itertools.count(1).__next__
        self._poll = select.poll()
        scheduler.descriptors.add(self)

    def watch(self, watch: Watch) -> None:
        """See `Watches`."""
        with select.epoll() as real:  # which refuses what cannot be waited for; poll does not
            real.register(watch.fd, watch.mask)
        replaced = self._watches.get(watch.fd)
        number = None if replaced is None else self._numbers.pop(replaced)
        self._numbers[watch] = number or self._next_number()
        self._watches[watch.fd] = watch
        self._poll.register(watch.fd, watch.mask)

    def unwatch(self, fd: int) -> None:
        """See `Watches`."""
        watch = self._watches.pop(fd, None)
        if watch is not None:
            del self._numbers[watch]
            self._poll.unregister(fd)

    def has_ready(self) -> bool:
        """Whether `poll` would return anything, or raise."""
        return bool(self._watches) and bool(self._poll.poll(0))

    def poll(self, timeout: float | None) -> list[tuple[Watch, int]]:  # noqa: ARG002 - never waits
        """See `Watches`."""
        masks = dict(self._poll.poll(0))
        ready = [(watch, masks[fd]) for fd, watch in self._watches.items() if fd in masks]
        for watch, mask in ready:
            number = self._numbers[watch]
            if mask & select.POLLNVAL:
                raise ActorError(f"watch {number} was closed before it was unwatched")
            self._scheduler.on_ready(self.cell, number)
        return ready

    def close(self) -> None:
        """See `Watches`."""
        for fd in list(self._watches):
            self.unwatch(fd)
        self._scheduler.descriptors.discard(self)


class SimulatedReadable:
    """See `Runtime.readable`."""

    def __init__(self, scheduler: Scheduler, fd: int, what: str) -> None:
        self._scheduler = scheduler
        self._what = what
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)

    def is_ready(self) -> bool:
        """Now."""
        return bool(self._poll.poll(0))

    def wait(self, timeout: float | None = None) -> bool:
        """Virtual seconds."""
        scheduler = self._scheduler
        if self.is_ready():
            return True
        if timeout is not None and timeout <= 0:
            scheduler.give_way()
            return self.is_ready()
        deadline = FOREVER if timeout is None else scheduler.now() + timeout
        wait = Wait(scheduler, self._what, deadline)
        scheduler.descriptors.begin(wait, self)
        try:
            return scheduler.suspend(wait)
        finally:
            scheduler.descriptors.end(wait)
