"""The restart decision: OTP's matrix, row by row, and the window against its definition."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import ChildSpec, Drop, Escalate, ExitReason, Restart, Window, decide

NORMAL, SHUTDOWN = ExitReason("normal"), ExitReason("shutdown")
KILLED, ERROR = ExitReason("killed"), ExitReason("error", "ValueError", "x")
FRESH = Window(1, 5.0)
USED = Window(1, 5.0, (100.0,))
AGAIN, KEEP, FORGET, GIVE_UP = "restart", Drop(forget=False), Drop(forget=True), Escalate()

MATRIX = [
    # restart      reason    fresh window  used-up window
    ("permanent", NORMAL, AGAIN, GIVE_UP),
    ("permanent", SHUTDOWN, AGAIN, GIVE_UP),
    ("permanent", KILLED, AGAIN, GIVE_UP),
    ("permanent", ERROR, AGAIN, GIVE_UP),
    ("transient", NORMAL, KEEP, KEEP),
    ("transient", SHUTDOWN, KEEP, KEEP),
    ("transient", KILLED, AGAIN, GIVE_UP),
    ("transient", ERROR, AGAIN, GIVE_UP),
    ("temporary", NORMAL, FORGET, FORGET),
    ("temporary", SHUTDOWN, FORGET, FORGET),
    ("temporary", KILLED, FORGET, FORGET),
    ("temporary", ERROR, FORGET, FORGET),
]


@pytest.mark.parametrize(("restart", "reason", "fresh", "used"), MATRIX)
def test_the_matrix(restart: str, reason: ExitReason, fresh: object, used: object) -> None:
    spec = ChildSpec("child", "a:B", [], restart)
    assert decide(spec, reason, USED, 104.0) == used
    decision = decide(spec, reason, FRESH, 104.0)
    if fresh == AGAIN:
        assert decision == Restart(Window(1, 5.0, (104.0,)))
    else:
        assert decision == fresh


@pytest.mark.parametrize(
    ("intensity", "period", "restarts", "now", "allowed"),
    [
        (0, 5.0, (), 0.0, False),
        (1, 5.0, (), 0.0, True),
        (1, 5.0, (0.0,), 5.0, False),  # exactly the period ago still counts
        (1, 5.0, (0.0,), 5.001, True),
        (3, 10.0, (1.0, 2.0, 3.0), 4.0, False),
        (3, 10.0, (1.0, 2.0, 3.0), 11.5, True),
    ],
)
def test_the_window(
    intensity: int, period: float, restarts: tuple[float, ...], now: float, allowed: bool
) -> None:
    spec = ChildSpec("child", "a:B", [])
    decision = decide(spec, ERROR, Window(intensity, period, restarts), now)
    assert isinstance(decision, Restart if allowed else Escalate)


@settings(deadline=None)
@given(
    intensity=st.integers(0, 5),
    period=st.floats(0.1, 20),
    gaps=st.lists(st.floats(0, 10), max_size=30),
)
def test_a_supervisor_gives_up_at_the_first_restart_too_many(
    intensity: int, period: float, gaps: list[float]
) -> None:
    """Against the definition: more than ``intensity`` restarts within ``period`` seconds."""
    spec, window, now = ChildSpec("child", "a:B", []), Window(intensity, period), 0.0
    past: list[float] = []
    for gap in gaps:
        now += gap
        past.append(now)
        too_many = sum(now - then <= period for then in past) > intensity
        decision = decide(spec, ERROR, window, now)
        assert isinstance(decision, Escalate) == too_many
        if not isinstance(decision, Restart):
            return
        window = decision.window
        assert len(window.restarts) <= intensity


@pytest.mark.parametrize(("intensity", "period"), [(-1, 5.0), (1, 0.0), (1, -1.0)])
def test_a_window_that_makes_no_sense_is_refused(intensity: int, period: float) -> None:
    with pytest.raises(ValueError, match="intensity"):
        Window(intensity, period)


def test_otps_defaults() -> None:
    assert Window() == Window(intensity=1, period=5.0)
    assert (ChildSpec("c", "a:B", []).restart, ChildSpec("c", "a:B", []).shutdown) == (
        "permanent",
        5.0,
    )
