"""The plan of faults: when one strikes, what it takes from the choices, and what is refused."""

from __future__ import annotations

import json
import math
from fnmatch import fnmatchcase
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Actor, Message, RemoteActorError, Scheduler, System
from actors.choices import Choices
from actors.faults import CLOCK, FAULT_KINDS, FaultKind, FaultPlan, Faults, Injected

ALWAYS = Faults(rate=1.0, limit=1000, swarm=False)


def plan_of(faults: Faults, seed: int = 1) -> FaultPlan:
    return FaultPlan(faults, Choices.seeded(seed))


def strikes(plan: FaultPlan, count: int, kind: FaultKind = "drop", name: str = "a") -> list[int]:
    """At which of the next ``count`` opportunities it strikes, from 1."""
    return [n for n in range(1, count + 1) if plan.strikes(kind, name)]


# --- by chance ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FAULT_KINDS)
def test_each_kind_strikes_at_its_rate(kind: FaultKind) -> None:
    plan = plan_of(Faults([kind], rate=0.3, limit=10_000))
    assert len(strikes(plan, 5000, kind)) / 5000 == pytest.approx(0.3, abs=0.03)


def test_no_more_than_the_limit_strike() -> None:
    plan = plan_of(Faults(rate=0.5, limit=3, swarm=False))
    for n in range(100):
        plan.strikes(FAULT_KINDS[n % len(FAULT_KINDS)], f"actor-{n % 3}")
    assert len(plan.injected) == 3


def test_what_cannot_become_a_fault_takes_no_choice() -> None:
    choices = Choices.seeded(1)
    plan = FaultPlan(Faults(["drop", "delay"], rate=1.0, limit=2, swarm=False), choices)
    assert choices.recorded == []
    assert not plan.strikes("duplicate", "a")  # a kind that was not asked for
    assert not plan.strikes("drop", "a", supervised=False)  # no target
    assert choices.recorded == []
    assert plan.strikes("drop", "a")
    assert plan.strikes("delay", "a")
    assert not plan.strikes("drop", "a")  # the limit
    assert choices.recorded == [1, 1]


@pytest.mark.parametrize("faults", [Faults(kinds=()), Faults(rate=0), Faults(limit=0)])
def test_without_any_faults_the_stream_is_as_if_there_was_no_plan(faults: Faults) -> None:
    choices = Choices.seeded(1)
    plan = FaultPlan(faults, choices)
    assert not any(plan.strikes(kind, "a") for kind in FAULT_KINDS)
    assert choices.recorded == []
    assert plan.kinds == ()


def test_after_stop_nothing_strikes_and_no_choice_is_taken() -> None:
    choices = Choices.seeded(1)
    faults = Faults(["drop"], rate=1.0, limit=100, script=[("delay", "a", 1)])
    plan = FaultPlan(faults, choices)
    assert plan.strikes("drop", "a")
    plan.stop()
    assert not plan.strikes("drop", "a")
    assert not plan.strikes("delay", "a")
    assert choices.recorded == [1]
    assert plan.injected == [("drop", "a", 1)]


@pytest.mark.parametrize(
    ("targets", "name", "supervised", "hit"),
    [
        ([], "worker", True, True),
        ([], "worker", False, False),
        (["worker"], "worker", True, True),
        (["worker"], "worker", False, True),  # named: that is asked for in so many words
        (["worker"], "worker-1", True, False),
        (["work*"], "worker-1", False, True),
        (["other", "worker-?"], "worker-1", True, True),
        (["Worker"], "worker", True, False),  # on every platform
        (["a[1]"], "a[1]", True, True),  # a name that looks like a pattern
        (["a[1]"], "a1", True, True),
    ],
)
def test_targets(targets: list[str], name: str, supervised: bool, hit: bool) -> None:
    plan = plan_of(Faults(["drop"], rate=1.0, targets=targets))
    assert plan.strikes("drop", name, supervised) == hit


@pytest.mark.parametrize("kind", ["slow", "stop_clock"])
def test_the_clock_is_nobodys_target(kind: FaultKind) -> None:
    plan = plan_of(Faults([kind], rate=1.0, targets=["worker"]))
    assert plan.strikes(kind, CLOCK)
    plan = plan_of(Faults([kind], rate=1.0))
    assert plan.strikes(kind, CLOCK, supervised=False)


# --- swarm ----------------------------------------------------------------------------------------


def test_each_run_of_a_swarm_has_other_kinds_and_at_least_one() -> None:
    subsets = {plan_of(Faults(), seed).kinds for seed in range(5000)}
    assert () not in subsets
    assert len(subsets) == 2 ** len(FAULT_KINDS) - 1  # each that there can be
    assert all(list(kinds) == sorted(kinds, key=FAULT_KINDS.index) for kinds in subsets)


