"""The supervisor: an actor that starts others, and starts them again when they end.

What to do next is decided in supervision.py, which is fed with what has happened; this file only
does it. Semantics: OTP, stdlib supervisor. A supervisor never waits: it begins to start a child and
hears later that it has started (`Started`) or has not (`Exit`), so it is pooled, and a child that
takes its time to start keeps it from nothing else.

A child is known by its Ref: the `Exit` of one that has been replaced or forgotten means nothing.

Corner case: a killed child's thread may still be busy when its successor starts. What must not be
used by both needs a fence of its own (a process, an epoch).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from actors.actor import Actor
from actors.cell import Cell, logger
from actors.child_spec import ChildSpec
from actors.codec import decode, encode
from actors.effects import Answer, Effect, Finish, Launch, Ready, Stop, Wake
from actors.errors import ActorError, NoSuchChild, StartFailed
from actors.message import Message
from actors.ref import Ref
from actors.reply import Reply
from actors.restart import Flags
from actors.signals import Exit, ExitReason, Started
from actors.supervision import Supervision
from actors.timers import Timer


class StartChild(Message, kind="actors.start_child"):
    """Ask: start one more child, and keep it. Answered by its Ref, StartFailed or ChildExists."""

    spec: ChildSpec


class StartInstance(Message, kind="actors.start_instance"):
    """Ask a simple_one_for_one supervisor: start its spec's child, with these arguments after the
    spec's own. Answered by its Ref, or StartFailed. It is called "name-1", "name-2", ...
    """

    args: list[Any]


class StopChild(Message, kind="actors.stop_child"):
    """Ask: stop this child and forget its spec. Answered by None when it has ended, or
    NoSuchChild.
    """

    name: str


class TerminateChild(Message, kind="actors.terminate_child"):
    """Ask: stop this child; its spec is kept, unless it is temporary. Answered like `StopChild`."""

    name: str


class RestartChild(Message, kind="actors.restart_child"):
    """Ask: start a child that is stopped. Answered by its Ref, StartFailed, NoSuchChild, or
    ActorError if it is not stopped.
    """

    name: str


class DeleteChild(Message, kind="actors.delete_child"):
    """Ask: forget a child that is stopped. Answered by None, NoSuchChild, or ActorError if it is
    not stopped.
    """

    name: str


class GetChildSpec(Message, kind="actors.get_childspec"):
    """Ask: answered by the `ChildSpec` of this child, or NoSuchChild."""

    name: str


class WhichChildren(Message, kind="actors.which_children"):
    """Ask: answered by a list of `ChildStatus`, in the order of the specs."""


class AwaitChildren(Message, kind="actors.await_children"):
    """Ask: answered like `WhichChildren`, when every child is running or stopped: no start, no end
    and no backoff is under way.
    """


class CountChildren(Message, kind="actors.count_children"):
    """Ask: answered by [number of specs, number of children that run]."""


class ChildStatus(Message, kind="actors.child_status"):
    """``state``: "running", "starting", "restarting" (its last start failed, or it waits for its
    backoff), "stopping" or "stopped". ``ref``: None unless it runs, is just starting or stopping.
    """

    name: str
    ref: Ref | None
    restarts: int
    state: str


class _Due(Message, kind="actors.due"):
    key: str


class _Overdue(Message, kind="actors.overdue"):
    ref: Ref


class Supervisor(Actor):
    """Keeps its children running.

    Args:
        specs: the children, in the order of their start; they are stopped in reverse order.
        intensity: at most so many restarts, of all children together, in ``period``; with one more
            it ends all children and itself, with error "RestartIntensityExceeded", for its own
            supervisor to handle. Those of nested supervisors multiply: three levels with an
            intensity of 3 start a child 4 x 4 x 4 times before the top gives up.
        period: seconds.
        strategy: what a failure takes along: "one_for_one" (nothing), "one_for_all" (all other
            children), "rest_for_one" (those after it), or "simple_one_for_one" (nothing; there is
            one spec, of which `StartInstance` starts as many children as wanted, and which end
            all at the same time).
        auto_shutdown: see `Flags`.
        max_children: how many it may have; None: any number.
    """

    pooled: ClassVar[bool] = True
    supervises: ClassVar[bool] = True
    default_shutdown: ClassVar[float | None] = None

    def __init__(
        self,
        specs: Iterable[ChildSpec],
        intensity: int = 1,
        period: float = 5.0,
        strategy: str = "one_for_one",
        auto_shutdown: str = "never",
        max_children: int | None = None,
    ) -> None:
        super().__init__()
        self.flags = Flags(strategy, intensity, period, auto_shutdown)
        self._specs = list(specs)
        self._core = Supervision(self.name, self.flags, max_children)
        self._refs: dict[str, Ref] = {}  # of those that have been begun, and have not ended
        self._keys: dict[Ref, str] = {}
        self._deadlines: dict[str, Timer] = {}  # of those that are to stop
        self._causes: dict[str, BaseException] = {}  # of failed starts that somebody asked for
        self._awaiting: list[Reply] = []

    def on_start(self) -> None:
        self.start_later()
        self._perform(self._core.begin(self._specs, self.system.now()))

    def on_receive(self, message: Message) -> Any:
        core, now = self._core, self.system.now()
        match message:
            case Started(ref) if ref in self._keys:
                self._perform(core.launched(self._keys[ref], now))
            case Exit(ref, _, reason) if ref in self._keys:
                self._ended(ref, reason, now)
            case Started() | Exit():
                return None
            case _Due(key):
                self._perform(core.due(key, now))
            case _Overdue(ref):
                ref.kill()
            case StartChild(spec):
                self._perform(core.start_child(self.reply_later(), spec, now))
            case StartInstance(args):
                self._perform(core.start_instance(self.reply_later(), args, now))
            case StopChild(name):
                self._perform(core.stop_child(self.reply_later(), name))
            case TerminateChild(name):
                self._perform(core.terminate_child(self.reply_later(), name))
            case RestartChild(name):
                self._perform(core.restart_child(self.reply_later(), name, now))
            case DeleteChild(name):
                self._perform(core.delete_child(self.reply_later(), name))
            case GetChildSpec(name):
                if (found := core.spec(name)) is None:
                    self.reply_later().fail(NoSuchChild(f"{self.name} has no child {name!r}"))
                return found
            case WhichChildren():
                return self._status()
            case AwaitChildren():
                self._awaiting.append(self.reply_later())
                self._perform([])
            case CountChildren():
                return list(core.count())
            case _:
                return super().on_receive(message)
        return None

    def stop_order(self) -> list[list[Cell]]:
        """By the order of the specs, not of the last restarts; instances all at once."""
        cells = [self._refs[key].cell for key in self._core.order() if key in self._refs]
        if self.flags.strategy == "simple_one_for_one":
            return [cells]
        return [[cell] for cell in reversed(cells)]

    def describe(self) -> str:
        flags = self.flags
        return f"{flags.strategy}, intensity {flags.intensity} in {flags.period:g} s"

    def _ended(self, ref: Ref, reason: ExitReason, now: float) -> None:
        key = self._keys.pop(ref)
        del self._refs[key]
        if (deadline := self._deadlines.pop(key, None)) is not None:
            deadline.cancel()
        if ref.cell.started:
            self._perform(self._core.ended(key, reason, now))
        else:
            self._failed_to_start(key, reason, ref.cell.cause)
            ref.cell.cause = None

    def _failed_to_start(self, key: str, reason: ExitReason, cause: BaseException | None) -> None:
        if cause is not None:
            self._causes[key] = cause
        effects = self._core.launch_failed(key, reason, self.system.now())
        if not any(isinstance(effect, Answer) for effect in effects):  # nobody hears of it
            logger.warning("%s: %s could not start: %s", self.name, key, reason)
        self._perform(effects)
        self._causes.pop(key, None)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Launch(key, spec):
                    self._launch(key, spec)
                case Stop(key):
                    self._end(self._refs[key], key)
                case Wake(key, seconds):
                    self.after(seconds, _Due(key))
                case Answer(ticket, error, key):
                    self._answer(ticket, error, key)
                case Ready():
                    self.has_started()
                case Finish(reason):
                    self.exit(reason)
        if self._awaiting and self._core.settled():
            awaiting, self._awaiting = self._awaiting, []
            for reply in awaiting:
                reply.send(self._status())

    def _status(self) -> list[ChildStatus]:
        return [
            ChildStatus(key, self._refs.get(key), restarts, state)
            for key, state, restarts in self._core.status()
        ]

    def _launch(self, key: str, spec: ChildSpec) -> None:
        try:
            fresh = self._fresh(spec)
            ref = self.begin_child(
                fresh.load(),
                *fresh.args,
                name=spec.name,
                shutdown=spec.shutdown,
                registered=spec.registered,
                restarts=self._core.restarts(key),
                **fresh.kwargs,
            )
        except (ImportError, AttributeError, ValueError, TypeError, ActorError) as error:
            self._failed_to_start(key, ExitReason.of(error), error)
            return
        self._refs[key] = ref
        self._keys[ref] = key

    def _fresh(self, spec: ChildSpec) -> ChildSpec:
        """A copy whose arguments the child may keep and change."""
        if not spec.args and not spec.kwargs:
            return spec
        fresh = decode(encode(spec), self.system)
        assert isinstance(fresh, ChildSpec)
        return fresh

    def _end(self, ref: Ref, key: str) -> None:
        shutdown = ref.cell.shutdown
        if shutdown == 0:
            ref.kill()
            return
        self.end_child(ref)
        if shutdown is not None:
            self._deadlines[key] = self.after(shutdown, _Overdue(ref))

    def _answer(self, ticket: Reply, error: ActorError | None, key: str | None) -> None:
        if error is None:
            ticket.send(None if key is None else self._refs[key])
            return
        if isinstance(error, StartFailed):
            error.__cause__ = self._causes.get(error.name)
        ticket.fail(error)
