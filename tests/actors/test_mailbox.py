"""Mailboxes: order, bounds, the control lane, and what becomes of messages nobody will read."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import ActorDead, Fd, Future, MailboxFull, Message, Shutdown, System, encode
from tests.actors.parts import PATIENCE, Gate, Leave, Recorder, Say, busy


class Small(Recorder):
    mailbox_count = 3


class Narrow(Recorder):
    mailbox_bytes = 4 * len(encode(Say("0")).payload)


class Parcel(Message):
    fd: Fd


def test_a_mailbox_is_full_by_count() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Small)
        for text in "abc":
            ref.tell(Say(text))
        for send in (ref.tell, ref.ask, ref.ask_future):
            with pytest.raises(MailboxFull, match="busy is full: 3 messages"):
                send(Say("d"))
        gate.open()


def test_a_mailbox_is_full_by_bytes_and_has_room_again_when_they_are_taken() -> None:
    gate = Gate()
    with System() as system:
        ref = busy(system, gate, Narrow)
        for text in "abcd":
            ref.tell(Say(text))
        with pytest.raises(MailboxFull):
            ref.tell(Say("e"))
        gate.open()
        ref.stop()


def test_what_a_full_mailbox_refuses_leaves_no_descriptor() -> None:
    gate = Gate()
    read, write = os.pipe()
    with System() as system:
        ref = busy(system, gate, Small)
        for text in "abc":
            ref.tell(Say(text))
        parcel = Parcel(Fd(write))
        for send in (ref.tell, ref.ask):
            with pytest.raises(MailboxFull):
                send(parcel)
        parcel.fd.close()
        assert os.read(read, 1) == b""
        gate.open()
    os.close(read)


def test_the_control_lane_is_first_and_never_full() -> None:
    gate, seen = Gate(), list[str]()

    class Listed(Small):
        def on_receive(self, message: Message) -> object:
            if isinstance(message, Say):
                seen.append(message.text)
            return super().on_receive(message)

    with System() as system:
        ref = busy(system, gate, Listed)
        ref.tell(Say("a"))
        ref.tell(Say("b"))
        ref.tell(Leave())
        for number in range(100):
            ref.tell(Say(str(number)), control=True)
        gate.open()
        system.wait(ref)
    assert seen == [*map(str, range(100)), "a", "b"]


def test_a_stop_overtakes_data_and_what_was_queued_is_accounted_for() -> None:
    gate = Gate()
    read, write = os.pipe()
    with System() as system:
        ref = busy(system, gate)
        parcel = Parcel(Fd(write))
        ref.tell(parcel)
        parcel.fd.close()
        ref.tell(Say("never read"))
        asked = ref.ask_future(Say("never answered"), PATIENCE)
        ref.tell(Shutdown(), control=True)
        gate.open()
        system.wait(ref)
        with pytest.raises(ActorDead):
            asked.result()
        assert os.read(read, 1) == b""
        assert system.dead_letters.by_kind == {Parcel.__kind__: 1, Say.__kind__: 1}
    os.close(read)


def test_a_tell_to_an_actor_that_has_ended_is_a_counted_dead_letter() -> None:
    with System() as system:
        ref = system.start(Recorder)
        ref.stop()
        ref.tell(Say("a"))
        ref.tell(Say("b"), control=True)
        assert system.dead_letters.by_kind == {Say.__kind__: 2}
        assert system.dead_letters.total == 2


SENDS = st.lists(
    st.tuples(st.sampled_from(["tell", "control", "ask"]), st.integers(0, 40)), max_size=12
)


class Bounded(Recorder):
    mailbox_count = 5
    mailbox_bytes = 200


class Model:
    """Two lists and a sum: what a mailbox is."""

    def __init__(self) -> None:
        self.control: list[str] = []
        self.data: list[str] = []
        self.bytes = 0

    def takes(self, message: Say) -> bool:
        size = len(encode(message).payload)
        if len(self.data) == Bounded.mailbox_count or self.bytes + size > Bounded.mailbox_bytes:
            return False
        self.data.append(message.text)
        self.bytes += size
        return True


@given(sends=SENDS, end=st.sampled_from(["read", "kill"]))
def test_the_mailbox_is_two_bounded_queues(sends: list[tuple[str, int]], end: str) -> None:
    gate, seen, model = Gate(), list[str](), Model()
    asked: dict[str, Future] = {}

    class Listed(Bounded):
        def on_receive(self, message: Message) -> object:
            if isinstance(message, Say):
                seen.append(message.text)
                if len(seen) == len(model.control) + len(model.data):
                    self.exit()
            return super().on_receive(message)

    with System() as system:
        ref = busy(system, gate, Listed)
        for number, (how, size) in enumerate(sends):
            message = Say(f"{number}:".ljust(size, "."))
            try:
                if how == "control":
                    model.control.append(message.text)
                    ref.tell(message, control=True)
                elif how == "tell":
                    ref.tell(message)
                    assert model.takes(message)
                else:
                    asked[message.text] = ref.ask_future(message, PATIENCE)
                    assert model.takes(message)
            except MailboxFull:
                assert not model.takes(message)
        queued = [*model.control, *model.data]
        if end == "read":
            gate.open()
            if queued:
                system.wait(ref)
            assert seen == queued
            assert {text: future.result() for text, future in asked.items()} == {
                text: text for text in asked
            }
            assert system.dead_letters.total == 0
        else:
            ref.kill()
            for future in asked.values():
                with pytest.raises(ActorDead):
                    future.result()
            assert system.dead_letters.total == len(queued) - len(asked)
            gate.open()
