"""What a supervisor does when a child has ended: pure functions.

OTP's matrix (stdlib supervisor): permanent is always restarted, temporary never, transient only
if it did not end by itself or on request ("normal", "shutdown"). A restart is allowed if it and
the restarts of the last ``period`` seconds together are not more than ``intensity``; else the
supervisor gives up. `decide` says which of these, `scope` which others a restart takes along.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import dropwhile

from actors.child_spec import ChildSpec
from actors.signals import ExitReason

_STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one")
_AUTO_SHUTDOWNS = ("never", "any_significant", "all_significant")


@dataclass(frozen=True)
class Window:
    """The restarts that still count: at most ``intensity`` in ``period`` seconds."""

    intensity: int = 1
    period: float = 5.0
    restarts: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.intensity < 0 or not self.period > 0:
            raise ValueError("intensity must not be negative, and period must be positive")

    def add(self, now: float) -> Window:
        """The window with a restart at ``now``. Restarts older than the period are forgotten."""
        recent = tuple(then for then in self.restarts if now - then <= self.period)
        return replace(self, restarts=(*recent, now))

    @property
    def exceeded(self) -> bool:
        """Whether there were more restarts than are allowed."""
        return len(self.restarts) > self.intensity


@dataclass(frozen=True)
class Flags:
    """How a supervisor supervises; OTP's supervisor flags, with OTP's defaults.

    ``auto_shutdown``: whether the supervisor ends, with "shutdown", when a significant child has
    ended by itself for good: "never", "any_significant" (the first does) or "all_significant" (the
    last does).
    """

    strategy: str = "one_for_one"
    intensity: int = 1
    period: float = 5.0
    auto_shutdown: str = "never"

    def __post_init__(self) -> None:
        if self.strategy not in _STRATEGIES:
            raise ValueError(f"strategy is one of {', '.join(_STRATEGIES)}, not {self.strategy!r}")
        if self.auto_shutdown not in _AUTO_SHUTDOWNS:
            raise ValueError(
                f"auto_shutdown is one of {', '.join(_AUTO_SHUTDOWNS)}, not {self.auto_shutdown!r}"
            )
        Window(self.intensity, self.period)  # refuses what makes no sense


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


def scope(strategy: str, order: Iterable[str], name: str) -> tuple[str, ...]:
    """Which others of ``order`` are taken down, and started again, with the child ``name``."""
    match strategy:
        case "one_for_all":
            return tuple(other for other in order if other != name)
        case "rest_for_one":
            return tuple(dropwhile(lambda other: other != name, order))[1:]
        case _:
            return ()
