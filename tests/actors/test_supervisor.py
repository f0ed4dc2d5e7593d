"""Supervisors: order, restarts, giving up, and children that come and go."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from actors import (
    Actor,
    ActorDead,
    AwaitChildren,
    ChildExists,
    ChildSpec,
    ChildStatus,
    ExitReason,
    Message,
    NoSuchChild,
    Ref,
    StartChild,
    StartFailed,
    StopChild,
    StopTimeout,
    Supervisor,
    System,
    UnknownRef,
    WhichChildren,
    WrongType,
)
from tests.actors.parts import Fail, Gate, Hold, Leave, Recorder, Say, supervise

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
