"""Timers: messages to oneself, on the system's clock."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from actors import Fd, Message, Ref, RemoteActorError, Shutdown, System, Timer, WrongType
from tests.actors.parts import Patient, Recorder, Say, Seen


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Do(Message):
    pass


class Setter(Recorder):
    fails_on_ask = False

    def __init__(self, do: Callable[[Setter], Any]) -> None:
        super().__init__()
        self.do = do
        self.timers: list[Timer] = []

    def on_receive(self, message: Message) -> Any:
        return self.do(self) if isinstance(message, Do) else super().on_receive(message)


def fired(ref: Ref) -> list[str]:
    """The timers so far: each turn after the first has room for one, so a few turns do."""
    for _ in range(5):
        ref.ask(Say("turn"))
    return [text for text in ref.ask(Seen()) if text != "turn"]


def test_timers_fire_in_the_order_of_their_times_on_the_systems_clock() -> None:
    clock = Clock()

    def set_them(it: Setter) -> None:
        for seconds, text in ((3600, "hour"), (1, "second"), (1, "second too"), (60, "minute")):
            it.after(seconds, Say(text))

    with System(clock=clock) as system:
        ref = system.start(Setter, set_them)
        ref.ask(Do())
        assert fired(ref) == []
        clock.now += 1
        assert fired(ref) == ["second", "second too"]
        clock.now += 3600
        assert fired(ref) == ["second", "second too", "minute", "hour"]


@pytest.mark.parametrize("watches", [False, True])
def test_a_timer_wakes_a_sleeping_actor(watches: bool) -> None:
    read, write = os.pipe()

    class Sleepy(Recorder):
        def on_start(self) -> None:
            if watches:
                self.watch(read, lambda: None)
            self.after(0.02, Shutdown())

    with System() as system:
        assert system.wait(system.start(Sleepy)).reason.kind == "shutdown"
    os.close(read)
    os.close(write)


def test_a_timer_of_no_seconds_comes_next_and_does_not_starve_data() -> None:
    class Impatient(Recorder):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Do):
                self.after(0, Do())
                return None
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Impatient)
        ref.tell(Do())
        for text in "abc":
            assert ref.ask(Say(text), timeout=float("inf")) == text


def test_a_cancelled_timer_does_not_fire_and_may_be_cancelled_again() -> None:
    clock = Clock()

    def set_and_cancel(it: Setter) -> None:
        timer = it.after(1, Say("cancelled"))
        it.after(1, Say("fired"))
        timer.cancel()
        timer.cancel()

    with System(clock=clock) as system:
        ref = system.start(Setter, set_and_cancel)
        ref.ask(Do())
        clock.now += 2
        assert fired(ref) == ["fired"]


def test_a_timer_that_has_fired_may_be_cancelled() -> None:
    clock = Clock()

    def once(it: Setter) -> None:
        if it.timers:
            it.timers[0].cancel()
        else:
            it.timers.append(it.after(0, Say("fired")))

    with System(clock=clock) as system:
        ref = system.start(Setter, once)
        for _ in range(3):
            ref.ask(Do())
        assert ref.ask(Seen()) == ["fired"]


def test_deadlines_that_are_set_and_cancelled_all_the_time_take_no_room() -> None:
    sizes: list[int] = []

    def churn(it: Setter) -> None:
        it.after(10**9, Say("far"))
        for _ in range(1000):
            it.after(10**9, Say("deadline")).cancel()
            sizes.append(len(it._life._timers))

    with System() as system:
        system.start(Setter, churn).ask(Do())
    assert max(sizes) < 100


def test_timers_end_with_their_actor_and_close_what_they_hold() -> None:
    read, write = os.pipe()

    class Parcel(Message):
        fd: Fd

    class Holder(Recorder):
        def on_start(self) -> None:
            fd = Fd(write)
            self.after(3600, Parcel(fd))
            self.after(3600, Parcel(fd)).cancel()
            fd.close()

    with System() as system:
        system.start(Holder).stop()
        assert os.read(read, 1) == b""
        assert system.dead_letters.total == 0
    os.close(read)


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_timer_cannot_be_due_in_the_past(seconds: float) -> None:
    with System() as system, pytest.raises(RemoteActorError, match="ValueError"):
        system.start(Setter, lambda it: it.after(seconds, Say(""))).ask(Do())


@pytest.mark.parametrize("watches", [False, True])
def test_a_timer_may_be_as_far_away_as_one_likes(watches: bool) -> None:
    read, write = os.pipe()

    class Far(Patient):
        def on_start(self) -> None:
            self.after(float("inf"), Say("never"))
            self.after(1e12, Say("hardly"))
            if watches:
                self.watch(read, lambda: None)

    with System() as system:
        assert system.start(Far).ask(Say("now")) == "now"
    os.close(read)
    os.close(write)


def test_a_message_that_cannot_be_sent_is_an_error_where_the_timer_is_set() -> None:
    with System() as system, pytest.raises(RemoteActorError) as failed:
        system.start(Setter, lambda it: it.after(1, Say(3))).ask(Do())  # type: ignore[arg-type]
    assert isinstance(failed.value.__cause__, WrongType)
