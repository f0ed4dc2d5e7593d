"""Who has sent a message, and which messages have the same cause."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest

from actors import ActorError, Message, Ref, RemoteActorError, System, Timer
from tests.actors.parts import (
    PATIENCE,
    Do,
    Doer,
    Pooled,
    PooledDoer,
    Recorder,
    Say,
    Seen,
)

KINDS = pytest.mark.parametrize("kind", [Doer, PooledDoer])


def sender(it: Doer, _: Any) -> Ref | None:
    return it.sender


def trace(it: Doer, _: Any) -> int:
    return it.trace


# --- sender ---------------------------------------------------------------------------------------


@KINDS
def test_the_sender_is_the_actor_that_has_told_or_asked(kind: type[Doer]) -> None:
    found = list[Any]()

    def send(it: Doer, how: Any) -> Any:
        match how:
            case "ask":
                return target.ask(Do())
            case "tell":
                target.tell(Do())
            case "future":
                return kept.append(target.ask_future(Do()))
        return None

    def note(it: Doer, _: Any) -> Any:
        found.append(it.sender)
        return it.sender

    kept = list[Any]()
    with System() as system:
        target = system.start(kind, note)
        by_thread, by_pool = system.start(Doer, send), system.start(PooledDoer, send)
        assert by_thread.ask(Do("ask")) == by_thread
        for by in (by_thread, by_pool):
            by.ask(Do("tell"))
            by.ask(Do("future"))
            assert kept.pop().result() == by
        target.ask(Say("x"))
        assert found == [by_thread, by_thread, by_thread, by_pool, by_pool]


@KINDS
def test_from_outside_there_is_none(kind: type[Doer]) -> None:
    with System() as system:
        ref = system.start(kind, sender)
        assert ref.ask(Do()) is None
        assert ref.ask_future(Do()).result() is None
        assert asyncio.run(ref.ask_async(Do())) is None


def test_the_answer_may_be_meant_for_another() -> None:
    def answer(it: Doer, _: Any) -> None:
        assert it.sender is not None
        it.sender.tell(Say("answer"))

    with System() as system:
        ref, other = system.start(PooledDoer, answer), system.start(Recorder)
        ref.tell(Do(), reply_to=other)
        ref.tell(Do(), control=True, reply_to=other)
        asker = system.start(Doer, lambda it, _: ref.tell(Do(), reply_to=other))
        asker.ask(Do())
        ref.ask_future(Say("all are handled")).result()
        assert other.ask(Seen()) == ["answer"] * 3


def test_a_timer_has_no_sender() -> None:
    done, found = threading.Event(), list[Any]()

    def set_timer(it: Doer, value: Any) -> None:
        if value:
            it.after(0, Do(False))
        else:
            found.append(it.sender)
            done.set()

    with System() as system:
        ref = system.start(PooledDoer, set_timer)
        asker = system.start(Doer, lambda it, _: ref.ask(Do(True)))
        asker.ask(Do())
        assert done.wait(PATIENCE)
        assert found == [None]


def test_outside_of_a_handler_there_is_no_message() -> None:
    class Curious(Recorder):
        def on_start(self) -> None:
            with pytest.raises(ActorError, match="no message in hand"):
                _ = self.sender

    with System() as system:
        system.start(Curious)


def test_a_handler_that_runs_another_actor_has_its_own_message_again_after_it() -> None:
    def nested(it: Doer, value: Any) -> Any:
        before = (it.sender, it.trace)
        inner.ask(Do())
        return [it.sender, it.trace, before[0], before[1]]

    with System() as system:
        inner = system.start(PooledDoer, sender)
        outer = system.start(Doer, nested)
        asker = system.start(Doer, lambda it, _: outer.ask(Do()))
        after, number, before, number_before = asker.ask(Do())
        assert after == before == asker
        assert number == number_before


# --- trace ----------------------------------------------------------------------------------------


@KINDS
def test_each_message_from_outside_begins_a_new_trace(kind: type[Doer]) -> None:
    with System() as system:
        ref = system.start(kind, trace)
        numbers = [ref.ask(Do()), ref.ask_future(Do()).result(), ref.ask(Do())]
        numbers.append(asyncio.run(ref.ask_async(Do())))
        assert len(set(numbers)) == 4
        assert numbers == sorted(numbers)


class Hop(Message):
    """Goes from one to the next, and by the given ways; the last one keeps the numbers."""

    ways: list[str]
    numbers: list[int]


class Hopper(Recorder):
    def __init__(self, arrived: list[list[int]], done: threading.Event) -> None:
        super().__init__()
        self.arrived = arrived
        self.done = done
        self.timer: Timer | None = None

    def on_receive(self, message: Message) -> Any:
        if not isinstance(message, Hop):
            return super().on_receive(message)
        numbers = [*message.numbers, self.trace]
        if not message.ways:
            self.arrived.append(numbers)
            self.done.set()
            return None
        way, *ways = message.ways
        following = Hop(ways, numbers)
        match way:
            case "tell":
                self.next.tell(following)
            case "control":
                self.next.tell(following, control=True)
            case "ask":
                self.next.ask(following)
            case "future":
                self.kept = self.next.ask_future(following)
            case "timer":
                self.timer = self.after(0.001, following)
            case "birth":
                self.start_child(Hopper, self.arrived, self.done).tell(following)
        return None

    @property
    def next(self) -> Ref:
        return self.system.named("next")


class PooledHopper(Hopper, Pooled):
    pooled = True


@pytest.mark.parametrize(
    "ways",
    [
        ["tell", "tell"],
        ["control"],
        ["future", "tell"],
        ["timer", "timer"],
        ["timer", "tell", "control", "timer", "future"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("first", [Hopper, PooledHopper])
@pytest.mark.parametrize("following", [Hopper, PooledHopper])
def test_what_a_message_causes_has_its_trace(
    ways: list[str], first: type[Hopper], following: type[Hopper]
) -> None:
    check(first, following, ways)


@pytest.mark.parametrize("following", [Hopper, PooledHopper])
def test_what_is_asked_because_of_a_message_has_its_trace(following: type[Hopper]) -> None:
    check(Hopper, following, ["ask"])
    check(Hopper, following, ["timer", "ask", "timer"])


def check(first: type[Hopper], following: type[Hopper], ways: list[str]) -> None:
    arrived, done = list[list[int]](), threading.Event()
    with System() as system:
        system.start(following, arrived, done, name="next", registered=True)
        ref = system.start(first, arrived, done)
        ref.tell(Say("another trace"))
        ref.tell(Hop(ways, []))
        assert done.wait(PATIENCE)
        (numbers,) = arrived
        assert len(numbers) == len(ways) + 1
        assert len(set(numbers)) == 1


def test_two_traces_do_not_mix_though_one_actor_has_both() -> None:
    arrived, done = list[list[int]](), threading.Event()
    with System() as system:
        system.start(PooledHopper, arrived, done, name="next", registered=True)
        refs = [system.start(kind, arrived, done) for kind in (Hopper, PooledHopper)]
        for _ in range(20):
            for ref in refs:
                ref.tell(Hop(["tell", "timer", "tell", "control"], []))
        while len(arrived) < 40:
            done.clear()
            if len(arrived) < 40:
                assert done.wait(PATIENCE)
        assert all(len(set(numbers)) == 1 for numbers in arrived)
        assert len({numbers[0] for numbers in arrived}) == 40


def test_a_birth_belongs_to_the_trace_that_has_caused_it() -> None:
    class Newborn(Pooled):
        def __init__(self, to: Ref) -> None:
            super().__init__()
            self.to = to

        def on_start(self) -> None:
            self.to.tell(Do())

    found = list[int]()

    def give_birth(it: Doer, to: Any) -> int:
        it.begin_child(Newborn, to)
        it.start_child(Newborn, to)
        return it.trace

    with System() as system:
        to = system.start(Doer, lambda it, _: found.append(it.trace))
        number = system.start(PooledDoer, give_birth).ask(Do(to))
        for _ in range(2):
            system.start(Newborn, to)
        to.ask(Say("all are handled"))
        assert found[:2] == [number, number]
        assert len({0, *found}) == 4


def test_each_time_that_a_descriptor_is_ready_is_a_trace_of_its_own() -> None:
    read, write = os.pipe()
    found, done = list[int](), threading.Event()

    class Watcher(Recorder):
        def on_start(self) -> None:
            self.watch(read, self.on_ready)

        def on_ready(self) -> None:
            os.read(read, 1)
            found.append(self.trace)
            if len(found) == 3:
                done.set()

    with System() as system:
        ref = system.start(Watcher)
        ref.ask(Say("another trace"))
        os.write(write, b"abc")
        assert done.wait(PATIENCE)
    assert len(set(found)) == 3
    os.close(read)
    os.close(write)


def test_the_exits_of_children_do_not_hide_the_trace_of_the_message_in_hand() -> None:
    def spawn(it: Doer, _: Any) -> int:
        before = it.trace
        it.start_child(Pooled)
        assert it.trace == before
        return before

    with System() as system:
        ref = system.start(PooledDoer, spawn)
        assert ref.ask(Do()) != ref.ask(Do())


# --- the error of another -------------------------------------------------------------------------


@KINDS
def test_the_traceback_of_the_other_is_printed_with_the_error(kind: type[Doer]) -> None:
    def deep_down(it: Doer, _: Any) -> None:
        raise ValueError("the cause of it")

    with System() as system:
        ref = system.start(kind, deep_down, name="it")
        with pytest.raises(RemoteActorError) as failed:
            ref.ask(Do())
        (note,) = failed.value.__notes__
        assert note.startswith("in it:\nTraceback")
        assert "in deep_down" in note
        assert note.endswith("ValueError: the cause of it")


def test_errors_travel_through_several_actors_with_all_their_tracebacks() -> None:
    import traceback

    def innermost(it: Doer, _: Any) -> None:
        raise ValueError("the cause of it")

    def between(it: Doer, _: Any) -> None:
        inner.ask(Do())

    with System() as system:
        inner = system.start(PooledDoer, innermost, name="inner")
        outer = system.start(Doer, between, name="outer")
        with pytest.raises(RemoteActorError) as failed:
            outer.ask(Do())
        assert failed.value.error == "RemoteActorError"
        assert failed.value.text == "inner failed: ValueError: the cause of it"
        text = "".join(traceback.format_exception(failed.value))
        for part in ("in outer:", "in inner:", "in innermost", "in between"):
            assert part in text


def test_an_error_without_a_traceback_has_no_note() -> None:
    with System() as system:
        ref = system.start(PooledDoer, lambda it, _: it.reply_later() and None)
        with pytest.raises(RemoteActorError, match="NoAnswer") as failed:
            ref.ask(Do())
        assert not hasattr(failed.value, "__notes__")
