"""Item 2: many requests at once, out of order, by several front ends and several queues."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hypervisor import Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device
from tests.transport.drivers import Counting
from tests.transport.test_coupling import Holds
from transport import ChannelClosed, LocalProtocolError, connect, connect_queues

REAL = pytest.mark.parametrize("place", ["thread", "process"], indirect=True)


@REAL
def test_answers_come_in_the_order_of_their_work_not_of_their_requests(
    opens: Opens, tmp_path: Path
) -> None:
    holds = Holds(tmp_path)
    holds.make("one", "two")
    channel = opens(Device, str(tmp_path))
    order: list[Any] = []
    for name in ("one", "two"):
        channel.submit(("hold", name), callback=lambda each: order.append(each.body[1]))
    channel.submit("quick", callback=lambda each: order.append(each.result))
    channel.push()
    for name in ("one", "two"):
        holds.await_running(name)
    assert channel.call("behind it") == "behind it"
    assert order == ["quick"]
    holds.let_go("two")
    while len(order) < 2:
        channel.call("take what is there")
    holds.let_go("one")
    channel.drain()
    assert order == ["quick", "two", "one"]


def test_every_request_of_many_has_its_own_answer(opens: Opens) -> None:
    channel = opens(slots=256)
    requests = [channel.submit(number) for number in range(256)]
    channel.drain()
    assert [each.result for each in requests] == list(range(256))


def test_a_front_end_that_floods_does_not_starve_another(machine: Machine) -> None:
    machine.start("device", Counting, placement="thread")
    with connect(machine, "device", slots=4096) as flood, connect(machine, "device") as other:
        gate = threading.Event()
        Counting.gates.append(gate)
        flood.submit("gate")  # until all the others are in their rings
        for _ in range(4000):
            flood.submit("flood")
        flood.push()
        for _ in range(10):
            other.submit("other")
        other.push()
        gate.set()
        other.drain()
        flood.drain()
    Counting.gates.clear()
    served = Counting.served
    last = max(at for at, body in enumerate(served) if body == "other")
    assert served[:last].count("flood") < 1000
    assert served.count("flood") == 4000
    served.clear()


@REAL
def test_threads_are_spread_over_the_queues_and_each_keeps_its_own(
    host: Machine, place: str
) -> None:
    host.start("device", Device, placement=place)
    together = threading.Barrier(6)
    with connect_queues(host, "device", 3, slots=16, buffer_bytes=1 << 16) as queues:

        def work(number: int) -> Any:
            together.wait()
            mine = queues.mine
            for turn in range(50):
                assert queues.call((number, turn)) == (number, turn)
                with queues.buffer(100) as buffer:
                    assert buffer.channel is mine
                    buffer.view[:] = b"a" * 100
                    queues.call("upper", buffer[10:20])
                    assert bytes(buffer.view) == b"a" * 10 + b"A" * 10 + b"a" * 80
            assert queues.mine is mine
            return mine

        with ThreadPoolExecutor(6) as pool:
            mine = list(pool.map(work, range(6)))
        assert sorted(map(mine.count, queues)) == [2, 2, 2]
        assert [each.statistics().requests for each in queues] == [200] * 3


@REAL
def test_a_request_goes_by_the_queue_of_its_buffers(host: Machine, place: str) -> None:
    host.start("device", Device, placement=place)
    with connect_queues(host, "device", 2) as queues:
        one, two = queues
        with one.buffer(3) as first, two.buffer(3) as second:
            queues.call("upper", first)
            queues.call("upper", second[1:])
            queues.call("sum", [first, first[1:]])
            assert [each.statistics().requests for each in queues] == [2, 1]
            with pytest.raises(LocalProtocolError, match="one queue"):
                queues.call("sum", [first, second])
        assert queues.call("sum", []) == ()
        queues.drain()
        with pytest.raises(ChannelClosed):
            queues.call("x")


def test_queues_survive_their_back_end(machine: Machine) -> None:
    machine.start("device", Device)
    with connect_queues(machine, "device", 3) as queues:
        before = {each.call("pid") for each in queues}
        machine.kill("device")
        after = {each.call("pid") for each in queues}
        assert len(before) == len(after) == 1
        assert before != after


def test_a_queue_that_cannot_be_opened_leaves_none_open(machine: Machine) -> None:
    machine.start("device", Device, placement="thread")
    for bad in ({"queues": 0}, {"queues": 2, "slots": 3}, {"queues": 2, "version": 9}):
        with pytest.raises((ValueError, ChannelClosed)):
            connect_queues(machine, "device", **bad)


@REAL
@pytest.mark.parametrize("waits", [("sleep", "spin"), ("sleep", "poll"), ("spin", "poll", "sleep")])
def test_callers_that_wait_in_different_ways_all_get_their_answers(
    opens: Opens, waits: tuple[str, ...]
) -> None:
    channel = opens(slots=4)  # so that some wait for a slot as well

    def work(number: int) -> None:
        for turn in range(150):
            way = waits[(number + turn) % len(waits)]
            assert channel.call((number, turn), wait=way) == (number, turn)

    with ThreadPoolExecutor(7) as pool:
        list(pool.map(work, range(7)))
    assert channel.statistics().requests == 7 * 150
