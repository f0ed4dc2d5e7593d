"""A full mailbox: its class says whether the sender is refused, waits, or pushes out the oldest."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from actors import (
    Actor,
    ActorDead,
    Fd,
    MailboxFull,
    Message,
    Ref,
    RemoteActorError,
    System,
    encode,
)
from actors.mailbox import Envelope, Mailbox, Verdict
from tests.actors.parts import (
    PATIENCE,
    Do,
    Fail,
    Gate,
    Hold,
    Pooled,
    PooledDoer,
    Recorder,
    Say,
    Seen,
    busy,
)

FOREVER = float("inf")
SIZE = len(encode(Say("0")).payload)


class Parcel(Message):
    fd: Fd


class Rejecting(Recorder):
    mailbox_count = 2


class Blocking(Recorder):
    mailbox_count = 2
    mailbox_policy = "block"


class Dropping(Recorder):
    mailbox_count = 2
    mailbox_policy = "drop_oldest"


class PooledBlocking(Blocking):
    pooled = True


class PooledDropping(Dropping):
    pooled = True


def fill(ref: Ref, count: int = 2) -> None:
    for number in range(count):
        ref.tell(Say(str(number)))


class Sender:
    """Sends in a thread of its own; `blocked` says that it has been made to wait."""

    def __init__(self, system: System, send: Callable[[], Any]) -> None:
        self.error: Exception | None = None
        self.result: Any = None
        self._send = send
        self._waits = threading.Event()
        self._thread = threading.Thread(target=self._run)
        before = system.runtime.lock

        def lock(what: Any) -> Any:
            if threading.current_thread() is self._thread and "room" in str(what):
                self._waits.set()
            return before(what)

        system.runtime.lock = lock  # type: ignore[method-assign]
        self._thread.start()

    def _run(self) -> None:
        try:
            self.result = self._send()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def blocked(self) -> None:
        assert self._waits.wait(PATIENCE)

    def join(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


# --- reject ---------------------------------------------------------------------------------------


def test_unless_its_class_says_otherwise_the_sender_is_refused() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Rejecting)
        fill(ref)
        for send in (ref.tell, ref.ask, ref.ask_future):
            with pytest.raises(MailboxFull, match="the mailbox of busy is full: 2 messages"):
                send(Say("2"))
        with pytest.raises(MailboxFull):
            asyncio.run(ref.ask_async(Say("2")))
        gate.open()
        ref.stop(drain=True)
        assert system.dead_letters.total == 0


def test_a_policy_is_one_of_three() -> None:
    with pytest.raises(ValueError, match=r"mailbox_policy is one of .* not 'drop'"):

        class Odd(Actor):
            mailbox_policy = "drop"


# --- block ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Blocking, PooledBlocking])
@pytest.mark.parametrize("how", ["tell", "ask", "ask_future"])
def test_a_sender_waits_until_there_is_room(kind: type[Recorder], how: str) -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, kind)
        fill(ref)
        sender = Sender(system, lambda: getattr(ref, how)(Say("waited")))
        sender.blocked()
        gate.open()
        sender.join()
        assert sender.error is None
        if how == "ask":
            assert sender.result == "waited"
        assert ref.ask(Seen()) == ["0", "1", "waited"]


def test_room_by_bytes_is_waited_for_too() -> None:
    class Narrow(Blocking):
        mailbox_count = 100
        mailbox_bytes = 3 * SIZE

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Narrow)
        fill(ref, 3)
        sender = Sender(system, lambda: ref.tell(Say("x")))
        sender.blocked()
        gate.open()
        sender.join()
        assert ref.ask(Seen()) == ["0", "1", "2", "x"]


def test_all_who_wait_are_let_in() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        senders = list[Sender]()
        for text in "abc":
            senders.append(Sender(system, lambda text=text: ref.tell(Say(text))))  # type: ignore[misc]
            senders[-1].blocked()
        gate.open()
        for sender in senders:
            sender.join()
        assert sorted(ref.ask(Seen())[2:]) == ["a", "b", "c"]


@pytest.mark.parametrize("how", ["tell", "ask"])
def test_a_sender_does_not_wait_for_longer_than_the_actors_class_says(how: str) -> None:
    class Hasty(Blocking):
        mailbox_patience = 0.02

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Hasty)
        fill(ref)
        before = time.monotonic()
        with pytest.raises(MailboxFull, match="busy is full"):
            getattr(ref, how)(Say("x"))
        assert time.monotonic() - before >= 0.02
        gate.open()
        ref.stop(drain=True)
        assert system.dead_letters.total == 0


def test_an_ask_does_not_wait_beyond_its_deadline() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        with pytest.raises(MailboxFull):
            ref.ask(Say("x"), timeout=0.01)
        gate.open()


def test_control_never_waits() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        for number in range(5):
            ref.tell(Say(f"control {number}"), control=True)
        gate.open()
        ref.ask(Say("after"))
        assert ref.ask(Seen())[:7] == [*(f"control {number}" for number in range(5)), "0", "1"]


@pytest.mark.parametrize("end", ["stop", "kill", "Fail"])
@pytest.mark.parametrize("how", ["tell", "ask"])
def test_the_end_of_the_actor_wakes_those_who_wait(end: str, how: str) -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        sender = Sender(system, lambda: getattr(ref, how)(Say("x"), FOREVER))
        if how == "tell":
            sender = Sender(system, lambda: ref.tell(Say("x")))
        sender.blocked()
        if end == "Fail":
            ref.tell(Fail(), control=True)
        elif end == "kill":
            ref.kill()
        else:
            stopper = threading.Thread(target=ref.stop)
            stopper.start()
        gate.open()
        sender.join()
        system.wait(ref)
        if end == "stop":
            stopper.join()
        if how == "ask":
            assert isinstance(sender.error, ActorDead)
        else:
            assert sender.error is None


def test_a_drain_wakes_those_who_wait() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        sender = Sender(system, lambda: ref.ask(Say("x"), FOREVER))
        sender.blocked()
        stopper = threading.Thread(target=lambda: ref.stop(drain=True))
        stopper.start()
        sender.join()
        assert isinstance(sender.error, ActorDead)
        gate.open()
        stopper.join()
        assert system.dead_letters.total == 0


def test_a_pooled_sender_does_not_wait() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        sender = system.start(PooledDoer, lambda it, _: ref.tell(Say("x")))
        before = time.monotonic()
        with pytest.raises(RemoteActorError, match="MailboxFull"):
            sender.ask(Do())
        assert time.monotonic() - before < Blocking.mailbox_patience
        gate.open()


def test_an_actor_does_not_wait_for_room_in_its_own_mailbox() -> None:
    class Selfish(Blocking):
        fails_on_ask = False

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                fill(self.ref, 3)
                return None
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Selfish)
        before = time.monotonic()
        with pytest.raises(RemoteActorError, match="MailboxFull"):
            ref.ask(Do())
        assert time.monotonic() - before < Selfish.mailbox_patience
        assert ref.ask(Seen()) == ["0", "1"]


def test_an_event_loop_does_not_wait() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Blocking)
        fill(ref)
        before = time.monotonic()
        with pytest.raises(MailboxFull):
            asyncio.run(ref.ask_async(Say("x")))
        assert time.monotonic() - before < Blocking.mailbox_patience
        gate.open()


def test_what_can_never_fit_is_not_waited_for_and_nobody_waits_behind_it() -> None:
    class Narrow(Blocking):
        mailbox_count = 100
        mailbox_bytes = 2 * SIZE

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Narrow)
        with pytest.raises(MailboxFull):
            ref.tell(Say("x" * 1000))
        fill(ref)
        sender = Sender(system, lambda: ref.tell(Say("y")))
        sender.blocked()
        gate.open()
        sender.join()
        assert sender.error is None


def test_room_is_made_by_taking_what_was_put_aside() -> None:
    class Shy(Blocking):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                self.gate = None
                return self.unstash()
            if self.gate is not None and isinstance(message, Say):
                self.stash()
                return None
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Shy, Gate())
        fill(ref)
        sender = Sender(system, lambda: ref.tell(Say("x")))
        sender.blocked()
        ref.tell(Do(), control=True)
        sender.join()
        assert ref.ask(Seen()) == ["0", "1", "x"]


def test_one_that_gives_up_though_it_was_promised_room_passes_the_promise_on() -> None:
    class Waiter:
        promised = False

        def release(self) -> None:
            self.promised = True

    def envelope() -> Envelope:
        return Envelope("", encode(Say("x")))

    mailbox, waiters = Mailbox(1, 1000), [Waiter() for _ in range(3)]
    mailbox.put(envelope())
    for waiter in waiters:
        assert mailbox.put_or_wait(envelope(), waiter) is Verdict.FULL
    mailbox.take_data()
    assert [waiter.promised for waiter in waiters] == [True, False, False]
    mailbox.give_up(waiters[2])
    assert [waiter.promised for waiter in waiters] == [True, False, False]
    mailbox.give_up(waiters[0])
    assert [waiter.promised for waiter in waiters] == [True, True, False]
    mailbox.give_up(waiters[1])
    assert not waiters[2].promised


def test_nothing_is_lost_or_late_where_many_wait_for_little_room() -> None:
    crowd, each, seen = 4, 50, list[str]()

    class Slow(Blocking):
        mailbox_count = 1

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                seen.append(message.text)
            return None

    def send(number: int) -> None:
        for count in range(each):
            if count % 2:
                ref.tell(Say(f"{number} {count}"))
            else:
                ref.ask(Say(f"{number} {count}"), FOREVER)

    with System() as system:
        ref = system.start(Slow)
        threads = [threading.Thread(target=send, args=(number,)) for number in range(crowd)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ref.stop(drain=True)
        assert sorted(seen) == sorted(f"{n} {c}" for n in range(crowd) for c in range(each))


# --- drop the oldest ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Dropping, PooledDropping])
def test_the_oldest_makes_room_for_the_newest_and_is_a_dead_letter(kind: type[Recorder]) -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, kind)
        fill(ref, 5)
        assert system.dead_letters.by_kind == {Say.__kind__: 3}
        assert system.dead_letters.by_reason == {"overflow": 3}
        of = ref.statistics()
        assert (of.queued, of.queued_bytes, of.most_queued) == (2, 2 * SIZE, 2)
        gate.open()
        ref.ask_future(Say("x"), FOREVER).result()
        assert ref.statistics().queued_bytes == 0
        assert ref.ask(Seen()) in (["3", "4", "x"], ["4", "x"])


def test_as_many_are_dropped_as_the_newest_needs() -> None:
    class Narrow(Dropping):
        mailbox_count = 100
        mailbox_bytes = 4 * SIZE

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Narrow)
        fill(ref, 4)
        ref.tell(Say("x" * (SIZE + 1)))
        assert system.dead_letters.total == 2
        gate.open()
        ref.stop(drain=True)
        assert system.dead_letters.total == 2


def test_whoever_asked_what_is_dropped_is_told() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Dropping)
        asked = ref.ask_future(Say("asked"), FOREVER)
        fill(ref)
        with pytest.raises(MailboxFull, match="busy dropped it for a newer message"):
            asked.result()
        newest = ref.ask_future(Say("newest"), FOREVER)
        gate.open()
        assert newest.result() == "newest"


def test_descriptors_of_what_is_dropped_are_closed() -> None:
    gate = Gate()
    read, write = os.pipe()
    with System() as system:
        ref = busy(system, gate, Dropping)
        parcel = Parcel(Fd(write))
        ref.tell(parcel)
        parcel.fd.close()
        fill(ref)
        assert os.read(read, 1) == b""
        gate.open()
    os.close(read)


def test_control_is_never_dropped() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Dropping)
        ref.tell(Say("control"), control=True)
        fill(ref, 4)
        gate.open()
        ref.stop(drain=True)
        assert system.dead_letters.total == 2


def test_what_can_never_fit_drops_nothing() -> None:
    class Narrow(Dropping):
        mailbox_count = 100
        mailbox_bytes = 3 * SIZE

    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Narrow)
        fill(ref)
        with pytest.raises(MailboxFull):
            ref.tell(Say("x" * 1000))
        assert system.dead_letters.total == 0
        assert ref.statistics().queued == 2
        gate.open()


def test_what_was_put_aside_counts_and_is_not_dropped() -> None:
    class Shy(Dropping):
        mailbox_count = 3

        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say) and message.text != "x":
                self.stash()
                return None
            return super().on_receive(message)

    gate = Gate()
    with System() as system:
        ref = system.start(Shy, gate)
        fill(ref)
        ref.ask(Seen())
        ref.tell(Hold())
        gate.wait_until_reached()
        for _ in range(3):
            ref.tell(Say("x"))
        assert ref.statistics().queued == 3
        assert system.dead_letters.total == 2
        gate.open()
        ref.stop(drain=True)
        assert system.dead_letters.by_reason == {"overflow": 2, "dead": 2}


def test_where_all_room_is_taken_by_what_was_put_aside_the_newest_is_refused() -> None:
    full = threading.Event()

    class Shy(Dropping):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                full.set()
                return
            self.stash()
            if message == Say("1"):
                self.ref.tell(Do(), control=True)

    with System() as system:
        ref = system.start(Shy)
        fill(ref)
        assert full.wait(PATIENCE)
        with pytest.raises(MailboxFull, match="2 messages"):
            ref.tell(Say("x"))
        assert system.dead_letters.total == 0


def test_an_overflow_that_races_with_the_actor_is_counted_right() -> None:
    count, crowd, seen = 400, 3, list[int]()

    class Slow(Pooled):
        mailbox_count = 3
        mailbox_policy = "drop_oldest"

        def on_receive(self, message: Message) -> None:
            seen.append(1)

    def shout() -> None:
        for _ in range(count):
            ref.tell(Say("x"))

    with System() as system:
        ref = system.start(Slow)
        threads = [threading.Thread(target=shout) for _ in range(crowd)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ref.stop(drain=True)
        assert len(seen) + system.dead_letters.by_kind.get(Say.__kind__, 0) == count * crowd
        assert ref.statistics().queued_bytes == 0
