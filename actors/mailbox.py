"""An actor's mailbox: two lanes, two bounds, and an end that leaves nothing unanswered.

The data lane is bounded by count and by bytes. The control lane has neither bound and is taken
first: a flood of data can neither delay it nor have it refused. `close` is atomic with `put`:
every envelope was either taken, or is in what `close` returns, or was refused with CLOSED. So the
closer can answer all that was ever accepted, including the one in hand (`current`) and those put
aside (`stash`), which count for the bounds until they are taken again.

Who wakes whom: one consumer takes. Before it rests it arms the mailbox; the first put, poke or
close after that disarms it and calls ``wake`` once, under the lock. A put with ``claim`` does not
call it: CLAIMED tells the putter that the consumer rests and is now the putter's to run; `owner` is
then its thread, so that it can be told whose the consumer is if that thread is interrupted.

Corner cases: a lane is None until something is in it, since most of very many actors are idle, and
an empty deque costs as much as the rest of an actor. Taking data needs no lock: one end of a deque
is the consumer's alone, and each `popleft` gives an envelope to one thread. Whoever closes takes
what is left in the same way; and a consumer which finds the mailbox closed after it has taken one
does not handle it, since the closer may have looked for `current` too early.
"""

from __future__ import annotations

import enum
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from actors.codec import Packet

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.future import Future


class Verdict(enum.Enum):
    """What became of a put."""

    ACCEPTED = "accepted"
    CLAIMED = "accepted, and the putter is to run the consumer"
    FULL = "full"
    CLOSED = "closed"


# An enum's members are found slowly (Python 3.11), and this is done for every message.
ACCEPTED, CLAIMED, FULL, CLOSED = Verdict


class Releasable(Protocol):
    """What a putter waits on when there is no room: a lock that it holds."""

    def release(self) -> None: ...


class Envelope:
    """A packet on its way: kind of message, who waits for an answer, who sent it and on what trace.

    ``sender``: the cell that an answer by tell goes to; None outside of actors.
    ``trace``: a number that all messages share which have the same cause.
    """

    __slots__ = ("future", "kind", "packet", "sender", "trace")

    def __init__(
        self,
        kind: str,
        packet: Packet,
        future: Future | None = None,
        sender: Cell | None = None,
        trace: int = 0,
    ) -> None:
        self.kind = kind
        self.packet = packet
        self.future = future
        self.sender = sender
        self.trace = trace


def _ignore() -> None:
    """The wake of a mailbox whose consumer has not come to life yet."""


