"""Supervisors: order, restarts, giving up, and children that come and go."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any, ClassVar

import pytest

from actors import (
    Actor,
    ActorDead,
    ActorError,
    AwaitChildren,
    Backoff,
    ChildExists,
    ChildSpec,
    ChildStatus,
    CountChildren,
    DeleteChild,
    ExitReason,
    GetChildSpec,
    Message,
    NameTaken,
    NoSuchChild,
    Ref,
    RestartChild,
    StartChild,
    StartFailed,
    StartInstance,
    StopChild,
    StopTimeout,
    Supervisor,
    System,
    TerminateChild,
    TooManyChildren,
    UnknownRef,
    WhichChildren,
    WrongType,
)
from tests.actors.parts import (
    PATIENCE,
    Fail,
    Gate,
    Hold,
    Leave,
    Recorder,
    Say,
    WhoAreYou,
    supervise,
)

LOG: list[str] = []
"""What the children of the running test did: a child has nothing but its spec to know a test by."""


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()
    Fragile.starts_that_fail = set()
    Fragile.started = 0
    Stuck.way = Gate()


class Child(Recorder):
    def __init__(self, *args: Any) -> None:
        super().__init__(log=LOG)
        self.args = list(args)

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Say):
            self.args.append(message.text)
            return self.args
        return super().on_receive(message)


class Fragile(Child):
    """Its nth start fails if n is in the set."""

    starts_that_fail: ClassVar[set[int]] = set()
    started: ClassVar[int] = 0

    def on_start(self) -> None:
        type(self).started += 1
        if self.started in self.starts_that_fail:
            raise OSError(5, f"start {self.started}")
        super().on_start()


class Stuck(Child):
    way: ClassVar[Gate]

    def on_receive(self, message: Message) -> Any:
        self.way.pass_through()


def children(top: Ref) -> list[tuple[str, str, int]]:
    """When all is quiet."""
    statuses: list[ChildStatus] = top.ask(AwaitChildren())
    return [(status.name, status.state, status.restarts) for status in statuses]


def child(top: Ref, name: str = "a") -> Ref:
    """The present incarnation, when all is quiet."""
    (ref,) = (status.ref for status in top.ask(AwaitChildren()) if status.name == name)
    assert isinstance(ref, Ref)
    return ref


def end(system: System, ref: Ref, how: str) -> None:
    match how:
        case "normal":
            ref.tell(Leave())
        case "shutdown":
            ref.stop()
        case "killed":
            ref.kill()
        case _:
            ref.tell(Fail())
    system.wait(ref)


def test_children_start_in_order_and_stop_in_reverse_order_before_their_supervisor() -> None:
    with System() as system:
        top = supervise(system, *(ChildSpec.of(name, Child) for name in "abc"))
        assert LOG == ["a started", "b started", "c started"]
        top.stop()
        assert LOG[3:] == [f"{name} stopped (shutdown)" for name in "cba"]


def test_the_order_of_the_specs_survives_restarts() -> None:
    with System() as system:
        top = supervise(system, *(ChildSpec.of(name, Child) for name in "abc"), intensity=9)
        end(system, child(top, "a"), "error")
        end(system, child(top, "b"), "error")
        assert [name for name, _, _ in children(top)] == ["a", "b", "c"]
        LOG.clear()
        top.stop()
        assert [f"{name} stopped (shutdown)" for name in "cba"] == LOG


def test_if_one_cannot_start_those_before_it_are_stopped_and_the_start_fails() -> None:
    Fragile.starts_that_fail = {1}
    with System() as system:
        with pytest.raises(StartFailed, match="top could not start: StartFailed: b could not"):
            supervise(
                system,
                ChildSpec.of("a", Child),
                ChildSpec.of("b", Fragile),
                ChildSpec.of("c", Child),
            )
        assert LOG == ["a started", "a stopped (shutdown)"]


MATRIX = [
    (
        restart,
        how,
        restart == "permanent" or (restart == "transient" and how in ("killed", "error")),
    )
    for restart in ("permanent", "transient", "temporary")
    for how in ("normal", "shutdown", "killed", "error")
]


@pytest.mark.parametrize(("restart", "how", "comes_back"), MATRIX)
def test_a_child_comes_back_or_not(restart: str, how: str, comes_back: bool) -> None:
    with System() as system:
        top = supervise(
            system, ChildSpec.of("a", Child, restart=restart), ChildSpec.of("other", Child)
        )
        other = child(top, "other")
        end(system, child(top), how)
        expected = {
            True: [("a", "running", 1)],
            False: [] if restart == "temporary" else [("a", "stopped", 0)],
        }[comes_back]
        assert children(top) == [*expected, ("other", "running", 0)]
        assert child(top, "other") == other


def test_every_incarnation_gets_the_arguments_afresh() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Child, 1, ["x"]))
        assert child(top).ask(Say("mine")) == [1, ["x"], "mine"]
        end(system, child(top), "error")
        assert child(top).ask(Say("new")) == [1, ["x"], "new"]


def test_arguments_may_hold_references() -> None:
    with System() as system:
        other = system.start(Recorder)
        top = supervise(system, ChildSpec.of("a", Child, other))
        end(system, child(top), "error")
        assert child(top).ask(Say("x")) == [other, "x"]
    with System() as here, System() as there, pytest.raises(StartFailed) as failed:
        supervise(here, ChildSpec.of("a", Child, there.start(Recorder)))
    assert f"a could not start: {UnknownRef.__name__}" in failed.value.text


def test_too_many_restarts_end_the_supervisor_and_say_why() -> None:
    with System() as system:
        top = supervise(
            system, *(ChildSpec.of(name, Child) for name in "abc"), intensity=2, period=60
        )
        for name in "ab":
            end(system, child(top, name), "error")
        last = child(top, "b")
        LOG.clear()
        end(system, last, "error")
        reason = system.wait(top).reason
        assert (reason.kind, reason.error) == ("error", "RestartIntensityExceeded")
        assert "child 'b'" in reason.text
        assert "2 times in 60 s" in reason.text
        assert "ValueError: broken" in reason.text
        assert LOG == [
            "b stopped (ValueError: broken)",
            "c stopped (shutdown)",
            "a stopped (shutdown)",
        ]
        with pytest.raises(ActorDead, match="RestartIntensityExceeded"):
            top.ask(WhichChildren())


def test_restarts_older_than_the_period_are_forgiven() -> None:
    now = [0.0]
    with System(clock=lambda: now[0]) as system:
        top = supervise(system, ChildSpec.of("a", Child))
        for _ in range(5):
            end(system, child(top), "error")
            assert children(top)[0][1] == "running"
            now[0] += 5.001
        assert children(top) == [("a", "running", 5)]


def test_a_restart_that_fails_counts_and_is_tried_again() -> None:
    Fragile.starts_that_fail = {2, 3}
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Fragile), intensity=3)
        end(system, child(top), "error")
        assert children(top) == [("a", "running", 3)]


def test_a_child_that_can_never_start_again_ends_the_supervisor() -> None:
    Fragile.starts_that_fail = set(range(2, 99))
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Fragile), intensity=4)
        end(system, child(top), "killed")
        assert "OSError: [Errno 5] start 5" in system.wait(top).reason.text
        assert Fragile.started == 5


def test_a_child_that_does_not_stop_in_its_time_is_killed() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Stuck, shutdown=0.01))
        ref = child(top)
        ref.tell(Hold())
        Stuck.way.wait_until_reached()
        top.stop()
        with pytest.raises(StopTimeout):
            system.wait(ref, 0)
        Stuck.way.open()
        assert system.wait(ref).reason == ExitReason("killed")


def test_a_shutdown_of_no_seconds_kills_at_once() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Child, shutdown=0))
        ref = child(top)
        top.stop()
        assert system.wait(ref).reason == ExitReason("killed")


def test_supervisors_supervise_supervisors() -> None:
    inner = ChildSpec.of("inner", Supervisor, [ChildSpec.of("a", Child)], 0, shutdown=None)
    with System() as system:
        top = supervise(system, inner)
        first = child(top, "inner")
        end(system, child(first), "error")
        system.wait(first)
        second = child(top, "inner")
        assert second != first
        assert children(second) == [("a", "running", 0)]
        assert LOG[-1] == "a started"


# --- children that come and go --------------------------------------------------------------------


def test_a_child_can_be_added_and_its_ref_is_the_answer() -> None:
    with System() as system:
        top = supervise(system)
        ref = top.ask(StartChild(ChildSpec.of("a", Child, 7)))
        assert ref == child(top)
        assert ref.ask(Say("x")) == [7, "x"]
        with pytest.raises(ChildExists, match="top has a child 'a' already"):
            top.ask(StartChild(ChildSpec.of("a", Child)))


def test_a_child_that_cannot_start_the_first_time_is_not_kept() -> None:
    Fragile.starts_that_fail = {1}
    with System() as system:
        top = supervise(system)
        with pytest.raises(StartFailed, match="a could not start") as failed:
            top.ask(StartChild(ChildSpec.of("a", Fragile)))
        assert isinstance(failed.value.__cause__, OSError)
        assert (failed.value.error, failed.value.text) == ("OSError", "[Errno 5] start 1")
        assert children(top) == []
        top.ask(StartChild(ChildSpec.of("a", Fragile)))
        assert children(top) == [("a", "running", 0)]


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("no.such.module:Class", "ModuleNotFoundError"),
        ("tests.actors.parts:NoSuchClass", "AttributeError"),
        ("tests.actors.parts", "ValueError"),
        ("tests.actors.parts:PATIENCE", "TypeError"),
        ("tests.actors.parts:Gate", "TypeError"),
    ],
)
def test_a_target_that_is_no_actor_is_a_failed_start(target: str, error: str) -> None:
    with System() as system:
        top = supervise(system)
        with pytest.raises(StartFailed) as failed:
            top.ask(StartChild(ChildSpec("a", target, [])))
        assert failed.value.error == error
        assert children(top) == []


def test_a_child_can_be_stopped_and_is_forgotten() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Child), ChildSpec.of("b", Child))
        assert top.ask(StopChild("a")) is None
        assert LOG[2:] == ["a stopped (shutdown)"]
        assert children(top) == [("b", "running", 0)]
        with pytest.raises(NoSuchChild, match="top has no child 'a'"):
            top.ask(StopChild("a"))
        assert children(top) == [("b", "running", 0)]  # its exit did not bring it back


def test_a_stopped_transient_child_can_be_forgotten() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Child, restart="transient"))
        end(system, child(top), "normal")
        assert children(top) == [("a", "stopped", 0)]
        top.ask(StopChild("a"))
        assert children(top) == []


def test_an_unexpected_message_is_a_failure_of_the_supervisor_and_ends_its_children() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Child))
        top.tell(Say("?"))
        assert system.wait(top).reason.text == "Supervisor does not take Say"
        assert LOG[1:] == ["a stopped (shutdown)"]


def test_a_killed_supervisor_leaves_no_child() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("a", Child))
        ref = child(top)
        top.kill()
        assert system.wait(ref).reason == ExitReason("shutdown")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"restart": "always"}, "restart is one of"),
        ({"shutdown": -1.0}, "shutdown cannot be"),
        ({"shutdown": float("nan")}, "shutdown cannot be"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(options: dict[str, Any], error: str) -> None:
    with pytest.raises(ValueError, match=error):
        ChildSpec.of("a", Child, **options)


def test_a_spec_cannot_name_a_local_class() -> None:
    class Local(Actor):
        pass

    with pytest.raises(ValueError, match="is local"):
        ChildSpec.of("a", Local)


def test_arguments_that_cannot_be_sent_are_an_error_at_the_sender() -> None:
    with System() as system, pytest.raises(WrongType):
        supervise(system).ask(StartChild(ChildSpec.of("a", Child, object())))


# --- strategies -----------------------------------------------------------------------------------


class Slow(Child):
    """Its nth start passes the nth gate that the test has set up."""

    gates: ClassVar[dict[int, Gate]] = {}
    started: ClassVar[int] = 0

    def on_start(self) -> None:
        type(self).started += 1
        if (gate := self.gates.get(self.started)) is not None:
            gate.pass_through()
        super().on_start()


class PooledChild(Child):
    pooled = True


class Stopping(Child):
    """Takes its time to end."""

    way: ClassVar[Gate]

    def on_stop(self) -> None:
        self.way.pass_through()
        super().on_stop()


def start(system: System, strategy: str, *specs: ChildSpec, **options: Any) -> Ref:
    options.setdefault("intensity", 3)
    return system.start(Supervisor, list(specs), strategy=strategy, name="top", **options)


def specs(names: str, kind: type[Actor] = Child, **options: Any) -> list[ChildSpec]:
    return [ChildSpec.of(name, kind, **options) for name in names]


KINDS = pytest.mark.parametrize("kind", [Child, PooledChild])
ERROR = "stopped (ValueError: broken)"
STOPPED = "stopped (shutdown)"


@KINDS
@pytest.mark.parametrize(
    ("strategy", "log"),
    [
        ("one_for_one", [f"b {ERROR}", "b started"]),
        (
            "one_for_all",
            [
                f"b {ERROR}",
                f"d {STOPPED}",
                f"c {STOPPED}",
                f"a {STOPPED}",
                *(f"{name} started" for name in "abcd"),
            ],
        ),
        (
            "rest_for_one",
            [
                f"b {ERROR}",
                f"d {STOPPED}",
                f"c {STOPPED}",
                *(f"{name} started" for name in "bcd"),
            ],
        ),
    ],
)
def test_what_the_failure_of_one_takes_along(
    strategy: str, log: list[str], kind: type[Child]
) -> None:
    with System() as system:
        top = start(system, strategy, *specs("abcd", kind))
        before = {name: child(top, name) for name in "abcd"}
        LOG.clear()
        end(system, before["b"], "error")
        counts = children(top)
        assert log == LOG
        restarted = {line.split()[0] for line in log if line.endswith("started")}
        assert counts == [(name, "running", int(name in restarted)) for name in "abcd"]
        assert {name for name in "abcd" if child(top, name) != before[name]} == restarted


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_one_that_cannot_start_again_in_a_group_is_tried_until_the_supervisor_gives_up(
    strategy: str,
) -> None:
    Fragile.starts_that_fail = {2, 3}
    with System() as system:
        top = start(
            system,
            strategy,
            ChildSpec.of("a", Child),
            ChildSpec.of("b", Fragile),
            ChildSpec.of("c", Child),
        )
        end(system, child(top, "a"), "error")
        assert [state for _, state, _ in children(top)] == ["running"] * 3
        assert LOG[-2:] == ["b started", "c started"]
        assert Fragile.started == 4
        Fragile.starts_that_fail = set(range(99))
        end(system, child(top, "a"), "error")
        assert system.wait(top).reason.error == "RestartIntensityExceeded"
        assert system.tree() == "system main: 0 actors"


@pytest.mark.parametrize("strategy", ["one_for_all", "rest_for_one"])
def test_a_temporary_child_of_a_group_does_not_come_back(strategy: str) -> None:
    with System() as system:
        top = start(
            system,
            strategy,
            ChildSpec.of("a", Child),
            ChildSpec.of("b", Child, restart="temporary"),
            ChildSpec.of("c", Child, restart="transient"),
        )
        end(system, child(top, "a"), "error")
        assert [name for name, _, _ in children(top)] == ["a", "c"]


def test_two_that_fail_at_once_make_a_group_come_back_at_most_twice() -> None:
    with System() as system:
        top = start(system, "one_for_all", *specs("ab"), intensity=9)
        pair = [child(top, name) for name in "ab"]
        for ref in pair:
            ref.tell(Fail())
        for ref in pair:
            system.wait(ref)
        assert [state for _, state, _ in children(top)] == ["running"] * 2
        assert all(1 <= restarts <= 2 for _, _, restarts in children(top))


# --- instances of one spec ------------------------------------------------------------------------


@KINDS
def test_instances_are_started_on_demand_with_arguments_of_their_own(kind: type[Child]) -> None:
    with System() as system:
        top = start(system, "simple_one_for_one", ChildSpec.of("it", kind, "common"))
        assert children(top) == []
        assert top.ask(CountChildren()) == [1, 0]
        refs = [top.ask(StartInstance([number])) for number in range(3)]
        assert [ref.name for ref in refs] == ["it-1", "it-2", "it-3"]
        assert refs[1].ask(Say("x")) == ["common", 1, "x"]
        assert top.ask(CountChildren()) == [1, 3]
        end(system, refs[1], "error")
        assert children(top) == [
            ("it-1", "running", 0),
            ("it-2", "running", 1),
            ("it-3", "running", 0),
        ]
        assert child(top, "it-2").ask(Say("y")) == ["common", 1, "y"]
        assert top.ask(TerminateChild("it-1")) is None
        assert [name for name, _, _ in children(top)] == ["it-2", "it-3"]
        with pytest.raises(NoSuchChild):
            top.ask(RestartChild("it-1"))


class Together(Child):
    """Ends when all have begun to end."""

    all: ClassVar[threading.Barrier]

    def on_stop(self) -> None:
        self.all.wait(PATIENCE)
        super().on_stop()


def test_all_instances_end_at_the_same_time() -> None:
    Together.all = threading.Barrier(3)
    with System() as system:
        top = start(system, "simple_one_for_one", ChildSpec.of("it", Together))
        for _ in range(3):
            top.ask(StartInstance([]))
        top.stop()
        assert sorted(LOG[3:]) == [f"it-{number} {STOPPED}" for number in (1, 2, 3)]


@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_an_instance_that_has_ended_for_good_is_forgotten(restart: str) -> None:
    with System() as system:
        top = start(system, "simple_one_for_one", ChildSpec.of("it", Child, restart=restart))
        ref = top.ask(StartInstance([]))
        end(system, ref, "normal")
        assert children(top) == []
        assert top.ask(CountChildren()) == [1, 0]


def test_each_strategy_has_its_own_requests() -> None:
    with System() as system:
        simple = start(system, "simple_one_for_one", ChildSpec.of("it", Child))
        with pytest.raises(ActorError, match="starts instances of its own spec only"):
            simple.ask(StartChild(ChildSpec.of("a", Child)))
        plain = start(system, "one_for_one")
        with pytest.raises(ActorError, match="has no spec to make instances of"):
            plain.ask(StartInstance([]))
        with pytest.raises(StartFailed, match="simple_one_for_one takes exactly one spec"):
            start(system, "simple_one_for_one", *specs("ab"))


def test_an_instance_that_cannot_start_is_told_and_forgotten() -> None:
    Fragile.starts_that_fail = {1}
    with System() as system:
        top = start(system, "simple_one_for_one", ChildSpec.of("it", Fragile))
        with pytest.raises(StartFailed, match="it-1 could not start") as failed:
            top.ask(StartInstance([]))
        assert isinstance(failed.value.__cause__, OSError)
        assert children(top) == []


def test_there_may_be_a_most_of_children() -> None:
    with System() as system:
        top = start(system, "simple_one_for_one", ChildSpec.of("it", Child), max_children=1)
        ref = top.ask(StartInstance([]))
        with pytest.raises(TooManyChildren, match="top may have 1 children"):
            top.ask(StartInstance([]))
        top.ask(StopChild(ref.name))
        top.ask(StartInstance([]))


# --- significant children -------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["normal", "shutdown"])
@pytest.mark.parametrize("restart", ["transient", "temporary"])
def test_the_end_of_any_significant_child_may_be_that_of_the_supervisor(
    restart: str, how: str
) -> None:
    with System() as system:
        top = start(
            system,
            "one_for_one",
            *specs("ab", restart=restart, significant=True),
            ChildSpec.of("c", Child),
            auto_shutdown="any_significant",
        )
        end(system, child(top, "a"), how)
        assert system.wait(top).reason == ExitReason("shutdown")
        assert LOG[-2:] == [f"c {STOPPED}", f"b {STOPPED}"]


def test_or_the_end_of_all_of_them() -> None:
    with System() as system:
        top = start(
            system,
            "one_for_one",
            *specs("ab", restart="transient", significant=True),
            ChildSpec.of("c", Child),
            auto_shutdown="all_significant",
        )
        end(system, child(top, "a"), "normal")
        assert [state for _, state, _ in children(top)] == ["stopped", "running", "running"]
        end(system, child(top, "b"), "error")  # it is transient, and comes back
        end(system, child(top, "b"), "normal")
        assert system.wait(top).reason == ExitReason("shutdown")


def test_a_significant_child_that_is_stopped_on_request_ends_nothing() -> None:
    with System() as system:
        top = start(
            system,
            "one_for_one",
            *specs("a", restart="transient", significant=True),
            auto_shutdown="any_significant",
        )
        top.ask(TerminateChild("a"))
        assert children(top) == [("a", "stopped", 0)]


def test_significance_needs_a_supervisor_that_ends_for_it() -> None:
    with System() as system:
        with pytest.raises(StartFailed, match="'a' is significant, but auto_shutdown of top"):
            start(system, "one_for_one", *specs("a", restart="transient", significant=True))
        top = start(system, "one_for_one")
        with pytest.raises(ActorError, match="is significant"):
            top.ask(StartChild(ChildSpec.of("a", Child, restart="temporary", significant=True)))


# --- requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_a_child_may_be_stopped_started_again_and_deleted(strategy: str) -> None:
    with System() as system:
        top = start(system, strategy, *specs("ab"))
        before = child(top, "b")
        assert top.ask(GetChildSpec("a")) == ChildSpec.of("a", Child)
        assert top.ask(CountChildren()) == [2, 2]
        assert top.ask(TerminateChild("a")) is None
        assert top.ask(TerminateChild("a")) is None
        assert children(top) == [("a", "stopped", 0), ("b", "running", 0)]
        assert top.ask(CountChildren()) == [2, 1]
        ref = top.ask(RestartChild("a"))
        assert ref == child(top, "a")
        with pytest.raises(ActorError, match="child 'a' of top is running"):
            top.ask(RestartChild("a"))
        with pytest.raises(ActorError, match="child 'a' of top is running"):
            top.ask(DeleteChild("a"))
        top.ask(TerminateChild("a"))
        assert top.ask(DeleteChild("a")) is None
        assert children(top) == [("b", "running", 0)]
        for request in (TerminateChild, RestartChild, DeleteChild, GetChildSpec, StopChild):
            with pytest.raises(NoSuchChild, match="top has no child 'a'"):
                top.ask(request("a"))
        assert child(top, "b") == before


def test_a_temporary_child_that_is_stopped_on_request_is_forgotten() -> None:
    with System() as system:
        top = start(system, "one_for_one", *specs("a", restart="temporary"))
        top.ask(TerminateChild("a"))
        assert children(top) == []


def test_a_restart_on_request_that_fails_keeps_the_spec() -> None:
    Fragile.starts_that_fail = {2}
    with System() as system:
        top = start(system, "one_for_one", *specs("a", Fragile))
        top.ask(TerminateChild("a"))
        with pytest.raises(StartFailed, match="start 2"):
            top.ask(RestartChild("a"))
        assert children(top) == [("a", "stopped", 1)]
        top.ask(RestartChild("a"))
        assert children(top) == [("a", "running", 2)]


def test_requests_are_answered_while_a_child_takes_its_time() -> None:
    """The supervisor waits for nobody: not for a start, and not for an end."""
    starting, Stopping.way = Gate(), Gate()
    Slow.started, Slow.gates = 0, {2: starting}
    with System() as system:
        top = start(system, "one_for_one", *specs("a", Slow), *specs("b", Stopping), *specs("c"))
        end(system, child(top, "a"), "error")
        starting.wait_until_reached()
        ended = top.ask_future(TerminateChild("b"), PATIENCE)
        Stopping.way.wait_until_reached()
        statuses: list[ChildStatus] = top.ask(WhichChildren())
        assert [(status.name, status.state) for status in statuses] == [
            ("a", "starting"),
            ("b", "stopping"),
            ("c", "running"),
        ]
        assert [status.ref is not None for status in statuses] == [True] * 3
        awaited = top.ask_future(AwaitChildren(), PATIENCE)
        end(system, statuses[2].ref or top, "error")
        top.ask(StartChild(ChildSpec.of("d", Child)))
        assert not awaited.settled
        assert not ended.settled
        Stopping.way.open()
        assert ended.result() is None
        assert not awaited.settled
        starting.open()
        assert [(status.name, status.state) for status in awaited.result()] == [
            ("a", "running"),
            ("b", "stopped"),
            ("c", "running"),
            ("d", "running"),
        ]


def test_a_slow_start_of_one_does_not_delay_the_restart_of_another() -> None:
    starting = Gate()
    Slow.started, Slow.gates = 0, {2: starting}
    with System() as system:
        top = start(system, "one_for_one", *specs("a", Slow), *specs("b", registered=True))
        end(system, child(top, "a"), "killed")
        starting.wait_until_reached()
        b = system.whereis("b")
        assert b is not None
        LOG.clear()
        end(system, b, "error")
        top.ask(StartChild(ChildSpec.of("after", Child)))  # all that came before is done
        assert [f"b {ERROR}", "b started", "after started"] == LOG
        starting.open()


def test_a_child_that_hangs_in_its_start_is_killed_when_its_time_to_stop_is_over() -> None:
    starting = Gate()
    Slow.started, Slow.gates = 0, {1: starting}
    with System() as system:
        top = start(system, "one_for_one")
        started = top.ask_future(StartChild(ChildSpec.of("a", Slow, shutdown=0.01)), PATIENCE)
        starting.wait_until_reached()
        assert top.ask(StopChild("a")) is None
        with pytest.raises(StartFailed, match="a could not start: killed"):
            started.result()
        assert children(top) == []
        starting.open()


def test_a_request_that_is_under_way_when_the_supervisor_ends_is_answered() -> None:
    Stopping.way = Gate()
    with System() as system:
        top = start(system, "one_for_one", *specs("a", Stopping))
        asked = top.ask_future(StopChild("a"), PATIENCE)
        Stopping.way.wait_until_reached()
        top.tell(Say("which it does not take"), control=True)
        Stopping.way.open()
        system.wait(top)
        with pytest.raises(ActorDead):
            asked.result()


def test_the_start_of_a_supervisor_waits_for_all_of_its_children() -> None:
    starting = Gate()
    Slow.started, Slow.gates = 0, {1: starting}
    refs = list[Ref]()
    with System() as system:
        starter = threading.Thread(
            target=lambda: refs.append(start(system, "one_for_one", *specs("a"), *specs("b", Slow)))
        )
        starter.start()
        starting.wait_until_reached()
        assert refs == []
        assert LOG == ["a started"]
        starting.open()
        starter.join()
        assert LOG == ["a started", "b started"]
        assert children(refs[0]) == [("a", "running", 0), ("b", "running", 0)]


# --- backoff --------------------------------------------------------------------------------------


def test_restarts_may_wait_longer_each_time() -> None:
    backoff = Backoff(initial=0.01, maximum=0.04, factor=2)
    with System() as system:
        top = start(system, "one_for_one", *specs("a", backoff=backoff), *specs("b"), intensity=9)
        for least in (0.01, 0.02, 0.04, 0.04):
            ref = child(top)
            before = time.monotonic()
            end(system, ref, "error")
            top.ask(AwaitChildren())
            assert time.monotonic() - before >= least
        assert children(top) == [("a", "running", 4), ("b", "running", 0)]


def test_a_child_that_waits_for_its_restart_may_be_stopped_or_its_supervisor() -> None:
    backoff = Backoff(initial=1000, maximum=1000)
    with System() as system:
        top = start(system, "one_for_one", *specs("ab", backoff=backoff))
        for ref in (child(top, "a"), child(top, "b")):
            end(system, ref, "error")
        awaited = top.ask_future(AwaitChildren(), PATIENCE)
        statuses = top.ask(WhichChildren())
        assert [(status.state, status.ref) for status in statuses] == [("restarting", None)] * 2
        with pytest.raises(ActorError, match="child 'a' of top is restarting"):
            top.ask(RestartChild("a"))
        assert top.ask(TerminateChild("a")) is None
        assert not awaited.settled
        top.stop()
        assert system.tree() == "system main: 0 actors"
        with pytest.raises(ActorDead):
            awaited.result()


def test_a_group_waits_for_the_backoff_of_the_one_that_has_failed() -> None:
    backoff = Backoff(initial=0.02)
    with System() as system:
        top = start(system, "one_for_all", *specs("a", backoff=backoff), *specs("b"))
        before = time.monotonic()
        end(system, child(top, "a"), "error")
        assert children(top) == [("a", "running", 1), ("b", "running", 1)]
        assert time.monotonic() - before >= 0.02
        assert LOG[2:] == [f"a {ERROR}", f"b {STOPPED}", "a started", "b started"]


# --- names, threads, ends -------------------------------------------------------------------------


@KINDS
def test_a_registered_child_is_reached_by_name_across_restarts(kind: type[Child]) -> None:
    with System() as system:
        top = start(system, "one_for_one", *specs("a", kind, registered=True), intensity=9)
        named = system.named("a")
        incarnations = set[Ref]()
        for number in range(5):
            ref = named.ask(WhoAreYou())
            assert ref == child(top)
            assert ref.statistics().restarts == number
            incarnations.add(ref)
            end(system, ref, ("error", "killed")[number % 2])
            top.ask(AwaitChildren())
        assert len(incarnations) == 5


def test_a_child_whose_name_is_taken_cannot_start() -> None:
    with System() as system:
        system.start(Recorder, name="a", registered=True)
        top = start(system, "one_for_one")
        with pytest.raises(StartFailed, match="NameTaken") as failed:
            top.ask(StartChild(ChildSpec.of("a", Child, registered=True)))
        assert isinstance(failed.value.__cause__, NameTaken)


class Located(Child):
    def on_start(self) -> None:
        LOG.append(threading.current_thread().name)
        self.ident = threading.get_ident()

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Say):
            return [threading.current_thread().name, threading.get_ident() == self.ident]
        return super().on_receive(message)

    def on_stop(self) -> None:
        LOG.append(threading.current_thread().name)


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_each_incarnation_has_a_thread_to_itself_that_has_its_name(strategy: str) -> None:
    with System() as system:
        top = start(system, strategy, *specs("abc", Located), intensity=99)
        for name in "abcab":
            end(system, child(top, name), "error")
            for other in "abc":
                assert child(top, other).ask(Say("where")) == [other, True]
        names = sorted(thread.name for thread in threading.enumerate())
        assert [name for name in names if name in "abc"] == ["a", "b", "c"]
        assert sorted(LOG[:3]) == ["a", "b", "c"]
        assert set(LOG) == set("abc")


def test_a_supervisor_that_restarts_all_the_time_can_be_stopped() -> None:
    Fragile.starts_that_fail = set(range(2, 10**6))
    with System() as system:
        top = start(system, "one_for_one", *specs("a", Fragile), *specs("b"), intensity=10**6)
        end(system, child(top, "a"), "error")
        while Fragile.started < 5:
            top.ask(WhichChildren())
        top.stop(timeout=PATIENCE)
        assert system.wait(top).reason == ExitReason("shutdown")
        assert system.tree() == "system main: 0 actors"
        assert LOG[-1] == f"b {STOPPED}"


def test_a_crash_loop_ends_though_the_supervisor_is_busy_with_requests() -> None:
    Fragile.starts_that_fail = set(range(2, 10**6))
    with System() as system:
        top = start(system, "one_for_one", *specs("a", Fragile), intensity=50)
        end(system, child(top, "a"), "killed")
        with contextlib.suppress(ActorDead):
            while True:
                top.ask(WhichChildren(), timeout=float("inf"))
        assert Fragile.started == 51
        assert system.wait(top).reason.error == "RestartIntensityExceeded"


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all"])
def test_a_child_that_is_killed_brutally_is_not_waited_for(strategy: str) -> None:
    with System() as system:
        top = start(
            system,
            strategy,
            *specs("a", Stuck, shutdown="brutal_kill"),
            *specs("b", registered=True),
        )
        ref = child(top, "a")
        ref.tell(Hold())
        Stuck.way.wait_until_reached()
        if strategy == "one_for_all":
            end(system, child(top, "b"), "error")
            assert children(top) == [("a", "running", 1), ("b", "running", 1)]
        top.stop()
        with pytest.raises(StopTimeout):
            system.wait(ref, 0)
        Stuck.way.open()
        assert system.wait(ref).reason == ExitReason("killed")


def test_a_supervisor_that_gives_up_is_started_again_by_its_own_with_all_below_it() -> None:
    inner = ChildSpec.of(
        "inner", Supervisor, specs("ab", registered=True), 1, 60.0, registered=True
    )
    with System() as system:
        top = start(system, "one_for_one", inner, *specs("c", registered=True), intensity=2)
        c = system.whereis("c")
        for number in range(6):
            top.ask(AwaitChildren())
            system.named("inner").ask(AwaitChildren())
            before = system.whereis("inner")
            a = system.whereis("a")
            assert before is not None
            assert a is not None
            if number == 5:
                assert system.whereis("c") == c  # the third time that inner has to be restarted
            end(system, a, "error")
            if number % 2 == 1:
                assert system.wait(before).reason.error == "RestartIntensityExceeded"
        assert "child 'inner' had to be restarted more than 2 times" in system.wait(top).reason.text
        assert system.tree() == "system main: 0 actors"
        assert LOG.count("a started") == 6
        assert LOG.count("b started") == 3


def test_a_killed_supervisor_is_replaced_though_its_children_still_end() -> None:
    Stopping.way = Gate()
    inner = ChildSpec.of("inner", Supervisor, specs("a", Stopping), registered=True)
    with System() as system:
        top = start(system, "one_for_one", inner)
        old = child(top, "inner")
        old_child = child(old)
        old.kill()
        Stopping.way.wait_until_reached()
        new = child(top, "inner")
        assert new != old
        assert child(new) != old_child
        Stopping.way.open()
        system.wait(old_child)
        assert LOG.count("a started") == 2


def test_what_a_subclass_starts_besides_ends_with_it() -> None:
    with System() as system:
        top = system.start(WithHelper, specs("a"), name="top")
        top.ask(AwaitChildren())
        assert "helper" in system.tree()
        top.stop()
        assert system.tree() == "system main: 0 actors"
        assert LOG[-2:] == [f"helper {STOPPED}", f"a {STOPPED}"]


class WithHelper(Supervisor):
    def on_start(self) -> None:
        super().on_start()
        self.begin_child(Child, name="helper")


def test_many_children_that_fail_all_the_time_are_all_there_in_the_end() -> None:
    names = [f"child-{number}" for number in range(20)]
    with System() as system:
        top = start(
            system,
            "one_for_one",
            *(
                ChildSpec.of(name, (Child, PooledChild)[number % 2], registered=True)
                for number, name in enumerate(names)
            ),
            intensity=10**6,
        )

        def pester(mine: list[str]) -> None:
            for number in range(100):
                system.named(mine[number % len(mine)]).tell(Fail())

        threads = [threading.Thread(target=pester, args=(names[n::3],)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in names:
            end_of = system.whereis(name)
            if end_of is not None:
                end(system, end_of, "error")
        assert [state for _, state, _ in children(top)] == ["running"] * 20
        assert len(system.tree().splitlines()) == 22
