"""The one seam between actors and the world: time, waiting, and on what an actor runs.

A System has one runtime: `Threads` (threads.py) for real, `Scheduler` (scheduler.py) for a
simulation. Actors and everything around them wait for nothing but locks and descriptors that they
got here, start no thread but through an executor made here, and read no clock but this one.

An actor is a `Life`, which a runtime advances step by step. A step never waits (what the actor's
own code waits for apart) and says what to do before the next one: NOW, DONE (it has ended), or so
many seconds within which nothing will happen unless its mailbox wakes it; FOREVER is infinity.
"""

from __future__ import annotations

import math
from _thread import TIMEOUT_MAX
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import threading

    from actors.cell import Cell
    from actors.future import Future
    from actors.life import Life

NOW = 0.0
FOREVER = math.inf
DONE = -1.0


class Lock(Protocol):
    """The part of `threading.Lock` that is used here."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Whether it is held by the caller now; seconds, and a negative number waits for ever."""

    def release(self) -> None:
        """Anybody may, while it is held."""

    def locked(self) -> bool:
        """Whether it is held."""

    def __enter__(self) -> bool:
        """Acquire it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Release it."""


class Readable(Protocol):
    """A descriptor that one at a time waits for."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether it is readable within ``timeout`` seconds; None: however long it takes."""


class Executor(Protocol):
    """The part of `concurrent.futures.Executor` that is used here."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Call it later, beside the caller. It must tell by itself what becomes of it."""

    def shutdown(self, wait: bool = True) -> None:
        """Take no more; ``wait`` until all that was submitted is done."""


class Runtime(Protocol):
    """What runs actors."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def identity(self) -> bytes:
        """8 bytes that no other system has."""

    def lock(self, what: Any) -> Lock:
        """A lock to wait on. ``what``: the cell or the text that says what for."""

    def readable(self, fd: int, what: str) -> Readable:
        """Something to wait on until ``fd`` is readable; it must be open whenever one waits.

        ``what``: a text that says what for.
        """

    def executor(self, workers: int, name: str) -> Executor:
        """Runs what blocks, beside the actor that submits it, ``workers`` of them at a time."""

    def begin(self, life: Life) -> None:
        """Bring it to life; a pooled one has had its first step when this returns."""

    def lend(self, life: Life, until: Future | None) -> None:
        """Run a pooled life in the calling thread: it rested, and was claimed by a put."""

    def reclaim(self, life: Life) -> None:
        """The calling thread was interrupted: if it was to run this life, somebody else has to."""

    def keep(self, thread: threading.Thread) -> None:
        """This thread is about to end, or has a supervisor to run before: `close` waits for it."""

    def at_work(self) -> dict[int, Cell]:
        """Which pooled actor is just being run by which thread, by the thread's ident."""

    def close(self) -> list[str]:
        """End what it runs on, when all actors have ended; the names of threads that hang."""


def acquire_within(lock: Lock, timeout: float | None) -> bool:
    """Acquire in at most ``timeout`` seconds: any number of them, or None for however long."""
    if timeout is None or timeout > TIMEOUT_MAX:
        return lock.acquire()
    return lock.acquire(timeout=max(0.0, timeout))
