"""What a restart is made of: OTP's matrix, row by row, the window, scopes, flags and specs."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import (
    Actor,
    ChildSpec,
    Drop,
    Escalate,
    ExitReason,
    Restart,
    System,
    Window,
    decide,
    decode,
    encode,
)
from actors.child_spec import BRUTAL_KILL, INFINITY, Backoff
from actors.restart import Flags, scope

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


@pytest.mark.parametrize(
    ("intensity", "period"), [(-1, 5.0), (1, 0.0), (1, -1.0), (1, float("nan"))]
)
def test_a_window_that_makes_no_sense_is_refused(intensity: int, period: float) -> None:
    with pytest.raises(ValueError, match="intensity"):
        Window(intensity, period)
    with pytest.raises(ValueError, match="intensity"):
        Flags(intensity=intensity, period=period)


def test_otps_defaults() -> None:
    assert Window() == Window(intensity=1, period=5.0)
    assert Flags() == Flags("one_for_one", 1, 5.0, "never")
    assert (ChildSpec("c", "a:B", []).restart, ChildSpec("c", "a:B", []).shutdown) == (
        "permanent",
        5.0,
    )


# --- scopes and flags -----------------------------------------------------------------------------

SCOPES = [
    # strategy             failed  goes down and comes up with it
    ("one_for_one", "b", ""),
    ("simple_one_for_one", "b", ""),
    ("one_for_all", "a", "bcd"),
    ("one_for_all", "b", "acd"),
    ("one_for_all", "d", "abc"),
    ("rest_for_one", "a", "bcd"),
    ("rest_for_one", "b", "cd"),
    ("rest_for_one", "d", ""),
]


@pytest.mark.parametrize(("strategy", "failed", "others"), SCOPES)
def test_the_scope_of_a_restart(strategy: str, failed: str, others: str) -> None:
    assert scope(strategy, ["a", "b", "c", "d"], failed) == tuple(others)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"strategy": "all_for_one"}, "strategy is one of one_for_one, .*, not 'all_for_one'"),
        ({"auto_shutdown": "always"}, "auto_shutdown is one of never, .*, not 'always'"),
    ],
)
def test_flags_that_make_no_sense_are_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Flags(**options)


# --- specs ----------------------------------------------------------------------------------------


class Worker(Actor):
    pass


class Tree(Actor):
    default_shutdown: ClassVar[float | None] = None


def test_a_spec_holds_everything_that_a_start_needs() -> None:
    backoff = Backoff(1.0, 8.0)
    spec = ChildSpec.of(
        "w",
        Worker,
        1,
        restart="transient",
        shutdown=2.0,
        significant=True,
        registered=True,
        backoff=backoff,
        name="an argument of its own",
    )
    assert spec.load() is Worker
    assert (spec.args, spec.kwargs) == ([1], {"name": "an argument of its own"})
    assert (spec.restart, spec.shutdown) == ("transient", 2.0)
    assert (spec.significant, spec.registered, spec.backoff) == (True, True, backoff)
    with System() as system:
        assert decode(encode(spec), system) == spec


def test_no_two_specs_share_their_arguments() -> None:
    first, second = ChildSpec("a", "a:B", []), ChildSpec("b", "a:B", [])
    assert first.kwargs == {}
    assert first.kwargs is not second.kwargs


@pytest.mark.parametrize(
    ("actor_class", "options", "seconds"),
    [
        (Worker, {}, 5.0),
        (Tree, {}, INFINITY),
        (Tree, {"shutdown": 3.0}, 3.0),
        (Worker, {"shutdown": None}, INFINITY),
        (Worker, {"shutdown": "infinity"}, INFINITY),
        (Worker, {"shutdown": "brutal_kill"}, BRUTAL_KILL),
        (Worker, {"shutdown": 0}, BRUTAL_KILL),
    ],
)
def test_how_long_a_child_gets_to_end(
    actor_class: type[Actor], options: dict[str, Any], seconds: float | None
) -> None:
    assert ChildSpec.of("c", actor_class, **options).shutdown == seconds


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"shutdown": "never"}, "shutdown is seconds or one of .*brutal_kill, infinity: 'never'"),
        ({"shutdown": -0.1}, "shutdown cannot be"),
        ({"restart": "always"}, "restart is one of"),
        ({"significant": True}, "'c' is permanent and always started again"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ChildSpec.of("c", Worker, **options)


# --- backoff --------------------------------------------------------------------------------------


def test_a_backoff_grows_to_its_maximum() -> None:
    backoff = Backoff(initial=0.5, maximum=3.0, factor=2.0)
    assert [backoff.delay(n) for n in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert backoff.delay(1_000_000) == 3.0  # not OverflowError
    assert [Backoff(1.0, 9.0, factor=1).delay(n) for n in (1, 7)] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"initial": 0.0}, "from more than 0 s"),
        ({"initial": float("nan")}, "from more than 0 s"),
        ({"initial": 2.0, "maximum": 1.0}, "from 2.0 s to 1.0 s"),
        ({"maximum": math.inf}, "finite maximum"),
        ({"factor": 0.5}, "factor cannot be 0.5"),
        ({"factor": math.inf}, "factor cannot be inf"),
        ({"reset": 0.0}, "reset is a time"),
    ],
)
def test_a_backoff_that_makes_no_sense_is_refused(options: dict[str, float], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        Backoff(**options)
