"""How the callers of a channel wait: they lead, follow, spin or poll.

Of the threads that are in `FrontEnd.call` the first becomes the leader, which sleeps on the
channel's eventfd and reaps for all; the others follow: they sleep on locks of their own. When the
leader has what it waits for it wakes the first follower to lead, who hands that on if it has no use
for it. A request's answer therefore costs its caller one wake-up.

A caller that spins looks at the ring itself before it sleeps, without asking to be signalled: the
answer then costs no wake-up at all. That pays if answers come within the spin's time, so there is
credit for it, which every spin that was worth it raises and every other one lowers; without credit
one call in a few tries again. Between two looks it lets go of the GIL and of the processor.

Corner cases:
- An event loop that begins to drive the channel waits until whoever leads has gone (`take_over`).
- In a simulation nobody spins or polls (``spin`` is None): nothing would move meanwhile. Who drives
  the channel must not call at all there.
- Who spins or polls is no follower, and takes the answers of those who are; so to be woken to lead
  and to have one's own answer may come together.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Protocol

from actors import Lock, Runtime

_MOST_CREDIT = 8
_TRY_AGAIN = 16  # calls without credit


class Awaited(Protocol):
    """What is waited for."""

    def look(self, *, arm: bool) -> None:
        """Take what has come; ``arm``: ask to be signalled at the next."""

    def clear(self) -> None:
        """The leader was woken: what woke it is not needed any more."""

    def rouse(self, waiter: Lock) -> None:
        """`wake` it, under the channel's lock."""


class Waiting:
    """The callers of one channel.

    Args:
        fd: the channel's eventfd.
        spin: seconds of a spin at most; 0: never; None: who polls sleeps, too.

    Attributes:
        driven: somebody else reaps, so callers do not.
        polls: nobody sleeps who polls.
    """

    def __init__(
        self, channel: Awaited, runtime: Runtime, fd: int, what: str, spin: float | None
    ) -> None:
        self.driven = False
        self._channel = channel
        self._runtime = runtime
        self._what = what
        self._leads = runtime.readable(fd, what)
        self._leader = runtime.lock(f"who leads for {what}")
        self._leading: int | None = None  # his thread
        self._book = threading.Lock()  # around the next one, for a moment
        self._followers: dict[Lock, None] = {}  # in the order of their coming
        self._spin = spin
        self.polls = spin is not None
        self._credit = _MOST_CREDIT
        self._since = 0  # calls without credit, since one was tried

    def waiter(self) -> Lock:
        """What a caller sleeps on while somebody else leads; `wake` lets it go on."""
        waiter = self._runtime.lock(self._what)
        waiter.acquire()
        return waiter

    def sleep(self, done: Callable[[], bool], waiter: Lock, deadline: float | None) -> bool:
        """Until it is done, woken by ``waiter`` or leading. False: the deadline came first."""
        called = False  # to lead, and did not
        try:
            while not done():
                if not self.driven and self._leader.acquire(blocking=False):
                    called = False
                    self._leading = threading.get_ident()
                    try:
                        in_time = self._lead(done, deadline)
                    finally:
                        self._leading = None
                        self._leader.release()
                        self._promote()
                else:
                    with self._book:
                        self._followers[waiter] = None
                    # A leader that left before that has promoted nobody.
                    alone = not (self.driven or self._leader.locked())
                    in_time = alone or waiter.acquire(timeout=self._left(deadline))
                    with self._book:
                        called |= self._followers.pop(waiter, waiter) is waiter
                if not in_time:
                    return done()
            return True
        finally:
            if called:
                self._promote()

    def spin(self, done: Callable[[], bool]) -> bool:
        """Look for a moment, if that has paid lately; whether it is done."""
        if not self._spin:
            return False
        if not self._credit:
            self._since += 1
            if self._since < _TRY_AGAIN:
                return False
            self._since = 0
        worth = self.poll(done, self._runtime.now() + self._spin)
        self._credit = min(_MOST_CREDIT, max(0, self._credit + (1 if worth else -1)))
        return worth

    def poll(self, done: Callable[[], bool], deadline: float | None) -> bool:
        """Look until it is done. False: the deadline came first."""
        end = math.inf if deadline is None else deadline
        look, now = self._channel.look, self._runtime.now
        while True:
            look(arm=False)
            if done():
                return True
            if now() >= end:
                return False
            os.sched_yield()

    def take_over(self, rouse: Callable[[], object]) -> None:
        """Somebody else reaps from now on; ``rouse`` makes the eventfd readable.

        Whoever leads has gone when this returns: he sees that he was roused as long as nobody else
        takes events, and would sleep on with his answer there if the driver took that one.
        """
        self.driven = True
        rouse()
        if self._leading != threading.get_ident():  # else a callback does this, which he calls
            with self._leader:
                pass

    def give_back(self) -> None:
        """Nobody else reaps any more."""
        self.driven = False
        self._promote()

    def _lead(self, done: Callable[[], bool], deadline: float | None) -> bool:
        while True:
            self._channel.look(arm=True)
            if done() or self.driven:
                return True
            if not self._leads.wait(None if deadline is None else self._left(deadline)):
                return False
            self._channel.clear()
            self._channel.look(arm=False)
            if done():  # mostly; who leads next asks for the next signal himself
                return True

    def _promote(self) -> None:
        """The first follower is to lead."""
        with self._book:
            waiter = next(iter(self._followers), None)
            if waiter is not None:
                del self._followers[waiter]
        if waiter is not None:
            self._channel.rouse(waiter)

    def _left(self, deadline: float | None) -> float:
        """Seconds; -1 without a deadline."""
        return -1 if deadline is None else max(0.0, deadline - self._runtime.now())


def wake(waiter: Lock) -> None:
    """Under the channel's lock: let who waits go on, now or when he comes to wait."""
    if waiter.locked():
        waiter.release()
