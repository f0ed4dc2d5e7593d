"""Registered names: a reference by name means whoever has the name when it is used."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from actors import (
    ActorDead,
    AwaitChildren,
    ChildSpec,
    Message,
    NamedRef,
    NameTaken,
    Ref,
    RemoteActorError,
    StartFailed,
    System,
    UnknownRef,
)
from tests.actors.parts import (
    Do,
    Doer,
    Fail,
    Gate,
    Hold,
    Leave,
    Pooled,
    PooledDoer,
    Recorder,
    Say,
    Seen,
    WhoAreYou,
    supervise,
)


class Parcel(Message):
    to: Ref
    others: list[Ref | None]


def test_a_name_reaches_its_actor_in_every_way() -> None:
    with System() as system:
        ref = system.start(Recorder, name="it", registered=True)
        named = system.named("it")
        named.tell(Say("a"))
        assert named.ask(Say("b")) == "b"
        assert named.ask_future(Say("c")).result() == "c"
        assert asyncio.run(named.ask_async(Say("d"))) == "d"
        assert named.ask(Seen()) == list("abcd")
        assert named.ask(WhoAreYou()) == ref
        assert named.statistics().handled == 6
        assert named.is_alive()
        named.stop()
        assert not ref.is_alive()


@pytest.mark.parametrize("kind", [Recorder, Pooled])
@pytest.mark.parametrize("end", ["stop", "kill", "Fail", "Leave"])
def test_a_name_is_free_when_its_actor_has_ended(kind: type[Recorder], end: str) -> None:
    with System() as system:
        ref = system.start(kind, name="it", registered=True)
        if end in ("stop", "kill"):
            getattr(ref, end)()
        else:
            ref.tell({"Fail": Fail(), "Leave": Leave()}[end])
        system.wait(ref)
        assert system.whereis("it") is None
        again = system.start(kind, name="it", registered=True)
        assert system.whereis("it") == again != ref


def test_a_name_belongs_to_one_at_a_time() -> None:
    with System("home") as system:
        first = system.start(Recorder, name="it", registered=True)
        with pytest.raises(NameTaken, match="it is registered already in system home"):
            system.start(Recorder, name="it", registered=True)
        other = system.start(Recorder, name="it")  # a name for people may be anybody's
        assert system.whereis("it") == first
        other.stop()
        assert system.whereis("it") == first
        mother = system.start(
            Doer, lambda it, _: it.start_child(Recorder, name="it", registered=True)
        )
        with pytest.raises(RemoteActorError, match="NameTaken"):
            mother.ask(Do())
        assert len(system.tree().splitlines()) == 1 + 2


def test_only_one_of_many_who_start_at_once_gets_the_name() -> None:
    winners, losers = list[Ref](), list[NameTaken]()
    with System() as system:
        ready = threading.Barrier(4)

        def start() -> None:
            ready.wait()
            try:
                winners.append(system.start(Recorder, name="it", registered=True))
            except NameTaken as error:
                losers.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(winners), len(losers)) == (1, 3)
        assert system.whereis("it") == winners[0]


def test_a_killed_actor_has_lost_its_name_though_it_is_busy() -> None:
    gate = Gate()
    with System() as system:
        old = system.start(Recorder, gate, name="it", registered=True)
        old.tell(Hold())
        gate.wait_until_reached()
        old.kill()
        new = system.start(Recorder, name="it", registered=True)
        gate.open()
        system.wait(old)
        assert system.whereis("it") == new


def test_a_name_is_free_again_if_the_start_fails() -> None:
    class Broken(Recorder):
        def on_start(self) -> None:
            assert self.system.named("it").is_alive()
            raise OSError(5, "no luck")

    with System() as system:
        with pytest.raises(StartFailed):
            system.start(Broken, name="it", registered=True)
        assert system.whereis("it") is None


def test_without_a_name_of_its_own_its_default_name_is_registered() -> None:
    with System() as system:
        ref = system.start(Recorder, registered=True)
        assert system.whereis(ref.name) == ref


# --- nobody has it --------------------------------------------------------------------------------


def test_what_is_sent_while_nobody_has_the_name_is_accounted_for() -> None:
    with System() as system:
        named = system.named("it")
        named.tell(Say("a"))
        named.tell(Say("b"), control=True)
        assert system.dead_letters.by_kind == {Say.__kind__: 2}
        with pytest.raises(ActorDead, match=r"it has ended .*nobody has that name now"):
            named.ask(Say("c"), timeout=float("inf"))
        with pytest.raises(ActorDead):
            named.ask_future(Say("d"), timeout=float("inf")).result()
        with pytest.raises(ActorDead):
            asyncio.run(named.ask_async(Say("e"), timeout=float("inf")))
        assert not named.is_alive()
        assert named.name == "it"
        assert named.statistics().state == "ended"


def test_nobody_can_be_stopped_killed_and_waited_for() -> None:
    with System() as system:
        named = system.named("it")
        named.stop()
        named.stop(drain=True)
        named.kill()
        assert system.wait(named).reason.error == "NotRegistered"
        assert system.dead_letters.total == 0


def test_a_monitor_of_nobody_hears_so_at_once() -> None:
    with System() as system:
        watcher = system.start(Recorder)
        pooled = system.start(PooledDoer, lambda it, _: it.monitor(it.system.named("it")))
        system.monitor(system.named("it"), watcher)
        pooled.ask(Do())
        for ref in (watcher, pooled):
            assert ref.ask(Seen()) == ["Down it NotRegistered: nobody has that name now"]
        assert system.dead_letters.total == 0


@pytest.mark.parametrize("traps", [False, True])
def test_a_link_to_nobody_is_one_to_an_actor_that_has_failed(traps: bool) -> None:
    class Linked(Doer):
        traps_exits = traps

    with System() as system:
        ref = system.start(Linked, lambda it, _: it.link(it.system.named("it")))
        ref.ask(Do())
        if traps:
            assert ref.ask(Seen()) == ["Exit it NotRegistered: nobody has that name now"]
        else:
            assert system.wait(ref).reason.error == "LinkedExit"


def test_the_reports_of_two_nobodies_are_told_apart() -> None:
    class Curious(Doer):
        def on_receive(self, message: Message) -> Any:
            if hasattr(message, "ref"):
                self.seen.append(message.ref.name)
                return None
            return super().on_receive(message)

    def watch(it: Doer, _: Any) -> None:
        for name in "abc":
            it.monitor(it.system.named(name))

    with System() as system:
        ref = system.start(Curious, watch)
        ref.ask(Do())
        assert ref.ask(Seen()) == ["a", "b", "c"]


# --- the next incarnation -------------------------------------------------------------------------


def test_a_name_reaches_each_incarnation_of_a_supervised_actor() -> None:
    with System() as system:
        top = supervise(system, ChildSpec.of("it", Recorder, registered=True), intensity=9)
        named = system.named("it")
        refs = list[Ref]()
        for _ in range(3):
            refs.append(named.ask(WhoAreYou()))
            named.tell(Fail())
            system.wait(refs[-1])
            top.ask(AwaitChildren())
        assert len({*refs, named.ask(WhoAreYou())}) == 4


def test_a_monitor_by_name_is_of_whoever_has_the_name_then() -> None:
    with System() as system:
        watcher = system.start(Recorder)
        first = system.start(Recorder, name="it", registered=True)
        system.monitor(system.named("it"), watcher)
        first.stop()
        system.start(Recorder, name="it", registered=True).stop()
        assert watcher.ask(Seen()) == ["Down it shutdown"]


# --- as values ------------------------------------------------------------------------------------


def test_references_by_name_are_equal_by_name_and_system() -> None:
    with System() as one, System() as other:
        ref = one.start(Recorder, name="it", registered=True)
        named = one.named("it")
        assert named == one.named("it")
        assert len({named, one.named("it"), one.named("x"), other.named("it"), ref}) == 4
        assert named != ref
        assert ref != named
        assert repr(named) == "<NamedRef it>"


def test_a_name_travels_in_messages_and_answers_as_a_name() -> None:
    def forward(it: Doer, value: Any) -> Any:
        assert isinstance(value, list)
        for ref in value:
            ref.tell(Say("hello"))
        return value

    with System() as system:
        ref = system.start(Doer, forward)
        first = system.start(Recorder, name="it", registered=True)
        named = system.named("it")
        (back,) = ref.ask(Do([named]))
        assert isinstance(back, NamedRef)
        assert back == named
        assert first.ask(Seen()) == ["hello"]
        first.stop()
        second = system.start(Recorder, name="it", registered=True)
        back.tell(Say("again"))
        assert second.ask(Seen()) == ["again"]


def test_a_name_may_be_where_a_message_declares_a_reference() -> None:
    found = list[Any]()

    class Taker(Recorder):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Parcel):
                found.append(message)
            return None

    with System() as system:
        taker, named = system.start(Taker), system.named("not yet")
        taker.ask(Parcel(named, [named, taker, None]))
        assert found == [Parcel(named, [named, taker, None])]


def test_a_name_means_something_in_its_own_system_only() -> None:
    with System() as here, System() as there:
        ref = here.start(Recorder)
        there.start(Recorder, name="it", registered=True)
        with pytest.raises(UnknownRef, match="it is of another system"):
            ref.tell(Parcel(there.named("it"), []))


def test_a_name_may_be_the_sender_that_is_to_be_answered() -> None:
    def answer(it: Doer, _: Any) -> None:
        assert it.sender is not None
        it.sender.tell(Say("answer"))

    with System() as system:
        ref = system.start(Doer, answer)
        it = system.start(Recorder, name="it", registered=True)
        ref.tell(Do(), reply_to=system.named("it"))
        ref.ask_future(Say("after that")).result()
        assert it.ask(Seen()) == ["answer"]
