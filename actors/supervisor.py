"""The supervisor: an actor that starts others, and starts them again when they end.

One for one: each child is restarted by itself. Children start in the order of their specs, each
when the one before has started, and are stopped in reverse order. What to do about an end is
decided in restart.py; this file only does it. Semantics: OTP, stdlib supervisor.

Rules: a child that cannot be started the first time is an error of whoever asked for it
(StartFailed) and leaves nothing behind. A child that cannot be *re*started counts as another end
of it, and is tried again by a control message to oneself, so a shutdown request gets in between.
The `Exit` of a child that was stopped on purpose arrives later and means nothing: the child is
known by its Ref, and that is gone by then.

Corner case: a killed child's thread may still be busy when its successor starts. What must not be
used by both needs a fence of its own (a process, an epoch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.actor import Actor
from actors.cell import Cell, logger
from actors.child_spec import ChildSpec
from actors.codec import decode, encode
from actors.errors import (
    ActorError,
    ChildExists,
    NoSuchChild,
    RestartIntensityExceeded,
    StartFailed,
)
from actors.message import Message
from actors.ref import Ref
from actors.restart import Drop, Escalate, Restart, Window, decide
from actors.signals import Exit, ExitReason


class StartChild(Message, kind="actors.start_child"):
    """Ask: start one more child, and keep it. Answered by its Ref, StartFailed or ChildExists."""

    spec: ChildSpec


class StopChild(Message, kind="actors.stop_child"):
    """Ask: stop this child and forget its spec. Answered by None or NoSuchChild."""

    name: str


class WhichChildren(Message, kind="actors.which_children"):
    """Ask: answered by a list of `ChildStatus`, in the order of the specs."""


class ChildStatus(Message, kind="actors.child_status"):
    """``state``: "running", "restarting" (its last start failed) or "stopped" (``ref`` is None)."""

    name: str
    ref: Ref | None
    restarts: int
    state: str


class _TryAgain(Message, kind="actors.try_again"):
    name: str


@dataclass
class _Child:
    spec: ChildSpec
    ref: Ref | None = None
    restarts: int = 0
    state: str = "stopped"


class Supervisor(Actor):
    """At most ``intensity`` restarts in ``period`` seconds, of all children together."""

    def __init__(self, specs: list[ChildSpec], intensity: int = 1, period: float = 5.0) -> None:
        super().__init__()
        self._specs = specs
        self._window = Window(intensity, period)
        self._children: dict[str, _Child] = {}

    def on_start(self) -> None:
        for spec in self._specs:
            self._add(spec)

    def on_receive(self, message: Message) -> Any:
        match message:
            case Exit(ref, _, reason):
                child = next((c for c in self._children.values() if c.ref == ref), None)
                if child is not None:
                    self._ended(child, reason)
            case _TryAgain(name):
                child = self._children.get(name)
                if child is not None and child.state == "restarting":
                    self._restart(child)
            case StartChild(spec):
                reply = self.reply_later()
                try:
                    reply.send(self._add(spec))
                except ActorError as error:
                    reply.fail(error)
            case StopChild(name):
                reply = self.reply_later()
                try:
                    self._remove(name)
                    reply.send(None)
                except NoSuchChild as error:
                    reply.fail(error)
            case WhichChildren():
                return [
                    ChildStatus(c.spec.name, c.ref, c.restarts, c.state)
                    for c in self._children.values()
                ]
            case _:
                return super().on_receive(message)
        return None

    def _add(self, spec: ChildSpec) -> Ref:
        if spec.name in self._children:
            raise ChildExists(f"{self.name} has a child {spec.name!r} already")
        child = _Child(spec)
        self._launch(child)
        self._children[spec.name] = child
        assert child.ref is not None
        return child.ref

    def _remove(self, name: str) -> None:
        child = self._children.pop(name, None)
        if child is None:
            raise NoSuchChild(f"{self.name} has no child {name!r}")
        if child.ref is not None:
            child.ref.cell.end(child.spec.shutdown)

    def _launch(self, child: _Child) -> None:
        """Raises StartFailed."""
        spec = decode(encode(child.spec), self.system)
        assert isinstance(spec, ChildSpec)
        try:
            actor_class = spec.load()
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise StartFailed(spec.name, ExitReason.of(error)) from error
        child.ref = self.start_child(
            actor_class, *spec.args, name=spec.name, shutdown=spec.shutdown
        )
        child.state = "running"

    def _ended(self, child: _Child, reason: ExitReason) -> None:
        child.ref = None
        child.state = "stopped"
        match decide(child.spec, reason, self._window, self.system.now()):
            case Restart(window):
                self._window = window
                self._restart(child)
            case Drop(forget=True):
                del self._children[child.spec.name]
            case Drop():
                pass
            case Escalate():
                self._give_up(child, reason)

    def _restart(self, child: _Child) -> None:
        child.restarts += 1
        try:
            self._launch(child)
        except StartFailed as error:
            logger.warning("%s: %s", self.name, error)
            match decide(child.spec, error.reason, self._window, self.system.now()):
                case Restart(window):
                    self._window = window
                    child.state = "restarting"
                    self.ref.tell(_TryAgain(child.spec.name), control=True)
                case _:
                    self._give_up(child, error.reason)

    def _give_up(self, child: _Child, reason: ExitReason) -> None:
        text = (
            f"child {child.spec.name!r} had to be restarted more than {self._window.intensity} "
            f"times in {self._window.period} s; it ended last with {reason}"
        )
        self.exit(ExitReason("error", RestartIntensityExceeded.__name__, text, reason.traceback))

    def stop_order(self) -> list[list[Cell]]:
        """By the order of the specs, not of the last restarts; what has no spec goes first."""
        known = [c.ref.cell for c in self._children.values() if c.ref is not None]
        others = [cell for (cell,) in super().stop_order() if cell not in known]
        return [[cell] for cell in [*others, *reversed(known)]]
