"""What nobody could receive is counted by kind and by reason, and told to whoever subscribes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors import (
    ActorDead,
    AskTimeout,
    DeadLetter,
    Message,
    Ref,
    Reply,
    Shutdown,
    System,
)
from tests.actors.parts import (
    PATIENCE,
    Do,
    Doer,
    Gate,
    Hold,
    Pooled,
    Recorder,
    Say,
    Seen,
    busy,
)

FOREVER = float("inf")


class Parcel(Message):
    to: Ref


class Listener(Recorder):
    def on_receive(self, message: Message) -> Any:
        if isinstance(message, DeadLetter):
            kind = message.message.rpartition(".")[2]
            self.seen.append(f"{kind} {message.sender or '-'}>{message.to}: {message.why}")
            return None
        return super().on_receive(message)


class PooledListener(Listener):
    pooled = True


@contextmanager
def listening(kind: type[Listener] = Listener) -> Iterator[tuple[System, Ref]]:
    with System() as system:
        listener = system.start(kind)
        system.dead_letters.subscribe(listener)
        yield system, listener


def gone(system: System, name: str = "gone") -> Ref:
    ref = system.start(Recorder, name=name)
    ref.stop()
    return ref


@pytest.mark.parametrize("kind", [Listener, PooledListener])
def test_a_subscriber_is_told_of_each_from_now_on(kind: type[Listener]) -> None:
    with listening(kind) as (system, listener):
        ref = gone(system)
        ref.tell(Say("a"))
        ref.tell(Hold(), control=True)
        assert listener.ask(Seen()) == ["Say ->gone: dead", "Hold ->gone: dead"]
        late = system.start(kind)
        system.dead_letters.subscribe(late)
        ref.tell(Say("b"))
        assert late.ask(Seen()) == ["Say ->gone: dead"]
        assert len(listener.ask(Seen())) == 3
        assert system.dead_letters.by_reason == {"dead": 3}


def test_it_says_who_has_sent_it() -> None:
    with listening() as (system, listener):
        ref = gone(system)
        system.start(Doer, lambda it, _: ref.tell(Say("a")), name="sender").ask(Do())
        assert listener.ask(Seen()) == ["Say sender>gone: dead"]


def test_it_says_why() -> None:
    class Small(Pooled):
        mailbox_count = 1
        mailbox_policy = "drop_oldest"

    kept, gate = list[Reply](), Gate()
    with listening() as (system, listener):
        keeper = system.start(Doer, lambda it, _: kept.append(it.reply_later()), name="keeper")
        with pytest.raises(AskTimeout):
            keeper.ask(Do(), timeout=0.01)
        kept[0].send("too late")
        kept.clear()
        with pytest.raises(AskTimeout):
            keeper.ask(Do(), timeout=0.01)
        kept[0].fail(ValueError("too late, too"))
        small = busy(system, gate, Small)
        small.tell(Say("oldest"))
        small.tell(Say("newest"))
        small.kill()
        gate.open()
        system.wait(small)
        assert listener.ask(Seen()) == [
            "reply ->keeper: late",
            "reply ->keeper: late",
            "Say ->busy: overflow",
            "Say ->busy: dead",
        ]
        assert system.dead_letters.by_reason == {"late": 2, "overflow": 1, "dead": 1}
        assert system.dead_letters.by_kind == {"reply": 2, Say.__kind__: 2}
        assert system.dead_letters.total == 4


def test_what_cannot_be_read_is_one_too(caplog: pytest.LogCaptureFixture) -> None:
    with listening() as (system, listener):
        ref = system.start(Recorder, name="it")

        class Odd(Message):
            n: int

        message, gate = Odd(1), Gate()
        held = busy(system, gate)
        held.tell(message)

        class Odd(Message):  # type: ignore[no-redef]
            n: str

        gate.open()
        held.ask(Say("the next one"))
        ref.ask(Say("x"))
        assert listener.ask(Seen()) == ["Odd ->busy: unreadable"]
    assert "busy drops a" in caplog.text


def test_what_was_queued_at_the_end_is_told_in_order() -> None:
    gate = Gate()
    with listening() as (system, listener):
        ref = busy(system, gate)
        for kind in (Say("a"), Hold(), Do()):
            ref.tell(kind)
        ref.tell(Seen(), control=True)
        ref.kill()
        assert [line.split()[0] for line in listener.ask(Seen())] == ["Seen", "Say", "Hold", "Do"]
        gate.open()


def test_asks_and_stops_are_none_as_their_senders_hear_of_them() -> None:
    with listening() as (system, listener):
        ref = gone(system)
        with pytest.raises(ActorDead):
            ref.ask(Say("x"))
        ref.stop()
        ref.tell(Shutdown(), control=True)
        assert listener.ask(Seen()) == []
        assert system.dead_letters.total == 0


def test_subscribing_twice_is_once_and_unsubscribing_ends_it() -> None:
    with listening() as (system, listener):
        ref = gone(system)
        system.dead_letters.subscribe(listener)
        ref.tell(Say("a"))
        system.dead_letters.unsubscribe(listener)
        system.dead_letters.unsubscribe(listener)
        ref.tell(Say("b"))
        assert listener.ask(Seen()) == ["Say ->gone: dead"]
        assert system.dead_letters.total == 2


def test_an_actor_subscribes_itself() -> None:
    class Itself(Listener):
        def on_start(self) -> None:
            self.system.dead_letters.subscribe(self.ref)

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Parcel):
                message.to.tell(Say("into the void"))
                return None
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Itself, name="itself")
        ref.ask(Parcel(gone(system)))
        assert ref.ask(Seen()) == ["Say itself>gone: dead"]


def test_a_subscriber_without_room_misses_some_and_that_is_counted() -> None:
    class Small(Listener):
        mailbox_count = 2

    gate = Gate()
    with System() as system:
        ref = gone(system)
        listener = busy(system, gate, Small)
        system.dead_letters.subscribe(listener)
        for _ in range(5):
            ref.tell(Say("x"))
        assert system.dead_letters.missed == 3
        assert system.dead_letters.total == 5
        gate.open()
        listener.stop(drain=True)
        assert system.dead_letters.total == 5


def test_what_a_subscriber_drops_for_newer_ones_is_missed_too() -> None:
    class Dropping(Listener):
        mailbox_count = 2
        mailbox_policy = "drop_oldest"

    gate = Gate()
    with System() as system:
        ref = gone(system)
        listener = busy(system, gate, Dropping)
        system.dead_letters.subscribe(listener)
        for _ in range(5):
            ref.tell(Say("x"))
        assert (system.dead_letters.missed, system.dead_letters.total) == (3, 5)
        gate.open()


def test_a_subscriber_that_has_ended_is_forgotten() -> None:
    with listening() as (system, listener):
        ref = gone(system)
        listener.stop()
        ref.tell(Say("a"))
        assert system.dead_letters._subscribers == []
        ref.tell(Say("b"))
        assert system.dead_letters.by_kind == {Say.__kind__: 2}
        assert system.dead_letters.missed == 0


def test_what_a_subscriber_was_to_be_told_when_it_ended_is_no_dead_letter() -> None:
    gate = Gate()
    with System() as system:
        ref = gone(system)
        listener, other = busy(system, gate, Listener), system.start(Listener)
        for each in (listener, other):
            system.dead_letters.subscribe(each)
        ref.tell(Say("a"))
        listener.kill()
        gate.open()
        system.wait(listener)
        assert other.ask(Seen()) == ["Say ->gone: dead"]
        assert system.dead_letters.total == 1


def test_two_subscribers_that_die_of_each_others_letters_end_it() -> None:
    class Careless(Recorder):
        def __init__(self, other: Ref) -> None:
            super().__init__()
            self.other = other

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, DeadLetter):
                self.other.tell(message)  # which nobody counts
                self.other.tell(Say("again"))
                self.exit()
                return None
            return super().on_receive(message)

    with System() as system:
        ref = gone(system)
        careless = system.start(Careless, ref)
        system.dead_letters.subscribe(careless)
        ref.tell(Say("x"))
        system.wait(careless)
        assert system.dead_letters.by_kind == {Say.__kind__: 2}


def test_a_subscription_by_name_is_of_each_who_has_the_name() -> None:
    with System() as system:
        ref = gone(system)
        first = system.start(Listener, name="listener", registered=True)
        system.dead_letters.subscribe(system.named("listener"))
        ref.tell(Say("a"))
        assert first.ask(Seen()) == ["Say ->gone: dead"]
        first.stop()
        ref.tell(Say("b"))
        second = system.start(Listener, name="listener", registered=True)
        ref.tell(Say("c"))
        assert second.ask(Seen()) == ["Say ->gone: dead"]
        assert system.dead_letters.total == 3


def test_a_subscriber_that_makes_senders_wait_does_not_hold_up_who_has_lost_a_message() -> None:
    class Blocking(Listener):
        mailbox_count = 1
        mailbox_policy = "block"

    gate = Gate()
    with System() as system:
        ref = gone(system)
        listener = busy(system, gate, Blocking)
        system.dead_letters.subscribe(listener)
        done = threading.Event()

        def lose() -> None:
            for _ in range(3):
                ref.tell(Say("x"))
            done.set()

        thread = threading.Thread(target=lose)
        thread.start()
        in_time = done.wait(Blocking.mailbox_patience / 2)
        gate.open()
        thread.join()
        assert in_time
        assert system.dead_letters.missed == 2


def test_many_threads_lose_messages_and_none_is_lost_to_the_count() -> None:
    crowd, each = 4, 200
    with listening(PooledListener) as (system, listener):
        ref = gone(system)

        def lose() -> None:
            for _ in range(each):
                ref.tell(Say("x"))

        threads = [threading.Thread(target=lose) for _ in range(crowd)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert system.dead_letters.total == crowd * each
        assert len(listener.ask(Seen(), FOREVER)) == crowd * each
