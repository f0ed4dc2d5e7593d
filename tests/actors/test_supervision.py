"""The core of the supervisor: what it does next, as tables and scripts of events and effects.

Expectations are written out, from OTP's documentation and source; a machine of random events then
checks what must hold whatever happens.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from actors import ChildSpec, ExitReason, StartFailed
from actors.child_spec import Backoff
from actors.effects import Answer, Effect, Finish, Launch, Ready, Stop, Wake
from actors.restart import Flags
from actors.supervision import Supervision

NORMAL, SHUTDOWN = ExitReason("normal"), ExitReason("shutdown")
KILLED, ERROR = ExitReason("killed"), ExitReason("error", "ValueError", "x", "the traceback")
REASONS = (NORMAL, SHUTDOWN, KILLED, ERROR)
SLOW = Backoff(initial=1.0, maximum=5.0, factor=2.0, reset=60.0)


def spec(name: str, restart: str = "permanent", **options: Any) -> ChildSpec:
    return ChildSpec(name, "a:B", [], restart, **options)


def say(effect: Effect) -> str:
    match effect:
        case Launch(key, child):
            assert key == child.name
            return f"launch {key}"
        case Stop(key):
            return f"stop {key}"
        case Wake(key, seconds):
            return f"wake {key} in {seconds:g}"
        case Answer(ticket, None, key):
            return f"{ticket}: {key or 'done'}"
        case Answer(ticket, error):
            return f"{ticket}: {type(error).__name__}"
        case Ready():
            return "ready"
        case Finish(reason):
            return f"finish: {reason.error or reason.kind}"


class Script:
    """Feeds a Supervision, and tells its effects as text. Requests have their text as a ticket."""

    def __init__(self, strategy: str, max_children: int | None = None, **flags: Any) -> None:
        self.core = Supervision("top", Flags(strategy, **flags), max_children)
        self.now = 100.0
        self.open: list[Launch | Stop] = []
        self.last: list[Effect] = []

    def take(self, effects: list[Effect]) -> str:
        self.last = effects
        self.open += [effect for effect in effects if isinstance(effect, Launch | Stop)]
        return ", ".join(say(effect) for effect in effects)

    def reported(self, key: str) -> None:
        self.open = [effect for effect in self.open if effect.key != key]

    def begin(self, *specs: ChildSpec) -> str:
        return self.take(self.core.begin(specs, self.now))

    def up(self, key: str) -> str:
        self.open = [e for e in self.open if e.key != key or isinstance(e, Stop)]
        return self.take(self.core.launched(key, self.now))

    def fails(self, key: str, reason: ExitReason = ERROR) -> str:
        self.reported(key)
        return self.take(self.core.launch_failed(key, reason, self.now))

    def ends(self, key: str, reason: ExitReason = ERROR) -> str:
        self.reported(key)
        return self.take(self.core.ended(key, reason, self.now))

    def due(self, key: str, after: float = 0.0) -> str:
        self.now += after
        return self.take(self.core.due(key, self.now))

    def start(self, child: ChildSpec | str) -> str:
        child = spec(child) if isinstance(child, str) else child
        return self.take(self.core.start_child(f"start {child.name}", child, self.now))

    def start_instance(self, *args: Any) -> str:
        return self.take(self.core.start_instance("start", args, self.now))

    def stop(self, key: str) -> str:
        return self.take(self.core.stop_child(f"stop {key}?", key))

    def terminate(self, key: str) -> str:
        return self.take(self.core.terminate_child(f"terminate {key}", key))

    def restart(self, key: str) -> str:
        return self.take(self.core.restart_child(f"restart {key}", key, self.now))

    def delete(self, key: str) -> str:
        return self.take(self.core.delete_child(f"delete {key}", key))

    def run(self, first: str = "") -> str:
        """Perform everything, one by one, each successfully; ``first`` and all that followed."""
        told = [first] if first else []
        while self.open:
            effect = self.open[0]
            more = self.up(effect.key) if isinstance(effect, Launch) else self.ends(effect.key)
            told += [more] if more else []
        return ", ".join(told)

    def states(self) -> str:
        return ", ".join(f"{key} {state}" for key, state, _ in self.core.status())

    def restarts(self) -> dict[str, int]:
        return {key: restarts for key, _, restarts in self.core.status()}


def running(strategy: str, *children: ChildSpec | str, **options: Any) -> Script:
    """All of them up. Under simple_one_for_one, so many instances of x."""
    script = Script(strategy, **options)
    specs = [spec(child) if isinstance(child, str) else child for child in children]
    if strategy == "simple_one_for_one":
        script.begin(replace(specs[1], name="x"))
        for _ in specs:
            script.start_instance()
    else:
        script.begin(*specs)
    script.run()
    assert all(state == "running" for _, state, _ in script.core.status())
    return script


# --- the matrix -----------------------------------------------------------------------------------

# Of a, b and c, b has ended: what follows when all goes well, and what becomes of b.
ALONE = ("launch b", "running")
ALL = ("stop c, stop a, launch a, launch b, launch c", "running")
REST = ("stop c, launch b, launch c", "running")
KEPT = ("", "stopped")
GONE = ("", None)

MATRIX = [
    # strategy, restart; after normal, shutdown, killed, error
    ("one_for_one", "permanent", ALONE, ALONE, ALONE, ALONE),
    ("one_for_one", "transient", KEPT, KEPT, ALONE, ALONE),
    ("one_for_one", "temporary", GONE, GONE, GONE, GONE),
    ("one_for_all", "permanent", ALL, ALL, ALL, ALL),
    ("one_for_all", "transient", KEPT, KEPT, ALL, ALL),
    ("one_for_all", "temporary", GONE, GONE, GONE, GONE),
    ("rest_for_one", "permanent", REST, REST, REST, REST),
    ("rest_for_one", "transient", KEPT, KEPT, REST, REST),
    ("rest_for_one", "temporary", GONE, GONE, GONE, GONE),
    ("simple_one_for_one", "permanent", ALONE, ALONE, ALONE, ALONE),
    ("simple_one_for_one", "transient", GONE, GONE, ALONE, ALONE),
    ("simple_one_for_one", "temporary", GONE, GONE, GONE, GONE),
]
ROWS = [
    pytest.param(strategy, restart, reason, *cell, id=f"{strategy}-{restart}-{reason.kind}")
    for strategy, restart, *cells in MATRIX
    for reason, cell in zip(REASONS, cells, strict=True)
]


@pytest.mark.parametrize(("strategy", "restart", "reason", "effects", "state"), ROWS)
def test_the_matrix(
    strategy: str, restart: str, reason: ExitReason, effects: str, state: str | None
) -> None:
    b = "x-2" if strategy == "simple_one_for_one" else "b"
    script = running(strategy, "a", spec("b", restart), "c")
    assert script.run(script.ends(b, reason)) == effects.replace("b", b)
    assert {key: state for key, state, _ in script.core.status()}.get(b) == state
    others = [state for key, state, _ in script.core.status() if key != b]
    assert others == ["running", "running"]


@pytest.mark.parametrize(("strategy", "restart", "reason", "effects", "state"), ROWS)
def test_the_matrix_when_no_restart_is_allowed(
    strategy: str, restart: str, reason: ExitReason, effects: str, state: str | None
) -> None:
    b = "x-2" if strategy == "simple_one_for_one" else "b"
    script = running(strategy, "a", spec("b", restart), "c", intensity=0)
    assert script.run(script.ends(b, reason)) == (
        "finish: RestartIntensityExceeded" if effects else ""
    )


SCOPES = [
    # strategy, a, b, c, who fails: what follows, and who is there in the end
    (
        ("one_for_all", "permanent", "temporary", "transient", "a"),
        ("stop c, stop b, launch a, launch c", "a running, c running"),
    ),
    (
        ("one_for_all", "temporary", "temporary", "permanent", "c"),
        ("stop b, stop a, launch c", "c running"),
    ),
    (
        ("rest_for_one", "temporary", "transient", "temporary", "b"),
        ("stop c, launch b", "a running, b running"),
    ),
    (
        ("rest_for_one", "permanent", "permanent", "transient", "c"),
        ("launch c", "a running, b running, c running"),
    ),
]


@pytest.mark.parametrize(("case", "expected"), SCOPES)
def test_who_is_taken_along(case: tuple[str, ...], expected: tuple[str, str]) -> None:
    strategy, *restarts, failed = case
    script = running(
        strategy, *(spec(name, restart) for name, restart in zip("abc", restarts, strict=True))
    )
    assert (script.run(script.ends(failed)), script.states()) == expected


@pytest.mark.parametrize("how", ["ended", "terminated"])
def test_a_group_operation_starts_also_those_that_were_down(how: str) -> None:
    script = running("one_for_all", "a", spec("b", "transient"), "c")
    if how == "ended":
        script.ends("b", NORMAL)
    else:
        script.run(script.terminate("b"))
    assert script.states() == "a running, b stopped, c running"
    assert script.run(script.ends("a")) == "stop c, launch a, launch b, launch c"


# --- the start of the supervisor ------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_children_start_in_order_each_after_the_one_before(strategy: str) -> None:
    script = Script(strategy)
    assert script.begin(spec("a"), spec("b"), spec("c")) == "launch a"
    assert script.states() == "a starting, b starting, c starting"
    assert script.up("a") == "launch b"
    assert script.up("b") == "launch c"
    assert script.up("c") == "ready"
    assert script.states() == "a running, b running, c running"
    assert script.core.order() == ["a", "b", "c"]


def test_a_supervisor_without_children_is_ready_at_once() -> None:
    assert Script("one_for_all").begin() == "ready"


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize("restart", ["permanent", "transient", "temporary"])
def test_the_first_that_cannot_start_ends_the_supervisor(strategy: str, restart: str) -> None:
    script = Script(strategy, intensity=9)
    script.begin(spec("a"), spec("b", restart), spec("c"))
    script.up("a")
    assert script.fails("b") == "finish: StartFailed"
    assert script.last == [
        Finish(
            ExitReason("error", "StartFailed", "b could not start: ValueError: x", "the traceback")
        )
    ]
    assert script.core.order() == ["a", "b", "c"]


def test_a_child_that_ends_before_the_others_have_started_does_not_end_the_supervisor() -> None:
    script = Script("one_for_one")
    script.begin(spec("a"), spec("b"))
    script.up("a")
    assert script.ends("a") == "launch a"
    assert script.up("b") == "ready"
    assert script.up("a") == ""


def test_a_request_while_the_supervisor_starts_has_its_turn() -> None:
    script = Script("one_for_one")
    script.begin(spec("a"), spec("b"))
    assert script.start("c") == ""
    assert script.stop("b") == "stop b?: done"
    assert script.up("a") == "launch c"
    assert script.fails("c") == "start c: StartFailed, ready"


def test_a_group_operation_while_the_supervisor_starts() -> None:
    script = Script("one_for_all")
    script.begin(spec("a"), spec("b"), spec("c"))
    script.up("a")
    assert script.ends("a") == "stop b"
    assert script.fails("b") == "launch a"
    assert script.run() == "launch b, launch c, ready"


REFUSED = [
    ("one_for_one", [spec("a"), spec("b"), spec("a")], "ChildExists"),
    ("one_for_one", [spec("a", "transient", significant=True)], "ActorError"),
    ("simple_one_for_one", [spec("a", "temporary", significant=True)], "ActorError"),
    ("simple_one_for_one", [], "ActorError"),
    ("simple_one_for_one", [spec("a"), spec("b")], "ActorError"),
    ("one_for_one", [spec("a"), spec("b"), spec("c")], "TooManyChildren"),
]


@pytest.mark.parametrize(("strategy", "specs", "error"), REFUSED)
def test_specs_that_cannot_be_are_refused_before_anything_starts(
    strategy: str, specs: list[ChildSpec], error: str
) -> None:
    assert Script(strategy, max_children=2).begin(*specs) == f"finish: {error}"


# --- restarts that fail ---------------------------------------------------------------------------


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("restart", ["permanent", "transient"])
def test_a_failed_restart_is_a_failure_whatever_its_reason(
    restart: str, reason: ExitReason
) -> None:
    script = running("one_for_one", spec("a", restart), intensity=2)
    assert script.ends("a") == "launch a"
    assert script.states() == "a starting"
    assert script.fails("a", reason) == "launch a"
    assert script.states() == "a restarting"
    assert script.restarts() == {"a": 2}
    assert script.fails("a", reason) == "finish: RestartIntensityExceeded"


def test_a_child_that_fails_for_ever_ends_the_supervisor_which_says_why() -> None:
    script = running("one_for_one", "a", intensity=3, period=60)
    assert [script.ends("a")] + [script.fails("a") for _ in range(2)] == ["launch a"] * 3
    script.fails("a")
    text = "child 'a' had to be restarted more than 3 times in 60 s; it ended last with "
    assert script.last == [
        Finish(
            ExitReason("error", "RestartIntensityExceeded", text + "ValueError: x", "the traceback")
        )
    ]


def test_a_child_that_fails_now_and_then_is_restarted_for_ever() -> None:
    script = running("one_for_one", "a", intensity=1, period=5.0)
    for _ in range(9):
        assert script.run(script.ends("a")) == "launch a"
        script.now += 5.001


def test_a_slow_start_of_one_never_delays_another() -> None:
    script = running("one_for_one", "a", "b", intensity=9)
    assert script.ends("a") == "launch a"
    assert script.ends("b") == "launch b"
    assert script.start("c") == "launch c"
    assert script.up("c") == "start c: c"
    assert script.up("b") == ""
    assert script.states() == "a starting, b running, c running"


def test_one_failure_counts_once_however_many_it_takes_along() -> None:
    script = running("one_for_all", *"abcdef", intensity=1)
    assert script.run(script.ends("c")).endswith("launch d, launch e, launch f")
    assert script.restarts() == dict.fromkeys("abcdef", 1)
    assert script.ends("c") == "finish: RestartIntensityExceeded"


GROUP_FAILURES = [
    # of a, b, c and d, which are restarted: what follows the second failure
    ("one_for_all", "d ends", "b fails", "stop a, launch a, launch b, launch c, launch d"),
    ("one_for_all", "d ends", "a fails", "launch a, launch b, launch c, launch d"),
    ("rest_for_one", "b ends", "b fails", "launch b, launch c, launch d"),
    ("rest_for_one", "b ends", "c fails", "launch c, launch d"),  # b is up again, and stays up
    ("rest_for_one", "b ends", "d fails", "launch d"),
]


@pytest.mark.parametrize(("strategy", "first", "then", "effects"), GROUP_FAILURES)
def test_a_start_that_fails_in_the_middle_of_a_group_operation(
    strategy: str, first: str, then: str, effects: str
) -> None:
    script = running(strategy, *"abcd", intensity=2)
    script.ends(first[0])
    failing = then[0]
    while not any(isinstance(effect, Launch) and effect.key == failing for effect in script.open):
        effect = script.open[0]
        _ = script.up(effect.key) if isinstance(effect, Launch) else script.ends(effect.key)
    assert script.run(script.fails(failing)) == effects
    assert script.states() == "a running, b running, c running, d running"
    assert script.ends("d") == "finish: RestartIntensityExceeded"  # both have counted


def test_a_child_that_dies_when_it_was_to_be_stopped_anyway_does_not_count() -> None:
    script = running("one_for_all", *"abcd", intensity=1)
    assert script.ends("d") == "stop c"
    assert script.states() == "a stopping, b stopping, c stopping, d starting"
    assert script.ends("a", ERROR) == ""  # before its turn
    assert script.ends("c", KILLED) == "stop b"  # in its turn
    assert script.run() == "launch a, launch b, launch c, launch d"


def test_a_group_operation_that_is_taken_up_by_a_larger_one() -> None:
    script = running("rest_for_one", *"abcd", intensity=2)
    assert script.ends("c") == "stop d"
    assert script.states() == "a running, b running, c starting, d stopping"
    assert script.ends("a") == ""  # b is to go down too, but after d
    assert script.states() == "a starting, b stopping, c starting, d stopping"
    assert script.ends("d") == "stop b"
    assert script.run() == "launch a, launch b, launch c, launch d"


def test_a_group_operation_that_is_taken_up_while_its_children_start() -> None:
    script = running("rest_for_one", *"abcd", intensity=2)
    assert script.ends("b") == "stop d"
    assert script.ends("d") == "stop c"
    assert script.ends("c") == "launch b"
    assert script.up("b") == "launch c"
    assert script.ends("a") == "stop c"
    assert script.up("c") == ""  # its start was already over; its end will be reported, too
    assert script.ends("c") == "stop b"
    assert script.run() == "launch a, launch b, launch c, launch d"


def test_a_child_that_dies_while_those_after_it_start_takes_them_down_again() -> None:
    script = running("one_for_all", *"abc", intensity=2)
    assert script.ends("a") == "stop c"
    assert script.ends("c") == "stop b"
    assert script.ends("b") == "launch a"
    assert script.up("a") == "launch b"
    assert script.ends("a") == "stop b"
    assert script.fails("b", SHUTDOWN) == "launch a"
    assert script.run() == "launch b, launch c"


def test_only_a_start_that_has_just_failed_makes_a_child_restarting() -> None:
    script = running("one_for_all", *"ab", intensity=9)
    script.run(script.ends("a"))
    script.run(script.ends("a"))
    script.run(script.ends("b"))
    assert script.ends("b") == "stop a"
    assert script.ends("a") == "launch a"
    assert script.fails("a") == "launch a"
    assert script.states() == "a restarting, b starting"
    script.run()
    assert script.ends("b") == "stop a"
    assert script.ends("a") == "launch a"
    assert script.states() == "a starting, b starting"


def test_a_transient_child_that_ends_well_during_a_group_operation_stays_down() -> None:
    script = running("rest_for_one", spec("a", "transient"), *"bc")
    assert script.ends("b") == "stop c"
    assert script.ends("a", NORMAL) == ""
    assert script.run() == "launch b, launch c"
    assert script.states() == "a stopped, b running, c running"


# --- requests -------------------------------------------------------------------------------------


def test_a_new_child_is_answered_when_it_is_up() -> None:
    script = running("one_for_one", "a")
    assert script.start("b") == "launch b"
    assert script.states() == "a running, b starting"
    assert script.up("b") == "start b: b"
    assert script.core.order() == ["a", "b"]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_a_new_child_that_cannot_start_is_forgotten_and_does_not_count(strategy: str) -> None:
    script = running(strategy, "a", intensity=0)
    assert script.start("b") == "launch b"
    assert script.fails("b") == "start b: StartFailed"
    (answer,) = script.last
    assert isinstance(answer, Answer)
    assert isinstance(answer.error, StartFailed)
    assert (answer.error.name, answer.error.reason) == ("b", ERROR)
    assert script.core.order() == ["a"]


def test_new_children_of_a_group_start_one_after_the_other() -> None:
    script = running("one_for_all", "a")
    assert script.start("b") == "launch b"
    assert script.start("c") == ""
    assert script.up("b") == "start b: b, launch c"
    assert script.up("c") == "start c: c"


def test_a_child_that_is_there_already_is_not_started() -> None:
    script = running("one_for_one", "a", spec("b", "transient"))
    script.ends("b", NORMAL)
    assert script.start("a") == "start a: ChildExists"
    assert script.start("b") == "start b: ChildExists"
    (answer,) = script.last
    assert isinstance(answer, Answer)
    assert str(answer.error) == "top has a child 'b' already"


def test_a_stopped_child_is_forgotten() -> None:
    script = running("one_for_one", "a", "b")
    assert script.stop("b") == "stop b"
    assert script.states() == "a running, b stopping"
    assert script.ends("b", KILLED) == "stop b?: done"
    assert script.core.order() == ["a"]
    for late in (script.up, script.fails, script.ends, script.due):
        assert late("b") == ""
    assert script.stop("b") == "stop b?: NoSuchChild"
    assert script.run(script.start("b")) == "launch b, start b: b"


def test_all_who_ask_for_the_same_end_are_answered() -> None:
    script = running("one_for_one", "a")
    assert script.terminate("a") == "stop a"
    assert script.stop("a") == ""
    assert script.terminate("a") == ""
    assert script.ends("a") == "terminate a: done, stop a?: done, terminate a: done"
    assert script.core.order() == []


@pytest.mark.parametrize(
    ("restart", "left"), [("permanent", ["b"]), ("transient", ["b"]), ("temporary", [])]
)
def test_a_terminated_child_is_kept_unless_it_is_temporary(restart: str, left: list[str]) -> None:
    script = running("one_for_one", spec("b", restart))
    assert script.run(script.terminate("b")) == "stop b, terminate b: done"
    assert script.core.order() == left
    if left:
        assert script.terminate("b") == "terminate b: done"
        assert script.run(script.restart("b")) == "launch b, restart b: b"
        assert script.restarts() == {"b": 1}


def test_a_requested_restart_that_fails_leaves_the_child_stopped() -> None:
    script = running("one_for_one", "a", intensity=0)
    script.run(script.terminate("a"))
    assert script.restart("a") == "launch a"
    assert script.fails("a") == "restart a: StartFailed"
    assert script.states() == "a stopped"


def in_state(state: str) -> Script:
    """With a child b in that state."""
    script = running("one_for_one", "b", intensity=9)
    match state:
        case "starting":
            script.ends("b")
        case "restarting":
            script.ends("b")
            script.fails("b")
        case "stopping":
            script.stop("b")
        case "stopped":
            script.run(script.terminate("b"))
    assert script.states() == f"b {state}"
    return script


@pytest.mark.parametrize("state", ["running", "starting", "restarting", "stopping"])
def test_only_a_stopped_child_can_be_deleted_or_restarted(state: str) -> None:
    script = in_state(state)
    assert script.delete("b") == "delete b: ActorError"
    assert script.restart("b") == "restart b: ActorError"
    (answer,) = script.last
    assert isinstance(answer, Answer)
    assert str(answer.error) == f"child 'b' of top is {state}"


def test_a_stopped_child_can_be_deleted() -> None:
    script = in_state("stopped")
    assert script.delete("b") == "delete b: done"
    assert script.core.order() == []


@pytest.mark.parametrize("request_", ["stop", "terminate", "restart", "delete"])
def test_a_request_about_nobody(request_: str) -> None:
    script = running("one_for_one", "a")
    assert getattr(script, request_)("z").endswith(": NoSuchChild")
    (answer,) = script.last
    assert isinstance(answer, Answer)
    assert str(answer.error) == "top has no child 'z'"


def test_a_child_can_be_stopped_while_it_starts() -> None:
    script = running("one_for_one")
    assert script.start("a") == "launch a"
    assert script.stop("a") == "stop a"
    assert script.up("a") == ""
    assert script.ends("a", SHUTDOWN) == "start a: StartFailed, stop a?: done"
    assert script.core.order() == []


def test_a_child_that_is_terminated_before_it_was_ever_up_is_forgotten() -> None:
    script = running("one_for_all", "a")
    script.start("b")
    script.start("c")
    assert script.terminate("c") == "start c: StartFailed, terminate c: done"
    assert script.terminate("b") == "stop b"
    assert script.fails("b", SHUTDOWN) == "start b: StartFailed, terminate b: done"
    assert script.states() == "a running"


def test_a_child_can_be_stopped_in_the_middle_of_its_failures() -> None:
    script = running("one_for_one", "a", "b", intensity=9)
    script.ends("a")
    assert script.fails("a") == "launch a"
    assert script.stop("a") == "stop a"
    assert script.fails("a") == "stop a?: done"
    assert script.states() == "b running"


def test_a_late_report_of_a_child_that_is_down_means_nothing() -> None:
    script = running("one_for_one", spec("a", "transient"), spec("b", backoff=SLOW), "c")
    script.ends("a", NORMAL)
    script.ends("b")
    for key in "ab":
        assert [script.ends(key), script.fails(key), script.up(key)] == [""] * 3
    assert script.states() == "a stopped, b restarting, c running"


def test_limits_and_significance_are_checked_for_new_children() -> None:
    script = running("one_for_one", "a", max_children=2)
    significant = spec("b", "transient", significant=True)
    assert script.start(significant) == "start b: ActorError"
    assert script.start("b") == "launch b"
    assert script.start("c") == "start c: TooManyChildren"
    assert script.run(script.stop("a")) == "stop a, start b: b, stop a?: done"
    assert script.start("c") == "launch c"
    with pytest.raises(ValueError, match="max_children"):
        Supervision("top", Flags(), -1)


# --- requests during a group operation ------------------------------------------------------------


def stopping() -> Script:
    """Of a, b, c and d, a has failed; d is being stopped."""
    script = running("one_for_all", *"abcd", intensity=9)
    assert script.ends("a") == "stop d"
    return script


def starting() -> Script:
    """... a is up again, b is being started."""
    script = stopping()
    assert script.ends("d") == "stop c"
    assert script.ends("c") == "stop b"
    assert script.ends("b") == "launch a"
    assert script.up("a") == "launch b"
    return script


def test_a_restart_that_is_asked_for_during_a_group_operation_comes_after_it() -> None:
    script = running("rest_for_one", spec("a", "transient"), "b", "c")
    script.ends("a", NORMAL)
    assert script.ends("b") == "stop c"
    assert script.restart("a") == ""
    assert script.states() == "a starting, b starting, c stopping"
    assert script.run() == "launch b, launch c, launch a, restart a: a"


DURING = [
    # while they stop, at once, then
    ("stop a", "stop a?: done", "stop c, stop b, launch b, launch c, launch d"),
    ("stop b", "", "stop c, stop b, stop b?: done, launch a, launch c, launch d"),
    ("stop d", "", "stop d?: done, stop c, stop b, launch a, launch b, launch c"),
    ("terminate b", "", "stop c, stop b, terminate b: done, launch a, launch c, launch d"),
    ("terminate a", "terminate a: done", "stop c, stop b, launch b, launch c, launch d"),
    (
        "restart b",
        "restart b: ActorError",
        "stop c, stop b, launch a, launch b, launch c, launch d",
    ),
    ("delete a", "delete a: ActorError", "stop c, stop b, launch a, launch b, launch c, launch d"),
    ("start e", "", "stop c, stop b, launch a, launch b, launch c, launch d, launch e, start e: e"),
    ("start b", "start b: ChildExists", "stop c, stop b, launch a, launch b, launch c, launch d"),
]


@pytest.mark.parametrize(("request_", "at_once", "then"), DURING)
def test_a_request_while_a_group_stops(request_: str, at_once: str, then: str) -> None:
    script = stopping()
    what, key = request_.split()
    assert getattr(script, what)(key) == at_once
    assert script.run() == then


AMID = [
    # while they start, at once, then
    ("stop a", "stop a", "launch c, stop a?: done, launch d"),
    ("stop b", "stop b", "stop b?: done, launch c, launch d"),
    ("stop c", "stop c?: done", "launch d"),
    ("terminate d", "terminate d: done", "launch c"),
    ("restart c", "restart c: ActorError", "launch c, launch d"),
    ("start e", "", "launch c, launch d, launch e, start e: e"),
]


@pytest.mark.parametrize(("request_", "at_once", "then"), AMID)
def test_a_request_while_a_group_starts(request_: str, at_once: str, then: str) -> None:
    script = starting()
    what, key = request_.split()
    assert getattr(script, what)(key) == at_once
    assert script.run() == then


def test_an_end_outside_of_the_group_does_not_hold_it_up() -> None:
    script = running("rest_for_one", *"abc")
    assert script.ends("b") == "stop c"
    assert script.terminate("a") == "stop a"
    assert script.ends("c") == "launch b"
    assert script.run() == "terminate a: done, launch c"


def test_a_terminated_child_that_a_group_operation_was_to_start_can_be_restarted() -> None:
    script = starting()
    script.terminate("d")
    assert script.restart("d") == ""
    assert script.run() == "launch c, launch d, restart d: d"


def test_a_child_that_is_replaced_during_a_group_operation_is_the_last_to_start() -> None:
    script = starting()
    assert script.stop("c") == "stop c?: done"
    assert script.start("c") == ""
    assert script.run() == "launch d, launch c, start c: c"
    assert script.core.order() == ["a", "b", "d", "c"]


def test_the_start_of_a_child_that_a_failure_interrupts_is_answered_in_the_end() -> None:
    script = running("one_for_all", "a", intensity=9)
    assert script.start("b") == "launch b"
    assert script.start(spec("t", "temporary")) == ""
    assert script.ends("a") == "stop b"
    assert script.ends("b", SHUTDOWN) == "launch a"
    assert script.run() == "launch b, start b: b, launch t, start t: t"


def test_the_start_of_a_temporary_child_that_a_failure_interrupts_has_failed() -> None:
    script = running("one_for_all", "a", intensity=9)
    assert script.start(spec("t", "temporary")) == "launch t"
    assert script.ends("a") == "stop t"
    assert script.fails("t", SHUTDOWN) == "start t: StartFailed, launch a"
    assert script.core.order() == ["a"]


def test_a_new_child_that_cannot_start_does_not_hold_up_the_group() -> None:
    script = starting()
    script.start("e")
    script.start("f")
    script.up("b")
    script.up("c")
    assert script.up("d") == "launch e"
    assert script.fails("e") == "start e: StartFailed, launch f"
    assert script.states().startswith("a running, b running, c running, d running, f ")


def test_a_group_waits_for_an_end_that_was_asked_for_before() -> None:
    script = running("one_for_all", *"abc", intensity=9)
    assert script.terminate("c") == "stop c"
    assert script.ends("a") == ""
    assert script.ends("c") == "terminate c: done, stop b"
    assert script.run() == "launch a, launch b"
    assert script.states() == "a running, b running, c stopped"


# --- automatic shutdown ---------------------------------------------------------------------------

AUTO_SHUTDOWN = [
    # auto_shutdown, the children (capitals are significant), their ends: a finish at the last?
    ("any_significant", "A:transient b:permanent", "A normal", True),
    ("any_significant", "A:transient b:permanent", "A shutdown", True),
    ("any_significant", "A:transient b:permanent", "A error", False),
    ("any_significant", "A:transient b:permanent", "A killed", False),
    ("any_significant", "A:temporary b:permanent", "A normal", True),
    ("any_significant", "A:temporary b:permanent", "A error", True),
    ("any_significant", "A:temporary b:transient", "b normal", False),
    ("any_significant", "A:transient b:permanent", "A terminated", False),
    ("any_significant", "A:transient b:permanent", "A stopped", False),
    ("all_significant", "A:transient b:permanent", "A normal", True),
    ("all_significant", "A:transient B:temporary", "A normal", False),
    ("all_significant", "A:transient B:temporary", "A normal, B error", True),
    ("all_significant", "A:transient B:temporary", "B error, A normal", True),
    ("all_significant", "A:transient B:temporary", "A terminated, B normal", True),
    ("all_significant", "A:transient B:temporary", "B normal, A terminated", False),
    ("all_significant", "A:transient B:transient", "A normal, A restarted, B normal", False),
    ("all_significant", "A:transient b:transient", "A terminated, b normal", False),
    ("all_significant", "A:transient B:transient C:transient", "A terminated, B normal", False),
    ("all_significant", "A:transient B:transient", "A terminated, A terminated, B normal", True),
    (
        "all_significant",
        "A:transient B:transient C:transient",
        "A terminated, A terminated, B normal",
        False,
    ),
    ("all_significant", "A:transient b:temporary", "A error, b error", False),
]


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
@pytest.mark.parametrize(("auto_shutdown", "children", "ends", "finishes"), AUTO_SHUTDOWN)
def test_automatic_shutdown(
    strategy: str, auto_shutdown: str, children: str, ends: str, *, finishes: bool
) -> None:
    pairs = [child.split(":") for child in children.split()]
    script = running(
        strategy,
        *(spec(key, restart, significant=key.isupper()) for key, restart in pairs),
        auto_shutdown=auto_shutdown,
    )
    told = ""
    for key, how in (end.split() for end in ends.split(", ")):
        assert "finish" not in told
        match how:
            case "terminated":
                told = script.run(script.terminate(key))
            case "stopped":
                told = script.run(script.stop(key))
            case "restarted":
                told = script.run(script.restart(key))
            case _:
                reason = ERROR if how == "error" else ExitReason(how)
                told = script.run(script.ends(key, reason))
    assert (told == "finish: shutdown") == finishes
    assert ("finish" in told) == finishes


def test_what_a_group_operation_stops_is_no_end_for_automatic_shutdown() -> None:
    script = running(
        "one_for_all",
        "a",
        spec("b", "transient", significant=True),
        spec("c", "temporary", significant=True),
        auto_shutdown="any_significant",
    )
    assert script.ends("a") == "stop c"
    assert script.ends("b", NORMAL) == ""
    assert script.run() == "launch a, launch b"


def test_a_significant_child_that_waits_to_come_up_is_active() -> None:
    script = running(
        "rest_for_one",
        spec("a", "transient", significant=True),
        "b",
        spec("c", "transient", significant=True),
        auto_shutdown="all_significant",
    )
    assert script.ends("b") == "stop c"
    assert script.ends("c") == "launch b"
    assert script.ends("a", NORMAL) == ""  # c will be up again
    script.run()
    assert script.ends("c", NORMAL) == "finish: shutdown"


@pytest.mark.parametrize(
    ("auto_shutdown", "first", "second"),
    [("any_significant", "finish: shutdown", ""), ("all_significant", "", "finish: shutdown")],
)
def test_automatic_shutdown_of_instances(auto_shutdown: str, first: str, second: str) -> None:
    x = spec("x", "transient", significant=True)
    script = running("simple_one_for_one", x, x, auto_shutdown=auto_shutdown)
    assert script.ends("x-1", NORMAL) == first
    assert script.ends("x-2", NORMAL) == second


# --- backoff --------------------------------------------------------------------------------------


def test_consecutive_failures_wait_longer_and_a_long_life_forgives_them() -> None:
    script = running("one_for_one", spec("a", backoff=SLOW), intensity=99)
    assert script.ends("a") == "wake a in 1"
    assert script.states() == "a restarting"
    assert script.due("a", 1.0) == "launch a"
    assert script.fails("a") == "wake a in 2"
    assert script.due("a", 2.0) == "launch a"
    script.up("a")
    script.now += 59.9
    assert script.ends("a") == "wake a in 4"
    assert script.due("a", 4.0) == "launch a"
    assert script.fails("a") == "wake a in 5"
    assert script.due("a", 5.0) == "launch a"
    script.up("a")
    script.now += 60.0
    assert script.ends("a") == "wake a in 1"
    assert script.due("a", 1.0) == "launch a"
    assert script.fails("a") == "wake a in 2"


def test_a_delayed_restart_counts_when_its_child_has_failed() -> None:
    script = running("one_for_one", spec("a", backoff=SLOW), "b", intensity=1)
    assert script.ends("a") == "wake a in 1"
    assert script.ends("b") == "finish: RestartIntensityExceeded"


def test_a_due_for_a_child_that_is_not_waiting_means_nothing() -> None:
    script = running("one_for_one", spec("a", backoff=SLOW), intensity=9)
    assert script.due("a", 9.0) == ""
    script.ends("a")
    assert script.due("a", 1.0) == "launch a"
    assert script.due("a") == ""
    script.up("a")
    assert script.due("a") == ""


def test_a_due_of_an_earlier_delay_does_not_cut_a_later_one_short() -> None:
    script = running("one_for_one", spec("a", backoff=SLOW), intensity=9)
    script.ends("a")
    script.stop("a")
    script.now += 0.75
    script.run(script.start(spec("a", backoff=SLOW)))
    assert script.ends("a") == "wake a in 1"
    assert script.due("a", 0.25) == "wake a in 0.75"  # of the first a
    assert script.due("a", 0.75) == "launch a"


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_a_delayed_child_can_be_dropped_at_once(strategy: str) -> None:
    script = running(strategy, spec("a", backoff=SLOW))
    assert script.ends("a") == "wake a in 1"
    assert script.restart("a") == "restart a: ActorError"
    assert script.delete("a") == "delete a: ActorError"
    assert script.stop("a") == "stop a?: done"
    assert script.due("a", 1.0) == ""
    assert script.core.order() == []


def test_a_delayed_child_can_be_terminated_and_restarted_without_its_delay() -> None:
    script = running("one_for_one", spec("a", backoff=SLOW))
    script.ends("a")
    assert script.terminate("a") == "terminate a: done"
    assert script.states() == "a stopped"
    assert script.run(script.restart("a")) == "launch a, restart a: a"


def test_the_delay_of_the_one_that_failed_delays_the_start_of_its_group() -> None:
    script = running("one_for_all", "a", spec("b", backoff=SLOW), "c", intensity=9)
    assert script.ends("b") == "wake b in 1, stop c"
    assert script.run() == "stop a"
    assert script.states() == "a starting, b restarting, c starting"
    assert script.start("d") == ""
    assert script.due("b", 1.0) == "launch a"
    assert script.up("a") == "launch b"
    assert script.fails("b") == "wake b in 2, stop a"
    assert script.due("b", 2.0) == ""  # a is still being stopped
    assert script.ends("a") == "launch a"
    assert script.run() == "launch b, launch c, launch d, start d: d"


def test_a_group_waits_for_every_delay_in_it() -> None:
    script = running("rest_for_one", spec("a", backoff=SLOW), spec("b", backoff=SLOW), intensity=9)
    assert script.ends("b") == "wake b in 1"
    script.now += 0.5
    assert script.ends("a") == "wake a in 1"
    assert script.due("b", 0.5) == ""
    assert script.due("a", 0.5) == "launch a"
    assert script.up("a") == "launch b"
    assert script.fails("b") == "wake b in 2"
    assert script.ends("a") == "wake a in 2"
    script.run(script.due("b", 2.0))
    assert script.run(script.due("a")) == "launch a, launch b"
    script.now += 60.0
    assert script.ends("b") == "wake b in 1"
    assert script.due("b", 1.0) == "launch b"
    assert script.fails("b") == "wake b in 2"
    assert script.ends("a") == "wake a in 1"
    assert script.due("a", 1.0) == ""  # b's is longer
    assert script.run(script.due("b", 1.0)) == "launch a, launch b"


def test_a_group_goes_on_when_the_one_it_waits_for_is_dropped() -> None:
    script = running("one_for_all", "a", spec("b", backoff=SLOW), "c")
    assert script.run(script.ends("b")) == "wake b in 1, stop c, stop a"
    assert script.run(script.stop("b")) == "stop b?: done, launch a, launch c"


# --- simple_one_for_one ---------------------------------------------------------------------------


def test_instances_are_numbered_and_get_the_arguments_after_those_of_the_template() -> None:
    script = Script("simple_one_for_one")
    assert script.begin(ChildSpec("x", "a:B", [1, 2], kwargs={"k": 3})) == "ready"
    assert script.core.order() == []
    assert script.start_instance("y") == "launch x-1"
    assert script.last == [
        Launch("x-1", ChildSpec("x-1", "a:B", [1, 2, "y"], kwargs={"k": 3})),
    ]
    assert script.start_instance() == "launch x-2"
    assert script.up("x-2") == "start: x-2"
    assert script.fails("x-1") == "start: StartFailed"
    assert script.start_instance() == "launch x-3"  # numbers are not used again
    assert script.states() == "x-2 running, x-3 starting"


def test_an_instance_is_restarted_with_its_own_arguments() -> None:
    script = Script("simple_one_for_one")
    script.begin(spec("x"))
    script.run(script.start_instance("y"))
    script.ends("x-1")
    assert script.last == [Launch("x-1", ChildSpec("x-1", "a:B", ["y"]))]


@pytest.mark.parametrize("request_", ["stop", "terminate"])
def test_an_instance_that_is_stopped_is_forgotten(request_: str) -> None:
    script = running("simple_one_for_one", "x", "x")
    assert script.run(getattr(script, request_)("x-1")).endswith("done")
    assert script.core.order() == ["x-2"]


def test_specs_are_for_all_others_and_instances_for_simple_one_for_one() -> None:
    simple, other = running("simple_one_for_one", "x", "x"), running("one_for_one", "a")
    assert simple.start("a") == "start a: ActorError"
    assert other.start_instance() == "start: ActorError"
    assert simple.restart("x-1") == "restart x-1: ActorError"
    assert simple.delete("x-1") == "delete x-1: ActorError"


def test_the_number_of_instances_can_be_limited() -> None:
    script = running("simple_one_for_one", "x", "x", max_children=2)
    assert script.start_instance() == "start: TooManyChildren"
    script.run(script.stop("x-1"))
    assert script.start_instance().startswith("launch")


def test_counts_are_otps() -> None:
    script = running("one_for_one", "a", spec("b", "transient"), "c", intensity=9)
    script.ends("b", NORMAL)
    assert script.core.count() == (3, 2)
    script.ends("a")
    assert script.core.count() == (3, 1)
    assert running("simple_one_for_one", "x", "x", "x").core.count() == (1, 3)


class Unscanned(dict[str, Any]):
    """Children that nobody may look through."""

    def __iter__(self) -> Any:
        raise AssertionError("somebody looks at every child")

    keys = values = items = __iter__


def test_no_event_of_an_instance_costs_more_when_there_are_many() -> None:
    """Under simple_one_for_one no event looks at all children, so their number is no matter."""
    template = spec("x", "transient", significant=True, backoff=SLOW)
    script = Script("simple_one_for_one", intensity=9, auto_shutdown="all_significant")
    script.begin(template)
    script.core._children = Unscanned()
    for _ in range(4):
        script.run(script.start_instance())
    assert script.ends("x-1") == "wake x-1 in 1"
    assert script.due("x-1", 1.0) == "launch x-1"
    assert script.run(script.stop("x-2")).endswith("stop x-2?: done")
    assert script.run(script.terminate("x-3")).endswith("terminate x-3: done")
    assert script.ends("x-4", NORMAL) == ""
    assert script.ends("x-1", NORMAL) == "finish: shutdown"


# --- the end --------------------------------------------------------------------------------------


def test_after_its_finish_nothing_comes() -> None:
    script = running("one_for_all", "a", "b", spec("c", backoff=SLOW), intensity=0)
    script.terminate("b")
    assert script.ends("a") == "finish: RestartIntensityExceeded"
    assert [script.up("a"), script.fails("a"), script.ends("b"), script.ends("c")] == [""] * 4
    assert [script.due("c"), script.start("d"), script.start_instance()] == [""] * 3
    assert [script.stop("a"), script.terminate("a")] == [""] * 2
    assert [script.restart("b"), script.delete("b"), script.begin(spec("z"))] == [""] * 3
    assert script.core.order() == ["a", "b", "c"]


# --- whatever happens -----------------------------------------------------------------------------

STRATEGIES = ["one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"]
KEYS = ["a", "b", "c", "d", "e"]


class AnyEvents(RuleBasedStateMachine):
    """The model is the other side: what really runs, what was asked for, who waits for an answer.

    ``life`` of a key: "launched" (its start is under way), "up", or nothing; ``asked`` to stop.
    ``at_rest``: who is to be down when all is done, if it is known still, because it ended so.
    """

    @initialize(
        strategy=st.sampled_from(STRATEGIES),
        restarts=st.lists(
            st.sampled_from(["permanent", "transient", "temporary"]), min_size=3, max_size=3
        ),
        backoff=st.sampled_from([None, SLOW]),
        intensity=st.sampled_from([1, 4, 50, 50]),
        started=st.sampled_from([False, True, True]),
    )
    def begin(
        self,
        strategy: str,
        restarts: list[str],
        backoff: Backoff | None,
        intensity: int,
        started: bool,
    ) -> None:
        self.strategy = strategy
        self.backoff = backoff
        self.grouped = strategy in ("one_for_all", "rest_for_one")
        self.simple = strategy == "simple_one_for_one"
        self.core = Supervision("top", Flags(strategy, intensity), 6)
        self.now = 0.0
        self.life: dict[str, str] = {}
        self.asked: set[str] = set()
        self.asked_by_group: list[str] = []
        self.at_rest: set[str] = set()
        self.types: dict[str, str] = {}
        self.wakes: list[tuple[float, str]] = []
        self.waiting: dict[int, str] = {}
        self.tickets = 0
        self.ready = self.finished = False
        self.seats: dict[str, int] = {}  # in the order of the children
        self.free_seat = 0
        self.last_launch = -1
        self.last_group_stop: int | None = None
        specs = [
            spec(key, restart, backoff=backoff)
            for key, restart in zip("abc", restarts, strict=True)
        ]
        if self.simple:
            specs = specs[:1]
        self.types.update({child.name: child.restart for child in specs})
        self.take(self.core.begin(specs, self.now))
        if started:
            self.all_goes_well()

    # What the model checks of every effect.

    def take(self, effects: list[Effect], requested: str | None = None) -> None:
        assert not (self.finished and effects)
        order = self.core.order()
        self.seats = {key: seat for key, seat in self.seats.items() if key in order}
        for key in order:
            if key not in self.seats:
                self.seats[key] = self.free_seat = self.free_seat + 1
        for effect in effects:
            assert not self.finished
            match effect:
                case Launch(key, child):
                    self.check_launch(key, child)
                case Stop(key):
                    self.check_stop(key, by_group=key != requested)
                case Wake(key, seconds):
                    assert seconds > 0
                    self.wakes.append((self.now + seconds, key))
                case Answer(ticket, error, started):
                    asked = self.waiting.pop(ticket)  # it was waiting, and is not answered again
                    what, _, about = asked.partition(" ")
                    if isinstance(error, StartFailed):
                        assert error.name not in self.life
                        assert what == "restart" or error.name not in order
                    elif error is None and what in ("start", "restart"):
                        assert self.life[str(started)] == "up"
                        assert about in ("", started)
                    elif error is None:
                        assert about not in self.life
                case Ready():
                    assert not self.ready
                    self.ready = True
                case Finish():
                    self.finished = True

    def check_launch(self, key: str, child: ChildSpec) -> None:
        assert key not in self.life, "two incarnations"
        self.types[key] = child.restart
        if self.grouped or not self.ready:
            assert self.strategy == "one_for_one" or "launched" not in self.life.values()
        if self.grouped:
            assert not self.asked_by_group, "a start before the stops are over"
            # A requested restart waits until a group operation is over, wherever its place is.
            asked = set(self.waiting.values())
            if f"restart {key}" not in asked:
                assert self.seats[key] > self.last_launch, "starts out of order"
                self.last_launch = self.seats[key]
            for other, state, _ in self.core.status()[: self.core.order().index(key)]:
                assert state not in ("starting", "restarting") or f"restart {other}" in asked
        self.last_group_stop = None
        self.life[key] = "launched"

    def check_stop(self, key: str, *, by_group: bool) -> None:
        assert key in self.life, "a stop of what does not run"
        assert key not in self.asked, "two stops"
        self.asked.add(key)
        if by_group:
            assert self.grouped
            assert not self.asked_by_group, "two stops of a group at once"
            self.asked_by_group.append(key)
            assert self.last_group_stop is None or self.seats[key] < self.last_group_stop
            self.last_group_stop = self.seats[key]

    def ticket(self, text: str) -> int:
        self.tickets += 1
        self.waiting[self.tickets] = text
        return self.tickets

    def is_up(self, key: str) -> None:
        self.life[key] = "up"
        if key not in self.asked:
            self.at_rest.discard(key)
        self.take(self.core.launched(key, self.now))

    def over(self, key: str) -> None:
        del self.life[key]
        if key not in self.asked:  # a failure: starts begin again
            self.last_launch = -1
        self.asked.discard(key)
        if key in self.asked_by_group:
            self.asked_by_group.remove(key)

    def keys(self, life: str, *, asked: bool | None = None) -> list[str]:
        """Whose life is like that; nobody after the finish."""
        return sorted(
            key
            for key, is_ in self.life.items()
            if is_ == life and asked in (None, key in self.asked) and not self.finished
        )

    # What the world does.

    @precondition(lambda self: self.keys("launched"))
    @rule(data=st.data())
    def a_start_succeeds(self, data: st.DataObject) -> None:
        self.is_up(data.draw(st.sampled_from(self.keys("launched"))))

    @precondition(lambda self: self.ready and self.keys("launched"))
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def a_start_fails(self, data: st.DataObject, reason: ExitReason) -> None:
        key = data.draw(st.sampled_from(self.keys("launched")))
        if {f"start {key}", f"restart {key}"} & set(self.waiting.values()):
            self.at_rest.add(key)
        self.over(key)
        self.take(self.core.launch_failed(key, reason, self.now))

    @precondition(lambda self: self.keys("up", asked=False))
    @rule(data=st.data(), reason=st.sampled_from([NORMAL, SHUTDOWN]))
    def a_child_ends_well(self, data: st.DataObject, reason: ExitReason) -> None:
        self.ends_by_itself(data.draw(st.sampled_from(self.keys("up", asked=False))), reason)

    @precondition(lambda self: self.keys("up", asked=False))
    @rule(data=st.data(), reason=st.sampled_from([KILLED, ERROR]))
    def a_child_fails(self, data: st.DataObject, reason: ExitReason) -> None:
        self.ends_by_itself(data.draw(st.sampled_from(self.keys("up", asked=False))), reason)

    def ends_by_itself(self, key: str, reason: ExitReason) -> None:
        if self.types[key] != "permanent" and not reason.failed:
            self.at_rest.add(key)
        self.over(key)
        self.take(self.core.ended(key, reason, self.now))

    @precondition(lambda self: self.keys("up", asked=True))
    @rule(data=st.data(), reason=st.sampled_from(REASONS))
    def a_child_ends_as_asked(self, data: st.DataObject, reason: ExitReason) -> None:
        key = data.draw(st.sampled_from(self.keys("up", asked=True)))
        self.over(key)
        self.take(self.core.ended(key, reason, self.now))

    @precondition(lambda self: not self.finished and self.wakes)
    @rule(seconds=st.sampled_from([0.1, 1.0, 7.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        until = self.now + seconds
        while self.wakes and min(self.wakes)[0] <= until and not self.finished:
            then, key = min(self.wakes)
            self.wakes.remove((then, key))
            self.now = max(self.now, then)
            self.take(self.core.due(key, self.now))
        self.now = until

    # What users ask for.

    @precondition(lambda self: not self.finished)
    @rule(
        key=st.sampled_from(KEYS),
        restart=st.sampled_from(["permanent", "transient", "temporary"]),
    )
    def start(self, key: str, restart: str) -> None:
        if self.simple:
            self.take(self.core.start_instance(self.ticket("start"), ["x"], self.now))
        else:
            child = spec(key, restart, backoff=self.backoff)
            self.take(self.core.start_child(self.ticket(f"start {key}"), child, self.now))

    @precondition(lambda self: not self.finished)
    @rule(data=st.data(), what=st.sampled_from(["stop", "terminate", "restart", "delete"]))
    def request(self, data: st.DataObject, what: str) -> None:
        key = data.draw(st.sampled_from([*self.core.order(), "nobody"]))
        ticket = self.ticket(f"{what} {key}")
        if what == "restart":
            effects = self.core.restart_child(ticket, key, self.now)
        else:
            if what != "delete":
                self.at_rest.add(key)
            effects = getattr(self.core, f"{what}_child")(ticket, key)
        self.take(effects, requested=key)

    @precondition(lambda self: self.finished)
    @rule(key=st.sampled_from(KEYS))
    def after_the_finish(self, key: str) -> None:
        self.take(self.core.launched(key, self.now))
        self.take(self.core.ended(key, ERROR, self.now))
        self.take(self.core.stop_child("ticket", key))
        self.take(self.core.start_child("ticket", spec(key), self.now))

    # What must hold.

    @precondition(lambda self: not self.finished)
    @invariant()
    def what_it_says_is_what_is(self) -> None:
        for key, state, restarts in self.core.status():
            life = self.life.get(key)
            assert restarts >= 0
            match state:
                case "running":
                    assert life == "up"
                    assert key not in self.asked
                case "stopping":
                    assert life is not None
                case "stopped":
                    assert life is None
                case _:
                    assert life != "up"
        assert self.life.keys() <= set(self.core.order())
        assert len(self.core.order()) <= 6

    @precondition(lambda self: not self.finished and self.life_is_under_way())
    @rule(now=st.sampled_from([True, False, False, False]))
    def all_goes_well_for_a_while(self, now: bool) -> None:
        if now:  # not too often: what is under way is what requests and failures are to meet
            self.all_goes_well()

    def all_goes_well(self) -> None:
        """Everything is answered, nothing fails: then nobody waits, and who ought to be up is."""
        while (self.life_is_under_way() or self.wakes) and not self.finished:
            for key in [k for k, life in self.life.items() if life == "launched"]:
                if key in self.asked:
                    self.over(key)
                    self.take(self.core.launch_failed(key, SHUTDOWN, self.now))
                else:
                    self.is_up(key)
            for key in list(self.asked):
                if self.life.get(key) == "up":
                    self.over(key)
                    self.take(self.core.ended(key, SHUTDOWN, self.now))
            self.time_passes(1.0)
        if self.finished:
            return
        assert self.ready
        assert not self.waiting
        for key, state, _ in self.core.status():
            assert state == ("stopped" if key in self.at_rest else "running")
            assert state == "running" or (self.types[key] != "temporary" and not self.simple)

    def life_is_under_way(self) -> bool:
        return bool(self.asked) or "launched" in self.life.values()

    def teardown(self) -> None:
        if hasattr(self, "core") and not self.finished:
            self.all_goes_well()


AnyEvents.TestCase.settings = settings(max_examples=150, stateful_step_count=40)
TestAnyEvents = AnyEvents.TestCase
