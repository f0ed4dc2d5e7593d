"""A system of actors: it starts them, knows them all, and ends them all.

It is the one seam between actors and the world: the clock, what a thread sleeps on, and threads
themselves come from here and nowhere else (`now`, `new_sleeper`, `new_poller`, `spawn`), so that
another System can give its actors a scheduler instead.

Rules: no registry is global. A dead actor is known as long as anybody refers to it. When `stop`
has returned, no thread of the system runs: a thread that ends leaves itself to the next one, or
to `stop`, to be joined.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from actors.actor import Actor
from actors.cell import Cell, here
from actors.dead_letters import DeadLetters
from actors.errors import ActorError, StartFailed, StopTimeout, UnknownRef
from actors.life import Life
from actors.ref import Ref
from actors.signals import Exit, ExitReason
from actors.waiting import Poller, Sleeper

_GRACE = 1.0  # seconds for killed actors to return from their handlers, and run `on_stop`


class System:
    """Context manager: `stop` at the end of the block.

    ``clock``: seconds, monotonic. ``stop_timeout``: seconds that `stop` gives all actors together.
    """

    def __init__(
        self,
        name: str = "main",
        clock: Callable[[], float] = time.monotonic,
        stop_timeout: float = 30.0,
    ) -> None:
        self.name = name
        self.now = clock
        self.dead_letters = DeadLetters()
        self._stop_timeout = stop_timeout
        self._identity = os.urandom(8)
        self._count = 0
        self._known: weakref.WeakValueDictionary[bytes, Cell] = weakref.WeakValueDictionary()
        self._top: dict[Cell, None] = {}  # alive or not yet joined, in the order of their start
        self._running: dict[Cell, None] = {}
        self._last: threading.Thread | None = None  # ended, and not joined yet
        self._stopping = False
        self._lock = threading.Lock()

    # --- public -----------------------------------------------------------------------------------

    def start(
        self, actor_class: type[Actor], *args: Any, name: str | None = None, **kwargs: Any
    ) -> Ref:
        """Start an actor at the top of the tree, and return when its `on_start` has.

        ``args`` and ``kwargs`` go to its `__init__`; ``name`` defaults to its class and a number.
        Raises StartFailed; ActorError when the system is stopping.
        """
        return self.launch(actor_class, args, kwargs, name, None, None)

    def monitor(self, target: Ref, watcher: Ref) -> None:
        """Have ``watcher`` get a `Down` when ``target`` has ended; at once if it has already."""
        for ref in (target, watcher):
            if ref.cell.system is not self:
                raise UnknownRef(f"{ref.name} is of another system")
        target.cell.monitor(watcher.cell)

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
            self._stopping = True
            top = list(reversed(self._top))
        deadline = time.monotonic() + self._stop_timeout
        for cell in top:
            cell.end(max(0.0, deadline - time.monotonic()))
        with self._lock:
            rest = list(self._running)
        for cell in rest:  # killed before, or behind one that did not end in time
            cell.kill()
        deadline = max(deadline, time.monotonic() + _GRACE)
        stuck = [c.name for c in rest if not c.ends_within(deadline - time.monotonic())]
        with self._lock:
            last = self._last
        if last is not None:
            last.join()
        if stuck:
            raise StopTimeout(f"still running after {self._stop_timeout} s: {', '.join(stuck)}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    # --- for the runtime --------------------------------------------------------------------------

    def launch(
        self,
        actor_class: type[Actor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        name: str | None,
        parent: Cell | None,
        shutdown: float | None,
    ) -> Ref:
        """What `start` and `Actor.start_child` have in common."""
        with self._lock:
            if parent is not None and parent.mailbox.closed:
                raise ActorError(f"{parent.name} is ending: no child of it can start any more")
            if self._stopping and parent is None:
                raise ActorError(
                    f"system {self.name} is stopping; {actor_class.__name__} not started"
                )
            self._count += 1
            number = self._count
            identity = self._identity + number.to_bytes(8, "big")
            name = name or f"{actor_class.__name__}-{number}"
            cell = Cell(self, identity, name, actor_class, parent, shutdown)
            # Started under the lock: whoever finds it in one of the tables can join it.
            cell.thread = self.spawn(cell.name, Life(cell, args, kwargs).run)
            siblings = self._top if parent is None else parent.children
            self._known[identity] = cell
            self._running[cell] = siblings[cell] = None
            try:
                cell.thread.start()
            except RuntimeError as error:  # the machine has no more threads
                del self._running[cell], siblings[cell]
                raise StartFailed(name, ExitReason.of(error)) from error
        if cell.wait_until_born():
            return Ref(cell)
        assert cell.reason is not None
        if cell.reason.kind != "killed":
            cell.thread.join()
        cause, cell.cause = cell.cause, None
        raise StartFailed(name, cell.reason) from cause

    def resolve(self, identity: bytes) -> Ref:
        """The actor of a reference that has arrived. Raises UnknownRef."""
        cell = self._known.get(identity)
        if cell is None:
            raise UnknownRef(f"no actor {identity.hex()} is known in system {self.name}")
        return Ref(cell)

    def new_sleeper(self) -> Sleeper:
        return Sleeper()

    def new_poller(self) -> Poller:
        return Poller()

    def spawn(self, name: str, body: Callable[[], None]) -> threading.Thread:
        """The thread of one actor, not started yet."""
        return threading.Thread(target=body, name=name, daemon=False)

    def retire(self, cell: Cell) -> None:
        """The last act of an actor's thread: it joins the one that ended before it."""
        with self._lock:
            previous, self._last = self._last, cell.thread
            self._running.pop(cell, None)
            self._top.pop(cell, None)
        if previous is not None:
            previous.join()
