"""Work that a real run gives to threads, in a simulated one: each piece is a stack of its own.

So it begins when its turn comes, may stop in the middle like an actor (where it asks or waits), and
at most ``workers`` pieces have begun and not ended. It is done in the name of the actor that made
the executor: a process that is killed (simulated_process.py) takes its work with it.

Corner case: a piece of work that raises fails the run; nobody else would hear of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.baton import Container
from actors.errors import ActorError
from actors.here import here
from actors.runtime import Lock

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.scheduler import Scheduler


class SimulatedExecutor:
    """See `Runtime.executor`."""

    def __init__(self, scheduler: Scheduler, workers: int, name: str) -> None:
        self._scheduler = scheduler
        self._free = workers
        self._name = name
        self._cell = here.cell
        self._queue: deque[_Work] = deque()
        self._left = 0
        self._closed = False
        self._waiter: Lock | None = None

    def submit(self, function: Callable[..., Any], /, *args: Any) -> None:
        """See `Executor`."""
        if self._closed:
            raise ActorError(f"{self._name} has been shut down")
        self._queue.append(_Work(self._scheduler, self, self._cell, function, args))
        self._left += 1
        self._begin_some()

    def shutdown(self, wait: bool = True) -> None:
        """See `Executor`."""
        self._closed = True
        if wait and self._left:
            self._waiter = self._scheduler.lock(f"the end of {self._name}")
            self._waiter.acquire()
            self._waiter.acquire()

    def has_ended(self) -> None:
        """One piece is done."""
        self._free += 1
        self._left -= 1
        self._begin_some()
        if self._waiter is not None and not self._left:
            self._waiter.release()

    def _begin_some(self) -> None:
        while self._queue and self._free:
            self._free -= 1
            self._scheduler.make_ready(self._queue.popleft())


class _Work:
    __slots__ = ("_args", "_executor", "_function", "_scheduler", "cell")

    def __init__(
        self,
        scheduler: Scheduler,
        executor: SimulatedExecutor,
        cell: Cell | None,
        function: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self.cell = cell
        self._scheduler = scheduler
        self._executor = executor
        self._function = function
        self._args = args

    def run(self, container: Container) -> None:  # noqa: ARG002 - the thread that it runs in
        scheduler, process = self._scheduler, self._scheduler.process_of(self.cell)
        if process is not None and not process.begin(self):
            return
        outer, here.cell = here.cell, self.cell
        try:
            self._function(*self._args)
        except BaseException as error:  # noqa: BLE001 - it is the test's to raise
            if not scheduler.is_over:
                scheduler.fail(error)
        finally:
            here.cell = outer
            if process is not None:
                process.end()
        self._executor.has_ended()
        scheduler.look()
