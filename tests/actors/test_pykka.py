"""Our actors as pykka actors: pykka's own references work, with declared messages."""

from __future__ import annotations

from typing import Any

import pykka
import pytest

from actors import ActorDead, ActorError, AskTimeout, Message, RemoteActorError, System, WrongType
from tests.actors.parts import Fail, Gate, Hold, Patient, Recorder, Say, Seen, WhoAreYou


class Exposed(Patient):
    """Shows its pykka reference to the test."""

    def __init__(self, shown: list[Any], gate: Gate | None = None) -> None:
        super().__init__(gate)
        shown.append(self.actor_ref)


def start(system: System, gate: Gate | None = None) -> pykka.ActorRef[Exposed]:
    shown: list[pykka.ActorRef[Exposed]] = []
    system.start(Exposed, shown, gate)
    return shown[0]


def test_pykkas_reference_tells_and_asks() -> None:
    with System() as system:
        ref = start(system)
        ref.tell(Say("a"))
        assert ref.ask(Say("b")) == "b"
        assert ref.ask(Seen(), block=False).get(timeout=5) == ["a", "b"]
        assert ref.ask(WhoAreYou(), block=True).is_alive()
        with pytest.raises(RemoteActorError, match="ValueError"):
            ref.ask(Fail())


def test_what_pykka_sends_is_checked_too() -> None:
    with System() as system:
        ref = start(system)
        for message in ({"n": 1}, Say(1)):  # type: ignore[arg-type]
            with pytest.raises(WrongType):
                ref.tell(message)
            with pytest.raises(WrongType):
                ref.ask(message)
        with pytest.raises(WrongType, match="ProxyCall"):
            ref.ask(pykka.messages.ProxyCall(("on_stop",), (), {}))


def test_pykkas_stop_waits_for_on_stop() -> None:
    with System() as system:
        ref = start(system)
        assert ref.is_alive()
        assert ref.stop() is True
        assert not ref.is_alive()
        assert ref.stop() is False
        with pytest.raises(pykka.ActorDeadError):
            ref.tell(Say(""))
        with pytest.raises(pykka.ActorDeadError):
            ref.ask(Say(""))


def test_pykkas_stop_comes_after_what_was_sent_before_and_before_what_is_sent_later() -> None:
    gate = Gate()
    with System() as system:
        ref = start(system, gate)
        ref.tell(Hold())
        gate.wait_until_reached()
        asks = [ref.ask(Say(text), block=False) for text in "abc"]
        stopped = ref.stop(block=False)
        late = ref.ask(Say("late"), block=False)
        gate.open()
        assert stopped.get(timeout=5) is True
        assert [ask.get(timeout=5) for ask in asks] == ["a", "b", "c"]
        with pytest.raises(pykka.ActorDeadError):
            late.get(timeout=5)


def test_a_pykka_stop_is_answered_though_the_actor_is_killed_meanwhile() -> None:
    gate, shown = Gate(), list[Any]()
    with System() as system:
        ref = system.start(Exposed, shown, gate)
        ref.tell(Hold())
        gate.wait_until_reached()
        stops = [shown[0].stop(block=False) for _ in range(2)]
        ref.kill()
        gate.open()
        assert [stop.get(timeout=5) for stop in stops] == [True, True]


def test_a_stop_that_is_heard_of_when_all_is_over_is_answered_at_once() -> None:
    with System() as system:
        ref, future = system.start(Recorder), Recorder._create_future()
        ref.stop()
        ref.cell.add_stopper(future)
        assert future.settled


def test_a_pykka_stop_that_comes_after_another_is_answered_too() -> None:
    gate = Gate()
    with System() as system:
        ref = start(system, gate)
        ref.tell(Hold())
        gate.wait_until_reached()
        stops = [ref.stop(block=False) for _ in range(3)]
        gate.open()
        assert [stop.get(timeout=5) for stop in stops] == [True] * 3


def test_pykkas_timeouts_are_ours() -> None:
    gate = Gate()
    with System() as system:
        ref = start(system, gate)
        with pytest.raises(pykka.Timeout):
            ref.ask(Hold(), timeout=0.01)
        gate.open()
    assert issubclass(AskTimeout, pykka.Timeout)
    assert issubclass(ActorDead, pykka.ActorDeadError)


def test_stopping_oneself_as_in_pykka() -> None:
    class Quitter(Recorder):
        def on_receive(self, message: Message) -> Any:
            self.stop()

    with System() as system:
        ref = system.start(Quitter)
        ref.tell(Say(""))
        assert system.wait(ref).reason.kind == "shutdown"


def test_no_registry_knows_our_actors_and_pykkas_start_says_what_to_do() -> None:
    with System() as system:
        start(system)
        assert pykka.ActorRegistry.get_all() == []
        with pytest.raises(ActorError, match=r"System\.start"):
            Recorder.start()


def test_futures_are_pykkas() -> None:
    with System() as system:
        future = system.start(Recorder).ask_future(Say("x"))
        assert isinstance(future, pykka.Future)
        assert future.map(str.upper).get() == "X"
        with pytest.raises(RuntimeError, match="settled"):
            future.set("again")
        with pytest.raises(RuntimeError, match="settled"):
            future.set_exception((ValueError, ValueError(), None))
        mine = Recorder._create_future()
        mine.set(3)
        assert mine.get() == 3
        failed = Recorder._create_future()
        failed.set_exception((KeyError, KeyError("k"), None))
        with pytest.raises(KeyError):
            failed.get()
