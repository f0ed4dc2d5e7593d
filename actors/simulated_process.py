"""A part of the tree that can be stopped and killed as an OS process can, at any point.

The actors below one host, with what they run in executors, are the process. Its host is not in it:
the host starts it, hears of its end (the `Exit` of a child, or `StartFailed`), and kills it.

`stop` is SIGSTOP: nothing of it takes another step; what is sent to it waits. `kill` is SIGKILL:
nothing of it takes another step, ever, and no code of its own runs: no handler goes on, no
`on_stop`, no `finally`. Its actors have ended (``killed``), what was queued is answered, its
descriptors are closed, when `kill` returns. It is killed or stopped between two steps, and in the
middle of one wherever its code calls `point`, or waits.

What may happen at a point is the ``peril``'s to say, which whoever made the process gives it.

Corner cases: Python cannot throw a stack away. One that was killed in the middle rests until the
simulation is over, and is unwound then, `SimulationOver` being raised in it; what its `finally`
clauses do then meets nobody. Its descriptor numbers, too, stay taken until then (descriptor_ledger
.py), so that such a clause closes nobody else's. Actors with an event loop cannot be in a process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from actors.descriptor_ledger import DescriptorLedger
from actors.simulated_tasks import Ready, Wait

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.scheduler import Scheduler


class SimulatedProcess:
    """Made by `Scheduler.process`. One life only."""

    def __init__(self, scheduler: Scheduler, peril: Callable[[], object]) -> None:
        self.stopped = False
        self.killed = False
        self.members: list[Cell] = []
        self.held: list[Ready] = []  # what could happen next in it, if it were not halted
        self._scheduler = scheduler
        self._peril = peril
        self._at_death: list[Callable[[], object]] = []
        self._ledger = DescriptorLedger()

    @property
    def halted(self) -> bool:
        """Nothing of it takes a step."""
        return self.stopped or self.killed

    def at_death(self, act: Callable[[], object]) -> None:
        """What the kernel would take from it besides: called once, by `kill`."""
        self._at_death.append(act)

    def stop(self) -> None:
        """Halt it where it is."""
        if not self.halted:
            self.stopped = True
            self.held += self._scheduler.withdraw(self)

    def kill(self) -> None:
        """See the top. Idempotent; also for one that is stopped."""
        if self.killed:
            return
        self.killed = True
        tasks = [*self.held, *self._scheduler.withdraw(self), *self._scheduler.bury(self)]
        self.held = [task for task in tasks if isinstance(task, Wait)]
        for cell in reversed(self.members):
            if cell.life is not None:
                cell.life.vanish()
        for act in self._at_death:
            act()
        self._ledger.close()

    def point(self) -> None:
        """Its own code is where it can be killed or stopped: does not return then."""
        self._peril()
        if self.halted:
            self._scheduler.suspend(Wait(self._scheduler, "its process to go on"), ready=True)

    @contextlib.contextmanager
    def outside(self) -> Iterator[None]:
        """What is opened in this block is not its own: it belongs to whoever it is sent to."""
        depth = self.pause()
        try:
            yield
        finally:
            self.resume(depth)

    # --- for the scheduler ------------------------------------------------------------------------

    def adopt(self, cell: Cell) -> None:
        """An actor of it is about to begin. Raises RuntimeError: it cannot start."""
        if cell.actor_class.uses_loop:
            raise RuntimeError(
                f"{cell.name} has an event loop: it cannot be in a simulated process"
            )
        self.members.append(cell)

    def begin(self, task: Ready) -> bool:
        """It is the turn of one of its tasks; False if that does not run, now or ever."""
        self._peril()
        if self.halted:
            if not self.killed:
                self.held.append(task)
            return False
        self._ledger.enter()
        return True

    def end(self) -> None:
        """That task is over."""
        self._ledger.leave()

    def pause(self) -> int:
        """A task of it stops in the middle; see `DescriptorLedger.pause`."""
        return self._ledger.pause()

    def resume(self, depth: int) -> None:
        """It goes on."""
        self._ledger.resume(depth)

    def release(self) -> None:
        """The simulation is over, and every stack unwound."""
        self._ledger.release()


class Processes:
    """All processes of one run, and who is in which."""

    def __init__(self) -> None:
        self._all: list[SimulatedProcess] = []
        self._hosted: dict[Cell, SimulatedProcess] = {}
        self._of: dict[Cell | None, SimulatedProcess] = {}

    def add(self, host: Cell, process: SimulatedProcess) -> None:
        """What ``host`` starts from now on is in it."""
        self._all.append(process)
        self._hosted[host] = process

    def enroll(self, cell: Cell) -> None:
        """An actor is about to begin: where it was started says where it is."""
        parent = cell.parent
        process = None if parent is None else self._hosted.get(parent) or self._of.get(parent)
        if process is not None:
            process.adopt(cell)
            self._of[cell] = process

    def of(self, cell: Cell | None) -> SimulatedProcess | None:
        """The one that an actor is in."""
        return self._of.get(cell)

    def keeps(self, task: Ready) -> bool:
        """Whether it cannot happen, because its process is halted, and waits there."""
        process = self._of.get(task.cell)
        if process is None or not process.halted:
            return False
        process.held.append(task)
        return True

    def give_up(self) -> list[Ready]:
        """The run ends: nothing is halted any more. What was."""
        self._of.clear()
        held = [task for process in self._all for task in process.held]
        for process in self._all:
            process.held.clear()
        return held

    def release(self) -> None:
        """See `SimulatedProcess.release`."""
        for process in self._all:
            process.release()
