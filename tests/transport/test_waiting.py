"""Item 10: the ways to wait for an answer; and by what a caller decides whether to spin."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from actors import Actor, Message
from hypervisor import Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device
from transport import ChannelClosed, RemoteError, connect
from transport.waiting import Waiting


@pytest.mark.parametrize("wait", ["sleep", "spin", "poll"])
def test_a_thread_waits_for_an_answer(opens: Opens, wait: str) -> None:
    channel = opens()
    for number in range(30):
        assert channel.call(number, wait=wait) == number


def test_a_future_has_the_answer_or_the_error(opens: Opens) -> None:
    channel = opens()
    futures = [channel.future(number) for number in range(20)]
    wrong = channel.future(("raise", "no"))
    assert [future.result(10) for future in futures] == list(range(20))
    with pytest.raises(RemoteError):
        wrong.result(10)
    assert channel.call("threads go on") == "threads go on"
    with pytest.raises(ValueError, match="driven by its endpoint"):
        channel.fileno()


def test_the_first_future_wakes_nobody_too_late_after_calls_that_slept_or_spun(
    machine: Machine,
) -> None:
    machine.start("device", Device)
    for wait in ("sleep", "spin", "poll"):
        with connect(machine, "device") as channel, ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(channel.call, number, wait=wait) for number in range(50)]
            assert channel.future("x").result(10) == "x"
            assert [call.result() for call in calls] == list(range(50))


def test_a_coroutine_awaits_answers(opens: Opens, host: Machine) -> None:
    if host.system.simulation:
        pytest.skip("a simulation has no event loop of asyncio")
    channel = opens()

    async def ask() -> list[Any]:
        return await asyncio.gather(*(channel.future(n).result_async() for n in range(20)))

    assert asyncio.run(ask()) == list(range(20))


def test_a_callback_is_called_by_who_reaps(opens: Opens) -> None:
    channel = opens()
    told: list[Any] = []
    for number in range(5):
        channel.submit(number, callback=lambda each: told.append(each.result))
    assert channel.call("I reap") == "I reap"
    assert told == list(range(5))
    assert channel.reap() == []


def test_a_callback_may_submit_the_next_request(opens: Opens) -> None:
    channel = opens()
    told: list[int] = []

    def go_on(ended: Any) -> None:
        told.append(ended.result)
        if ended.result < 5:
            channel.submit(ended.result + 1, callback=go_on)
            channel.push()

    channel.submit(0, callback=go_on)
    while len(told) < 6:
        channel.call("reap")
    assert told == list(range(6))


class Answered(Message):
    """An answer, for an actor."""

    result: Any
    error: str


class HowMany(Message):
    """Answered by all that has been told."""


class Listener(Actor):
    """Is told of answers."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[Any, str]] = []

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Answered):
            self.told.append((message.result, message.error))
            return None
        return self.told


def test_an_actor_is_told_of_the_end_of_its_requests(opens: Opens, host: Machine) -> None:
    channel = opens()
    listener = host.system.start(Listener)

    def answered(ended: Any) -> Answered:
        return Answered(ended.result, type(ended.error).__name__)

    for number in range(10):
        channel.tell(listener, answered, number)
    channel.tell(listener, answered, ("raise", "no"))
    channel.drain()
    told = [tuple(each) for each in listener.ask(HowMany())]
    assert told == [*((number, "NoneType") for number in range(10)), (None, "RemoteError")]
    with pytest.raises(ChannelClosed):
        channel.tell(listener, answered, "late")
    listener.stop()


# --- whether to spin ------------------------------------------------------------------------------


class Clock:
    """A runtime in which a look costs a second."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def readable(self, fd: int, what: str) -> Any:
        return None

    def lock(self, what: Any) -> Any:
        return threading.Lock()


class Ring:
    """A channel whose answer comes at a time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.comes = math.inf
        self.looks = 0

    def look(self, *, arm: bool) -> None:
        assert not arm
        self.looks += 1
        self.clock.time += 1

    def has_come(self) -> bool:
        return self.clock.time >= self.comes


Spins = Callable[[float], tuple[bool, int]]


@pytest.fixture
def spins() -> Spins:
    """Spins once for at most 5 looks; the answer comes after so many. Whether it was worth it, and
    how many looks it took.
    """
    clock = Clock()
    ring = Ring(clock)
    waiting = Waiting(ring, clock, 0, "answers", 4.5)  # type: ignore[arg-type]

    def spin(latency: float) -> tuple[bool, int]:
        ring.comes, ring.looks = clock.time + latency, 0
        return waiting.spin(ring.has_come), ring.looks

    return spin


def test_a_caller_spins_while_answers_come_quickly(spins: Spins) -> None:
    assert [spins(3) for _ in range(50)] == [(True, 3)] * 50
    assert spins(1) == (True, 1)


def test_a_caller_gives_up_spinning_when_it_did_not_pay(spins: Spins) -> None:
    assert [spins(math.inf) for _ in range(8)] == [(False, 5)] * 8
    assert spins(1) == (False, 0)


def test_a_caller_without_credit_tries_again_once_in_a_while(spins: Spins) -> None:
    for _ in range(8):
        spins(math.inf)
    tries = [spins(1)[1] for _ in range(16)]
    assert tries == [0] * 15 + [1]
    assert spins(1) == (True, 1)  # it paid, so there is credit again
    assert spins(math.inf) == (False, 5)
    assert spins(math.inf) == (False, 5)
    assert spins(1) == (False, 0)


def test_one_slow_answer_among_quick_ones_changes_nothing(spins: Spins) -> None:
    for _ in range(20):
        assert spins(math.inf)[1] == 5
        assert spins(2) == (True, 2)


# --- who leads ------------------------------------------------------------------------------------


class Asleep:
    """A lock on which somebody sleeps; ``meanwhile`` happens then."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        self.meanwhile = meanwhile

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        self.meanwhile()
        return True


def test_who_is_to_lead_and_has_his_answer_already_hands_that_on() -> None:
    clock, roused = Clock(), list[Any]()
    ring = Ring(clock)
    ring.rouse = roused.append  # type: ignore[attr-defined]
    waiting = Waiting(ring, clock, 0, "answers", 0.0)  # type: ignore[arg-type]
    third = Asleep(lambda: None)

    def meanwhile() -> None:
        waiting._followers[third] = None  # type: ignore[index]
        waiting.give_back()  # the leader leaves, and has the first follower lead
        ring.comes = 0  # and who spins has taken his answer

    second = Asleep(meanwhile)
    waiting._leader.acquire()
    assert waiting.sleep(ring.has_come, second, None)  # type: ignore[arg-type]
    assert roused == [second, third]