def test_only_the_chosen_kinds_strike() -> None:
    plan = plan_of(Faults(rate=1.0, limit=1000), seed=5)
    assert 0 < len(plan.kinds) < len(FAULT_KINDS)
    for kind in FAULT_KINDS:
        assert plan.strikes(kind, "a") == (kind in plan.kinds)


def test_a_swarm_chooses_from_the_kinds_that_were_asked_for() -> None:
    asked: tuple[FaultKind, ...] = ("drop", "delay")
    chosen = {plan_of(Faults(asked), seed).kinds for seed in range(100)}
    assert chosen == {("drop",), ("delay",), ("delay", "drop")}


def test_the_order_in_which_kinds_are_named_does_not_matter() -> None:
    one, other = Faults(["drop", "delay", "drop"]), Faults({"delay", "drop"})
    assert one == other
    assert hash(one) == hash(other)
    assert one.kinds == ("delay", "drop")


def test_without_a_swarm_all_kinds_are_there_and_take_no_choice() -> None:
    choices = Choices.seeded(1)
    assert FaultPlan(Faults(swarm=False), choices).kinds == FAULT_KINDS
    assert choices.recorded == []


def test_a_swarm_of_one_kind_is_no_choice() -> None:
    choices = Choices.seeded(1)
    assert FaultPlan(Faults(["drop"]), choices).kinds == ("drop",)
    assert choices.recorded == []


def test_the_plainest_run_has_the_first_kind_and_no_fault() -> None:
    plan = FaultPlan(Faults(rate=1.0), Choices.replayed([]))
    assert plan.kinds == ("crash_before",)
    assert strikes(plan, 100, "crash_before") == []


# --- the script -----------------------------------------------------------------------------------


def test_a_script_strikes_at_its_opportunity_without_a_choice() -> None:
    choices = Choices.seeded(1)
    plan = FaultPlan(Faults(kinds=(), script=[("drop", "a", 3), ("drop", "a", 5)]), choices)
    assert strikes(plan, 10) == [3, 5]
    assert choices.recorded == []
    assert plan.injected == [Injected("drop", "a", 3), Injected("drop", "a", 5)]


def test_opportunities_are_counted_per_kind_and_actor() -> None:
    plan = plan_of(Faults(kinds=(), script=[("drop", "*", 2)]))
    assert not plan.strikes("drop", "a")
    assert not plan.strikes("delay", "a")
    assert not plan.strikes("drop", "b")
    assert plan.strikes("drop", "a")
    assert plan.strikes("drop", "b")
    assert not plan.strikes("drop", "c")


def test_a_script_needs_no_supervised_actor_no_target_and_no_chosen_kind() -> None:
    faults = Faults(["delay"], targets=["b"], script=[("drop", "a", 1)])
    assert plan_of(faults).strikes("drop", "a", supervised=False)


def test_a_script_does_not_count_for_the_limit_nor_end_with_it() -> None:
    faults = Faults(["drop"], rate=1.0, limit=1, script=[("drop", "a", 1), ("drop", "a", 4)])
    assert strikes(plan_of(faults), 10) == [1, 2, 4]  # the second one is by chance


def test_what_struck_by_chance_can_be_asked_for_in_a_script() -> None:
    def run(faults: Faults) -> list[Injected]:
        plan = plan_of(faults, seed=4)
        for n in range(60):
            for kind in FAULT_KINDS:
                plan.strikes(kind, f"actor-{n % 3}")
        return plan.injected

    struck = run(Faults(rate=0.1, limit=10))
    assert len(struck) == 10
    assert run(Faults(kinds=(), script=struck)) == struck


# --- how much -------------------------------------------------------------------------------------


def test_delays_are_choices_up_to_the_maximum() -> None:
    choices = Choices.seeded(1)
    plan = FaultPlan(Faults(["delay"], max_delay=8.0), choices)
    delays = [plan.delay() for _ in range(1000)]
    assert (min(delays), max(delays)) == (0.0, 8.0)
    assert len(choices.recorded) == 1000
    assert FaultPlan(Faults(["delay"]), Choices.replayed([])).delay() == 0.0


# --- what is asked for ----------------------------------------------------------------------------


def test_the_defaults() -> None:
    assert Faults() == Faults(FAULT_KINDS, 0.05, 3, 1.0, (), swarm=True, script=())
    assert get_args(FaultKind) == FAULT_KINDS


class Hit(Message):
    pass


class Tough(Actor):
    fails_on_ask = False


def test_an_injected_crash_ends_even_an_actor_that_survives_failing_asks() -> None:
    plan = Faults(kinds=(), script=[("crash_before", "tough", 1)])
    with System(simulation=Scheduler(0, plan)) as system:
        ref = system.start(Tough, name="tough")
        with pytest.raises(RemoteActorError, match="InjectedCrash"):
            ref.ask(Hit())
        assert system.wait(ref).reason.error == "InjectedCrash"


