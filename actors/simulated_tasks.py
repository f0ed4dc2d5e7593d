"""What can happen next in a simulated run: a step, an arrival, or that a stopped stack goes on.

The scheduler decides which; these know how. A `Task` is run by a container (baton.py), an `Alarm`
rings when its time has come and makes its task ready. All of it happens under the one baton, so
nothing here needs a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from actors.baton import Container, Strand, Task
from actors.errors import MailboxFull
from actors.here import here
from actors.mailbox import Envelope
from actors.runtime import DONE, FOREVER, NOW

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.life import Life
    from actors.scheduler import Scheduler


def name_of(cell: Cell | None) -> str:
    """Of an actor, or of whoever is none: the test."""
    return "the test" if cell is None else cell.name


class Ready(Task, Protocol):
    """What can happen next."""

    @property
    def cell(self) -> Cell | None:
        """Whose it is: who is killed or stopped takes it with him. None: it is nobody's."""


class Alarm(Protocol):
    """What is to happen at a time."""

    def ring(self) -> None: ...

    def matters(self, when: float) -> bool:
        """Whether something may still come of it: it is neither cancelled nor superseded."""


class Wait(Strand):
    """A stack that has stopped: of an actor, or of the test.

    ``what`` it waits for; ``deadline`` in virtual seconds. Of the test only: ``until``: it goes on
    when nothing is left to happen (``quiet`` then) by that time; ``each_step``: or after a step.
    """

    __slots__ = (
        "_scheduler",
        "cell",
        "deadline",
        "each_step",
        "granted",
        "quiet",
        "until",
        "what",
    )

    def __init__(
        self,
        scheduler: Scheduler,
        what: Any,
        deadline: float = FOREVER,
        *,
        until: float | None = None,
    ) -> None:
        super().__init__(scheduler.baton)
        self.cell = here.cell
        self.what = what
        self.deadline = deadline
        self.until = until
        self.each_step = False
        self.quiet = False
        self.granted = False
        self._scheduler = scheduler

    def grant(self) -> None:
        """It has what it waits for."""
        if self._scheduler.is_waiting(self):
            self.granted = True
            self._scheduler.resume(self)

    def ring(self) -> None:
        """Its deadline has come."""
        self._scheduler.resume(self)

    def matters(self, when: float) -> bool:  # noqa: ARG002 - it has one deadline
        return self._scheduler.is_waiting(self)

    def __str__(self) -> str:
        return f"{name_of(self.cell)} waits for {self.what}"


class SimulatedLock:
    """What `threading.Lock` is to threads. Whoever waits longest gets it next."""

    __slots__ = ("_held", "_queue", "_scheduler", "_what")

    def __init__(self, scheduler: Scheduler, what: Any) -> None:
        self._scheduler = scheduler
        self._what = what
        self._held = False
        self._queue: deque[Wait] | None = None

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not self._held:
            self._held = True
            return True
        if not blocking:
            return False
        if timeout == 0:
            self._scheduler.give_way()
            return self.acquire(blocking=False)
        deadline = FOREVER if timeout < 0 else self._scheduler.now() + timeout
        wait = Wait(self._scheduler, self._what, deadline)
        if self._queue is None:
            self._queue = deque()
        self._queue.append(wait)
        try:
            return self._scheduler.suspend(wait)
        finally:
            if wait in self._queue:
                self._queue.remove(wait)

    def release(self) -> None:
        while self._queue:
            wait = self._queue.popleft()
            wait.grant()
            if wait.granted:  # else its deadline has come, and it has not gone on yet
                return
        self._held = False

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Step:
    """The next step of an actor."""

    __slots__ = ("_life", "_scheduler")

    def __init__(self, scheduler: Scheduler, life: Life) -> None:
        self._scheduler = scheduler
        self._life = life

    @property
    def cell(self) -> Cell:
        return self._life.cell

    def is_ready(self) -> None:
        self._scheduler.make_ready(self)

    def run(self, container: Container) -> None:  # noqa: ARG002 - a step needs no thread
        process = self._scheduler.process_of(self.cell)
        if process is None:
            self.make()
        elif process.begin(self):
            try:
                self.make()
            finally:
                process.end()
        self._scheduler.look()

    def make(self) -> None:
        life, scheduler = self._life, self._scheduler
        outer, here.cell = here.cell, life.cell
        try:
            wait = life.step()
        finally:
            here.cell = outer
        if wait == DONE:
            return
        if wait == NOW or not life.rest():
            self.is_ready()
        elif life.alarm != (when := scheduler.now() + wait):
            life.alarm = when
            if when != FOREVER:
                scheduler.at(when, self)

    def ring(self) -> None:
        self._life.cell.mailbox.poke()

    def matters(self, when: float) -> bool:
        return self._life.alarm == when and self._life.cell.life is not None

    def __str__(self) -> str:
        return f"{self._life.cell.name} is due"


class LoopThread:
    """An actor with an event loop: its stack stops in the loop, whenever that has to wait."""

    __slots__ = ("_life", "_scheduler")

    def __init__(self, scheduler: Scheduler, life: Life) -> None:
        self._scheduler = scheduler
        self._life = life

    @property
    def cell(self) -> Cell:
        return self._life.cell

    def run(self, container: Container) -> None:  # noqa: ARG002 - the thread that it runs in
        here.cell = self._life.cell
        try:
            while (wait := self._life.step()) != DONE:
                self._scheduler.look()
                if wait == NOW:
                    self._scheduler.give_way()
                else:
                    self._life.sleep(wait)
        finally:
            here.cell = None


class Arrival:
    """A tell that was delayed."""

    __slots__ = ("_envelope", "_scheduler", "_to", "cell")

    def __init__(self, scheduler: Scheduler, to: Cell, envelope: Envelope) -> None:
        self.cell = None
        self._scheduler = scheduler
        self._to = to
        self._envelope = envelope

    def run(self, container: Container) -> None:  # noqa: ARG002 - it needs no thread
        try:
            self._to.deliver(self._envelope)
        except MailboxFull:  # its sender has gone on long ago
            sender = self._envelope.sender
            self._to.system.dead_letters.add(self._envelope.kind, self._to, sender, "overflow")

    def ring(self) -> None:
        self._scheduler.make_ready(self)

    def matters(self, when: float) -> bool:  # noqa: ARG002 - nobody takes it back
        return True

    def __str__(self) -> str:
        return f"a message to {self._to.name} arrives"


class Later:
    """Something that is not done before its time."""

    __slots__ = ("_act", "_cancelled", "_what")

    def __init__(self, what: str, act: Callable[[], object]) -> None:
        self._what = what
        self._act = act
        self._cancelled = False

    def cancel(self) -> None:
        """It is not done any more."""
        self._cancelled = True

    def ring(self) -> None:
        self._act()

    def matters(self, when: float) -> bool:  # noqa: ARG002 - it has one time
        return not self._cancelled

    def __str__(self) -> str:
        return self._what
