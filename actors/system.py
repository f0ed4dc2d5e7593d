"""A system of actors: it starts them, knows them all, and ends them all.

What they run on is its runtime's business: threads, or, with ``simulation``, one scheduler that
decides everything from a seed. Nothing else in this package knows which of the two it is.

Rules: no registry is global. A dead actor is known as long as anybody refers to it; a registered
name belongs to at most one living actor. When `stop` has returned, no thread of the system runs.
"""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from actors.actor import Actor
from actors.cell import Cell
from actors.dead_letters import DeadLetters
from actors.errors import ActorError, NameTaken, StartFailed, StopTimeout, UnknownRef, WouldBlock
from actors.here import here
from actors.life import Life
from actors.ref import NamedRef, Ref
from actors.runtime import Runtime
from actors.scheduler import Scheduler
from actors.signals import Exit, ExitReason
from actors.threads import Threads
from actors.tree import picture, systems

_GRACE = 1.0  # seconds for killed actors to return from their handlers, and run `on_stop`

_NOBODY = ExitReason("error", "NotRegistered", "nobody has that name now")


class System:
    """Context manager: `stop` at the end of the block.

    Args:
        name: for error messages.
        clock: seconds, monotonic.
        stop_timeout: seconds that `stop` gives all actors together.
        workers: threads that pooled actors share.
        simulation: a seed, or a `Scheduler`, which is then `System.simulation`: the actors run
            under it in virtual time, instead of on threads.
    """

    def __init__(
        self,
        name: str = "main",
        clock: Callable[[], float] = time.monotonic,
        stop_timeout: float = 30.0,
        workers: int = 2,
        simulation: Scheduler | int | None = None,
    ) -> None:
        if isinstance(simulation, int):
            simulation = Scheduler(simulation)
        self.name = name
        self.simulation: Scheduler | None = simulation
        self.runtime: Runtime = Threads(clock, workers) if simulation is None else simulation
        self.now = self.runtime.now
        self.dead_letters = DeadLetters()
        self.next_trace: Callable[[], int] = itertools.count(1).__next__
        self._stop_timeout = stop_timeout
        self._identity = self.runtime.identity()
        self._count = 0
        self._monitors = itertools.count(1)
        self._nobodies = itertools.count(2**64 - 1, -1)  # numbers of those who never were
        self._known: weakref.WeakValueDictionary[bytes, Cell] = weakref.WeakValueDictionary()
        self._names: dict[str, Cell] = {}
        self._top: dict[Cell, None] = {}  # not ended yet, in the order of their start
        self._running: dict[Cell, None] = {}
        self.stopping = False
        self._lock = threading.Lock()
        if simulation is not None:
            simulation.attach(self)
        systems.add(self)

    # --- public -----------------------------------------------------------------------------------

    def start(
        self,
        actor_class: type[Actor],
        *args: Any,
        name: str | None = None,
        registered: bool = False,
        **kwargs: Any,
    ) -> Ref:
        """Start an actor at the top of the tree, and return when its `on_start` has.

        ``args`` and ``kwargs`` go to its `__init__`; ``name`` defaults to its class and a number.
        ``registered``: `named` finds it by its name, as long as it lives.

        Raises StartFailed; NameTaken; ActorError when the system is stopping; WouldBlock if a
        pooled actor calls it for one that is not.
        """
        return self.launch(actor_class, args, kwargs, name, None, None, registered=registered)

    def named(self, name: str) -> NamedRef:
        """A reference to whoever is registered as ``name`` whenever it is used.

        It need not be anybody now. What is sent while nobody is, is a counted dead letter (tell)
        or raises ActorDead (ask).
        """
        return NamedRef(self, name)

    def whereis(self, name: str) -> Ref | None:
        """Who is registered as ``name`` now."""
        cell = self._names.get(name)
        return None if cell is None else Ref(cell)

    def monitor(self, target: Ref, watcher: Ref) -> int:
        """Have ``watcher`` get a `Down` when ``target`` has ended; at once if it has already.

        Returns the number that the `Down` will carry.
        """
        for ref in (target, watcher):
            if ref.cell.system is not self:
                raise UnknownRef(f"{ref.name} is of another system")
        number = next(self._monitors)
        target.cell.monitor(watcher.cell, number)
        return number

    def wait(self, ref: Ref, timeout: float | None = None) -> Exit:
        """Wait until ``ref`` has ended and its thread is joined; its exit report.

        Raises StopTimeout after ``timeout`` seconds; ActorError if called by that actor or one
        under it, which would wait for itself.
        """
        cell = ref.cell
        if cell.is_above(here.cell):
            raise ActorError(f"{cell.name} cannot end while it is waited for from inside")
        if not cell.ends_within(timeout):
            raise StopTimeout(f"{cell.name} has not ended within {timeout} s")
        return cell.exit_report()

    def stop(self) -> None:
        """End all actors, the last started first, and return when the last thread is joined.

        Raises StopTimeout, naming those that still run, a second after ``stop_timeout``: they have
        been killed, but Python cannot interrupt their threads. ActorError if an actor calls it.
        """
        if here.cell is not None and here.cell.system is self:
            raise ActorError(f"{here.cell.name} cannot stop the system that it runs in")
        with self._lock:
            self.stopping = True
        deadline = self.now() + self._stop_timeout
        for cell in reversed(self.top()):
            cell.end(max(0.0, deadline - self.now()))
        with self._lock:
            rest = list(self._running)
        for cell in rest:  # killed before, or behind one that did not end in time
            cell.kill()
        deadline = max(deadline, self.now() + _GRACE)
        stuck = [c.name for c in rest if not c.ends_within(deadline - self.now())]
        stuck += self.runtime.close()
        systems.discard(self)
        if stuck:
            raise StopTimeout(f"still running after {self._stop_timeout} s: {', '.join(stuck)}")

    def tree(self) -> str:
        """A picture of all actors, a line each: name, state, restarts, mailbox, uptime.

        Supervisors show their strategy and intensity; where nested intensities multiply to more
        than ten starts, a warning says so.
        """
        return picture(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- for the rest of this package -------------------------------------------------------------

    def launch(
        self,
        actor_class: type[Actor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        parent: Cell | None,
        shutdown: float | None,
        *,
        registered: bool = False,
        announced: bool = False,
        restarts: int = 0,
    ) -> Ref:
        """What `start`, `Actor.start_child` and `Actor.begin_child` have in common.

        ``announced``: do not wait; the parent gets `Started` or `Exit`.
        """
        if not announced and not actor_class.pooled and here.cell is not None:
            here.cell.may_block(f"starts {name or actor_class.__name__}")
        with self._lock:
            if parent is not None and parent.mailbox.closed:
                raise ActorError(f"{parent.name} is ending: no child of it can start any more")
            if self.stopping and parent is None:
                raise ActorError(
                    f"system {self.name} is stopping; {actor_class.__name__} not started"
                )
            self._count += 1
            identity = self._identity + self._count.to_bytes(8, "big")
            name = name or f"{actor_class.__name__}-{self._count}"
            if registered and name in self._names:
                raise NameTaken(f"{name} is registered already in system {self.name}")
            cell = Cell(self, identity, name, actor_class, parent, shutdown)
            cell.trace = self.next_trace() if here.cell is None else here.cell.trace
            cell.announces = announced
            cell.restarts = restarts
            life = cell.life = Life(cell, args, kwargs)
            siblings = self._top if parent is None else parent.children
            self._known[identity] = cell
            self._running[cell] = siblings[cell] = None
            if registered:
                cell.registered = True
                self._names[name] = cell
        try:
            self.runtime.begin(life)
        except RuntimeError as error:  # the machine has no more threads
            cell.announces = False
            cell.report(ExitReason.of(error))
            self.retire(cell)
            raise StartFailed(name, cell.exit_report().reason) from error
        try:
            if announced or cell.wait_until_born():
                return Ref(cell)
        except WouldBlock:  # it puts its birth off
            cell.kill()
            raise
        assert cell.reason is not None
        if cell.reason.kind != "killed":
            cell.ends_within(None)
        cause, cell.cause = cell.cause, None
        raise StartFailed(name, cell.reason) from cause

    def top(self) -> list[Cell]:
        """The actors that have no parent, in the order of their start."""
        return list(self._top)  # no lock: a signal handler asks, whatever it has interrupted

    def resolve(self, identity: bytes) -> Ref:
        """The actor of a reference that has arrived. Raises UnknownRef."""
        cell = self._known.get(identity)
        if cell is None:
            raise UnknownRef(f"no actor {identity.hex()} is known in system {self.name}")
        return Ref(cell)

    def cell_named(self, name: str) -> Cell:
        """Who has that name now, or nobody: a cell that has ended."""
        cell = self._names.get(name)
        if cell is None:
            identity = self._identity + next(self._nobodies).to_bytes(8, "big")
            cell = Cell(self, identity, name, Actor, None, None)
            cell.mailbox.close()
            cell.reason = _NOBODY
            cell.finish()
            with self._lock:
                self._known[identity] = cell  # monitors and links are told of it as of any other
        return cell

    def forget_name(self, cell: Cell) -> None:
        """The name of an actor that has ended is free again."""
        with self._lock:
            if self._names.get(cell.name) is cell:
                del self._names[cell.name]

    def retire(self, cell: Cell) -> None:
        """An actor has ended, and all that is left to do is to say so."""
        if cell.thread is not None:
            self.runtime.keep(cell.thread)
        with self._lock:
            self._running.pop(cell, None)
            self._top.pop(cell, None)
        cell.finish()
