"""Actors under actors: who is told of an end, and in which order they end."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from actors import (
    Actor,
    ActorError,
    ExitReason,
    Message,
    Ref,
    RemoteActorError,
    StartFailed,
    System,
)
from tests.actors.parts import Fail, Gate, Hold, Leave, Recorder, Say, Seen, WhoAreYou


class Spawn(Message):
    """Answered by the Ref of a new child."""

    name: str
    shutdown: float | None = 5.0


class Parent(Recorder):
    fails_on_ask = False
    child_class: type[Actor] = Recorder

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Spawn):
            return self.start_child(
                self.child_class, self.gate, self.log, name=message.name, shutdown=message.shutdown
            )
        return super().on_receive(message)


class Broken(Recorder):
    def on_start(self) -> None:
        raise OSError(2, "no")


class BrokenParent(Parent):
    child_class = Broken


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (Leave(), "normal"),
        (Fail("ValueError", "x"), "ValueError: x"),
        (Fail("SystemExit", "x"), "SystemExit: x"),
        ("stop", "shutdown"),
        ("kill", "killed"),
    ],
    ids=repr,
)
def test_a_parent_is_told_of_every_end_of_a_child_once(end: Any, reason: str) -> None:
    with System() as system:
        parent = system.start(Parent)
        child: Ref = parent.ask(Spawn("kid"))
        if isinstance(end, Message):
            child.tell(end)
        else:
            getattr(child, end)()
        system.wait(child)
        assert parent.ask(Seen()) == [f"Exit kid {reason}"]


def test_a_child_knows_its_parent() -> None:
    found: list[Any] = []

    class Kid(Recorder):
        def on_start(self) -> None:
            found.append(self.parent)

    class Mother(Parent):
        child_class = Kid

    with System() as system:
        parent = system.start(Mother)
        parent.ask(Spawn("kid"))
        assert found == [parent]


def test_a_child_that_cannot_start_is_reported_by_the_error_alone() -> None:
    with System() as system:
        parent = system.start(BrokenParent)
        with pytest.raises(RemoteActorError, match="kid could not start") as failed:
            parent.ask(Spawn("kid"))
        assert isinstance(failed.value.__cause__, StartFailed)
        assert parent.ask(Seen()) == []


@pytest.mark.parametrize("end", ["stop", "Fail", "Leave"])
def test_children_end_in_reverse_order_before_their_parent(end: str) -> None:
    log: list[str] = []
    with System() as system:
        parent = system.start(Parent, log=log, name="p")
        for name in "abc":
            parent.ask(Spawn(name))
        if end == "stop":
            parent.stop()
        else:
            parent.tell({"Fail": Fail(), "Leave": Leave()}[end])
            system.wait(parent)
        assert [line.split()[0] for line in log[4:]] == ["c", "b", "a", "p"]
        assert system.dead_letters.total == 0


def test_children_end_when_their_parent_cannot_start() -> None:
    log: list[str] = []

    class Doomed(Actor):
        def on_start(self) -> None:
            for name in "ab":
                self.start_child(Recorder, None, log, name=name)
            raise ValueError("after all")

    with System() as system, pytest.raises(StartFailed, match="after all"):
        system.start(Doomed)
    assert log == [
        "a started",
        "b started",
        "b stopped (shutdown)",
        "a stopped (shutdown)",
    ]


def test_a_child_that_does_not_end_in_its_time_is_killed() -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        witness = system.start(Recorder)
        parent = system.start(Parent, gate, log, name="p")
        child = parent.ask(Spawn("kid", 0.01))
        child.tell(Hold())
        gate.wait_until_reached()
        system.monitor(child, witness)
        parent.stop()
        assert witness.ask(Seen()) == ["Down kid killed"]
        gate.open()
        system.wait(child)
    assert log[2:] == ["p stopped (shutdown)", "kid stopped (killed)"]


def test_killing_a_parent_ends_its_children_in_order() -> None:
    gate, log = Gate(), list[str]()
    with System() as system:
        parent = system.start(Parent, gate, log, name="p")
        child = parent.ask(Spawn("kid"))
        parent.tell(Hold())
        gate.wait_until_reached()
        parent.kill()
        assert system.wait(child).reason == ExitReason("shutdown")
        gate.open()
        assert system.wait(parent).reason == ExitReason("killed")
    assert log[2:] == ["kid stopped (shutdown)", "p stopped (killed)"]


def test_a_child_may_stop_its_parent_without_waiting_for_itself() -> None:
    class Rebel(Recorder):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                assert self.parent is not None
                self.parent.stop()
                return "done"
            return super().on_receive(message)

    class Mother(Parent):
        child_class = Rebel

    with System() as system:
        parent = system.start(Mother)
        child: Ref = parent.ask(Spawn("kid"))
        assert child.ask(Say("now")) == "done"
        assert system.wait(parent).reason == ExitReason("shutdown")
        assert not child.is_alive()


def test_an_actor_that_is_ending_gets_no_more_children() -> None:
    errors: list[ActorError] = []

    class Late(Actor):
        def on_stop(self) -> None:
            try:
                self.start_child(Recorder)
            except ActorError as error:
                errors.append(error)

    with System() as system:
        system.start(Late, name="late").stop()
    assert "late is ending" in str(errors[0])


def test_an_actor_without_a_handler_for_exits_ends_with_its_child() -> None:
    class Plain(Actor):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, WhoAreYou):
                return self.start_child(Recorder)
            return super().on_receive(message)

    with System() as system:
        parent = system.start(Plain)
        parent.ask(WhoAreYou()).tell(Fail())
        assert system.wait(parent).reason.text == "Plain does not take Exit"


def test_a_thousand_ends_leave_no_thread() -> None:
    with System() as system:
        before = threading.active_count()
        for _ in range(200):
            system.start(Recorder).tell(Leave())
        parent = system.start(Parent)
        for number in range(50):
            parent.ask(Spawn(str(number)))
        parent.stop()
    assert threading.active_count() <= before
