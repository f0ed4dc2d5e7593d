"""The real runtime: an actor has a thread of its own, or shares the few of a pool.

Owns every thread of its system. An actor has its thread to itself as long as it lives. When it has
ended its thread runs its supervisor, if that has nothing better to do, and is handed on to the
first actor that the supervisor then starts: mostly its successor, so a restart makes no thread.

A pooled life that has something to do is in the ready queue, or
just being run by a worker, or by whoever asked it (`lend`): its mailbox is armed only while nobody
has it, and whoever disarms the mailbox has it next. So no life is ever run twice at a time.

Rules: workers are started one by one as they are needed, at most ``workers``. A worker lets go of a
life that goes on and on after a while, so that all get their turn. One alarm thread, started with
the first timer of a pooled actor, pokes those whose time has come.

Corner case: Ctrl-C arrives in the main thread. If that runs a lent life just then, the actor that
was hit ends like any that raises, and KeyboardInterrupt goes on to the one who asked. If it comes
between two steps the life is given to the pool: no bytecode of ours lies between the two stores, or
the store and the call, by which a life changes hands.
"""

from __future__ import annotations

import asyncio
import functools
import heapq
import os
import threading
import time
import weakref
from _thread import allocate_lock, get_ident
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from actors.here import here
from actors.runtime import DONE, FOREVER, NOW, Executor, Lock
from actors.waiting import LoopSleeper, Readable, Sleeper

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.future import Future
    from actors.life import Life

_TURNS = 16  # of one life in a row, while others wait for the worker
_GRACE = 1.0  # seconds for threads to return when all actors have ended


