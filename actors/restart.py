"""What a supervisor does when a child has ended: one pure function.

OTP's matrix (stdlib supervisor): permanent is always restarted, temporary never, transient only
if it did not end by itself or on request ("normal", "shutdown"). A restart is allowed if it and
the restarts of the last ``period`` seconds together are not more than ``intensity``; else the
supervisor gives up.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from actors.child_spec import ChildSpec
from actors.signals import ExitReason


@dataclass(frozen=True)
class Window:
    """The restarts that still count: at most ``intensity`` in ``period`` seconds."""

    intensity: int = 1
    period: float = 5.0
    restarts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.intensity < 0 or self.period <= 0:
            raise ValueError("intensity must not be negative, and period must be positive")

    def add(self, now: float) -> Window:
        """The window with a restart at ``now``. Restarts older than the period are forgotten."""
        recent = tuple(then for then in self.restarts if now - then <= self.period)
        return replace(self, restarts=(*recent, now))

    @property
    def exceeded(self) -> bool:
        return len(self.restarts) > self.intensity


@dataclass(frozen=True)
class Restart:
    """Start the child again; ``window`` is the one to go on with."""

    window: Window


@dataclass(frozen=True)
class Drop:
    """Leave the child ended. ``forget``: its spec too (temporary)."""

    forget: bool


@dataclass(frozen=True)
class Escalate:
    """Too many restarts: end all children, and oneself."""


def decide(
    spec: ChildSpec, reason: ExitReason, window: Window, now: float
) -> Restart | Drop | Escalate:
    """``reason``: why the child ended, or why it could not be restarted. ``now`` in seconds."""
    if spec.restart == "temporary":
        return Drop(forget=True)
    if spec.restart == "transient" and not reason.failed:
        return Drop(forget=False)
    after = window.add(now)
    return Escalate() if after.exceeded else Restart(after)
