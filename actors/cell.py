"""One actor as the rest of the world sees it: its name, its mailbox, its place in the tree, its
end.

The cell is what a `Ref` points to. It outlives the actor, and everything here may be called from
any thread; what happens where the actor runs is in life.py.

Rules: `report` is the one place where an actor ends for others, and only its first call counts.
The mailbox is closed before that, so nobody who has seen the report can still send. A start that
fails is reported to the starter alone (StartFailed) and to monitors, unless the starter did not
wait for it (`announces`): then its parent gets a `Started` or an `Exit`.

Who wakes whom: `report` and `born` release the starter; `finish`, the last act of the actor,
releases `stop` and `wait`; the report of a child pokes its parent, which may be waiting for it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from _thread import allocate_lock
from typing import TYPE_CHECKING, Any

from actors.codec import Packet, encode
from actors.errors import (
    ActorDead,
    ActorError,
    MailboxFull,
    StopTimeout,
    UnknownRef,
    WouldBlock,
)
from actors.future import Future
from actors.here import here
from actors.mailbox import ACCEPTED, CLAIMED, CLOSED, FULL, Envelope, Mailbox, Verdict
from actors.message import Message
from actors.ref import Ref
from actors.runtime import Lock, acquire_within
from actors.signals import KILLED, Down, Exit, ExitReason, Shutdown, Started

if TYPE_CHECKING:
    from actors.actor import Actor
    from actors.life import Life
    from actors.system import System

logger = logging.getLogger("actors")

_SHUTDOWN = encode(Shutdown()).payload  # stopping must work whatever else does not


class Cell:
    """``identity``: 16 bytes, unique. ``shutdown``: seconds that its parent gives it to end."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_links",
        "_lock",
        "_parent_is_claimed",
        "_waiters",
        "_watchers",
        "actor_class",
        "announces",
        "born_at",
        "cause",
        "children",
        "handled",
        "identity",
        "life",
        "mailbox",
        "name",
        "parent",
        "pending",
        "pooled",
        "reason",
        "registered",
        "restarts",
        "shutdown",
        "started",
        "stoppers",
        "system",
        "thread",
        "trace",
    )

    def __init__(
        self,
        system: System,
        identity: bytes,
        name: str,
        actor_class: type[Actor],
        parent: Cell | None,
        shutdown: float | None,
    ) -> None:
        self.system = system
        self.identity = identity
        self.name = name
        self.actor_class = actor_class
        self.pooled = actor_class.pooled
        self.parent = parent
        self.shutdown = shutdown
        self.mailbox = Mailbox(actor_class.mailbox_count, actor_class.mailbox_bytes)
        self.life: Life | None = None  # as long as it has not ended
        self.children: dict[Cell, None] = {}  # in the order of their start
        self.pending: dict[Future, None] = {}  # asks that it has taken and will answer later
        self.stoppers: list[Future] | None = None  # pykka's stop(): answered when it has ended
        self.thread: threading.Thread | None = None  # its own, if it has one
        self.reason: ExitReason | None = None
        self.started = False
        self.announces = False
        self.registered = False
        self.restarts = 0  # how often its supervisor has started its predecessors again
        self.born_at = system.now()
        self.handled = 0  # messages
        self.trace = 0  # of the message in hand
        self.cause: BaseException | None = None  # of a failed start, until it has been raised
        self._ended = False
        self._parent_is_claimed = False
        self._waiters: list[tuple[bool, Lock]] | None = None  # (for the end, what to release)
        self._watchers: list[tuple[Cell, int]] | None = None
        self._links: dict[Cell, None] | None = None
        self._lock = allocate_lock()

    # --- sending ----------------------------------------------------------------------------------

    def tell(
        self,
        message: Message,
        control: bool = False,
        reply_to: Cell | None = None,
        patience: float | None = None,
    ) -> None:
        """See `Ref.tell`. ``patience``: seconds to wait for room; what its class says if None."""
        packet = encode(message)
        if packet.refs:
            self.check(packet)
        system = self.system
        sender = here.cell
        trace = system.next_trace() if sender is None else sender.trace
        envelope = Envelope(message.__kind__, packet, None, reply_to or sender, trace)
        if system.simulation is not None and not control:
            for copy in system.simulation.on_tell(self, message, envelope):
                self.deliver(copy, patience=patience)
            return
        mailbox = self.mailbox
        verdict = mailbox.put_control(envelope) if control else mailbox.put(envelope)
        if verdict is not ACCEPTED:
            self._not_accepted(envelope, verdict, patience)

    def deliver(
        self, envelope: Envelope, control: bool = False, patience: float | None = None
    ) -> None:
        """Queue a tell that is packed already, or account for it. Raises MailboxFull."""
        mailbox = self.mailbox
        verdict = mailbox.put_control(envelope) if control else mailbox.put(envelope)
        if verdict is not ACCEPTED:
            self._not_accepted(envelope, verdict, patience)

    def ask(
        self,
        message: Message,
        timeout: float,
        *,
        waits: bool = True,
        patience: float | None = None,
    ) -> Future:
        """See `Ref.ask`. ``waits``: the caller will do nothing else before it has the answer.

        ``patience``: seconds that it waits for room; ``timeout`` unless given.
        """
        system = self.system
        asker = here.cell
        if waits and asker is not None:
            if asker is self:
                raise ActorError(f"{self.name} asks itself, and would wait for ever")
            asker.may_block(f"asks {self.name}")
        future = Future(self.name, system.now() + timeout, system, system.runtime, self)
        patience = timeout if patience is None else patience
        self.post(message, future, claim=waits and self.pooled, patience=patience)
        return future

    def post(
        self, message: Message, future: Future | None, claim: bool = False, patience: float = 0.0
    ) -> None:
        """Queue it with the future to answer. Raises MailboxFull, MessageError.

        ``claim``: if the actor rests, run it here and now, until the future is settled. Whoever
        waits for an answer may as well work for it: that saves two changes of threads.
        """
        packet = encode(message)
        if packet.refs:
            self.check(packet)
        system = self.system
        sender = here.cell
        trace = system.next_trace() if sender is None else sender.trace
        envelope = Envelope(message.__kind__, packet, future, sender, trace)
        if system.simulation is not None:
            claim = False
            system.simulation.on_ask(self, message)
        try:
            verdict = self.mailbox.put(envelope, claim)
            if verdict is CLAIMED:
                assert self.life is not None
                system.runtime.lend(self.life, future)
        except BaseException:
            self._reclaim(claim)
            raise
        if verdict is not ACCEPTED and verdict is not CLAIMED:
            self._not_accepted(envelope, verdict, patience)

    def pack(self, message: Message) -> Packet:
        """The packet for this actor. Raises MessageError, also for a Ref of another system."""
        packet = encode(message)
        self.check(packet)
        return packet

    def check(self, packet: Packet) -> None:
        """Raises UnknownRef, and closes the packet, if it holds a Ref of another system."""
        for ref in packet.refs:
            if ref.system is not self.system:
                packet.close()
                raise UnknownRef(f"{ref.name} is of another system than {self.name}")

    def refuse(self, envelope: Envelope, why: str = "dead") -> None:
        """Account for what a closed mailbox did not take, or had left."""
        envelope.packet.close()
        if envelope.future is not None:
            envelope.future.settle(None, self._dead())
        elif envelope.kind != Shutdown.__kind__:
            self.system.dead_letters.add(envelope.kind, self, envelope.sender, why)

    def _not_accepted(self, envelope: Envelope, verdict: Verdict, patience: float | None) -> None:
        """Do what the actor's class says about a full mailbox. Raises MailboxFull."""
        policy = self.actor_class.mailbox_policy
        mailbox = self.mailbox
        if policy == "drop_oldest":
            while verdict is FULL and mailbox.can_have_room(envelope, beside_stash=True):
                if (oldest := mailbox.drop_oldest()) is not None:  # else it was taken just now
                    self._dropped(oldest)
                verdict = mailbox.put(envelope)
        elif (
            policy == "block"
            and not (here.cell is self or (here.cell is not None and here.cell.pooled))
            and mailbox.can_have_room(envelope, beside_stash=False)
        ):
            runtime = self.system.runtime
            longest = self.actor_class.mailbox_patience
            deadline = runtime.now() + (longest if patience is None else min(patience, longest))
            lock = runtime.lock(f"room in the mailbox of {self.name}")
            lock.acquire()
            while (verdict := mailbox.put_or_wait(envelope, lock)) is FULL:
                if not acquire_within(lock, deadline - runtime.now()):
                    mailbox.give_up(lock)
                    break
        if verdict is FULL:
            envelope.packet.close()
            raise MailboxFull(
                f"the mailbox of {self.name} is full: {mailbox.depth} messages, "
                f"{mailbox.bytes} bytes"
            )
        if verdict is CLOSED:
            self.refuse(envelope)

    def _dropped(self, envelope: Envelope) -> None:
        envelope.packet.close()
        if envelope.future is not None:
            envelope.future.settle(None, MailboxFull(f"{self.name} dropped it for a newer message"))
        self.system.dead_letters.add(envelope.kind, self, envelope.sender, "overflow")

    # --- ending -----------------------------------------------------------------------------------

    def request_shutdown(
        self,
        future: Future | None = None,
        *,
        drain: bool = False,
        reason: ExitReason | None = None,
        claim: bool = False,
    ) -> None:
        """Have it end in order, and do not wait. ``drain``: after what is queued by now.

        ``claim``: as for `post`, for a caller who will wait for the end however long it takes.
        """
        if drain:
            self.mailbox.drain()
        plain = not drain and reason is None
        packet = Packet(_SHUTDOWN) if plain else encode(Shutdown(drain, reason))
        envelope = Envelope(Shutdown.__kind__, packet, future)
        claim = claim and self.pooled and self.system.simulation is None
        try:
            verdict = self.mailbox.put_control(envelope, claim)
            if verdict is CLAIMED:
                assert self.life is not None
                self.system.runtime.lend(self.life, None)
        except BaseException:
            self._reclaim(claim)
            raise
        if verdict is CLOSED:
            self.refuse(envelope)

    def _reclaim(self, claim: bool) -> None:
        """Ctrl-C has hit whoever has claimed it, perhaps before it was run."""
        if claim and self.life is not None:
            self.system.runtime.reclaim(self.life)

    def stop(self, timeout: float | None, *, drain: bool = False) -> None:
        """See `Ref.stop`."""
        waits = not self.is_above(here.cell)
        if waits and here.cell is not None:
            here.cell.may_block(f"stops {self.name}")
        self.request_shutdown(drain=drain, claim=waits and timeout is None)
        if waits and not self.ends_within(timeout):
            raise StopTimeout(f"{self.name} has not ended within {timeout} s")

    def end(self, timeout: float | None) -> None:
        """End it in order, or by force after ``timeout`` seconds (None: never; 0: at once)."""
        if timeout != 0:
            self.request_shutdown(claim=timeout is None)
            if self.ends_within(timeout):
                return
        self.kill()

    def kill(self) -> None:
        """See `Ref.kill`."""
        self.close()
        self.fail_pending()
        self.report(KILLED)
        for child in reversed(list(self.children)):
            child.request_shutdown()

    def ends_within(self, timeout: float | None) -> bool:
        """Wait until it has ended, and its thread is joined unless that has more to do."""
        if not self._wait_for(end=True, timeout=timeout):
            return False
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()  # it has done its last act
        return True

    def is_above(self, cell: Cell | None) -> bool:
        """Whether ``cell`` is this actor, or one under it."""
        while cell is not None and cell is not self:
            cell = cell.parent
        return cell is self

    def may_block(self, what: str) -> None:
        """Raises WouldBlock if this actor, which ``what`` is about to wait, shares its thread."""
        if self.pooled:
            raise WouldBlock(
                f"{self.name} {what}, and would wait, but shares its thread with others: "
                f"tell instead, or set `pooled = False` on {self.actor_class.__name__}"
            )

    def close(self) -> None:
        """Take no more messages, and answer or count all that were accepted but not handled."""
        left, current = self.mailbox.close()
        for envelope in left:
            if envelope.kind == Shutdown.__kind__ and envelope.future is not None:
                self.add_stopper(envelope.future)
            else:
                self.refuse(envelope)
        if current is not None and current.future is not None:
            self.pending[current.future] = None

    def add_stopper(self, future: Future) -> None:
        """Settle ``future`` when the actor has ended."""
        with self._lock:
            if not self._ended:
                self.stoppers = [*(self.stoppers or ()), future]
                return
        future.settle(None)

    def fail_pending(self) -> None:
        """Nobody will answer the asks that the actor had taken."""
        for future in list(self.pending):
            future.settle(None, self._dead())
        self.pending.clear()

    def finish(self) -> None:
        """The last act of the actor itself: release whoever waits for its end."""
        if self._parent_is_claimed:
            self.thread = None  # it may go on for another actor: nobody may join it
        self.life = None
        with self._lock:
            self._ended = True
            waiters, self._waiters = self._waiters, None
            stoppers, self.stoppers = self.stoppers, None
        for future in stoppers or ():
            future.settle(None)
        for _, lock in waiters or ():
            lock.release()

    # --- reports ----------------------------------------------------------------------------------

    def born(self) -> bool:
        """`on_start` has ended well. False if the actor was killed meanwhile."""
        with self._lock:
            self.started = self.reason is None
        self._release_starters()
        if self.started and self.announces:
            self._tell_parent(Started(Ref(self), self.name))
        return self.started

    def wait_until_born(self) -> bool:
        """Whether it started; else `reason` says why not."""
        self._wait_for(end=False, timeout=None)
        return self.started

    def report(self, reason: ExitReason, claim: bool = False) -> bool:
        """The actor has ended: tell parent, monitors, links and log. False if that was done.

        ``claim``: if the parent is pooled and rests, it is the caller's to run (`release_parent`),
        who has nothing better to do: that saves the restart of this actor a change of threads.
        """
        with self._lock:
            if self.reason is not None:
                return False
            self.reason = reason
            watchers, self._watchers = self._watchers, None
            links, self._links = self._links, None
        if self.registered:
            self.system.forget_name(self)
        if (simulation := self.system.simulation) is not None:
            simulation.on_end(self, reason)
        parent = self.parent
        if parent is not None:
            parent.children.pop(self, None)
        if self.started and reason.kind == "error":
            trace = f"\n{reason.traceback}" if reason.traceback else ""
            logger.error("%s has failed: %s%s", self.name, reason, trace)
        if self.started or self.announces:
            self._tell_parent(Exit(Ref(self), self.name, reason), claim)
        if parent is not None:
            parent.mailbox.poke()
        self._release_starters()
        for watcher, monitor in watchers or ():
            self._down(watcher, monitor)
        for other in links or ():
            other.unlink(self)
            other.linked_end(self, reason)
        return True

    def monitor(self, watcher: Cell, monitor: int) -> None:
        """Tell ``watcher`` when this actor has ended; at once if it has."""
        with self._lock:
            if self.reason is None:
                if self._watchers is None:
                    self._watchers = []
                self._watchers.append((watcher, monitor))
                return
        self._down(watcher, monitor)

    def demonitor(self, watcher: Cell, monitor: int) -> None:
        """Do not tell it; nothing if it has been told already."""
        with self._lock, contextlib.suppress(ValueError):
            if self._watchers is not None:
                self._watchers.remove((watcher, monitor))

    def link(self, other: Cell) -> bool:
        """One half of a link. False if this actor has ended already."""
        with self._lock:
            if self.reason is not None:
                return False
            if self._links is None:
                self._links = {}
            self._links[other] = None
            return True

    def unlink(self, other: Cell) -> None:
        """One half of it; nothing if there is no link."""
        with self._lock:
            if self._links is not None:
                self._links.pop(other, None)

    def linked_end(self, other: Cell, reason: ExitReason) -> None:
        """``other``, to which this actor was linked, has ended."""
        if self.actor_class.traps_exits:
            self.tell(Exit(Ref(other), other.name, reason), control=True)
        elif reason.kind == "shutdown":
            self.request_shutdown()
        elif reason.failed:
            text = f"linked to {other.name}, which ended: {reason}"
            self.request_shutdown(reason=ExitReason("error", "LinkedExit", text, reason.traceback))

    def release_parent(self) -> None:
        """Run the parent, if `report` has claimed it: the runtime's last act for this actor."""
        if self._parent_is_claimed:
            self._parent_is_claimed = False
            assert self.parent is not None
            assert self.parent.life is not None
            self.system.runtime.lend(self.parent.life, None)

    def _tell_parent(self, message: Message, claim: bool = False) -> None:
        parent = self.parent
        if parent is None or parent.mailbox.closed:  # it waits for us by itself
            return
        envelope = Envelope(message.__kind__, encode(message), None, self, self.trace)
        claim = claim and parent.pooled and self.system.simulation is None
        verdict = parent.mailbox.put_control(envelope, claim)
        self._parent_is_claimed = verdict is CLAIMED
        if verdict is CLOSED:
            parent.refuse(envelope)

    def _down(self, watcher: Cell, monitor: int) -> None:
        assert self.reason is not None
        watcher.tell(Down(Ref(self), self.name, self.reason, monitor), control=True)

    def _dead(self) -> ActorDead:
        return ActorDead(f"{self.name} has ended ({self.reason or 'it is ending'})")

    def exit_report(self) -> Exit:
        """What its parent was or would have been told. The actor must have ended."""
        assert self.reason is not None
        return Exit(Ref(self), self.name, self.reason)

    # --- waiting ----------------------------------------------------------------------------------

    def _reached(self, *, end: bool) -> bool:
        return self._ended if end else self.started or self.reason is not None

    def _wait_for(self, *, end: bool, timeout: float | None) -> bool:
        if self._reached(end=end):
            return True
        if here.cell is not None:
            here.cell.may_block(f"waits for the {'end' if end else 'start'} of {self.name}")
        lock: Any = self.system.runtime.lock(f"the {'end' if end else 'start'} of {self.name}")
        lock.acquire()
        with self._lock:
            if self._reached(end=end):
                return True
            if self._waiters is None:
                self._waiters = []
            self._waiters.append((end, lock))
        return acquire_within(lock, timeout) or self._reached(end=end)

    def _release_starters(self) -> None:
        if self._waiters is None:
            return
        with self._lock:
            waiters = self._waiters or []
            self._waiters = [waiter for waiter in waiters if waiter[0]]
        for end, lock in waiters:
            if not end:
                lock.release()
