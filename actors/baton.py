"""Threads that run one at a time: stacks which stop in the middle and go on when they are told to.

There is one baton, and a thread runs only while it has it. A stack that has to stop is a `Strand`:
it gives the baton to a container, a thread that dispatches (does whatever its owner says is next),
and rests until somebody hands the baton back. So only what really stops in the middle costs a
thread; everything else is run by the dispatching container on its own stack.

The thread that made the `Baton`, and had it first, is the main one: the test. It never dispatches,
since what it runs might stop in the middle, and the test could not go on before that did.

Corner case: a strand may be given an error to raise when it goes on. That is how a test hears of
what went wrong meanwhile, and how stacks that nobody will ever continue are unwound in the end.
"""

from __future__ import annotations

import threading
from _thread import allocate_lock
from collections.abc import Callable
from typing import Protocol


class Task(Protocol):
    """Something that can be next."""

    def run(self, container: Container) -> None:
        """Do it, in the thread of ``container``."""


class Strand:
    """A stack that has stopped."""

    __slots__ = ("_baton", "_rest", "error")

    def __init__(self, baton: Baton) -> None:
        self.error: BaseException | None = None
        self._baton = baton
        self._rest = allocate_lock()
        self._rest.acquire()

    def stop(self) -> None:
        """Stop here until it is run. Raises its error."""
        self._baton.pass_on()
        self._rest.acquire()
        if self.error is not None:
            raise self.error

    def run(self, container: Container) -> None:
        """Go on; the container rests until a dispatcher is needed again."""
        container.rest(self._rest.release)


class Container:
    """A thread that dispatches while it has the baton."""

    def __init__(self, baton: Baton, number: int) -> None:
        self.closing = False
        self._baton = baton
        self._rest = allocate_lock()
        self._rest.acquire()
        self.thread = threading.Thread(
            target=self._dispatch, name=f"simulation-{number}", daemon=False
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
    """``next``: what is to be done next, asked by whoever dispatches."""

    def __init__(self, next_task: Callable[[], Task]) -> None:
        self.next = next_task
        self.main = threading.current_thread()
        self.spare: list[Container] = []
        self._containers: list[Container] = []

    def pass_on(self) -> None:
        """Have a container dispatch."""
        if self.spare:
            container = self.spare.pop()
        else:
            container = Container(self, len(self._containers))
            self._containers.append(container)
        container.wake()

    def close(self) -> None:
        """End all containers; every strand has been run by then."""
        for container in self._containers:
            container.closing = True
            container.wake()
        for container in self._containers:
            container.thread.join()
        self._containers.clear()
        self.spare.clear()
