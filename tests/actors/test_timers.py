"""Timers: messages to oneself, on the system's clock."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Fd, Message, Ref, RemoteActorError, Shutdown, System, Timer, WrongType, encode
from actors.timers import Timers
from tests.actors.parts import PATIENCE, Clock, Patient, Recorder, Say, Seen


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
            sizes.append(len(it._life._timers or ()))

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


# --- every ----------------------------------------------------------------------------------------


class PooledSetter(Setter):
    pooled = True


SETTERS = pytest.mark.parametrize("kind", [Setter, PooledSetter])


@SETTERS
def test_a_periodic_timer_comes_again_and_again_and_does_not_drift(kind: type[Setter]) -> None:
    clock = Clock()
    with System(clock=clock) as system:
        ref = system.start(kind, set_every(10))
        ref.ask(Do())
        assert fired(ref) == []
        for step, count in ((10, 1), (5, 1), (5, 2), (13, 3), (6.9, 3), (0.1, 4)):
            clock.now += step
            assert fired(ref) == ["tick"] * count


@SETTERS
def test_periods_that_have_passed_meanwhile_are_left_out(kind: type[Setter]) -> None:
    clock = Clock()
    with System(clock=clock) as system:
        ref = system.start(kind, set_every(10))
        ref.ask(Do())
        clock.now += 57
        assert fired(ref) == ["tick"]
        clock.now += 2.9
        assert fired(ref) == ["tick"]
        clock.now += 0.1
        assert fired(ref) == ["tick"] * 2


def set_every(*periods: float) -> Callable[[Setter], None]:
    """Sets a timer with each period, and keeps them."""

    def do(it: Setter) -> None:
        for period in periods:
            it.timers.append(it.every(period, Say("tick" if len(periods) == 1 else str(period))))

    return do


@SETTERS
def test_a_periodic_timer_may_be_cancelled_also_by_its_own_message(kind: type[Setter]) -> None:
    class Thrice(kind):  # type: ignore[valid-type,misc]
        def on_receive(self, message: Message) -> Any:
            if message == Say("tick") and self.seen.count("tick") == 2:
                self.timers[0].cancel()
                self.timers[0].cancel()
            return super().on_receive(message)

    clock = Clock()
    with System(clock=clock) as system:
        ref = system.start(Thrice, set_every(1))
        ref.ask(Do())
        for _ in range(10):
            clock.now += 1
            texts = fired(ref)
        assert texts == ["tick"] * 3


@SETTERS
def test_periodic_timers_with_other_periods_keep_their_own_time(kind: type[Setter]) -> None:
    clock = Clock()
    with System(clock=clock) as system:
        ref = system.start(kind, set_every(2, 3))
        ref.ask(Do())
        for _ in range(6):
            clock.now += 1
            texts = fired(ref)
        assert texts == ["2", "3", "2", "3", "2"]  # at the same time: in the order of being set


@SETTERS
def test_a_periodic_timer_wakes_an_idle_actor_in_real_time(kind: type[Setter]) -> None:
    done = threading.Event()

    class Ticking(kind):  # type: ignore[valid-type,misc]
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Say):
                self.seen.append(message.text)
                if len(self.seen) == 3:
                    done.set()
                return None
            return super().on_receive(message)

    with System() as system:
        ref = system.start(Ticking, set_every(0.002))
        before = time.monotonic()
        ref.ask(Do())
        assert done.wait(PATIENCE)
        assert time.monotonic() - before >= 3 * 0.002


def test_a_period_that_is_always_over_starves_nobody() -> None:
    with System() as system:
        ref = system.start(PooledSetter, set_every(1e-9))
        ref.ask(Do())
        for text in "abc":
            assert ref.ask_future(Say(text), float("inf")).result() == text
        ref.stop()


def test_a_periodic_message_is_unpacked_afresh_each_time() -> None:
    class Listed(Message):
        values: list[int]

    class Spoiler(Setter):
        def on_receive(self, message: Message) -> Any:
            if isinstance(message, Listed):
                message.values.append(0)
                self.seen.append(str(message.values))
                return None
            return super().on_receive(message)

    clock = Clock()
    with System(clock=clock) as system:
        ref = system.start(Spoiler, lambda it: it.timers.append(it.every(1, Listed([7]))))
        ref.ask(Do())
        for _ in range(2):
            clock.now += 1
            fired(ref)
        assert fired(ref) == ["[7, 0]"] * 2


def test_a_periodic_message_cannot_hold_descriptors() -> None:
    read, write = os.pipe()

    class Parcel(Message):
        fd: Fd

    def send(it: Setter) -> None:
        it.every(1, Parcel(Fd(write)))

    with System() as system, pytest.raises(RemoteActorError, match="cannot hold descriptors"):
        system.start(Setter, send).ask(Do())
    assert os.read(read, 1) == b""
    os.close(read)


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_period_is_longer_than_nothing(seconds: float) -> None:
    with System() as system, pytest.raises(RemoteActorError, match="ValueError"):
        system.start(Setter, lambda it: it.every(seconds, Say(""))).ask(Do())


@given(
    period=st.floats(0.001, 100),
    steps=st.lists(st.floats(0, 300), min_size=1, max_size=20),
)
def test_a_period_is_due_once_for_each_time_that_is_looked_at_and_never_early(
    period: float, steps: list[float]
) -> None:
    start = now = 1000.0
    timers = Timers()
    timers.add(start + period, encode(Say("tick")), period)
    last = 0
    for step in steps:
        now += step
        periods = (now - start) / period
        fires = 0
        while timers.pop_due(now) is not None:
            fires += 1
            assert fires <= 2  # twice where it is due just now, but for a rounding error
        if fires:
            assert periods > last + 1 - 1e-6
            last = math.floor(periods + 1e-6)
        else:
            assert periods < last + 1 + 1e-6


# --- what cannot be -------------------------------------------------------------------------------


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
