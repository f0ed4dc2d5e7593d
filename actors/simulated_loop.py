"""An asyncio event loop in virtual time: for actors whose handlers are coroutines.

It has no descriptors: coroutines in a simulation wait for actors and for time. Where a real loop
would wait in its selector this one stops its stack in the scheduler, until something is put
into it from outside, or its next timer is due.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

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

    def time(self) -> float:
        """Virtual seconds."""
        return self._scheduler.now()

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for a wake or for the time; there are no descriptors to be ready."""
        if not self._awake and timeout != 0:
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
