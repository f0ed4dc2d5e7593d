"""Item 6: what a channel needs is reserved when it opens, and nobody holds up anybody else."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from actors import ActorError
from hypervisor import Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device
from tests.transport.test_coupling import Holds
from transport import (
    BuffersExhausted,
    ChannelFull,
    DeadlineExceeded,
    connect,
)


def test_submit_says_that_a_channel_is_full_and_call_waits_for_room(opens: Opens) -> None:
    channel = opens(slots=4)
    submitted = [channel.submit(number) for number in range(4)]
    for full in (channel.submit, channel.future):
        with pytest.raises(ChannelFull):
            full("one too many")
    assert channel.call("there is room soon") == "there is room soon"
    assert [each.result for each in submitted] == [0, 1, 2, 3]


def test_many_callers_share_few_slots_and_all_are_served(machine: Machine) -> None:
    machine.start("device", Device)
    channel = connect(machine, "device", slots=1)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(channel.call, range(200))) == list(range(200))


def test_a_caller_that_got_no_slot_in_time_leaves_nothing_behind(
    machine: Machine, tmp_path: Path
) -> None:
    holds = Holds(tmp_path)
    holds.make("one")
    machine.start("device", Device, str(tmp_path), placement="thread")
    channel = connect(machine, "device", slots=1)
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(channel.call, ("hold", "one"))
        holds.await_running("one")
        with pytest.raises(DeadlineExceeded, match="no slot"):
            channel.call("x", send=b"stream", timeout=0.01)
        waits = pool.submit(channel.call, "waits")
        holds.let_go("one")
        assert (held.result(), waits.result()) == ("held", "waits")
    assert channel.statistics().free_bytes == 16 << 20
    assert channel.statistics().requests == 2


def test_a_machine_that_has_ended_opens_no_channel_and_nothing_is_left_of_it() -> None:
    with Machine() as machine:
        pass
    with pytest.raises(ActorError, match="is stopping"):
        connect(machine, "device")


def test_all_memory_is_there_when_the_channel_is(machine: Machine) -> None:
    machine.start("device", Device, placement="thread")
    before = machine.guest.memory_usage().memory
    channel = connect(machine, "device", slots=8, buffer_bytes=1 << 20)
    usage = machine.guest.memory_usage().memory
    assert usage - before >= (1 << 20) + 8 * 1024
    assert os.fstat(channel.memory.fd).st_blocks * 512 == 1 << 20
    for size in (0, 1, 1 << 18):
        with channel.buffer(size) as buffer:
            channel.call("fill", buffer)
    channel.call(("drain-in", 0), send=bytes(3 << 20))
    assert machine.guest.memory_usage().memory == usage


def test_bytes_are_credits_too(opens: Opens) -> None:
    channel = opens(buffer_bytes=1 << 16)
    buffers = [channel.buffer(1 << 14) for _ in range(3)]
    assert channel.statistics().free_bytes == 1 << 14
    with channel.buffer(1), pytest.raises(BuffersExhausted):
        channel.buffer((1 << 14) - 1)
    request = channel.submit("upper", buffers[0])
    buffers[0].release()
    assert channel.statistics().free_bytes == 1 << 14  # it is in flight
    for buffer in buffers[1:]:
        buffer.release()
    channel.drain()
    assert request.error is None
    assert channel.statistics().free_bytes == 1 << 16


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"slots": 3}, {"slots": 1 << 20}])
@pytest.mark.parametrize("memory", [{}, {"buffer_bytes": 5000}, {"buffer_bytes": 1 << 40}])
def test_a_channel_of_no_such_size_is_refused_and_leaves_nothing(
    machine: Machine, wrong: dict[str, int], memory: dict[str, int]
) -> None:
    with pytest.raises(ValueError, match="not"):
        connect(machine, "device", **wrong, **memory)  # type: ignore[arg-type]


def test_a_stopped_back_end_holds_up_no_other_channel() -> None:
    with Machine(watchdog=60) as machine:
        for name in ("stopped", "other"):
            machine.start(name, Device)
        stopped, other = connect(machine, "stopped"), connect(machine, "other")
        pid = machine.pid("stopped")
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        waits = [stopped.submit(number) for number in range(stopped.slots)]
        stopped.push()
        for number in range(100):
            assert other.call(number) == number
        with pytest.raises(DeadlineExceeded):
            stopped.call("x", timeout=0.01)
        os.kill(pid, signal.SIGCONT)
        stopped.drain()
        assert [each.result for each in waits] == list(range(stopped.slots))


def test_a_front_end_that_never_looks_holds_up_no_other(machine: Machine) -> None:
    machine.start("device", Device)
    lazy, other = connect(machine, "device", slots=64), connect(machine, "device")
    requests = [lazy.submit("x" * 800) for _ in range(64)]
    lazy.push()
    for number in range(100):
        assert other.call(number) == number
    lazy.drain()
    assert [each.result for each in requests] == ["x" * 800] * 64


def test_figures_are_kept(opens: Opens) -> None:
    channel = opens()
    for _ in range(3):
        channel.call("x")
    figures = channel.statistics()
    assert (figures.requests, figures.epochs, figures.in_flight) == (3, 1, 0)
    assert (figures.resent, figures.unknown, figures.faults) == (0, 0, 0)
