"""What a supervisor is to do next, as values: what `Supervision` returns and its actor performs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.child_spec import ChildSpec
from actors.errors import ActorError
from actors.signals import ExitReason


@dataclass(frozen=True)
class Launch:
    """Begin to start it; report launched() or launch_failed()."""

    key: str
    spec: ChildSpec


@dataclass(frozen=True)
class Stop:
    """Ask it to end, and kill it after ``spec.shutdown``; report ended(), or launch_failed()."""

    key: str


@dataclass(frozen=True)
class Wake:
    """Report due() in so many seconds."""

    key: str
    seconds: float


@dataclass(frozen=True)
class Answer:
    """The request ``ticket`` is done. ``key``: of the child that it has started, if it was that."""

    ticket: Any
    error: ActorError | None = None
    key: str | None = None


@dataclass(frozen=True)
class Ready:
    """All children of begin() have started."""


@dataclass(frozen=True)
class Finish:
    """End with this reason; all children are to be stopped in the reverse of order()."""

    reason: ExitReason


Effect = Launch | Stop | Wake | Answer | Ready | Finish