BAD: list[tuple[dict[str, Any], str]] = [
    ({"kinds": ["crash"]}, "a fault is one of crash_before, .*, stop_clock.*, not 'crash'"),
    ({"kinds": [3]}, "a fault is one of"),
    ({"kinds": [["drop"]]}, "a fault is one of"),
    ({"kinds": "drop"}, "kinds is a list, not 'drop'"),
    ({"kinds": None}, "kinds is a list, not None"),
    ({"rate": -0.1}, "rate is a probability, from 0 to 1, not -0.1"),
    ({"rate": 1.1}, "rate is a probability"),
    ({"rate": math.nan}, "rate is a probability"),
    ({"rate": True}, "rate is a probability"),
    ({"rate": "0.1"}, "rate is a probability"),
    ({"limit": -1}, "limit is a number of faults, 0 or more, not -1"),
    ({"limit": 1.0}, "limit is a number"),
    ({"limit": True}, "limit is a number"),
    ({"max_delay": -1}, "max_delay is in seconds, 0 or more, not -1"),
    ({"max_delay": math.inf}, "max_delay is in seconds"),
    ({"max_delay": math.nan}, "max_delay is in seconds"),
    ({"max_delay": None}, "max_delay is in seconds"),
    ({"targets": "worker"}, "targets is a list, not 'worker'"),
    ({"targets": {"worker": 1}}, "targets is a list"),
    ({"targets": [""]}, "a target is the name of an actor or a pattern, not ''"),
    ({"targets": [1]}, "a target is the name"),
    ({"swarm": 1}, "swarm is True or False, not 1"),
    ({"script": ["drop"]}, "an entry of the script is .kind, name or pattern, n., not 'drop'"),
    ({"script": [("drop", "a")]}, "an entry of the script"),
    ({"script": [("dropped", "a", 1)]}, "a fault is one of"),
    ({"script": [("drop", 1, 1)]}, "a target is the name"),
    ({"script": [("drop", "a", 0)]}, "counts from 1, and is not 0"),
    ({"script": [("drop", "a", True)]}, "counts from 1"),
    ({"script": ("drop", "a", 1)}, "an entry of the script"),
]


@pytest.mark.parametrize(("values", "text"), BAD)
def test_what_makes_no_sense_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults(**values)
    with pytest.raises(ValueError, match=text):
        Faults.from_json(values)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"speed": 1}, "faults have kinds, rate, .*, script; no 'speed'"),
        ({1: 1}, "faults have kinds"),
        ([], r"faults are an object, not \[\]"),
        (None, "faults are an object"),
    ],
)
def test_json_that_is_no_faults_is_refused(values: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Faults.from_json(values)


KINDS = st.sampled_from(FAULT_KINDS)
NAMES = st.sampled_from(["a", "b", "*", "[ab]"]) | st.text(min_size=1)
ANY_FAULTS = st.builds(
    Faults,
    kinds=st.lists(KINDS),
    rate=st.floats(0, 1),
    limit=st.integers(0, 100),
    max_delay=st.floats(0, 1e9),
    targets=st.lists(NAMES),
    swarm=st.booleans(),
    script=st.lists(st.tuples(KINDS, NAMES, st.integers(1, 9))),
)


@given(ANY_FAULTS)
def test_faults_come_back_from_json_as_they_were(faults: Faults) -> None:
    values = faults.to_json()
    assert json.loads(json.dumps(values)) == values
    assert Faults.from_json(values) == faults


def test_what_json_leaves_out_is_as_usual() -> None:
    assert Faults.from_json({}) == Faults()
    assert Faults.from_json({"limit": 5}) == Faults(limit=5)


def scripted(faults: Faults, hit: Injected) -> bool:
    return any(
        (kind, n) == (hit.kind, hit.n) and (name == hit.actor or fnmatchcase(hit.actor, name))
        for kind, name, n in faults.script
    )


@given(
    ANY_FAULTS,
    st.integers(0, 1 << 32),
    st.lists(st.tuples(KINDS, st.sampled_from(["a", "b", "c"]), st.booleans()), max_size=60),
)
def test_a_plan_keeps_its_limit_and_replays_identically(
    faults: Faults, seed: int, opportunities: list[tuple[FaultKind, str, bool]]
) -> None:
    seeded = Choices.seeded(seed)
    plan = FaultPlan(faults, seeded)
    struck = [plan.strikes(*opportunity) for opportunity in opportunities]
    assert sum(struck) == len(plan.injected)
    by_chance = [hit for hit in plan.injected if not scripted(faults, hit)]
    assert len(by_chance) <= faults.limit
    assert {hit.kind for hit in by_chance} <= set(plan.kinds) <= set(faults.kinds)
    again = FaultPlan(faults, Choices.replayed(seeded.recorded))
    assert [again.strikes(*opportunity) for opportunity in opportunities] == struck
    assert again.injected == plan.injected
