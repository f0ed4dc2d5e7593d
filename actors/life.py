"""One actor from inside: everything that happens in its own thread, from `__init__` to `on_stop`.

Its life: __init__, on_start, turns, children stopped in reverse order, on_failure (if it failed),
on_stop (if on_start had ended well), report, thread ends. A turn is: all control messages; then
one timer that is due; then one batch of ready descriptors (control messages in between); then one
data message. So control comes first and none of the other three can starve another.

Corner cases: what raises BaseException (also KeyboardInterrupt, SystemExit) ends this actor and
nobody else. A killed actor (its mailbox closed by somebody else) leaves its loop as soon as its
handler returns, and goes through the same end, except that its report has been given.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.cell import Cell, here, logger
from actors.codec import decode, encode_value
from actors.errors import ActorError, MessageError
from actors.mailbox import Envelope
from actors.message import Message
from actors.reply import Reply, answer, remote
from actors.signals import KILLED, SHUTDOWN, ExitReason, Shutdown
from actors.timers import Timer, Timers
from actors.waiting import Poller, Watch

if TYPE_CHECKING:
    from actors.actor import Actor


class Life:
    """Runs the actor of ``cell``; `run` is the body of its thread."""

    def __init__(self, cell: Cell, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.cell = cell
        self.ending: ExitReason | None = None  # set: no more turns
        self._arguments = args, kwargs
        self._actor: Actor | None = None
        self._mailbox = cell.mailbox
        self._system = cell.system
        self._timers = Timers()
        self._poller: Poller | None = None
        self._envelope: Envelope | None = None  # what on_receive is busy with
        self._replies_later = False
        self._started = False
        self._failure: BaseException | None = None

    # --- for the Actor ----------------------------------------------------------------------------

    def reply_later(self) -> Reply:
        current = self._envelope
        if current is None or self._replies_later:
            raise ActorError("reply_later is for on_receive, and once for each message")
        self._replies_later = True
        return Reply(self.cell, current.future)

    def set_timer(self, seconds: float, message: Message) -> Timer:
        if not seconds >= 0:
            raise ValueError(f"a timer cannot be due in {seconds} s")
        return self._timers.add(self._system.now() + seconds, self.cell.pack(message))

    def watch(self, watch: Watch) -> None:
        if self._poller is None:
            self._poller = self._system.new_poller()
            self._mailbox.wake = self._poller.wake  # not armed: this thread is awake
        self._poller.watch(watch)

    def unwatch(self, fd: int) -> None:
        if self._poller is not None:
            self._poller.unwatch(fd)

    # --- the thread -------------------------------------------------------------------------------

    def run(self) -> None:
        """From birth to report. Never raises."""
        here.cell = self.cell
        try:
            reason = self._be_born_and_live()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this actor alone
            reason = self._failed(error)
        self.cell.close()
        if not self._started:
            self.cell.cause = self._failure
        reason = self._finally(reason, self._stop_children)
        if self._started and self._actor is not None:
            self._actor.exit_reason = reason
            if self._failure is not None:
                reason = self._finally(reason, self._on_failure)
            reason = self._finally(reason, self._actor.on_stop)
        self._timers.clear()
        if self._poller is not None:
            self._poller.close()
        self._actor = self._failure = self._poller = None
        self.cell.fail_pending()
        if not self.cell.report(reason) and reason.kind == "error":
            logger.error(
                "%s, after it was killed: %s\n%s", self.cell.name, reason, reason.traceback
            )
        for future in self.cell.stoppers:
            future.settle(None)
        self._system.retire(self.cell)

    def _be_born_and_live(self) -> ExitReason:
        args, kwargs = self._arguments
        del self._arguments
        here.birth = self
        try:
            self._actor = self.cell.actor_class(*args, **kwargs)
        finally:
            here.birth = None
        if not hasattr(self._actor, "actor_inbox"):
            raise ActorError(f"{self.cell.actor_class.__name__}.__init__ did not call super()'s")
        self._actor._start_actor_loop()  # noqa: SLF001 - pykka's hook, so its name
        return self.ending or KILLED

    def live(self) -> None:
        """on_start, and then turns until something ends the actor."""
        assert self._actor is not None
        self._actor.on_start()
        self._started = True
        self.cell.born()
        while not self._over():
            self._turn()

    def _over(self) -> bool:
        return self.ending is not None or self._mailbox.closed

    def _turn(self) -> None:
        mailbox = self._mailbox
        if mailbox.control and not self._handle_control():
            return
        timeout = None
        if self._timers:
            now = self._system.now()
            packet = self._timers.pop_due(now)
            if packet is not None:
                self._handle(Envelope("timer", packet))
                if self._over():
                    return
                timeout = 0.0
            elif (when := self._timers.next()) is not None:
                timeout = when - now
        if self._poller is not None:
            self._poll(self._poller, timeout)
        elif not mailbox.data and timeout != 0.0:
            self._sleep(timeout)
        if mailbox.data and not mailbox.control and not self._over():
            envelope = mailbox.take_data()
            if envelope is not None:
                self._handle(envelope)

    def _handle_control(self) -> bool:
        """Handle all control messages. False if the actor is to end."""
        while self._mailbox.control and not self._over():
            envelope = self._mailbox.take_control()
            if envelope is not None:
                self._handle(envelope)
        return not self._over()

    def _sleep(self, timeout: float | None) -> None:
        """Until there is something in the mailbox, or the time has come."""
        mailbox, sleeper = self._mailbox, self.cell.sleeper
        if mailbox.arm() and not sleeper.wait(timeout) and not mailbox.disarm():
            sleeper.wait(None)  # the time came first, but a wake is on its way: take its token

    def _poll(self, poller: Poller, timeout: float | None) -> None:
        """One batch of ready descriptors; waits for one if there is nothing else to do."""
        mailbox = self._mailbox
        if timeout != 0.0 and (mailbox.data or not mailbox.arm()):
            timeout = 0.0
        ready = poller.poll(timeout)
        if timeout != 0.0:
            mailbox.disarm()
        for watch, mask in ready:
            poller.dispatch(watch, mask)
            if mailbox.control:
                self._handle_control()
            if self._over():
                return

    def _handle(self, envelope: Envelope) -> None:
        try:
            message = decode(envelope.packet, self._system)
        except MessageError as error:
            self._unreadable(envelope, error)
        else:
            if type(message) is Shutdown:
                self.ending = SHUTDOWN
                if envelope.future is not None:
                    self.cell.stoppers.append(envelope.future)
            else:
                self._receive(message, envelope)
        finally:
            self._mailbox.done()

    def _receive(self, message: Message, envelope: Envelope) -> None:
        assert self._actor is not None
        self._envelope = envelope
        self._replies_later = False
        future = envelope.future
        try:
            value = self._actor.on_receive(message)
            if future is not None and not self._replies_later:
                answer(self.cell, future, None if value is None else encode_value(value))
        except BaseException as error:
            if future is None:
                raise
            self.cell.pending.discard(future)
            future.settle(None, remote(self.cell, error))
            if self._actor.fails_on_ask or not isinstance(error, Exception):
                raise
            traceback.clear_frames(error.__traceback__)
        finally:
            self._envelope = None

    def _unreadable(self, envelope: Envelope, error: MessageError) -> None:
        """The sender's fault: the actor lives on."""
        if envelope.future is not None:
            envelope.future.settle(None, error)
        else:
            logger.error("%s drops a %s: %s", self.cell.name, envelope.kind, error)
            self._system.dead_letters.count(envelope.kind)

    # --- the end ----------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> ExitReason:
        """The reason out of an exception; what its dead frames held is let go of now."""
        reason = ExitReason.of(error)
        traceback.clear_frames(error.__traceback__)
        self._failure = error
        return reason

    def _stop_children(self) -> None:
        actor = self._actor
        cells = list(reversed(self.cell.children)) if actor is None else actor.stop_order()
        for child in cells:
            child.end(child.shutdown)

    def _on_failure(self) -> None:
        error = self._failure
        if self._actor is not None and error is not None:
            self._actor.on_failure(type(error), error, error.__traceback__)

    def _finally(self, reason: ExitReason, step: Callable[[], object]) -> ExitReason:
        """Do one step of the end; if it raises that becomes part of the report."""
        try:
            step()
        except BaseException as error:  # noqa: BLE001 - it becomes part of the report
            later = ExitReason.of(error)
            traceback.clear_frames(error.__traceback__)
            return reason.followed_by(later)
        return reason
