"""The simulated runtime: one thing happens at a time, and a stream of choices says which.

What can happen is in `ready`, the longest waiting first: the next step of an actor, the arrival
of a tell that was delayed, or that a stack goes on which stopped in the middle (baton.py): because
it waits for something, or because somebody else was to go first. One of them is picked and done,
again and again, after a look at the descriptors that somebody waits for (simulated_descriptors.py).
The test that owns the simulation is scheduled like an actor.

Time is virtual. It moves when nothing is ready, to the next timer or deadline; a fault may move it
earlier ("slow") or further ("stop_clock"). If there is nothing to move to and somebody waits, that
is a `Deadlock`; also if actors wait for each other's answers in a circle, which only their
deadlines would end.

A run is over when it has failed: by an invariant, a deadlock or too many steps, of which the test
hears at once; or because the test itself has raised (`conclude`). Everything still works then, so
that it can be cleaned up, but in the plainest way: no choice, no fault, no line of the trace.

Choice points: which of those that are ready is next; whether whoever has just told or asked is
pre-empted; each opportunity for a fault. A run is its list of choices, and nothing here may depend
on anything else: no clock, no address, no hash, no order of a set.

Rule: actors in a simulation wait for nothing but each other, timers and descriptors that others of
them make ready, and they wait by the runtime. One that waits for something else, or otherwise, has
the baton for ever, and everything stands still.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from actors.baton import Baton, Task
from actors.choices import Choices
from actors.errors import ActorError, Deadlock, NotSettled
from actors.faults import CLOCK, FaultPlan, Faults, InjectedCrash
from actors.future import Future
from actors.here import here
from actors.mailbox import Envelope
from actors.runtime import FOREVER
from actors.simulated_descriptors import Descriptors, SimulatedPoller, SimulatedReadable
from actors.simulated_executor import SimulatedExecutor
from actors.simulated_loop import SimulatedLoop
from actors.simulated_process import Processes, SimulatedProcess
from actors.simulated_tasks import (
    Alarm,
    Arrival,
    Later,
    LoopThread,
    Ready,
    SimulatedLock,
    Step,
    Wait,
    name_of,
)
from actors.trace import Trace
from actors.waiting import LoopSleeper

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.life import Life
    from actors.message import Message
    from actors.ref import Ref
    from actors.signals import ExitReason
    from actors.system import System


NO_FAULTS = Faults(kinds=())

_PLAIN = 0.3  # how often the longest waiting is next without a draw: runs differ more that way


class SimulationOver(BaseException):
    """Ends a stack that still waits when its simulation does; no actor should catch it."""


class Scheduler:
    """One run.

    Args:
        choices: a seed, or a stream of choices.
        faults: what may go wrong; nothing unless given.
        preemption: the probability that a tell or an ask lets others go first.
        max_steps: after so many the run is given up as one that never settles.
        baton: one that is kept from run to run, and closed by whoever made it.
    """

    def __init__(
        self,
        choices: Choices | int,
        faults: Faults = NO_FAULTS,
        preemption: float = 0.1,
        max_steps: int = 100_000,
        baton: Baton | None = None,
    ) -> None:
        self.choices = Choices.seeded(choices) if isinstance(choices, int) else choices
        self.plan = FaultPlan(faults, self.choices)
        self.trace = Trace()
        self.steps = 0
        self.ready: list[Ready] = []
        self.descriptors = Descriptors()
        self._max_steps = max_steps
        self._preemption = preemption
        self._now = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._count = 0
        self._waiting: dict[Wait, None] = {}  # in the order in which they began to wait
        self._processes = Processes()
        self._checks: list[Callable[[], object]] = []
        self._test: Wait | None = None  # the test, while it has stopped
        self._urgent: Wait | None = None  # the same, if it is next whatever else is ready
        self._looking = False
        self._over = False
        self.baton = Baton() if baton is None else baton
        self.baton.serve(self._next)
        self._keeps_baton = baton is not None
        self._system: System | None = None

    # --- for tests --------------------------------------------------------------------------------

    def now(self) -> float:
        """Virtual seconds since the start of the run."""
        return self._now

    def invariant(self, check: Callable[[], object]) -> None:
        """Call ``check`` after every step: if it raises, or returns False, the run is over.

        It must only look: nobody could answer between two steps. Not called while the system stops.
        """
        self._checks.append(check)

    def advance(self, seconds: float) -> None:
        """Let that much virtual time pass; what is due by then happens, and what comes of it."""
        if not 0 <= seconds < FOREVER:
            raise ValueError(f"time cannot move by {seconds} s")
        until = self._now + seconds
        self.suspend(Wait(self, "time to pass", until=until))
        self._now = max(self._now, until)

    def settle(self, within: float = 3600.0) -> None:
        """No more faults; go on until nothing is left to happen, timers included.

        Raises NotSettled if that takes more than ``within`` virtual seconds.
        """
        self.plan.stop()
        wait = Wait(self, "quiet", until=self._now + within)
        self.suspend(wait)
        if not wait.quiet:
            rest = "".join(f": {alarm} at {when:g} s" for when, _, alarm in self._alarms[:1])
            raise NotSettled(f"it is not quiet after {within:g} virtual seconds{rest}")

    def eventually(self, condition: Callable[[], bool], within: float = 3600.0) -> None:
        """No more faults; go on until ``condition`` holds, which is called after every step.

        It may ask actors. Raises NotSettled if nothing is left to happen, or if ``within`` virtual
        seconds have passed.
        """
        self.plan.stop()
        until = self._now + within
        while not condition():
            wait = Wait(self, "the condition", until=until)
            wait.each_step = True
            if not self.suspend(wait):
                why = ": nothing is left to happen" if wait.quiet else ""
                raise NotSettled(f"it did not come true within {within:g} virtual seconds{why}")

    def choose(self, n: int) -> int:
        """One of range(n) for the test itself, from the same stream: replayed and shrunk too."""
        return self.choices.pick(n)

    @property
    def is_over(self) -> bool:
        """Whether the run has failed, or ends: what still happens is no part of it."""
        return self._over

    def conclude(self) -> None:
        """The test has failed; what follows is no part of the run any more."""
        self._over = True

    # --- the runtime ------------------------------------------------------------------------------

    def attach(self, system: System) -> None:
        """A simulation is of one system. Raises ActorError if it has one."""
        if self._system is not None:
            raise ActorError("a simulation runs one system, once")
        self._system = system

    def identity(self) -> bytes:
        """The same in each run: a simulation has one system."""
        return b"simulate"

    def lock(self, what: Any) -> SimulatedLock:
        """What for: a text, or the future that is waited for."""
        return SimulatedLock(self, what)

    def readable(self, fd: int, what: str) -> SimulatedReadable:
        """What for: for the text of a `Deadlock`."""
        return SimulatedReadable(self, fd, what)

    def executor(self, workers: int, name: str) -> SimulatedExecutor:
        """Its work is the calling actor's."""
        return SimulatedExecutor(self, workers, name)

    def poller(self, cell: Cell) -> SimulatedPoller:
        """What an actor watches."""
        return SimulatedPoller(self, cell)

    def begin(self, life: Life) -> None:
        """Its first step when its turn comes; at once if a pooled actor starts a pooled one."""
        life.batch = 1
        self._processes.enroll(life.cell)
        process = self._processes.of(life.cell)
        if process is not None and process.killed:
            life.vanish()  # there is no process for it to begin in
            return
        if life.cell.actor_class.uses_loop:
            life.settle_in(LoopSleeper(SimulatedLoop(self)))
            self.make_ready(LoopThread(self, life))
            return
        step = Step(self, life)
        life.cell.mailbox.wake = step.is_ready
        if life.cell.pooled and here.cell is not None and here.cell.pooled:
            step.make()
        else:
            step.is_ready()

    def lend(self, life: Life, until: Future | None) -> None:
        """Never: in a simulation nobody claims an actor."""
        raise AssertionError(f"{life.cell.name} was claimed for {until}")

    def reclaim(self, life: Life) -> None:
        """Never: in a simulation nobody claims an actor."""
        raise AssertionError(f"{life.cell.name} was to be reclaimed")

    def keep(self, thread: threading.Thread) -> None:
        """Never: here no actor has a thread of its own."""
        raise AssertionError(f"{thread.name} was to be kept")

    def at_work(self) -> dict[int, Cell]:
        """None that anybody else could see."""
        return {}

    def close(self) -> list[str]:
        """Unwind the stacks that still wait, and end all threads."""
        self._over = True
        held = self._processes.give_up()
        for task in held:
            if isinstance(task, Wait):
                task.error = SimulationOver()
        self.ready += held
        while (self._waiting or self.ready) and not self.baton.lost:
            for wait in list(self._waiting):
                self.resume(wait, SimulationOver())
            self.give_way()
        self._processes.release()
        hanging = self.baton.hanging()
        if not self._keeps_baton:
            self.baton.close()
        return hanging

    # --- what actors do ---------------------------------------------------------------------------

    def on_tell(self, cell: Cell, message: Message, envelope: Envelope) -> Iterable[Envelope]:
        """Which copies of a tell arrive now; after that the sender may be pre-empted."""
        self._note("tells", cell.name, message)
        if self._strikes("drop", cell):
            envelope.packet.close()
            cell.system.dead_letters.add(envelope.kind, cell, envelope.sender, "fault")
        elif self._strikes("delay", cell):
            self.at(self._now + self.plan.delay(), Arrival(self, cell, envelope))
        else:
            yield envelope
            if not envelope.packet.fds and self._strikes("duplicate", cell):
                packet = cell.pack(message)
                again = Envelope(envelope.kind, packet, None, envelope.sender, envelope.trace)
                Arrival(self, cell, again).ring()
        self._may_preempt()

    def on_ask(self, cell: Cell, message: Message) -> None:
        """Somebody asks; the asker may be pre-empted before that arrives."""
        self._note("asks", cell.name, message)
        self._may_preempt()

    def on_birth(self, cell: Cell) -> None:
        """An actor is about to be made."""
        self._note_of(cell.name, "starts")
        if self._strikes("fail_start", cell):
            raise InjectedCrash("it was to fail at its start")

    def before_receive(self, cell: Cell, message: Message, envelope: Envelope) -> None:
        """A handler is about to be called."""
        if envelope.kind == "timer":
            self._note("timer", message)
        else:
            self._note("receives", message, name_of(envelope.sender))
        if self._strikes("crash_before", cell):
            raise InjectedCrash(f"it was to crash before it handled {type(message).__name__}")

    def after_receive(self, cell: Cell, envelope: Envelope, value: Any, *, answered: bool) -> None:
        """A handler has returned ``value``; if that is the answer, it has not been sent yet."""
        if self._strikes("crash_after", cell):
            kind = envelope.kind.rpartition(".")[2]
            raise InjectedCrash(f"it was to crash after it handled {kind}")
        if answered:
            self._note("answers", value, name_of(envelope.sender))

    def on_ready(self, cell: Cell, number: int) -> None:
        """What an actor watches is ready; ``number`` says which of its watches."""
        self._note_of(cell.name, "ready", number)

    def on_end(self, cell: Cell, reason: ExitReason) -> None:
        """An actor has ended."""
        self._note_of(cell.name, "ends", reason)

    def _note(self, what: str, *values: object) -> None:
        self._note_of(name_of(here.cell), what, *values)

    def _note_of(self, name: str, what: str, *values: object) -> None:
        if not self._over:
            self.trace.add(self._now, name, what, *values)

    # --- for those who build on actors ------------------------------------------------------------

    def replace_faults(self, faults: Faults) -> None:
        """From now on these may go wrong instead; their opportunities are counted from here."""
        self.plan = FaultPlan(faults, self.choices)

    def strikes(self, kind: str, name: str, *, supervised: bool = True) -> bool:
        """Whether the fault strikes at this opportunity of ``name``; then the trace has it.

        What it means is the caller's to do. ``supervised``: whether somebody restarts it: a target
        unless the test names its targets.
        """
        if self._over or not self.plan.strikes(kind, name, supervised):
            return False
        self._note_of(name, "fault", kind)
        return True

    def later(self, seconds: float, what: str, act: Callable[[], object]) -> Later:
        """Call ``act`` when that much time has passed, between two steps. It must not wait."""
        later = Later(what, act)
        self.at(self._now + seconds, later)
        return later

    def delay(self) -> float:
        """By how many virtual seconds something is late: a choice, up to `Faults.max_delay`."""
        return self.plan.delay()

    def pause(self, seconds: float) -> None:
        """The calling stack goes on when that much time has passed."""
        self.suspend(Wait(self, "time to pass", self._now + seconds))

    def process(self, host: Ref, peril: Callable[[], object]) -> SimulatedProcess:
        """Make what ``host`` starts from now on a process of its own.

        ``peril`` is called at each point where the process could be killed or stopped: it does so,
        or does not. It must not wait.
        """
        made = SimulatedProcess(self, peril)
        self._processes.add(host.cell, made)
        return made

    # --- processes --------------------------------------------------------------------------------

    def process_of(self, cell: Cell | None) -> SimulatedProcess | None:
        """The one that an actor is in."""
        return self._processes.of(cell)

    def make_ready(self, task: Ready) -> None:
        """It can happen from now on, unless its process is halted."""
        if not self._processes.keeps(task):
            self.ready.append(task)

    def withdraw(self, process: SimulatedProcess) -> list[Ready]:
        """What of that process could happen next, and cannot any more."""
        theirs = [task for task in self.ready if self.process_of(task.cell) is process]
        self.ready = [task for task in self.ready if task not in theirs]
        return theirs

    def bury(self, process: SimulatedProcess) -> list[Ready]:
        """The stacks of that process that wait, and will never get what they wait for."""
        theirs = [wait for wait in self._waiting if self.process_of(wait.cell) is process]
        for wait in theirs:
            del self._waiting[wait]
        return list(theirs)

    # --- what happens next ------------------------------------------------------------------------

    def _strikes(self, kind: str, cell: Cell) -> bool:
        supervised = cell.parent is not None and cell.parent.actor_class.supervises
        return self.strikes(kind, cell.name, supervised=supervised)

    def _may_preempt(self) -> None:
        if not self.ready or self._over or self._looking:
            return
        if self.choices.chance(self._preemption):
            self._note("preempted")
            self.give_way()

    def _next(self) -> Task:
        """What happens next; time moves if it has to."""
        self.descriptors.look()
        while self._urgent is None and (not self.ready or self._hurries()):
            if not self.ready:
                self._be_quiet()
            self.descriptors.look()
        if (urgent := self._urgent) is not None:
            self._urgent = None
            return urgent
        count = len(self.ready)
        return self.ready.pop(0 if self._over else self.choices.pick(count, plain=_PLAIN))

    def _hurries(self) -> bool:
        """Whether time moves though something is ready: the machine is slow."""
        if not self._alarms or self._over or not self._has_alarm():
            return False
        if not self.plan.strikes("slow", CLOCK):
            return False
        self._note_of(CLOCK, "fault", "slow")
        self._move()
        return True

    def _move(self) -> None:
        """To the next timer or deadline; whatever is due then is done."""
        alarms = self._alarms
        when = max(self._now, alarms[0][0])
        if when > self._now and not self._over and self.plan.strikes("stop_clock", CLOCK):
            self._note_of(CLOCK, "fault", "stop_clock")
            when += self.plan.delay()
        self._now = when
        while alarms and alarms[0][0] <= when:
            due, _, alarm = heapq.heappop(alarms)
            if alarm.matters(due):
                alarm.ring()

    def at(self, when: float, alarm: Alarm) -> None:
        """Ring it when the time has come."""
        self._count += 1
        heapq.heappush(self._alarms, (when, self._count, alarm))

    def _has_alarm(self) -> bool:
        """Whether time can move; what does not matter any more is thrown away."""
        alarms = self._alarms
        while alarms and not alarms[0][2].matters(alarms[0][0]):
            heapq.heappop(alarms)
        return bool(alarms)

    def _be_quiet(self) -> None:
        """Nothing is ready: time moves, or the test goes on."""
        test = self._test
        assert test is not None, "the baton is in use, and nobody has it"
        stopping = self._over or self._system is None or self._system.stopping
        if not stopping and (circle := self._circle()):
            self.fail(Deadlock(circle))
        elif self._has_alarm() and (test.until is None or self._alarms[0][0] <= test.until):
            self._move()
        elif test.until is not None:
            test.quiet = not self._alarms
            self.resume(test)
        else:
            self.fail(Deadlock("; ".join(str(wait) for wait in self._waiting)))

    def _circle(self) -> str:
        """Actors that wait for each other's answers, if there are some.

        An ask whose answer has been put off (`reply_later`) may be answered by somebody else.
        """
        asks: dict[Cell, Future] = {
            wait.cell: wait.what
            for wait in self._waiting
            if wait.cell is not None and isinstance(wait.what, Future)
        }
        for first in asks:
            path = [first]
            while (future := asks.get(path[-1])) is not None:
                target = future.cell
                if target is None or future in target.pending:
                    break
                if target in path:
                    circle = [*path[path.index(target) :], target]
                    return ", and ".join(
                        f"{one.name} waits for an answer of {other.name}"
                        for one, other in itertools.pairwise(circle)
                    )
                path.append(target)
        return ""

    # --- after a step -----------------------------------------------------------------------------

    def look(self) -> None:
        """Is everything as it must be, and will there be an end?"""
        if self._over:
            return
        self.steps += 1
        self.trace.step = self.steps
        test, system = self._test, self._system
        assert test is not None, "only the test starts anything, and then it waits"
        self._looking = True
        try:
            for check in self._checks if system is None or not system.stopping else ():
                if check() is False:
                    raise AssertionError(f"{getattr(check, '__name__', check)} does not hold")
            if self.steps >= self._max_steps:
                raise NotSettled(f"there is no end after {self.steps} steps")
        except BaseException as error:  # noqa: BLE001 - it is the test's to raise
            self.fail(error)
        else:
            if test.each_step:
                test.granted = True
                self._hurry(test)
        finally:
            self._looking = False

    def fail(self, error: BaseException) -> None:
        """The run is over, and the test is the first to hear why."""
        assert self._test is not None
        self._over = True
        self._test.error = error
        self._hurry(self._test)

    def _hurry(self, test: Wait) -> None:
        """It goes on before anything else happens."""
        self._forget(test)
        self._urgent = test

    # --- stopping and going on --------------------------------------------------------------------

    def suspend(self, wait: Wait, *, ready: bool = False) -> bool:
        """Stop the calling stack. True if it was granted what it waits for, False in the end.

        ``ready``: it waits for nothing but its turn.
        """
        is_test = threading.current_thread() is self.baton.main
        if self._looking:
            raise ActorError("an invariant must not wait: nobody answers between two steps")
        if is_test:
            if self.baton.lost:
                return False
            self._test = wait
        elif self._test is None:
            raise ActorError("a simulation is for the thread that made it, and for its actors")
        if ready:
            self.make_ready(wait)
        else:
            self._waiting[wait] = None
            if wait.deadline != FOREVER:
                self.at(wait.deadline, wait)
        process = self.process_of(wait.cell)
        depth = 0 if process is None else process.pause()
        try:
            wait.stop()
        finally:
            if process is not None:
                process.resume(depth)
            if is_test:
                self._test = None
                self._forget(wait)  # if a signal has hit the test it was still there
        return wait.granted

    def give_way(self) -> None:
        """Let others that are ready go first, if it so happens."""
        if self.ready or self._urgent is not None:
            self.suspend(Wait(self, "its turn"), ready=True)

    def resume(self, wait: Wait, error: BaseException | None = None) -> None:
        """Let it go on when its turn comes. One that is ready already may still get an error."""
        if wait.error is None:
            wait.error = error
        if wait in self._waiting:
            del self._waiting[wait]
            self.make_ready(wait)

    def is_waiting(self, wait: Wait) -> bool:
        """Whether it has neither got what it waits for, nor given up."""
        return wait in self._waiting

    def _forget(self, wait: Wait) -> None:
        self._waiting.pop(wait, None)
        if wait in self.ready:
            self.ready.remove(wait)
        if self._urgent is wait:
            self._urgent = None
