"""Messages that are put aside until their time has come."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import pytest

from actors import (
    ActorDead,
    ActorError,
    AskTimeout,
    Fd,
    MailboxFull,
    Message,
    RemoteActorError,
    System,
)
from tests.actors.parts import PATIENCE, Do, Doer, Fail, Leave, Recorder, Say, Seen

FOREVER = float("inf")


class Open(Message):
    """From now on nothing is put aside any more; answered by how much there was."""


class Parcel(Message):
    fd: Fd


class Shy(Recorder):
    """Puts everything aside that it could say before it was opened."""

    mailbox_count = 4
    fails_on_ask = False
    opened = False

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Open):
            self.opened = True
            return self.unstash()
        if isinstance(message, (Say, Parcel)) and not self.opened:
            self.stash()
            return "ignored"
        if isinstance(message, Parcel):
            return os.write(message.fd.fileno(), b"x")
        return super().on_receive(message)


class PooledShy(Shy):
    pooled = True


KINDS = pytest.mark.parametrize("kind", [Shy, PooledShy])


@KINDS
def test_what_was_put_aside_comes_in_its_order_before_what_is_queued(kind: type[Shy]) -> None:
    with System() as system:
        ref = system.start(kind)
        ref.tell(Say("a"))
        asked = ref.ask_future(Say("b"), FOREVER)
        assert ref.ask(Seen()) == []
        opened = ref.ask_future(Open(), FOREVER)
        ref.tell(Say("c"))
        assert opened.result() == 2
        assert asked.result() == "b"
        assert ref.ask(Seen()) == ["a", "b", "c"]
        assert ref.ask(Open()) == 0


@KINDS
def test_what_was_put_aside_overtakes_what_came_while_it_was(kind: type[Shy]) -> None:
    class Slow(kind):  # type: ignore[valid-type,misc]
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Open):
                self.ref.tell(Say("from inside"))
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Slow)
        ref.tell(Say("a"))
        ref.tell(Say("b"))
        ref.ask(Open())
        ref.ask_future(Say("c")).result()
        assert ref.ask(Seen()) == ["a", "b", "from inside", "c"]


def test_it_may_be_put_aside_again_and_again() -> None:
    class Fussy(Recorder):
        tries = 0

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say) and self.tries < 3:
                self.tries += 1
                self.stash()
                return None
            if isinstance(message, Open):
                return self.unstash()
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Fussy)
        asked = ref.ask_future(Say("a"), FOREVER)
        assert [ref.ask(Open()) for _ in range(4)] == [1, 1, 1, 0]
        assert asked.result() == "a"


def test_it_counts_for_the_bounds_until_it_is_taken_again() -> None:
    put_aside, taken = threading.Event(), threading.Event()

    class Marked(Shy):
        """Says when it is through with "d", which is after the handler has returned."""

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                (taken if self.opened else put_aside).set()
                return None
            if message == Say("d"):
                self.ref.tell(Do(), control=True)
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Marked)
        for text in "abcd":
            ref.tell(Say(text))
        assert put_aside.wait(PATIENCE)
        of = ref.statistics()
        assert (of.queued, of.most_queued, of.unanswered) == (4, 4, 0)
        assert of.queued_bytes > 0
        for send in (ref.tell, ref.ask):
            with pytest.raises(MailboxFull, match="4 messages"):
                send(Say("e"))
        ref.tell(Open(), control=True)
        assert taken.wait(PATIENCE)
        of = ref.statistics()
        assert (of.queued, of.queued_bytes) == (0, 0)
        assert ref.ask(Seen()) == list("abcd")


def test_bytes_that_are_put_aside_count_too() -> None:
    class Narrow(Shy):
        mailbox_count = 10_000
        mailbox_bytes = 1000

    with System() as system:
        ref = system.start(Narrow)
        ref.tell(Say("x" * 900))
        ref.ask(Seen())
        with pytest.raises(MailboxFull, match=r"1 messages, 9[0-9][0-9] bytes"):
            ref.tell(Say("x" * 100))
        ref.ask(Open())
        ref.tell(Say("x" * 900))


@pytest.mark.parametrize("end", ["stop", "kill", "Fail", "Leave"])
def test_what_is_still_put_aside_at_the_end_is_accounted_for(end: str) -> None:
    read, write = os.pipe()
    with System() as system:
        ref = system.start(Shy)
        asked = ref.ask_future(Say("asked"), FOREVER)
        ref.tell(Say("told"))
        parcel = Parcel(Fd(write))
        ref.tell(parcel)
        parcel.fd.close()
        assert ref.ask(Seen()) == []
        if end in ("stop", "kill"):
            getattr(ref, end)()
        else:
            ref.tell({"Fail": Fail(), "Leave": Leave()}[end])
        with pytest.raises(ActorDead):
            asked.result()
        system.wait(ref)
        assert system.dead_letters.by_kind == {Say.__kind__: 1, Parcel.__kind__: 1}
        assert os.read(read, 1) == b""
        assert ref.statistics().queued_bytes == 0
    os.close(read)


def test_descriptors_in_it_are_still_open_when_it_comes_again() -> None:
    read, write = os.pipe()
    with System() as system:
        ref = system.start(Shy)
        parcel = Parcel(Fd(write))
        asked = ref.ask_future(parcel, FOREVER)
        parcel.fd.close()
        ref.ask(Open())
        assert asked.result() == 1
        assert os.read(read, 9) == b"x"
    os.close(read)


def test_an_ask_that_was_put_aside_keeps_its_deadline_and_a_late_answer_is_counted() -> None:
    with System() as system:
        ref = system.start(Shy)
        with pytest.raises(AskTimeout):
            ref.ask(Say("a"), timeout=0.01)
        ref.ask(Open())
        assert ref.ask(Seen()) == ["a"]
        assert system.dead_letters.by_kind == {"reply": 1}


def test_sender_and_trace_are_those_of_the_message() -> None:
    found = list[Any]()

    class Curious(Shy):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                found.append((self.sender, self.trace))
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Curious)
        sender = system.start(Doer, lambda it, _: ref.tell(Say("a")))
        sender.ask(Do())
        ref.ask(Open())
        ref.ask(Seen())
        assert found == [found[0]] * 2
        assert found[0][0] == sender


def test_a_message_is_put_aside_in_its_handler_and_once() -> None:
    def twice(it: Doer, _: Any) -> None:
        it.stash()
        it.stash()

    def after_reply_later(it: Doer, _: Any) -> None:
        it.kept = it.reply_later()  # type: ignore[attr-defined]
        it.stash()

    class OnStart(Recorder):
        def on_start(self) -> None:
            with pytest.raises(ActorError, match="stash is for on_receive"):
                self.stash()

    with System() as system:
        system.start(OnStart)
        for do in (twice, after_reply_later):
            ref = system.start(Doer, do)
            with pytest.raises(RemoteActorError, match="once for each message"):
                ref.ask(Do())
            assert ref.statistics().queued == 0


def test_a_handler_that_fails_after_it_has_put_its_message_aside_has_not() -> None:
    def fail(it: Doer, _: Any) -> None:
        it.stash()
        raise ValueError("after all")

    with System() as system:
        ref = system.start(Doer, fail)
        with pytest.raises(RemoteActorError, match="after all"):
            ref.ask(Do())
        assert ref.statistics().queued == 0


def test_a_message_by_control_or_a_timer_may_be_put_aside_too() -> None:
    class Timed(Shy):
        def on_start(self) -> None:
            self.after(0, Say("timer"))

    with System() as system:
        ref = system.start(Timed)
        ref.ask(Seen())
        ref.tell(Say("control"), control=True)
        assert ref.ask(Open()) == 2
        assert ref.ask(Seen()) == ["timer", "control"]


def test_what_is_put_aside_by_one_that_was_killed_meanwhile_is_a_dead_letter() -> None:
    class Stasher(Recorder):
        def on_receive(self, message: Message) -> None:
            self.ref.kill()
            self.stash()

    with System() as system:
        ref = system.start(Stasher)
        ref.tell(Say(""))
        system.wait(ref)
        assert system.dead_letters.by_reason == {"dead": 1}


def test_each_message_is_counted_once_though_a_kill_races_with_putting_aside() -> None:
    rounds, each, before = 60, 20, sys.getswitchinterval()

    class Stasher(Recorder):
        def on_receive(self, message: Message) -> None:
            self.stash()

    sys.setswitchinterval(1e-6)
    try:
        with System() as system:
            for _ in range(rounds):
                ref = system.start(Stasher)
                ready = threading.Barrier(2)

                def kill(ref: Any = ref, ready: threading.Barrier = ready) -> None:
                    ready.wait()
                    ref.kill()

                thread = threading.Thread(target=kill)
                thread.start()
                ready.wait()
                for _ in range(each):
                    ref.tell(Say(""))
                thread.join()
                system.wait(ref)
            assert system.dead_letters.total == rounds * each
    finally:
        sys.setswitchinterval(before)
