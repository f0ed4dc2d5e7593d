"""One actor from inside: what it does from `__init__` to `on_stop`, in steps.

A runtime (runtime.py) makes the steps: in a thread of the actor's own, in a thread of a pool, or
under the simulation. Here nothing waits, and nothing knows where it runs.

Its life: __init__, on_start, turns, children stopped group by group, on_failure (if it failed),
on_stop (if on_start had ended well), report. A turn is: all control messages; then one timer that
is due; then one batch of ready descriptors (control messages in between); then data messages, up to
`BATCH`. So control comes first and none of the other three can starve another.

Corner cases: what raises BaseException (also KeyboardInterrupt, SystemExit) ends this actor and
nobody else. A killed actor (its mailbox closed by somebody else) stops as soon as its handler
returns, and goes through the same end, except that its report has been given. An actor whose birth
was put off (`Actor.start_later`) takes control messages and timers, but no data before it is born.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from actors.cell import Cell, logger
from actors.codec import decode, encode_value
from actors.errors import ActorError, MessageError
from actors.here import here
from actors.mailbox import Envelope
from actors.message import Message
from actors.reply import Reply, answer, remote
from actors.runtime import DONE, FOREVER, NOW
from actors.signals import KILLED, SHUTDOWN, ExitReason, Shutdown
from actors.timers import Timer, Timers
from actors.waiting import LoopSleeper, Poller, Sleeper, Watch, Watches

if TYPE_CHECKING:
    from actors.actor import Actor

BATCH = 32  # data messages in one turn

_UNBORN, _LIVE, _ENDING, _ENDED = range(4)


class Life:
    """Runs the actor of ``cell``; `step` is called by one thread at a time."""

    __slots__ = (
        "_actor",
        "_arguments",
        "_born",
        "_drained",
        "_envelope",
        "_failure",
        "_groups",
        "_leaving",
        "_mailbox",
        "_phase",
        "_poller",
        "_ready",
        "_reason",
        "_replies_later",
        "_sleeper",
        "_stashed",
        "_stopped",
        "_system",
        "_timers",
        "alarm",
        "batch",
        "cell",
        "ending",
        "interrupt",
    )

    def __init__(self, cell: Cell, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.cell = cell
        self.ending: ExitReason | None = None  # set: no more turns
        self.interrupt: BaseException | None = None  # what hit the thread that it was lent
        self.alarm = FOREVER  # when its runtime will wake it; the runtime's to use
        self.batch = BATCH
        self._arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = (args, kwargs)
        self._actor: Actor | None = None
        self._mailbox = cell.mailbox
        self._system = cell.system
        self._timers: Timers | None = None
        self._poller: Watches | None = None
        self._sleeper: Sleeper | LoopSleeper | None = None
        self._ready: list[tuple[Watch, int]] | None = None  # polled while it slept
        self._envelope: Envelope | None = None  # what on_receive is busy with
        self._replies_later = False
        self._stashed = False
        self._stopped = False  # on_stop has been called
        self._phase = _UNBORN
        self._born = False
        self._drained: ExitReason | None = None  # why it ends when no data is left
        self._failure: BaseException | None = None
        self._reason = KILLED
        self._groups: deque[list[Cell]] = _NOTHING
        self._leaving: dict[Cell, float] | None = None  # child -> when it is killed

    @property
    def actor(self) -> Actor | None:
        """The actor object, while there is one."""
        return self._actor

    @property
    def state(self) -> str:
        """For people: "starting", "idle", "busy" or "stopping"."""
        if self._phase == _ENDING:
            return "stopping"
        if not self._born:
            return "starting"
        return "idle" if self._envelope is None else "busy"

    # --- for the Actor ----------------------------------------------------------------------------

    @property
    def envelope(self) -> Envelope:
        """The one in hand. Raises ActorError outside of on_receive."""
        if self._envelope is None:
            raise ActorError("this is for on_receive: there is no message in hand")
        return self._envelope

    def reply_later(self) -> Reply:
        current = self._envelope
        if current is None or self._replies_later:
            raise ActorError("reply_later is for on_receive, and once for each message")
        self._replies_later = True
        return Reply(self.cell, current.future)

    def stash(self) -> None:
        if self._envelope is None or self._stashed or self._replies_later:
            raise ActorError("stash is for on_receive, and once for each message")
        self._stashed = True

    def set_timer(self, seconds: float, message: Message, *, every: bool) -> Timer:
        if not (seconds > 0 if every else seconds >= 0):
            raise ValueError(f"a timer cannot be due in {seconds} s")
        if self._timers is None:
            self._timers = Timers()
        packet = self.cell.pack(message)
        timer = self._timers.add(
            self._system.now() + seconds, packet, seconds if every else None, self.cell.trace
        )
        self._look_again()
        return timer

    def unstash(self) -> int:
        count = self._mailbox.unstash()
        self._look_again()
        return count

    def exit(self, reason: ExitReason) -> None:
        self.ending = reason
        self._look_again()

    def watch(self, watch: Watch) -> None:
        if self._poller is None:
            self._poller = self._new_poller()
        self._poller.watch(watch)

    def _new_poller(self) -> Watches:
        if self.cell.pooled:
            raise ActorError(
                f"{self.cell.name} cannot wait for descriptors: it has no thread of its own"
            )
        if isinstance(self._sleeper, LoopSleeper):
            raise ActorError("an actor with an event loop watches by loop.add_reader")
        if self._system.simulation is not None:
            return self._system.simulation.poller(self.cell)
        poller = Poller()
        self._mailbox.wake = poller.wake  # not armed: this thread is awake
        return poller

    def unwatch(self, fd: int) -> None:
        if self._poller is not None:
            self._poller.unwatch(fd)

    def start_later(self) -> None:
        if self._phase != _UNBORN:
            raise ActorError("start_later is for on_start")
        self._phase = _LIVE  # `live` sees that it was put off

    def has_started(self) -> None:
        if not self._born and not self._over():
            self._be_born()
            self._look_again()

    def _look_again(self) -> None:
        """What was just done may be by a task of its own, while the actor sleeps."""
        if isinstance(self._sleeper, LoopSleeper):
            self._mailbox.poke()

    # --- the thread that it has to itself, if it has one ------------------------------------------

    def settle_in(self, sleeper: Sleeper | LoopSleeper) -> None:
        """It gets a thread of its own, and ``sleeper`` to rest on."""
        self._sleeper = sleeper
        self._mailbox.wake = sleeper.wake

    def sleep(self, seconds: float) -> None:
        """Until there is something in the mailbox or at a descriptor, or the time has come."""
        timeout = None if seconds == FOREVER else seconds
        mailbox = self._mailbox
        if self._poller is not None:
            if not self._arm():
                timeout = 0.0
            try:
                self._ready = self._poller.poll(timeout)
            except ActorError as error:
                self._begin_to_end(self._failed(error))
            mailbox.disarm()
        elif self._arm():
            sleeper = self._sleeper
            assert sleeper is not None
            if not sleeper.wait(timeout) and not mailbox.disarm():
                sleeper.wait(None)  # the time came first, but a wake is on its way: take its token

    def _arm(self) -> bool:
        if self._born or self._phase == _ENDING:
            return self._mailbox.arm()
        return self._mailbox.arm_control()

    def rest(self) -> bool:
        """For a pooled one: whether it may be left until its mailbox wakes it."""
        return self._arm()

    # --- steps ------------------------------------------------------------------------------------

    def step(self) -> float:
        """Do what there is to do; NOW, DONE, or seconds. Never raises."""
        try:
            if self._phase == _LIVE:
                return self._turn()
            if self._phase == _UNBORN:
                return self._come_to_life()
            return self._depart()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it ends this actor alone
            if self._phase in (_UNBORN, _LIVE):
                return self._begin_to_end(self._failed(error))
            if self._phase == _ENDED:  # it has vanished, and its stack is unwound
                return DONE
            if isinstance(error, KeyboardInterrupt):  # meant for the one who runs it; it goes on
                self.interrupt = error
                return NOW
            logger.critical("%s could not end", self.cell.name, exc_info=True)
            return DONE

    def _come_to_life(self) -> float:
        if self._over():  # it was killed before it could begin
            return self._begin_to_end(self.ending or KILLED)
        assert self._arguments is not None
        args, kwargs = self._arguments
        self._arguments = None
        if (simulation := self._system.simulation) is not None:
            simulation.on_birth(self.cell)
        here.birth = self
        try:
            self._actor = self.cell.actor_class(*args, **kwargs)
        finally:
            here.birth = None
        self._actor._start_actor_loop()  # noqa: SLF001 - pykka's hook, so its name
        if self._over():
            return self._begin_to_end(self.ending or KILLED)
        self._phase = _LIVE
        return NOW

    def live(self) -> None:
        """on_start; then the actor is born, unless it wants to say by itself when it is."""
        assert self._actor is not None
        self._complete(self._actor.on_start())
        if self._phase == _UNBORN and not self._born:
            self._be_born()

    def _be_born(self) -> None:
        self._born = True
        self.cell.born()

    def _over(self) -> bool:
        return self.ending is not None or self._mailbox.closed

    def _turn(self) -> float:
        mailbox = self._mailbox
        mailbox.heed()
        if mailbox.control is not None:
            self._handle_control()
        wait = FOREVER
        if self._timers and not self._over():
            wait = self._fire()
        if self._poller is not None and not self._over():
            self._dispatch(self._poller)
        left = self.batch if self._poller is None else 1
        while left and self._born and mailbox.control is None and not self._over():
            envelope = mailbox.take_data()
            if envelope is None:
                break
            if mailbox.closed:  # just now: see mailbox.py
                self.cell.refuse(envelope)
                break
            self._handle(envelope)
            left -= 1
        if self._drained is not None and not mailbox.data and self.ending is None:
            self.ending = self._drained
        if self._over():
            return self._begin_to_end(self.ending or KILLED)
        if mailbox.control is not None or (mailbox.data and self._born):
            return NOW
        if self._timers:  # handlers may have set or cancelled some
            when = self._timers.next()
            return FOREVER if when is None else max(NOW, when - self._system.now())
        return wait

    def _fire(self) -> float:
        """One timer that is due. NOW if one was; else how long until there is one."""
        assert self._timers is not None
        now = self._system.now()
        fired = self._timers.pop_due(now)
        if fired is not None:
            packet, trace = fired
            self._handle(Envelope("timer", packet, trace=trace))
            return NOW
        when = self._timers.next()
        return FOREVER if when is None else when - now

    def _handle_control(self) -> None:
        """Handle all control messages, unless one of them ends the actor."""
        while self._mailbox.control is not None and not self._over():
            envelope = self._mailbox.take_control()
            if envelope is not None:
                self._handle(envelope)

    def _dispatch(self, poller: Watches) -> None:
        """One batch of ready descriptors."""
        ready, self._ready = self._ready, None
        for watch, mask in poller.poll(0.0) if ready is None else ready:
            self.cell.trace = self._system.next_trace()
            poller.dispatch(watch, mask)
            if self._mailbox.control is not None:
                self._handle_control()
            if self._over():
                return

    def _handle(self, envelope: Envelope) -> None:
        cell = self.cell
        try:
            message = decode(envelope.packet, self._system)
        except MessageError as error:
            self._unreadable(envelope, error)
            self._mailbox.current = None
            return
        if type(message) is Shutdown:
            self._shut_down(message, envelope)
            self._mailbox.current = None
            return
        actor = self._actor
        assert actor is not None
        cell.handled += 1
        cell.trace = envelope.trace
        self._envelope = envelope
        self._replies_later = self._stashed = False
        future = envelope.future
        simulation = self._system.simulation
        try:
            if simulation is not None:
                simulation.before_receive(cell, message, envelope)
            value = actor.on_receive(message)
            if type(value) is CoroutineType:
                value = self._complete(value)
            if simulation is not None:
                answers = future is not None and not (self._replies_later or self._stashed)
                simulation.after_receive(cell, envelope, value, answered=answers)
            if self._stashed:
                self._put_aside(message, envelope)
            elif future is not None and not self._replies_later:
                answer(cell, future, None if value is None else encode_value(value))
        except BaseException as error:
            if future is None:
                raise
            cell.pending.pop(future, None)
            future.settle(None, remote(cell, error))
            if actor.fails_on_ask or not isinstance(error, Exception):
                raise
            traceback.clear_frames(error.__traceback__)
        finally:
            self._envelope = self._mailbox.current = None

    def _shut_down(self, message: Shutdown, envelope: Envelope) -> None:
        if envelope.future is not None:
            self.cell.add_stopper(envelope.future)
        reason = message.reason or SHUTDOWN
        if message.drain and self._born:
            self._mailbox.unstash()  # once: what is put aside again is not handled any more
            self._drained = reason
        elif self.ending is None:
            self.ending = reason

    def _put_aside(self, message: Message, envelope: Envelope) -> None:
        envelope.packet = self.cell.pack(message)  # reading it has emptied the one it came in
        if not self._mailbox.stash(envelope):  # it was killed meanwhile
            self.cell.refuse(envelope)

    def _complete(self, value: Any) -> Any:
        """What a handler has returned; a coroutine is run to its end first."""
        if type(value) is not CoroutineType:
            return value
        if not isinstance(self._sleeper, LoopSleeper):
            value.close()
            raise ActorError("handlers that are coroutines need an actor that is not pooled")
        return self._sleeper.run(value)

    def _unreadable(self, envelope: Envelope, error: MessageError) -> None:
        """The sender's fault: the actor lives on."""
        if envelope.future is not None:
            envelope.future.settle(None, error)
        else:
            logger.error("%s drops a %s: %s", self.cell.name, envelope.kind, error)
            self._system.dead_letters.add(envelope.kind, self.cell, envelope.sender, "unreadable")

    # --- the end ----------------------------------------------------------------------------------

    def _failed(self, error: BaseException) -> ExitReason:
        """The reason out of an exception; what its dead frames held is let go of now."""
        reason = ExitReason.of(error)
        traceback.clear_frames(error.__traceback__)
        self._failure = error
        if isinstance(error, KeyboardInterrupt):
            self.interrupt = error
        return reason

    def _begin_to_end(self, reason: ExitReason) -> float:
        """No more messages; the children next."""
        if self._phase == _ENDED:
            return DONE
        self._leaving = {}
        self._reason = reason
        self._phase = _ENDING
        self.cell.close()
        if not self._born:
            self.cell.cause = self._failure
        self._groups = deque([[cell] for cell in reversed(self.cell.children)])
        if self._actor is not None:
            self._actor.exit_reason = reason
            self._finally(self._order_children)
        return NOW

    def _order_children(self) -> None:
        assert self._actor is not None
        groups = self._actor.stop_order()
        listed = {cell for group in groups for cell in group}
        rest = [[cell] for cell in reversed(self.cell.children) if cell not in listed]
        self._groups = deque([*rest, *groups])

    def _depart(self) -> float:
        """Wait for one group of children after the other, then go."""
        if not self._mailbox.closed:
            self.cell.close()
        self._mailbox.heed()
        leaving, children = self._leaving, self.cell.children
        assert leaving is not None
        while leaving or self._groups:
            if not leaving:
                for child in self._groups[0]:
                    leaving[child] = self._dismiss(child)
                self._groups.popleft()
            now = self._system.now()
            for child, deadline in list(leaving.items()):
                if child in children and now >= deadline:
                    child.kill()
                if child not in children:
                    del leaving[child]
            if leaving:
                return max(NOW, min(leaving.values()) - now)
        self._die()
        return DONE

    def _dismiss(self, child: Cell) -> float:
        """Ask it to end, at once if it has no time for that; when it will be killed."""
        if child.shutdown == 0:
            return -FOREVER
        child.request_shutdown()
        return FOREVER if child.shutdown is None else self._system.now() + child.shutdown

    def _die(self) -> None:
        actor, born = self._actor, self._born
        if actor is not None and born and not self._stopped:
            self._stopped = True
            actor.exit_reason = self._reason
            error = self._failure
            if error is not None:
                self._finally(lambda: actor.on_failure(type(error), error, error.__traceback__))
            self._finally(lambda: self._complete(actor.on_stop()))
        if isinstance(self._sleeper, LoopSleeper):
            self._finally(self._sleeper.close)
        cell, reason = self.cell, self._reason
        self._let_go()
        if not cell.report(reason, claim=True) and reason.kind == "error":
            logger.error("%s, after it was killed: %s\n%s", cell.name, reason, reason.traceback)
        self._system.retire(cell)

    def vanish(self) -> None:
        """End it where it is: none of its own code runs any more. Its children have vanished.

        For a simulation: an actor of a process that was killed. A step that has stopped in the
        middle may still be unwound later, and finds everything over.
        """
        self.cell.close()
        self._let_go()
        self.cell.report(KILLED)
        self._system.retire(self.cell)

    def _let_go(self) -> None:
        """Nothing of what it had is needed any more."""
        if self._timers is not None:
            self._timers.clear()
        if self._poller is not None:
            self._poller.close()
        self._actor = self._failure = self._poller = self._sleeper = None
        self._phase = _ENDED
        self.cell.fail_pending()

    def _finally(self, act: Callable[[], object]) -> None:
        """Do one part of the end; if it raises that becomes part of the report."""
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - it becomes part of the report
            later = ExitReason.of(error)
            traceback.clear_frames(error.__traceback__)
            if isinstance(error, KeyboardInterrupt):
                self.interrupt = error
            if actor := self._actor:
                actor.exit_reason = self._reason
            self._reason = self._reason.followed_by(later)


_NOTHING: deque[list[Cell]] = deque()