class Mailbox:
    """At most ``count`` envelopes and ``size`` bytes of data. `put` from any thread."""

    __slots__ = (
        "_armed",
        "_bytes_in",
        "_bytes_out",
        "_count",
        "_lock",
        "_room",
        "_signal",
        "_size",
        "_stash",
        "closed",
        "control",
        "current",
        "data",
        "most",
        "owner",
        "refuses",
        "wake",
    )

    def __init__(self, count: int, size: int, wake: Callable[[], object] = _ignore) -> None:
        self.control: deque[Envelope] | None = None
        self.data: deque[Envelope] | None = None
        self.closed = False
        self.current: Envelope | None = None
        self.wake = wake  # replaced by the consumer, never while armed
        self.most = 0  # the largest number of data envelopes so far
        self.owner = 0  # ident of the thread that runs the consumer, if it shares threads
        self._stash: deque[Envelope] | None = None
        self._room: deque[Releasable] | None = None  # who waits for room, the first first
        self._count = count
        self._size = size
        self._bytes_in = 0  # ever put, written under the lock
        self._bytes_out = 0  # ever taken, written by the consumer
        self._armed = False
        self._signal = False  # something other than an envelope for the consumer to look at
        self.refuses = False  # data: it is closed, or drains
        self._lock = allocate_lock()

    @property
    def bytes(self) -> int:
        """Bytes of payload in the data lane and the stash."""
        return max(0, self._bytes_in - self._bytes_out)

    @property
    def depth(self) -> int:
        """Envelopes in the data lane and the stash."""
        return len(self.data or ()) + len(self._stash or ())

    def put(self, envelope: Envelope, claim: bool = False) -> Verdict:
        """Queue data, unless it is refused (CLOSED) or there is no room left (FULL)."""
        with self._lock:
            if self.refuses:
                return CLOSED
            data = self.data
            if data is None:
                data = self.data = deque()
            total = self._bytes_in + len(envelope.packet.payload)
            depth = len(data)
            if self._stash is not None:
                depth += len(self._stash)
            if depth >= self._count or total - self._bytes_out > self._size:
                return FULL
            self._bytes_in = total
            data.append(envelope)
            if depth >= self.most:
                self.most = depth + 1
            return self._end_rest(claim) if self._armed else ACCEPTED

    def put_control(self, envelope: Envelope, claim: bool = False) -> Verdict:
        """Queue control, unless the mailbox is closed."""
        with self._lock:
            if self.closed:
                return CLOSED
            if self.control is None:
                self.control = deque()
            self.control.append(envelope)
            return self._end_rest(claim) if self._armed else ACCEPTED

    def put_or_wait(self, envelope: Envelope, waiter: Releasable) -> Verdict:
        """Like `put`; if FULL, ``waiter`` is released once when there is room, or never will be."""
        with self._lock:
            if self._room is None:
                self._room = deque()
            self._room.append(waiter)
        verdict = self.put(envelope)  # after that, or room that is made meanwhile would be missed
        if verdict is not FULL:
            self.give_up(waiter)
        return verdict

    def poke(self) -> None:
        """Have the consumer look at what else has changed; also when the mailbox is closed."""
        with self._lock:
            self._rouse()

    def heed(self) -> None:
        """The consumer is about to look: pokes up to now are dealt with."""
        self._signal = False

    def take_control(self) -> Envelope | None:
        """The oldest control envelope; it is `current` until the consumer clears that."""
        with self._lock:
            if not self.control:
                return None
            self.current = self.control.popleft()
            if not self.control:
                self.control = None
            return self.current

    def take_data(self) -> Envelope | None:
        """The oldest data envelope; it is `current` until the consumer clears that."""
        data = self.data
        if not data:
            return None
        try:
            self.current = envelope = data.popleft()
        except IndexError:  # somebody has closed the mailbox, or has made room in it
            return None
        self._bytes_out += len(envelope.packet.payload)
        if self._room is not None:
            self._release_one()
        return envelope

    def drop_oldest(self) -> Envelope | None:
        """Take the oldest data envelope out, to make room; None if there is none."""
        with self._lock:
            try:
                envelope = self.data.popleft() if self.data else None
            except IndexError:  # the consumer has just taken it
                envelope = None
            if envelope is not None:
                self._bytes_in -= len(envelope.packet.payload)
            return envelope

    def can_have_room(self, envelope: Envelope, *, beside_stash: bool) -> bool:
        """Whether it would fit if no data were queued, and (unless ``beside_stash``) put aside."""
        with self._lock:
            stash = (self._stash or ()) if beside_stash else ()
            size = sum(len(other.packet.payload) for other in [envelope, *stash])
            return len(stash) < self._count and size <= self._size

    def give_up(self, waiter: Releasable) -> None:
        """Do not wait for room any more; if it had been promised the next one gets it."""
        with self._lock:
            if self._room is not None and waiter in self._room:
                self._room.remove(waiter)
                return
        self._release_one()

    def stash(self, envelope: Envelope) -> bool:
        """Put a data envelope aside until `unstash`. False, and not put, if it is closed."""
        with self._lock:
            if self.closed:
                return False
            if self._stash is None:
                self._stash = deque()
            self._stash.append(envelope)
            self._bytes_in += len(envelope.packet.payload)
            return True

    def unstash(self) -> int:
        """Back into the data lane, before all others, in their order; how many there were."""
        with self._lock:
            stashed, self._stash = self._stash, None
            if stashed is None:
                return 0
            if self.data is None:
                self.data = deque()
            self.data.extendleft(reversed(stashed))
            return len(stashed)

    def arm(self) -> bool:
        """Have the next put call ``wake``. False, and not armed, if there is no reason to rest."""
        with self._lock:
            if self.control or self._signal or self.data:
                return False
            self._armed = True
            self.owner = 0
            return True

    def arm_control(self) -> bool:
        """Like `arm`, for a consumer that takes no data yet: it is no reason to stay awake."""
        with self._lock:
            if self.control or self._signal:
                return False
            self._armed = True
            self.owner = 0
            return True

    def disarm(self) -> bool:
        """Back from sleep. False if ``wake`` was called meanwhile, or there was no sleep."""
        with self._lock:
            armed, self._armed = self._armed, False
            return armed

    def drain(self) -> None:
        """Refuse data from now on; what is queued stays, and control still comes in."""
        with self._lock:
            self.refuses = True
            self._release_all()

    def close(self) -> tuple[list[Envelope], Envelope | None]:
        """Refuse all from now on. What was queued (control first), and the one in hand."""
        with self._lock:
            self.closed = self.refuses = True
            left = [*(self.control or ()), *(self._stash or ())]
            while self.data:
                try:
                    left.append(self.data.popleft())
                except IndexError:  # the consumer has taken the last one
                    break
            self.control = self._stash = None
            self._bytes_in = self._bytes_out
            self._release_all()
            self._rouse()
            return left, self.current

    def _end_rest(self, claim: bool) -> Verdict:
        """The consumer rested: it is the putter's from now on, or is woken."""
        if claim:
            ident = get_ident()
            self._armed = False
            self.owner = ident
            return CLAIMED
        self._armed = False
        self.wake()
        return ACCEPTED

    def _rouse(self) -> None:
        self._signal = True
        if self._armed:
            self._armed = False
            self.wake()

    def _release_one(self) -> None:
        with self._lock:
            if self._room:
                self._room.popleft().release()

    def _release_all(self) -> None:
        waiting, self._room = self._room, None
        for waiter in waiting or ():
            waiter.release()
