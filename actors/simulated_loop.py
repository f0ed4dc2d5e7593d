"""An asyncio event loop in virtual time: for actors whose handlers are coroutines.

It has no descriptors and no threads: coroutines in a simulation wait for actors and for time. Where
a real loop would wait in its selector this one stops its stack in the scheduler, until something is
put into it from outside, or its next timer is due.

Tasks and futures hash by number, not by address: asyncio keeps them in sets, and goes over these.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, NoReturn

from actors.errors import ActorError

if TYPE_CHECKING:
    from actors.scheduler import Scheduler


class SimulatedLoop(asyncio.BaseEventLoop):
    """The part of a selector loop that asyncio leaves to its subclasses; it selects by itself."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._selector = self
        self._wakes = scheduler.lock("its event loop")
        self._wakes.acquire()
        self._awake = False
        self._scheduler = scheduler
        self.next_number = itertools.count().__next__
        self.set_task_factory(_Task)  # type: ignore[arg-type] # it makes them for this loop only

    def time(self) -> float:
        """Virtual seconds."""
        return self._scheduler.now()

    def create_future(self) -> asyncio.Future[Any]:
        """One that hashes by number."""
        return _Future(self)

    def _refuse(self, *_: Any) -> NoReturn:
        raise ActorError("a simulation has no threads or descriptors for a coroutine to wait for")

    run_in_executor = add_reader = add_writer = _refuse  # type: ignore[assignment]

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for a wake or for the time; there are no descriptors to be ready."""
        if self._awake or timeout != 0:
            self._wakes.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
        self._awake = False
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Called for `call_soon_threadsafe`, from other stacks."""
        if not self._awake:
            self._awake = True
            self._wakes.release()


class _Task(asyncio.Task[Any]):
    def __init__(self, loop: SimulatedLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> None:
        self._number = loop.next_number()
        super().__init__(coro, loop=loop, **options)

    def __hash__(self) -> int:
        return self._number


class _Future(asyncio.Future[Any]):
    def __init__(self, loop: SimulatedLoop) -> None:
        self._number = loop.next_number()
        super().__init__(loop=loop)

    def __hash__(self) -> int:
        return self._number
