"""What a supervisor does next: a pure reconciler, OTP's supervisor as events in and effects out.

It owns which children there are, in which order, and what state each is in. Whoever feeds it (the
actor in supervisor.py) performs its effects and reports what came of them; time is passed in.

A child has a phase, what is, and is ``wanted`` or not, what ought to be:

    phase      what is awaited         then
    down       nothing, or its turn    starting, if it is wanted
    starting   launched                up; or over: another try if it is wanted
    up         nothing                 over: whatever `decide` says
    stopping   its turn, and its end   down; started again if it is wanted
    delayed    due                     down

Rules. One at a time: where order matters, three lists say what is to be done: first ``_stops`` from
its end, then ``_waits``, then ``_starts`` from its beginning; the next is begun when the one before
has reported, and what has become superfluous meanwhile is skipped. begin() fills ``_starts``. A
restart under one_for_all or rest_for_one marks its scope and fills all three afresh from what every
child's phase is and ought to be, so that a failure in the middle of such a group operation, or a
request, needs no case of its own. Under the other strategies a child is its own affair.

A start that fails: whoever asked for it is told, and that is all; if nobody did it ends the
supervisor if it was the child's first, and is else a failure like a crash, whatever its reason. The
end of a child that is "stopping" never counts, even if it came by itself.

Corner cases: a temporary child that a group operation takes down while it is starting fails to
start, for whoever asked. Children that a group operation has restarted already are not taken down
again by the failure of one after them (OTP). Under simple_one_for_one, where nobody could bring it
back, an ended child is forgotten even if it is transient, and so is a terminated one (OTP).
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Concatenate, Literal, NamedTuple, ParamSpec

from actors.child_spec import ChildSpec
from actors.effects import Answer, Effect, Finish, Launch, Ready, Stop, Wake
from actors.errors import (
    ActorError,
    ChildExists,
    NoSuchChild,
    RestartIntensityExceeded,
    StartFailed,
    TooManyChildren,
)
from actors.restart import Drop, Escalate, Flags, Restart, Window, decide, scope
from actors.signals import SHUTDOWN, ExitReason

_P = ParamSpec("_P")


class Count(NamedTuple):
    """``specs``: children that are known, dead or alive; ``active``: those that are up."""

    specs: int
    active: int


@dataclass(slots=True)
class _Child:
    spec: ChildSpec
    phase: Literal["down", "starting", "up", "stopping", "delayed"] = "down"
    wanted: bool = False
    kept: bool = True  # its spec outlives an end after which it is not wanted
    asked: bool = False  # to stop
    since: float | None = None  # when it was up last; None: never yet
    launches: int = 0
    failures: int = 0  # in a row, for its backoff
    failed: bool = False  # its last start
    due: float = 0.0  # when its delay is over
    starters: list[Any] = field(default_factory=list)  # the tickets that wait until it is up
    stoppers: list[Any] = field(default_factory=list)  # ... until it is down

    @property
    def key(self) -> str:
        return self.spec.name

    @property
    def state(self) -> str:
        match self.phase:
            case "up":
                return "running"
            case "stopping":
                return "stopping"
            case "down" if not self.wanted:
                return "stopped"
            case _:
                return "restarting" if self.failed or self.phase == "delayed" else "starting"


def _event(
    method: Callable[Concatenate[Supervision, _P], None],
) -> Callable[Concatenate[Supervision, _P], list[Effect]]:
    """Take the event in, and then the next steps that it allows. After a Finish there are none."""

    @functools.wraps(method)
    def handle(self: Supervision, /, *args: _P.args, **kwargs: _P.kwargs) -> list[Effect]:
        if not self._finished:
            method(self, *args, **kwargs)
            self._advance()
        effects, self._effects = self._effects, []
        return effects

    return handle


def _not_started(key: str, reason: ExitReason) -> ExitReason:
    error = StartFailed(key, reason)
    return ExitReason("error", StartFailed.__name__, str(error), reason.traceback)


class Supervision:
    """Feed it events, begin() first; perform what each returns, in that order.

    ``name`` of the supervisor is for error texts; ``max_children`` limits the specs that it keeps.
    A ticket is whatever the one who feeds it knows a request by.
    """

    def __init__(self, name: str, flags: Flags, max_children: int | None = None) -> None:
        if max_children is not None and max_children < 0:
            raise ValueError(f"max_children cannot be {max_children}")
        self._name = name
        self._flags = flags
        self._max_children = max_children
        self._window = Window(flags.intensity, flags.period)
        self._simple = flags.strategy == "simple_one_for_one"
        self._grouped = flags.strategy in ("one_for_all", "rest_for_one")
        self._template: ChildSpec | None = None
        self._instances = 0
        self._children: dict[str, _Child] = {}
        self._significant = 0  # children that are significant and wanted
        self._stops: list[_Child] = []
        self._waits: list[_Child] = []
        self._starts: deque[_Child] = deque()
        self._ready = self._finished = False
        self._effects: list[Effect] = []

    # --- queries ----------------------------------------------------------------------------------

    def order(self) -> list[str]:
        """The keys of all children, in the order of their start."""
        return list(self._children)

    def status(self) -> list[tuple[str, str, int]]:
        """(key, state, restarts) of all children, in order.

        The state is "running", "starting", "restarting" (its last start failed, or it waits for
        its backoff), "stopping" or "stopped"; restarts: how often it was launched again.
        """
        return [
            (child.key, child.state, max(0, child.launches - 1))
            for child in self._children.values()
        ]

    def spec(self, key: str) -> ChildSpec | None:
        """Of this child; None if there is none."""
        child = self._children.get(key)
        return None if child is None else child.spec

    def restarts(self, key: str) -> int:
        """How often this child has been launched again."""
        return max(0, self._children[key].launches - 1)

    def settled(self) -> bool:
        """Whether no child is on its way up or down."""
        return all(child.state in ("running", "stopped") for child in self._children.values())

    def count(self) -> Count:
        """As OTP's count_children: under simple_one_for_one there is one spec."""
        active = sum(child.phase == "up" for child in self._children.values())
        return Count(1 if self._simple else len(self._children), active)

    # --- events: what came of the effects ---------------------------------------------------------

    @_event
    def begin(self, specs: Sequence[ChildSpec], now: float) -> None:  # noqa: ARG002 - as all events
        """Start these, in order; under simple_one_for_one: start instances of this one later."""
        if self._simple and len(specs) != 1:
            self._finish(ExitReason.of(ActorError("simple_one_for_one takes exactly one spec")))
            return
        for spec in specs:
            error = self._refusal(spec)
            if error is not None:
                self._finish(ExitReason.of(error))
                return
            if self._simple:
                self._template = spec
            else:
                self._starts.append(self._add(spec))

    @_event
    def launched(self, key: str, now: float) -> None:
        """A Launch has come to a good end: the child is up."""
        child = self._children.get(key)
        if child is None or child.phase != "starting":
            return  # it is being stopped; its end is reported, too
        child.phase, child.since, child.failed = "up", now, False
        self._answer(child.starters, key=key)

    @_event
    def launch_failed(self, key: str, reason: ExitReason, now: float) -> None:
        """A Launch has come to nothing."""
        self._over(key, reason, now)

    @_event
    def ended(self, key: str, reason: ExitReason, now: float) -> None:
        """A child that was up, or was to be stopped, has ended."""
        self._over(key, reason, now)

    @_event
    def due(self, key: str, now: float) -> None:
        """The seconds of a Wake are over."""
        child = self._children.get(key)
        if child is None or child.phase != "delayed":
            return
        if now < child.due:  # this was the Wake of an earlier delay
            self._emit(Wake(key, child.due - now))
            return
        child.phase = "down"
        if not self._grouped:
            self._launch(child)

    # --- events: requests -------------------------------------------------------------------------

    @_event
    def start_child(self, ticket: Any, spec: ChildSpec, now: float) -> None:  # noqa: ARG002
        """Start one more child, and keep it. If it cannot start it is forgotten."""
        if self._simple:
            text = f"{self._name} is simple_one_for_one: it starts instances of its own spec only"
            self._emit(Answer(ticket, ActorError(text)))
        else:
            self._admit(ticket, spec)

    @_event
    def start_instance(self, ticket: Any, args: Sequence[Any], now: float) -> None:  # noqa: ARG002
        """Start one more child from the template, ``args`` after the template's own."""
        if self._template is None:
            text = f"{self._name} is {self._flags.strategy}: it has no spec to make instances of"
            self._emit(Answer(ticket, ActorError(text)))
            return
        self._instances += 1
        key = f"{self._template.name}-{self._instances}"
        self._admit(ticket, replace(self._template, name=key, args=[*self._template.args, *args]))

    @_event
    def stop_child(self, ticket: Any, key: str) -> None:
        """Stop it, and forget it."""
        child = self._find(ticket, key)
        if child is not None:
            child.kept = False
            self._bring_down(ticket, child)

    @_event
    def terminate_child(self, ticket: Any, key: str) -> None:
        """Stop it, and keep its spec unless it is temporary."""
        child = self._find(ticket, key)
        if child is not None:
            if self._simple or child.spec.restart == "temporary":
                child.kept = False
            self._bring_down(ticket, child)

    @_event
    def restart_child(self, ticket: Any, key: str, now: float) -> None:  # noqa: ARG002
        """Start a child that is stopped. If it cannot start its spec is kept nevertheless."""
        child = self._find(ticket, key, stopped=True)
        if child is not None:
            self._want(child, wanted=True)
            self._start(ticket, child)

    @_event
    def delete_child(self, ticket: Any, key: str) -> None:
        """Forget a child that is stopped."""
        child = self._find(ticket, key, stopped=True)
        if child is not None:
            del self._children[key]
            self._emit(Answer(ticket))

    # --- one child --------------------------------------------------------------------------------

    def _refusal(self, spec: ChildSpec) -> ActorError | None:
        if spec.name in self._children:
            return ChildExists(f"{self._name} has a child {spec.name!r} already")
        if spec.significant and self._flags.auto_shutdown == "never":
            return ActorError(
                f"{spec.name!r} is significant, but auto_shutdown of {self._name} is 'never'"
            )
        if self._max_children is not None and len(self._children) >= self._max_children:
            return TooManyChildren(f"{self._name} may have {self._max_children} children")
        return None

    def _find(self, ticket: Any, key: str, *, stopped: bool = False) -> _Child | None:
        child = self._children.get(key)
        if child is None:
            self._emit(Answer(ticket, NoSuchChild(f"{self._name} has no child {key!r}")))
        elif stopped and child.state != "stopped":
            text = f"child {key!r} of {self._name} is {child.state}"
            self._emit(Answer(ticket, ActorError(text)))
        else:
            return child
        return None

    def _add(self, spec: ChildSpec) -> _Child:
        child = self._children[spec.name] = _Child(spec)
        self._want(child, wanted=True)
        return child

    def _want(self, child: _Child, *, wanted: bool) -> None:
        if child.spec.significant:
            self._significant += wanted - child.wanted
        child.wanted = wanted

    def _admit(self, ticket: Any, spec: ChildSpec) -> None:
        error = self._refusal(spec)
        if error is None:
            self._start(ticket, self._add(spec))
        else:
            self._emit(Answer(ticket, error))

    def _start(self, ticket: Any, child: _Child) -> None:
        child.starters.append(ticket)
        if self._grouped or not self._ready:
            self._starts.append(child)
        else:
            self._launch(child)

    def _launch(self, child: _Child) -> None:
        child.phase = "starting"
        child.launches += 1
        self._emit(Launch(child.key, child.spec))

    def _stop(self, child: _Child) -> None:
        child.phase, child.asked = "stopping", True
        self._emit(Stop(child.key))

    def _bring_down(self, ticket: Any, child: _Child) -> None:
        """For good; if a group operation has yet to stop it, in its turn."""
        child.stoppers.append(ticket)
        self._want(child, wanted=False)
        if child.phase in ("starting", "up"):
            self._stop(child)
        elif child.phase != "stopping":
            self._settle(child, SHUTDOWN)

    def _over(self, key: str, reason: ExitReason, now: float) -> None:
        """It has ended, or could not start: one end of it has been reported."""
        child = self._children.get(key)
        if child is None or child.phase in ("down", "delayed"):
            return  # a late report
        was, child.phase, child.asked = child.phase, "down", False
        if was == "stopping":
            self._settle(child, reason)
        elif child.starters:
            self._want(child, wanted=False)
            self._settle(child, reason)
        elif child.since is None:
            self._finish(_not_started(key, reason))
        else:
            child.failed = was == "starting"
            if child.failed and not reason.failed:
                reason = _not_started(key, reason)
            self._decide(child, reason, 0.0 if child.failed else now - child.since, now)

    def _settle(self, child: _Child, reason: ExitReason) -> None:
        """It is down. If that is for good, whoever waits is answered, and its spec may go."""
        if child.wanted:
            return
        child.phase = "down"
        if not child.kept or (child.starters and child.since is None):
            del self._children[child.key]
        self._answer(child.starters, StartFailed(child.key, reason))
        self._answer(child.stoppers)

    def _decide(self, child: _Child, reason: ExitReason, ran: float, now: float) -> None:
        match decide(child.spec, reason, self._window, now):
            case Restart(window):
                self._window = window
                self._restart(child, ran, now)
            case Drop(forget):
                child.kept = not (forget or self._simple)
                self._want(child, wanted=False)
                self._settle(child, reason)
                if child.spec.significant and (
                    self._flags.auto_shutdown == "any_significant" or not self._significant
                ):
                    self._finish(SHUTDOWN)
            case Escalate():
                text = (
                    f"child {child.key!r} had to be restarted more than {self._window.intensity} "
                    f"times in {self._window.period} s; it ended last with {reason}"
                )
                error = RestartIntensityExceeded.__name__
                self._finish(ExitReason("error", error, text, reason.traceback))

    def _restart(self, child: _Child, ran: float, now: float) -> None:
        backoff = child.spec.backoff
        if backoff is not None:
            child.failures = 1 if ran >= backoff.reset else child.failures + 1
            seconds = backoff.delay(child.failures)
            child.phase, child.due = "delayed", now + seconds
            self._emit(Wake(child.key, seconds))
        if self._grouped:
            self._regroup(child)
        elif backoff is None:
            self._launch(child)

    # --- one after the other ----------------------------------------------------------------------

    def _regroup(self, failed: _Child) -> None:
        """Its scope is to go down and to come up again, and so is what was on its way before."""
        for key in scope(self._flags.strategy, self._children, failed.key):
            child = self._children[key]
            if child.phase == "down":
                self._want(child, wanted=True)
            elif child.phase in ("starting", "up"):
                child.phase = "stopping"
                if child.spec.restart == "temporary":
                    child.kept = False
                    self._want(child, wanted=False)
        children = self._children.values()
        self._stops = [child for child in children if child.phase == "stopping"]
        self._waits = [child for child in children if child.phase == "delayed"]
        self._starts = deque(child for child in children if child.wanted and child.phase != "up")

    def _advance(self) -> None:
        """Begin the next step, unless the one before is still to be reported."""
        while self._stops:
            child = self._stops[-1]
            if child.phase == "stopping":
                if not child.asked:
                    self._stop(child)
                return
            self._stops.pop()
        while self._waits:
            if self._waits[-1].phase == "delayed":
                return
            self._waits.pop()
        while self._starts:
            child = self._starts[0]
            if child.phase == "down" and child.wanted:
                self._launch(child)
            if child.phase in ("starting", "stopping"):
                return
            self._starts.popleft()
        if not self._ready:
            self._ready = True
            self._emit(Ready())

    # --- effects ----------------------------------------------------------------------------------

    def _emit(self, effect: Effect) -> None:
        if not self._finished:
            self._effects.append(effect)

    def _answer(
        self, tickets: list[Any], error: ActorError | None = None, key: str | None = None
    ) -> None:
        for ticket in tickets:
            self._emit(Answer(ticket, error, key))
        tickets.clear()

    def _finish(self, reason: ExitReason) -> None:
        self._emit(Finish(reason))
        self._finished = True
