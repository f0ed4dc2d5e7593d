"""Threads that run one at a time: stacks which stop in the middle and go on when they are told to.

There is one baton, and a thread runs only while it has it. A stack that has to stop is a `Strand`:
it gives the baton to a container, a thread that dispatches (does whatever its owner says is next),
and rests until somebody hands the baton back. So only what really stops in the middle costs a
thread; everything else is run by the dispatching container on its own stack.

The thread that made the `Baton`, and had it first, is the main one: the test. It never dispatches,
since what it runs might stop in the middle, and the test could not go on before that did.

Corner cases: a strand may be given an error to raise when it goes on. That is how a test hears of
what went wrong meanwhile, and how stacks that nobody will ever continue are unwound in the end.
What a signal raises (Ctrl-C, a time limit) hits the main thread, which has to get the baton back
before it may go on. If whoever has it does not give it away, because he waits for something else
than others here, the baton is ``lost``: nothing runs any more, and his thread, a daemon, is left.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections.abc import Callable
from typing import Protocol

_GRACE = 1.0  # seconds, real ones


class Task(Protocol):
    """Something that can be next."""

    def run(self, container: Container) -> None:
        """Do it, in the thread of ``container``."""


class Strand:
    """A stack that has stopped."""

    __slots__ = ("_baton", "_rest", "_resumed", "error")

    def __init__(self, baton: Baton) -> None:
        self.error: BaseException | None = None
        self._resumed = False
        self._baton = baton
        self._rest = allocate_lock()
        self._rest.acquire()

    def stop(self) -> None:
        """Stop here until it is run. Raises its error."""
        self._baton.pass_on()
        try:
            self._rest.acquire()
        except BaseException:
            self._baton.recall(self)
            raise
        if self.error is not None:
            raise self.error

    def run(self, container: Container) -> None:
        """Go on; the container rests until a dispatcher is needed again."""
        self._resumed = True
        container.rest(self._rest.release)

    def is_back_within(self, seconds: float) -> bool:
        """Whether it has the baton, or somebody is just giving it away."""
        return self._resumed or self._rest.acquire(timeout=seconds)


class Container:
    """A thread that dispatches while it has the baton."""

    def __init__(self, baton: Baton, number: int) -> None:
        self.closing = False
        self._baton = baton
        self._rest = allocate_lock()
        self._rest.acquire()
        self.thread = threading.Thread(
            target=self._dispatch, name=f"simulation-{number}", daemon=True
        )
        self.thread.start()

    def wake(self) -> None:
        """Here is the baton."""
        self._rest.release()

    def rest(self, then: Callable[[], object]) -> None:
        """Be spare, do ``then`` (which gives the baton away), and wait for it to come back."""
        self._baton.spare.append(self)
        then()
        self._rest.acquire()

    def _dispatch(self) -> None:
        self._rest.acquire()
        while not self.closing:
            self._baton.next().run(self)


class Baton:
    """Serves one run, or one after the other: its containers are kept until `close`."""

    def __init__(self) -> None:
        self.main = threading.current_thread()
        self.spare: list[Container] = []
        self.lost = False
        self.recalls = 0
        self._next_task: Callable[[], Task] | None = None
        self._recalled: Strand | None = None
        self._containers: list[Container] = []

    def serve(self, next_task: Callable[[], Task]) -> None:
        """``next_task``: what is to be done next, asked by whoever dispatches."""
        self._next_task = next_task

    def next(self) -> Task:
        assert self._next_task is not None
        return self._recalled or self._next_task()

    def pass_on(self) -> None:
        """Have a container dispatch."""
        if self.spare:
            container = self.spare.pop()
        else:
            container = Container(self, len(self._containers))
            self._containers.append(container)
        container.wake()

    def recall(self, strand: Strand) -> None:
        """Give the baton to ``strand``, the main thread's, as soon as a step is over."""
        self._recalled = strand
        self.recalls += 1
        self.lost = True
        if strand.is_back_within(_GRACE):
            self._recalled = None
            self.lost = False

    def hanging(self) -> list[str]:
        """The threads that are still in a step, asked when every strand has been run."""
        return [each.thread.name for each in self._containers if each not in self.spare]

    def close(self) -> None:
        """End all containers but those that hang: these end when they can."""
        for container in self._containers:
            container.closing = True
        for container in self.spare:
            container.wake()
        for container in self.spare:
            container.thread.join()
        self._containers.clear()
        self.spare.clear()
