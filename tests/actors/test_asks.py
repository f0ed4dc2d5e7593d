"""Asking: every ask ends exactly once, in its answer or in an error that says why."""

from __future__ import annotations

import os
import threading
from typing import Any

import pytest

from actors import (
    Actor,
    ActorDead,
    ActorError,
    AskTimeout,
    Fd,
    Future,
    MailboxFull,
    Message,
    RemoteActorError,
    Reply,
    System,
    WrongType,
)
from tests.actors.parts import PATIENCE, Fail, Gate, Hold, Patient, Recorder, Say, Seen


class Give(Message):
    """Answered by what it holds."""

    value: Any


class Giver(Actor):
    def on_receive(self, message: Message) -> Any:
        assert isinstance(message, Give)
        return message.value


@pytest.mark.parametrize(
    "value", [None, 0, "text", [1, {"a": b"b"}], Say("nested"), [Say("in a list")]], ids=repr
)
def test_an_answer_is_none_a_value_or_a_message(value: Any) -> None:
    with System() as system:
        assert system.start(Giver).ask(Give(value)) == value


def test_nothing_that_is_sent_is_shared() -> None:
    sent = [[1], [2]]
    with System() as system:
        ref = system.start(Recorder)
        future = ref.ask_future(Seen())
        seen = future.result()
        seen.append("mine")
        assert ref.ask(Seen()) == []
        assert future.result() is seen  # one answer, unpacked once
        giver = system.start(Giver)
        answer = giver.ask(Give(sent))
        answer[0].append(3)
        assert sent == [[1], [2]]


def test_a_descriptor_can_be_the_answer() -> None:
    read, write = os.pipe()
    with System() as system:
        fd = Fd(write)
        answer = system.start(Giver).ask(Give([fd]))
        fd.close()
        os.write(answer[0].fileno(), b"x")
        answer[0].close()
    assert os.read(read, 9) == b"x"
    os.close(read)


def test_an_answer_that_cannot_be_sent_is_the_handlers_failure() -> None:
    class Bad(Patient):
        def on_receive(self, message: Message) -> Any:
            return object()

    with System() as system, pytest.raises(RemoteActorError, match="WrongType") as failed:
        system.start(Bad).ask(Say(""))
    assert isinstance(failed.value.__cause__, WrongType)


def test_the_error_of_a_handler_brings_its_traceback() -> None:
    with System() as system:
        with pytest.raises(RemoteActorError) as failed:
            system.start(Recorder).ask(Fail("ValueError", "broken"))
        assert (failed.value.error, failed.value.text) == ("ValueError", "broken")
        assert "in on_receive" in failed.value.traceback


def test_an_ask_has_a_deadline_and_the_late_answer_is_counted_and_closed() -> None:
    gate = Gate()
    read, write = os.pipe()

    class Late(Actor):
        def on_receive(self, message: Message) -> Any:
            gate.pass_through()
            return [Fd(write)]

    with System() as system:
        ref = system.start(Late, name="late")
        with pytest.raises(AskTimeout, match="late did not answer in time"):
            ref.ask(Say(""), timeout=0.01)
        gate.wait_until_reached()
        gate.open()
        ref.stop()
        assert os.read(read, 1) == b""
        assert system.dead_letters.by_kind == {"reply": 1}
    os.close(read)


def test_a_shorter_timeout_of_a_future_does_not_end_the_ask() -> None:
    gate = Gate()
    with System() as system:
        ref = system.start(Recorder, gate)
        future = ref.ask_future(Hold(), timeout=float("inf"))
        with pytest.raises(AskTimeout, match="not answered yet"):
            future.result(timeout=0)
        gate.open()
        assert future.result() is None
        assert future.result(timeout=0) is None


def test_many_threads_may_wait_for_one_future() -> None:
    gate, results = Gate(), []
    with System() as system:
        future: Future = system.start(Recorder, gate).ask_future(Hold(), PATIENCE)
        threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in "abc"]
        for thread in threads:
            thread.start()
        gate.open()
        for thread in threads:
            thread.join()
    assert results == [None] * 3


def test_asking_an_actor_that_has_ended_fails_at_once() -> None:
    with System() as system:
        ref = system.start(Recorder, name="gone")
        ref.stop()
        with pytest.raises(ActorDead, match=r"gone has ended \(shutdown\)"):
            ref.ask(Say(""), timeout=float("inf"))
        future = ref.ask_future(Say(""))
        with pytest.raises(ActorDead):
            future.result()


def test_an_actor_that_asks_itself_is_told_so() -> None:
    class Narcissus(Patient):
        def on_receive(self, message: Message) -> Any:
            return self.ref.ask(message)

    with System() as system, pytest.raises(RemoteActorError, match="asks itself"):
        system.start(Narcissus).ask(Say(""))


