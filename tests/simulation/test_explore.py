"""The search: what counts as a failure, how it is made small, faults as they are asked for, and the
file that a run is repeated from.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import (
    FAULT_KINDS,
    ActorError,
    AskTimeout,
    ChildSpec,
    Choices,
    Deadlock,
    Failure,
    Faults,
    Message,
    NotSettled,
    Options,
    Ref,
    RemoteActorError,
    Replay,
    Scheduler,
    StopTimeout,
    Supervisor,
    System,
    explore,
    replay,
)
from actors.explore import attempt
from tests.simulation.programs import Fail, Pass, Recorder, Say, Seen, Ticker


def simulation(system: System) -> Scheduler:
    assert system.simulation is not None
    return system.simulation


def chosen(system: System, count: int = 3) -> list[int]:
    """Numbers below 100."""
    return [simulation(system).choose(100) for _ in range(count)]


def failing(failure: Failure | None) -> Failure:
    assert failure is not None
    return failure


# --- what is found --------------------------------------------------------------------------------


def race(system: System) -> list[str]:
    """Two actors tell a third one something at the same time; what it has heard."""
    ear = system.start(Recorder, name="ear")
    for name in "ab":
        system.start(Recorder, name=name).tell(Pass([ear]))
    simulation(system).settle()
    return []


def test_a_test_that_never_fails_is_run_with_every_seed() -> None:
    seen: list[str] = []

    def test(system: System) -> None:
        seen.append(f"{simulation(system).choose(10**9)}")

    assert explore(test, 20) is None
    assert len(set(seen)) == 20
    assert explore(test, [7, 7, 3]) is None
    assert seen[20:] == [seen[7], seen[7], seen[3]]


def test_the_first_seed_that_fails_ends_the_search() -> None:
    def test(system: System) -> None:
        assert chosen(system)[0] < 90

    seeds = iter(range(100))
    failure = failing(explore(test, seeds))
    rest = list(seeds)
    assert failure.replay.seed == rest[0] - 1
    assert explore(test, failure.replay.seed) is None


class Account(Recorder):
    """Its balance is at times below 0, between two messages."""

    balance = 0

    def on_receive(self, message: Message) -> Any:
        match message:
            case Say("pay"):
                Account.balance -= 1
            case Say("earn"):
                Account.balance += 1


def test_safety_is_an_invariant_at_every_step() -> None:
    def test(system: System) -> None:
        Account.balance = 0
        account = system.start(Account, name="account")
        payer, earner = system.start(Ticker, 10.0, account), system.start(Ticker, 10.0, account)
        simulation(system).invariant(lambda: Account.balance >= 0)
        earner.tell(Say("earn"))
        payer.tell(Say("pay"))
        simulation(system).advance(1.0)
        assert Account.balance == 0

    failure = failing(explore(test))
    assert "does not hold" in str(failure.error)
    assert "Say('pay')" in failure.replay.trace.splitlines()[-1]
    assert "Say('earn')" not in failure.replay.trace.split("account     receives")[1]


@pytest.mark.parametrize(
    ("wait", "error"),
    [
        (lambda it, _: it.settle(), NotSettled),
        (lambda it, ear: it.eventually(lambda: len(ear.ask(Seen())) > 9, within=5), NotSettled),
        (lambda it, ear: ear.ask(Pass([ear])), RemoteActorError),
    ],
)
def test_liveness_is_to_settle_or_to_come_true(wait: Any, error: type[Exception]) -> None:
    def test(system: System) -> None:
        ear = system.start(Recorder)
        system.start(Ticker, 1.0, ear)
        wait(simulation(system), ear)

    assert type(failing(explore(test, 1, shrinking=0)).error) is error


def test_a_deadlock_is_found_in_what_nobody_waits_for() -> None:
    def test(system: System) -> None:
        a, b = system.start(Recorder, name="a"), system.start(Recorder, name="b")
        a.tell(Pass([b, a]))
        simulation(system).advance(1.0)

    assert type(failing(explore(test, 1)).error) is Deadlock


def test_what_does_not_end_is_found() -> None:
    def test(system: System) -> None:
        system.start(Ticker, 1.0)
        simulation(system).advance(10**9)

    failure = failing(explore(test, 1, Options(max_steps=500), shrinking=5))
    assert "no end after 500 steps" in str(failure.error)


def test_a_system_that_does_not_stop_is_found() -> None:
    def test(system: System) -> None:
        system.start(Late)

    failure = failing(explore(test, 1))
    assert type(failure.error) is StopTimeout


class Late(Recorder):
    """Takes longer to end than a system gives its actors."""

    async def on_stop(self) -> None:  # type: ignore[override]
        await asyncio.sleep(60)


@pytest.mark.parametrize("error", [ValueError, pytest.fail.Exception, GeneratorExit])
def test_whatever_a_test_raises_is_a_failure(error: type[BaseException]) -> None:
    def test(system: System) -> None:
        raise error("wrong")

    assert type(failing(explore(test, 1)).error) is error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_leave_ends_the_search(error: type[BaseException]) -> None:
    def test(system: System) -> None:
        ear = system.start(Recorder)
        ear.tell(Pass([system.start(Recorder)]))
        raise error

    with pytest.raises(error):
        explore(test, 10)


def test_the_error_of_the_test_counts_not_what_comes_of_it() -> None:
    def test(system: System) -> None:
        system.start(Late)
        raise ValueError("wrong")

    assert str(failing(explore(test, 1)).error) == "wrong"


def test_the_trace_and_the_steps_end_with_the_failure() -> None:
    def test(system: System) -> None:
        for _ in range(9):
            system.start(Ticker, 1.0)
        ear = system.start(Recorder, name="ear")
        steps.append(simulation(system).steps)
        raise ValueError(ear.ask(Say("last")))

    steps: list[int] = []
    failure = failing(explore(test, 1, shrinking=0))
    assert failure.steps == steps[0] + 2  # the ear's idle step after its start, and the ask
    assert failure.replay.trace.splitlines()[-1].endswith("answers last to the test")


def test_the_search_is_silent_and_leaves_the_process_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def test(system: System) -> None:
        assert not gc.isenabled()
        system.start(Recorder).ask(Fail())

    before = os.sched_getaffinity(0)
    assert type(failing(explore(test, 1)).error) is RemoteActorError
    assert not caplog.records
    assert not logging.getLogger("actors").disabled
    assert gc.isenabled()
    assert os.sched_getaffinity(0) == before


# --- making it small ------------------------------------------------------------------------------


def test_a_failure_is_made_as_small_as_it_gets() -> None:
    def test(system: System) -> None:
        numbers = chosen(system, 20)
        assert not any(number >= 70 for number in numbers), numbers

    failure = failing(explore(test))
    assert sum(failure.replay.choices) == 70
    assert "70" in str(failure.error)
    assert failing(explore(test, [failure.replay.seed], shrinking=0)).replay.choices > [70]


def test_what_a_failure_does_not_need_is_taken_out() -> None:
    def test(system: System) -> None:
        ear = system.start(Recorder)
        for number in chosen(system, 10):
            if number > 5:
                system.start(Ticker, 1.0)
                ear.tell(Say(f"{number}"))
        simulation(system).advance(10.0)
        assert "99" not in ear.ask(Seen())

    failure = failing(explore(test, shrinking=1000))
    assert failure.replay.trace.count("Ticker") <= 3 * 11  # one of them, and its ten ticks
    assert failure.replay.trace.count("tells") == 1


def test_only_a_failure_of_the_same_type_counts() -> None:
    def test(system: System) -> None:
        first, second, _ = chosen(system)
        if first < 50:
            raise KeyError(first)
        if second > 50:
            raise ValueError(second)

    failure = failing(explore(test, [seed for seed in range(50) if kind(test, seed) is ValueError]))
    assert type(failure.error) is ValueError
    assert failure.replay.choices == [50, 51, 0]


def kind(test: Any, seed: int) -> type[BaseException | None]:
    return type(attempt(test, Choices.seeded(seed), Options())[1])


@pytest.mark.parametrize("budget", [1, 2, 10])
def test_no_more_runs_are_spent_than_allowed(budget: int) -> None:
    runs: list[int] = []

    def test(system: System) -> None:
        runs.append(1)
        assert sum(chosen(system, 20)) < 500

    failure = failing(explore(test, [0], shrinking=budget))
    assert failure.runs <= budget
    assert len(runs) == 1 + failure.runs + 1  # the first, and once more to see what it says


def test_a_test_that_depends_on_something_else_is_said_so() -> None:
    runs: list[int] = []

    def test(system: System) -> None:
        runs.append(1)
        if len(runs) == 3:
            raise ValueError("the third time")

    with pytest.raises(ActorError, match="seed 2 failed once and not again, with ValueError") as it:
        explore(test)
    assert type(it.value.__cause__) is ValueError


def test_a_test_that_fails_now_and_then_is_said_so() -> None:
    runs: list[int] = []

    def test(system: System) -> None:
        runs.append(1)
        if len(runs) < 3:
            raise ValueError("as it was found, and while it is made small")

    with pytest.raises(ActorError, match="depends on something outside"):
        explore(test)


def test_a_failure_says_all_that_is_known_of_it() -> None:
    def test(system: System) -> None:
        ear = system.start(Recorder, name="ear")
        ear.tell(Say("hello"))
        simulation(system).advance(1.0)
        assert ear.ask(Seen()) == ["hello"], "it is hard of hearing"

    drops = Faults(kinds=["drop"], targets=["ear"], rate=0.5)
    failure = failing(explore(test, 1000, Options(drops)))
    lines = str(failure).splitlines()
    broke = "AssertionError: it is hard of hearing"
    assert lines[:2] == [
        f"seed {failure.replay.seed}: {broke}",
        f"made small in {failure.runs} runs: {failure.steps} steps, faults: drop of ear (1)",
    ]
    trace = failure.replay.trace.splitlines()
    assert lines[2 : len(trace) + 2] == trace
    assert lines[len(trace) + 2] == broke


# --- faults ---------------------------------------------------------------------------------------


class Life(Recorder):
    """As a child it says what happens to it, since it does not live to tell."""

    log: list[str] = []  # noqa: RUF012 - of the class: it outlives each of them

    def on_start(self) -> None:
        self.log.append("starts")

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Say):
            self.log.append(message.text)
        return super().on_receive(message)


def scripted(kind: str, actor: str, n: int, body: Any) -> list[str]:
    """What the supervised actor did whose tells and asks are in ``body``."""

    def test(system: System) -> None:
        Life.log.clear()
        system.start(Supervisor, [ChildSpec.of("child", Life, registered=True)], intensity=5)
        body(system, system.named("child"))

    options = Options(Faults(kinds=(), script=[(kind, actor, n)]))
    run, error = attempt(test, Choices.seeded(0), options)
    assert error is None
    assert [tuple(injected) for injected in run.plan.injected] == [(kind, actor, n)]
    assert f"fault: {kind}" in run.trace.text()
    return Life.log


def test_a_crash_before_a_message_is_one_that_its_handler_has_not_seen() -> None:
    def body(system: System, child: Ref) -> None:
        assert child.ask(Say("a")) == "a"
        with pytest.raises(RemoteActorError, match="to crash before it handled Say"):
            child.ask(Say("b"))
        simulation(system).settle()

    assert scripted("crash_before", "child", 2, body) == ["starts", "a", "starts"]


def test_a_crash_after_a_message_is_one_whose_answer_nobody_gets() -> None:
    def body(system: System, child: Ref) -> None:
        assert child.ask(Say("a")) == "a"
        with pytest.raises(RemoteActorError, match="to crash after it handled Say"):
            child.ask(Say("b"))
        simulation(system).settle()

    assert scripted("crash_after", "child", 2, body) == ["starts", "a", "b", "starts"]


def test_a_start_that_fails_is_tried_again() -> None:
    def body(system: System, child: Ref) -> None:
        child.tell(Fail())
        simulation(system).advance(1.0)
        assert child.ask(Seen()) == []

    assert scripted("fail_start", "child", 2, body) == ["starts", "starts"]


def test_a_message_that_is_delayed_arrives_later_than_the_next_one() -> None:
    def body(system: System, child: Ref) -> None:
        for text in "abc":
            child.tell(Say(text))
        simulation(system).advance(1.0)

    assert scripted("delay", "child", 2, body) == ["starts", "a", "c", "b"]


def test_a_message_that_is_dropped_is_a_dead_letter() -> None:
    def body(system: System, child: Ref) -> None:
        for text in "abc":
            child.tell(Say(text))
        simulation(system).settle()
        assert system.dead_letters.by_reason == {"fault": 1}

    assert scripted("drop", "child", 2, body) == ["starts", "a", "c"]


def test_a_message_that_is_sent_twice_may_arrive_the_second_time_after_others() -> None:
    heard = set()
    for seed in range(30):

        def test(system: System) -> None:
            ear = system.start(Recorder, name="ear")
            for text in "abc":
                ear.tell(Say(text))
            simulation(system).settle()
            heard.add("".join(ear.ask(Seen())))

        faults = Faults(kinds=(), script=[("duplicate", "ear", 1)])
        assert attempt(test, Choices.seeded(seed), Options(faults))[1] is None
    assert heard == {"aabc", "abac", "abca"}


def test_a_slow_machine_lets_a_deadline_come_though_the_answer_is_on_its_way() -> None:
    ends: set[str] = set()

    def test(system: System) -> None:
        ear = system.start(Recorder)
        try:
            ends.add(ear.ask(Say("in time"), timeout=3.0))
        except AskTimeout:
            ends.add("too late")
        assert simulation(system).now() == 3.0
        assert ear.ask(Seen()) == ["in time"]

    assert explore(test, 20, Options(Faults(kinds=(), script=[("slow", "clock", 1)]))) is None
    assert ends == {"in time", "too late"}


def test_a_clock_that_stops_jumps_past_what_was_due_meanwhile() -> None:
    def body(system: System, child: Ref) -> None:
        ear = system.start(Recorder)
        for _ in range(2):
            system.start(Ticker, 0.25, ear)
        simulation(system).advance(0.25)
        assert simulation(system).now() > 0.25
        assert len(ear.ask(Seen())) == 2  # periods that nobody was there for are left out

    scripted("stop_clock", "clock", 1, body)


def test_no_fault_strikes_what_is_to_settle() -> None:
    def test(system: System) -> None:
        simulation(system).settle()
        ear = system.start(Recorder, name="ear")
        for _ in range(50):
            ear.tell(Say("a"))
        assert len(ear.ask(Seen())) == 50

    everything = Options(Faults(targets=["*"], rate=1.0, limit=1000, swarm=False))
    assert explore(test, 5, everything) is None


def kinds(swarm: bool) -> set[tuple[str, ...]]:
    options = Options(Faults(swarm=swarm))
    runs = (attempt(race, Choices.seeded(seed), options)[0] for seed in range(100))
    return {run.plan.kinds for run in runs}


def test_each_run_of_a_swarm_has_some_kinds_of_faults_and_not_others() -> None:
    found = kinds(swarm=True)
    assert len(found) > 50
    for kind in FAULT_KINDS:
        assert {kind in some for some in found} == {True, False}


def test_without_a_swarm_each_run_has_all_kinds_of_faults() -> None:
    assert kinds(swarm=False) == {FAULT_KINDS}


def test_a_swarm_finds_what_one_fault_hides_from_another() -> None:
    def five_messages_are_not_ten(system: System) -> None:
        ear = system.start(Recorder, name="ear")
        for _ in range(5):
            ear.tell(Say("a"))
        simulation(system).settle()
        assert len(ear.ask(Seen())) < 10

    def found(swarm: bool) -> int:
        faults = Faults(["drop", "duplicate"], 0.95, 99, targets=["ear"], swarm=swarm)
        options = Options(faults)
        runs = (attempt(five_messages_are_not_ten, Choices.seeded(n), options) for n in range(100))
        return sum(error is not None for _, error in runs)

    assert found(swarm=False) == 0
    assert found(swarm=True) > 10


# --- files ----------------------------------------------------------------------------------------


def too_many(system: System) -> None:
    """At the top of a module, so that a file can name it."""
    ear = system.start(Recorder)
    for number in chosen(system):
        ear.tell(Say(f"{number}"))
    assert len({*ear.ask(Seen())}) == 3, "twice the same"


def no_more(system: System) -> None:
    """The same, mended."""


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    failing(explore(too_many, 1000)).replay.save(tmp_path / "run.json")
    return tmp_path / "run.json"


def test_a_run_is_repeated_from_its_file_by_the_name_of_its_test(saved: Path) -> None:
    again = failing(replay(saved))
    assert again.replay == Replay.load(saved)
    assert again.replay.target == "tests.simulation.test_explore:too_many"
    assert str(again.error).startswith("twice the same")
    assert again.runs == 0


def test_another_test_can_be_run_from_the_file(saved: Path) -> None:
    assert replay(saved, no_more) is None


def change(path: Path, **parts: Any) -> None:
    text = json.loads(path.read_text())
    path.write_text(json.dumps({**text, **parts}))


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"version": 2}, "its version is 2"),
        ({"choices": ["a"]}, "choices is a list of numbers"),
        ({"choices": [-1]}, "choices is a list of numbers"),
        ({"seed": -1}, "seed is a number"),
        ({"target": ""}, "target is a name"),
        ({"more": 1}, "nothing of it is called 'more'"),
        ({"options": []}, "options is an object"),
        ({"options": {"colour": 1}}, "no options of a simulation: .*colour"),
        ({"options": {"preemption": "much"}}, "preemption is a probability"),
        ({"options": {"max_steps": 0}}, "max_steps is a number"),
        ({"options": {"faults": 1}}, "faults are an object"),
        ({"options": {"faults": {"kinds": ["flood"]}}}, "a fault is one of"),
        ({"target": "nowhere:test"}, "nowhere:test cannot be imported"),
        ({"target": "tests.simulation.test_explore:nothing"}, "cannot be imported"),
        ({"target": "tests/simulation/test_explore.py::too_many"}, "cannot be imported"),
        ({"target": ":"}, "cannot be imported"),
    ],
)
def test_a_file_that_makes_no_sense_is_said_so(
    saved: Path, parts: dict[str, Any], text: str
) -> None:
    change(saved, **parts)
    with pytest.raises(ValueError, match=text):
        replay(saved)


@pytest.mark.parametrize("text", ["", "{", "[]", "\0", '{"version": 1}'])
def test_a_file_that_is_none_of_ours_is_said_so(saved: Path, text: str) -> None:
    saved.write_text(text)
    with pytest.raises(ValueError, match="no replay file"):
        replay(saved)


def test_a_file_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replay(tmp_path / "nothing.json")


@pytest.mark.parametrize("choices", [[], [10**9] * 50, [0, 1] * 500])
def test_any_choices_can_be_run(saved: Path, choices: list[int]) -> None:
    change(saved, choices=choices)
    again = replay(saved)
    assert again is None or type(again.error) is AssertionError


# --- options --------------------------------------------------------------------------------------

all_faults = st.builds(
    Faults,
    kinds=st.lists(st.sampled_from(FAULT_KINDS), unique=True),
    rate=st.floats(0, 1),
    limit=st.integers(0, 99),
    max_delay=st.floats(0, 1e9),
    targets=st.lists(st.text(min_size=1)),
    swarm=st.booleans(),
    script=st.lists(
        st.tuples(st.sampled_from(FAULT_KINDS), st.text(min_size=1), st.integers(1, 9))
    ),
)


@given(
    st.builds(
        Options, faults=all_faults, preemption=st.floats(0, 1), max_steps=st.integers(1, 10**9)
    )
)
def test_options_come_back_from_json_as_they_were(options: Options) -> None:
    assert Options.from_json(json.loads(json.dumps(options.to_json()))) == options


def test_options_that_are_left_out_are_as_usual() -> None:
    assert Options.from_json({"faults": {}}) == Options(Faults())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"faults": ["drop"]}, "faults is a Faults"),
        ({"preemption": 1.5}, "preemption is a probability"),
        ({"preemption": float("nan")}, "preemption is a probability"),
        ({"preemption": True}, "preemption is a probability"),
        ({"max_steps": 0}, "max_steps is a number"),
        ({"max_steps": 1.0}, "max_steps is a number"),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Options(**values)


def test_seeds_are_not_negative() -> None:
    with pytest.raises(ValueError, match="a seed is 0 or more"):
        explore(no_more, [-1])


def test_seeds_may_be_any_iterable() -> None:
    def seeds() -> Iterable[int]:
        yield from (3, 5)

    assert explore(no_more, seeds()) is None
