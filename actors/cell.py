"""One actor as the rest of the world sees it: its name, its mailbox, its place in the tree, its
end.

The cell is what a `Ref` points to. It outlives the actor, and everything here may be called from
any thread; what happens in the actor's own thread is in life.py.

Rules: `report` is the one place where an actor ends for others, and only its first call counts.
The mailbox is closed before that, so nobody who has seen the report can still send. A start that
fails is reported to the starter alone (StartFailed) and to monitors, not as an `Exit` to the
parent as well.

Who wakes whom: `report` and `born` release the starter; the thread's end releases `stop` and
`wait`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from actors.codec import Packet, encode
from actors.errors import (
    ActorDead,
    ActorError,
    MailboxFull,
    StopTimeout,
    UnknownRef,
)
from actors.future import Future
from actors.mailbox import Envelope, Mailbox, Verdict
from actors.message import Message
from actors.ref import Ref
from actors.signals import KILLED, Down, Exit, ExitReason, Shutdown

if TYPE_CHECKING:
    from actors.actor import Actor
    from actors.life import Life
    from actors.system import System

logger = logging.getLogger("actors")


class _Here(threading.local):
    """Which actor the current thread runs, if any; and which life is making its actor just now."""

    cell: Cell | None = None
    birth: Life | None = None


here = _Here()


class Cell:
    """``identity``: 16 bytes, unique. ``shutdown``: seconds that its parent gives it to end."""

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
        self.parent = parent
        self.shutdown = shutdown
        self.sleeper = system.new_sleeper()
        self.mailbox = Mailbox(
            actor_class.mailbox_count, actor_class.mailbox_bytes, self.sleeper.wake
        )
        self.children: dict[Cell, None] = {}  # in the order of their start
        self.pending: set[Future] = set()  # asks that the actor has taken and will answer later
        self.stoppers: list[Future] = []  # pykka's stop(): answered when the actor has ended
        self.thread: threading.Thread
        self.reason: ExitReason | None = None
        self.started = False
        self.cause: BaseException | None = None  # of a failed start, until it has been raised
        self._birth = threading.Event()
        self._stopped: threading.Event | None = None  # pykka's flag
        self._watchers: list[Cell] = []
        self._lock = threading.Lock()

    # --- sending ----------------------------------------------------------------------------------

    def tell(self, message: Message, *, control: bool = False) -> None:
        """See `Ref.tell`."""
        envelope = Envelope(message.__kind__, self.pack(message))
        match self.mailbox.put(envelope, control):
            case Verdict.FULL:
                envelope.packet.close()
                raise self._full()
            case Verdict.CLOSED:
                self.refuse(envelope)

    def ask(self, message: Message, timeout: float, *, waits: bool = True) -> Future:
        """See `Ref.ask`. ``waits``: the caller will do nothing else before it has the answer."""
        if waits and here.cell is self:
            raise ActorError(f"{self.name} asks itself, and would wait for ever")
        system = self.system
        future = Future(self.name, system.now() + timeout, system, system.now)
        self.post(message, future)
        return future

    def post(self, message: Message, future: Future | None) -> None:
        """Queue it with the future to answer. Raises MailboxFull, MessageError."""
        envelope = Envelope(message.__kind__, self.pack(message), future)
        match self.mailbox.put(envelope):
            case Verdict.FULL:
                envelope.packet.close()
                raise self._full()
            case Verdict.CLOSED:
                self.refuse(envelope)

    def pack(self, message: Message) -> Packet:
        """The packet for this actor. Raises MessageError, also for a Ref of another system."""
        packet = encode(message)
        for ref in packet.refs:
            if ref.cell.system is not self.system:
                packet.close()
                raise UnknownRef(f"{ref.name} is of another system than {self.name}")
        return packet

    def refuse(self, envelope: Envelope) -> None:
        """Account for what a closed mailbox did not take, or had left."""
        envelope.packet.close()
        if envelope.future is not None:
            envelope.future.settle(None, self._dead())
        elif envelope.kind != Shutdown.__kind__:
            self.system.dead_letters.count(envelope.kind)

    # --- ending -----------------------------------------------------------------------------------

    def request_shutdown(self, future: Future | None = None) -> None:
        """Have it end in order, and do not wait."""
        envelope = Envelope(Shutdown.__kind__, encode(Shutdown()), future)
        if self.mailbox.put(envelope, control=True) is Verdict.CLOSED:
            self.refuse(envelope)

    def stop(self, timeout: float | None) -> None:
        """See `Ref.stop`."""
        self.request_shutdown()
        if not self.is_above(here.cell) and not self.ends_within(timeout):
            raise StopTimeout(f"{self.name} has not ended within {timeout} s")

    def end(self, timeout: float | None) -> None:
        """End it in order, or by force after ``timeout`` seconds (None: never; 0: at once)."""
        if timeout != 0:
            self.request_shutdown()
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
        """Wait until its thread has ended, at most ``timeout`` seconds (None: however long)."""
        self.thread.join(None if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX))
        return not self.thread.is_alive()

    def is_above(self, cell: Cell | None) -> bool:
        """Whether ``cell`` is this actor, or one under it."""
        while cell is not None and cell is not self:
            cell = cell.parent
        return cell is self

    def close(self) -> None:
        """Take no more messages, and answer or count all that were accepted but not handled."""
        left, current = self.mailbox.close()
        if self._stopped is not None:
            self._stopped.set()
        for envelope in left:
            if envelope.kind == Shutdown.__kind__ and envelope.future is not None:
                self.stoppers.append(envelope.future)
            else:
                self.refuse(envelope)
        if current is not None and current.future is not None:
            self.pending.add(current.future)

    def fail_pending(self) -> None:
        """Nobody will answer the asks that the actor had taken."""
        for future in list(self.pending):
            future.settle(None, self._dead())
        self.pending.clear()

    # --- reports ----------------------------------------------------------------------------------

    def born(self) -> bool:
        """`on_start` has ended well. False if the actor was killed meanwhile."""
        with self._lock:
            self.started = self.reason is None
        self._birth.set()
        return self.started

    def wait_until_born(self) -> bool:
        """Whether it started; else `reason` says why not."""
        self._birth.wait()
        return self.started

    def report(self, reason: ExitReason) -> bool:
        """The actor has ended: tell parent, monitors and log. False if that was done."""
        with self._lock:
            if self.reason is not None:
                return False
            self.reason = reason
            watchers, self._watchers = self._watchers, []
        parent = self.parent
        if parent is not None:
            parent.children.pop(self, None)
        if self.started:
            if reason.kind == "error":
                trace = f"\n{reason.traceback}" if reason.traceback else ""
                logger.error("%s has failed: %s%s", self.name, reason, trace)
            if parent is not None and not parent.mailbox.closed:  # else it waits for us by itself
                parent.tell(Exit(Ref(self), self.name, reason), control=True)
        self._birth.set()
        for watcher in watchers:
            self._down(watcher)
        return True

    def monitor(self, watcher: Cell) -> None:
        """Tell ``watcher`` when this actor has ended; at once if it has."""
        with self._lock:
            if self.reason is None:
                self._watchers.append(watcher)
                return
        self._down(watcher)

    def bind(self, stopped: threading.Event) -> None:
        """Keep pykka's flag in step."""
        self._stopped = stopped
        if self.mailbox.closed:
            stopped.set()

    def _down(self, watcher: Cell) -> None:
        assert self.reason is not None
        watcher.tell(Down(Ref(self), self.name, self.reason), control=True)

    def _dead(self) -> ActorDead:
        return ActorDead(f"{self.name} has ended ({self.reason or 'it is ending'})")

    def _full(self) -> MailboxFull:
        mailbox = self.mailbox
        return MailboxFull(
            f"the mailbox of {self.name} is full: {len(mailbox.data)} messages, "
            f"{mailbox.bytes} bytes"
        )

    def exit_report(self) -> Exit:
        """What its parent was or would have been told. The actor must have ended."""
        assert self.reason is not None
        return Exit(Ref(self), self.name, self.reason)