# --- answering later ------------------------------------------------------------------------------


class Look(Message):
    """Answered when all before it has been handled."""


class Keeper(Actor):
    """Keeps every ask; `Say` answers them all, the last first."""

    def __init__(self, kept: list[Reply]) -> None:
        super().__init__()
        self.kept = kept

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Give):
            self.kept.append(self.reply_later())
            return "ignored"
        if isinstance(message, Say):
            for number, reply in enumerate(reversed(self.kept)):
                reply.send(number)
        return None


def test_asks_may_be_answered_later_and_in_another_order() -> None:
    with System() as system:
        ref = system.start(Keeper, [])
        futures = [ref.ask_future(Give(n)) for n in range(3)]
        ref.tell(Say("now"))
        assert [future.result() for future in futures] == [2, 1, 0]


def test_any_thread_may_answer_and_only_the_first_answer_counts() -> None:
    kept: list[Reply] = []
    with System() as system:
        ref = system.start(Keeper, kept)
        future = ref.ask_future(Give(1))
        ref.tell(Give(2))
        ref.ask(Look())
        asked, told = kept
        with pytest.raises(WrongType):
            asked.send(object())
        assert asked.wanted
        asked.fail(KeyError("k"))
        with pytest.raises(RemoteActorError, match="KeyError"):
            future.result()
        asked.send("too late")
        assert not told.wanted
        told.send("nobody hears")
        assert system.dead_letters.by_kind == {"reply": 1}


def test_errors_of_this_package_are_passed_on_as_they_are() -> None:
    class Refuser(Actor):
        def on_receive(self, message: Message) -> None:
            self.reply_later().fail(MailboxFull("elsewhere"))

    with System() as system, pytest.raises(MailboxFull, match="elsewhere"):
        system.start(Refuser).ask(Say(""))


def test_what_is_kept_when_the_actor_ends_fails() -> None:
    kept: list[Reply] = []
    with System() as system:
        ref = system.start(Keeper, kept, name="keeper")
        future = ref.ask_future(Give(1), PATIENCE)
        ref.tell(Give(2))
        ref.ask(Look())
        ref.kill()
        with pytest.raises(ActorDead, match="keeper has ended"):
            future.result()


def test_a_reply_that_is_dropped_unanswered_fails_at_once() -> None:
    class Careless(Actor):
        def on_receive(self, message: Message) -> None:
            self.reply_later()

    with System() as system, pytest.raises(RemoteActorError, match="NoAnswer"):
        system.start(Careless).ask(Say(""), timeout=float("inf"))


def test_reply_later_is_for_messages_and_once() -> None:
    class Confused(Patient):
        def on_start(self) -> None:
            with pytest.raises(ActorError, match="for on_receive"):
                self.reply_later()

        def on_receive(self, message: Message) -> None:
            self.kept = self.reply_later()
            self.reply_later()

    with System() as system, pytest.raises(RemoteActorError, match="once for each message"):
        system.start(Confused).ask(Say(""))


# --- races ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["stop", "kill", "Fail"])
def test_no_ask_that_races_the_end_stays_unanswered(end: str) -> None:
    """Four threads ask until the actor is dead; each ask must end without its deadline."""
    rounds, crowd = 25, 4

    def pester(ref: Any, ready: threading.Barrier, ends: list[str]) -> None:
        ready.wait()
        while True:
            try:
                assert ref.ask(Say("x"), timeout=float("inf")) == "x"
            except (ActorDead, RemoteActorError) as error:
                ends.append(type(error).__name__)
                return

    with System() as system:
        for _ in range(rounds):
            ref = system.start(Recorder)
            ready, ends = threading.Barrier(crowd + 1), list[str]()
            threads = [
                threading.Thread(target=pester, args=(ref, ready, ends)) for _ in range(crowd)
            ]
            for thread in threads:
                thread.start()
            ready.wait()
            if end == "Fail":
                ref.tell(Fail())
            else:
                getattr(ref, end)()
            for thread in threads:
                thread.join()
            assert ends == ["ActorDead"] * crowd


def test_every_tell_that_races_the_end_is_received_or_counted() -> None:
    rounds, each, crowd = 20, 50, 3
    log: list[str] = []

    class Counter(Actor):
        def on_receive(self, message: Message) -> None:
            log.append("")

    with System() as system:
        for _ in range(rounds):
            ref = system.start(Counter)

            def shout(ref: Any = ref) -> None:
                for _ in range(each):
                    ref.tell(Say(""))

            threads = [threading.Thread(target=shout) for _ in range(crowd)]
            for thread in threads:
                thread.start()
            ref.stop()
            for thread in threads:
                thread.join()
        assert len(log) + system.dead_letters.total == rounds * each * crowd