class Threads:
    """``clock``: seconds, monotonic. ``workers``: threads that pooled actors share."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, workers: int = 2) -> None:
        if workers < 1:
            raise ValueError(f"pooled actors need at least one thread, not {workers}")
        self.now = clock
        self._size = workers
        self._ready: SimpleQueue[Life | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []
        self._alarm: _Alarm | None = None
        self._at_work: dict[int, Cell | None] = {}  # ident of a thread -> what it runs
        self._kept: set[threading.Thread] = set()  # of actors that have ended; not at the end yet
        self._last: threading.Thread | None = None  # ended, and not joined yet
        self._lock = threading.Lock()

    def identity(self) -> bytes:
        """8 random bytes."""
        return os.urandom(8)

    def lock(self, what: Any) -> Lock:  # noqa: ARG002 - only a simulation wants to know
        """A lock of the interpreter."""
        return allocate_lock()

    def readable(self, fd: int, what: str) -> Readable:  # noqa: ARG002 - as above
        """A poll of that descriptor."""
        return Readable(fd)

    def executor(self, workers: int, name: str) -> Executor:
        """Threads, which are called ``name`` and a number."""
        return ThreadPoolExecutor(workers, thread_name_prefix=name)

    def begin(self, life: Life) -> None:
        """A thread for it, or its first steps here and now."""
        cell = life.cell
        if cell.pooled:
            cell.mailbox.wake = functools.partial(self._schedule, life)
            self.lend(life, None)
            return
        loop = asyncio.new_event_loop() if cell.actor_class.uses_loop else None
        life.settle_in(Sleeper(allocate_lock()) if loop is None else LoopSleeper(loop))
        if here.vacant:
            here.vacant, here.heir = False, life
            return
        cell.thread = threading.Thread(
            target=self._dedicate, args=(life,), name=cell.name, daemon=False
        )
        try:
            cell.thread.start()
        except RuntimeError:
            cell.thread = None
            if loop is not None:
                loop.close()
            raise

    def lend(self, life: Life, until: Future | None) -> None:
        """Run it here until ``until`` is settled or it rests; the pool does the rest."""
        self._run(life, until)
        interrupt, life.interrupt = life.interrupt, None
        if interrupt is None or threading.current_thread() is not threading.main_thread():
            return
        outer = None if here.cell is None else here.cell.life
        if outer is None:
            raise interrupt
        outer.interrupt = interrupt  # its parent, which is lent itself

    def keep(self, thread: threading.Thread) -> None:
        """See `Runtime`."""
        with self._lock:
            self._kept.add(thread)

    def at_work(self) -> dict[int, Cell]:
        """A copy; each entry is true at some moment while it is made."""
        return {ident: cell for ident, cell in list(self._at_work.items()) if cell is not None}

    def close(self) -> list[str]:
        """End the workers and the alarm. Those that hang in an actor's code are named."""
        with self._lock:
            workers, self._workers, self._size = self._workers, [], 0
            alarm, self._alarm = self._alarm, None
            last, self._last = self._last, None
            kept = list(self._kept)
        if alarm is not None:
            alarm.close()
        for _ in workers:
            self._ready.put(None)
        deadline = time.monotonic() + _GRACE
        for thread in [*workers, *kept]:
            thread.join(max(0.0, deadline - time.monotonic()))
        if last is not None:
            last.join()
        self._workers = [thread for thread in workers if thread.is_alive()]
        return [thread.name for thread in [*workers, *kept] if thread.is_alive()]

    def _dedicate(self, life: Life | None) -> None:
        """The body of an actor's own thread. Its last act is to join the one that ended before."""
        thread = threading.current_thread()
        while life is not None:
            cell = here.cell = life.cell
            thread.name = cell.name
            cell.thread = thread
            while (wait := life.step()) != DONE:
                if wait != NOW:
                    life.sleep(wait)
            here.cell = None
            life = self._bequeath(cell)
        with self._lock:
            previous, self._last = self._last, thread
            self._kept.discard(thread)
        if previous is not None:
            previous.join()

    def _bequeath(self, cell: Cell) -> Life | None:
        """Let the supervisor of an actor that has ended do its work; who gets the thread next."""
        here.vacant = True
        try:
            cell.release_parent()
        finally:
            here.vacant = False
        heir, here.heir = here.heir, None
        if heir is not None:
            with self._lock:
                self._kept.discard(threading.current_thread())
        return heir

    def reclaim(self, life: Life) -> None:
        """See `Runtime`."""
        mailbox = life.cell.mailbox
        if mailbox.owner == get_ident():
            mailbox.owner = 0
            self._schedule(life)

    def _schedule(self, life: Life) -> None:
        self._ready.put(life)
        self._hire()

    def _hire(self) -> None:
        if len(self._workers) >= self._size:
            return
        with self._lock:
            number = len(self._workers)
            if number < self._size:
                worker = threading.Thread(target=self._work, name=f"actors-{number}", daemon=False)
                worker.start()
                self._workers.append(worker)

    def _work(self) -> None:
        while (life := self._ready.get()) is not None:
            self._run(life, None)

    def _run(self, life: Life, until: Future | None) -> None:
        """Steps of a pooled life that is ours, until it rests or others are to have a turn."""
        outer, mailbox = here.cell, life.cell.mailbox
        before, ident = None, 0
        try:
            ident = get_ident()
            mailbox.owner = ident
            here.cell = life.cell
            before = self._at_work.get(ident)
            self._at_work[ident] = life.cell
            for _ in range(_TURNS):
                wait = life.step()
                if wait == DONE:
                    mailbox.owner = 0
                    life.cell.release_parent()
                    return
                if wait != NOW:
                    if wait != FOREVER:
                        self._wake_within(life, wait)
                    if life.rest():
                        return
                elif until is not None and until.settled:
                    break
            self._hire()
            mailbox.owner = 0
            self._ready.put(life)
        except BaseException:
            self.reclaim(life)
            raise
        finally:
            here.cell = outer
            self._at_work[ident] = before

    def _wake_within(self, life: Life, seconds: float) -> None:
        when = self.now() + seconds
        if life.alarm <= when and life.alarm > self.now():
            return  # it will be woken before that, and will then say again when
        life.alarm = when
        alarm = self._alarm
        if alarm is None:
            with self._lock:
                if self._alarm is None:
                    self._alarm = _Alarm(self.now)
                alarm = self._alarm
        alarm.add(when, life.cell)


class _Alarm:
    """One thread that pokes each actor when its time has come. It keeps none that has ended."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._heap: list[tuple[float, int, weakref.ref[Cell]]] = []
        self._count = 0
        self._closed = False
        self._condition = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="actors-alarm", daemon=False)
        self._thread.start()

    def add(self, when: float, cell: Cell) -> None:
        with self._condition:
            first = not self._heap or when < self._heap[0][0]
            self._count += 1
            heapq.heappush(self._heap, (when, self._count, weakref.ref(cell)))
            if first:
                self._condition.notify()

    def close(self) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify()
        self._thread.join()

    def _watch(self) -> None:
        while (due := self._next()) is not None:
            if (cell := due()) is not None:
                cell.mailbox.poke()
            del cell

    def _next(self) -> weakref.ref[Cell] | None:
        """Whose time comes first, when it has come; None at the end."""
        with self._condition:
            while not self._closed:
                left = self._heap[0][0] - self._now() if self._heap else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._heap)[2]
                self._condition.wait(left)
        return None
