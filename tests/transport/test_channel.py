"""A channel between domains, in both placements, and what happens when the back end goes."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hypervisor import DomainStartError, HypervisorError, Machine, MachineFailed
from tests.transport.drivers import Broken, Echo, StartsOnce, Zombie
from transport import (
    BuffersExhausted,
    ChannelClosed,
    ChannelFull,
    DeadlineExceeded,
    FrontEnd,
    LocalProtocolError,
    RemoteError,
    connect,
)

PLACEMENTS = ("thread", "process")


@pytest.fixture(params=PLACEMENTS)
def placement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(intensity=100, watchdog=0.3) as machine:
        yield machine


@pytest.fixture
def echo(machine: Machine, placement: str) -> FrontEnd:
    machine.start("echo", Echo, placement=placement)
    return connect(machine, "echo")


def finish(channel: FrontEnd, count: int) -> dict[Any, Any]:
    """Drive the channel as an event loop until ``count`` requests have ended."""
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    ended: dict[Any, Any] = {}
    while len(ended) < count:
        poller.poll()
        for completion in channel.reap():
            ended[completion.token] = completion.error or completion.result
    return ended


def test_a_call_returns_what_the_driver_returns(echo: FrontEnd) -> None:
    for body in (None, 7, "text", b"bytes", ("a", 1, ("b",)), {"k": 2.5}):
        assert echo.call(body) == body


def test_bulk_data_is_shared_through_the_buffer(echo: FrontEnd) -> None:
    with echo.buffer(10_000) as buffer:
        buffer.view[:] = b"q" * 10_000
        assert echo.call("upper", buffer) == 10_000
        assert bytes(buffer.view) == b"Q" * 10_000


def test_a_buffer_may_be_empty(echo: FrontEnd) -> None:
    with echo.buffer(0) as buffer:
        assert echo.call("upper", buffer) == 0


def test_an_error_of_the_driver_reaches_the_caller_with_its_errno(echo: FrontEnd) -> None:
    with pytest.raises(RemoteError) as caught:
        echo.call(("raise", "näme"))
    assert (caught.value.error, caught.value.errno) == ("FileNotFoundError", 2)
    assert "on_request" in caught.value.traceback
    assert echo.call("still there") == "still there"


@pytest.mark.parametrize("body", ["large", "unsendable"])
def test_a_result_that_cannot_be_sent_is_an_error(echo: FrontEnd, body: str) -> None:
    with pytest.raises(RemoteError, match="a result"):
        echo.call(body)


@pytest.mark.parametrize("body", ["x" * 5000, object(), 1 << 70])
def test_a_body_that_cannot_be_sent_is_refused_at_once(echo: FrontEnd, body: Any) -> None:
    with pytest.raises(LocalProtocolError):
        echo.call(body)
    assert echo.statistics().in_flight == 0


def test_an_event_loop_gets_every_completion_by_its_token(echo: FrontEnd) -> None:
    for number in range(100):
        echo.submit(number, token=("t", number))
    assert echo.credits == echo.slots - 100
    echo.push()
    assert finish(echo, 100) == {("t", number): number for number in range(100)}
    assert echo.credits == echo.slots


def test_threads_that_call_together_each_get_their_own_answer(echo: FrontEnd) -> None:
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(echo.call, range(400))) == list(range(400))


def test_a_full_channel_says_so_and_goes_on_when_reaped(machine: Machine) -> None:
    machine.start("echo", Echo, placement="thread")
    channel = connect(machine, "echo", slots=4, buffer_bytes=1 << 16)
    for number in range(4):
        channel.submit(number, token=number)
    with pytest.raises(ChannelFull):
        channel.submit(4)
    channel.push()
    assert len(finish(channel, 4)) == 4
    channel.submit(4, token=4)
    channel.push()
    assert finish(channel, 1) == {4: 4}


def test_buffer_memory_is_bounded_and_comes_back(echo: FrontEnd) -> None:
    limit = echo.buffer_limit
    with pytest.raises(ValueError, match="0 to"):
        echo.buffer(limit + 1)
    buffers = [echo.buffer(limit) for _ in range(4)]
    with pytest.raises(BuffersExhausted):
        echo.buffer(1)
    for buffer in buffers:
        buffer.release()
        buffer.release()
    echo.buffer(limit).release()


def test_offloaded_work_does_not_hold_up_others(echo: FrontEnd, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    echo.submit(("slow", str(fifo)), token="slow")
    echo.submit("quick", token="quick")
    echo.push()
    assert finish(echo, 1) == {"quick": "quick"}
    with open(fifo, "rb"):
        assert finish(echo, 1) == {"slow": "slow"}


def test_a_deadline_ends_the_wait_and_not_the_channel(echo: FrontEnd, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    buffer = echo.buffer(10)
    with pytest.raises(DeadlineExceeded):
        echo.call(("slow", str(fifo)), buffer, timeout=0.01)
    buffer.release()
    assert echo.call("next") == "next"
    with open(fifo, "rb"):
        assert echo.call("after") == "after"


def test_a_front_end_may_come_before_its_back_end(machine: Machine, placement: str) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(connect, machine, "late")
        machine.start("late", Echo, placement=placement)
        assert waiting.result().call(1) == 1


def test_connecting_to_nobody_ends_at_its_deadline(machine: Machine) -> None:
    with pytest.raises(DeadlineExceeded):
        connect(machine, "nobody", timeout=0.01)


def test_two_front_ends_share_a_back_end(machine: Machine, placement: str) -> None:
    machine.start("echo", Echo, placement=placement)
    with connect(machine, "echo") as one, connect(machine, "echo") as two:
        assert one.call("pid") == two.call("pid")
        one.close()
        assert two.call("two") == "two"


def test_closing_ends_what_is_in_flight(echo: FrontEnd, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(echo.call, ("slow", str(fifo)))
        while not echo.statistics().in_flight:
            echo.call("let it go first")
        echo.call("behind it: so it has arrived")
        echo.close()
        with pytest.raises(ChannelClosed):
            call.result()
    with pytest.raises(ChannelClosed):
        echo.call("late")
    with open(fifo, "rb"):
        echo.close()


def test_a_request_that_was_in_flight_at_the_kill_is_sent_again(
    machine: Machine, tmp_path: Path
) -> None:
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    before = channel.call("pid")
    assert channel.call(("once", str(tmp_path / "flag"))) == "served again"
    assert channel.call("pid") != before
    assert channel.statistics().resent == 1


def test_buffers_keep_their_contents_over_a_restart(machine: Machine, tmp_path: Path) -> None:
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    with channel.buffer(5000) as held, channel.buffer(5000) as sent:
        held.view[:] = b"h" * 5000
        sent.view[:] = b"s" * 5000
        channel.call(("once", str(tmp_path / "flag")), sent)
        assert bytes(held.view) == b"h" * 5000
        for buffer, letter in ((held, b"H"), (sent, b"S")):
            assert channel.call("upper", buffer) == 5000
            assert bytes(buffer.view) == letter * 5000


def test_a_revoked_device_is_connected_anew_and_its_requests_are_sent_again(
    machine: Machine, echo: FrontEnd
) -> None:
    before = echo.call("pid")
    with echo.buffer(5000) as buffer:
        buffer.view[:] = b"s" * 5000
        for number in range(100):
            echo.submit(number, token=number)
        echo.push()
        machine.revoke("echo")
        machine.revoke("nobody uses it")
        echo.submit("upper", buffer, token="upper")
        echo.submit("pid", token="pid")
        echo.push()
        numbers: dict[Any, Any] = {number: number for number in range(100)}
        assert finish(echo, 102) == {**numbers, "upper": 5000, "pid": before}
        assert bytes(buffer.view) == b"S" * 5000
    assert echo.statistics().requests == 103


def test_an_event_loop_with_nothing_else_to_do_waits_at_the_channel(echo: FrontEnd) -> None:
    assert echo.wait(0)  # the first look
    assert echo.reap() == []
    assert not echo.wait(0)
    assert not echo.wait(0.001)
    echo.submit(7, token="t")
    echo.push()
    assert echo.wait()
    assert [(each.token, each.result) for each in echo.reap()] == [("t", 7)]


def test_a_buffer_that_is_being_written_while_back_ends_die_loses_no_byte(
    machine: Machine,
) -> None:
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    killed = threading.Event()

    def write(view: memoryview) -> int:
        torn, value = 0, 0
        while not killed.is_set():
            value = value % 255 + 1
            view[:] = bytes([value]) * len(view)
            torn += bytes(view) != bytes([value]) * len(view)
        return torn

    with channel.buffer(channel.buffer_limit) as buffer, ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write, buffer.view)
        for _ in range(4):
            machine.kill("echo")
            channel.call("again")
        killed.set()
        assert writing.result() == 0


def test_many_kills_under_load_lose_nothing(machine: Machine) -> None:
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    ended: dict[Any, Any] = {}
    for round_number in range(5):
        for number in range(100):
            channel.submit((round_number, number), token=(round_number, number))
        channel.push()
        machine.kill("echo")
        ended |= finish(channel, 100)
    assert ended == {(r, n): (r, n) for r in range(5) for n in range(100)}


def test_spares_that_died_while_they_stood_by_are_not_used() -> None:
    with Machine(intensity=100, spares=2) as machine:
        machine.start("echo", Echo)
        channel = connect(machine, "echo")
        machine.kill("echo")  # so that the pool has had the time to start the spares
        channel.call("again")
        back_end = machine.pid("echo")
        spares = {
            int(pid)
            for task in os.listdir("/proc/self/task")
            for pid in Path(f"/proc/self/task/{task}/children").read_text().split()
        } - {back_end}
        assert spares
        for pid in spares:
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        machine.kill("echo")
        assert channel.call("pid") not in {back_end, *spares}


def test_restarts_leave_nothing_behind(machine: Machine) -> None:
    def descriptors() -> list[str]:
        names = (os.readlink(entry.path) for entry in os.scandir("/proc/self/fd"))
        return sorted(name.partition(":")[0] for name in names if not name.startswith("/proc"))

    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    with channel.buffer(100_000) as held:
        held.view[:1] = b"x"
        for _ in range(3):
            machine.kill("echo")
            channel.call("again")
        machine.pid("echo")
        before = descriptors()
        for _ in range(5):
            machine.kill("echo")
            channel.call("again")
        machine.pid("echo")
        assert descriptors() == before


def test_names_of_domains_are_unique_and_must_exist(machine: Machine) -> None:
    machine.start("echo", Echo, placement="thread")
    with pytest.raises(HypervisorError, match="already"):
        machine.start("echo", Echo, placement="thread")
    for ask in (machine.shutdown, machine.kill, machine.pid):
        with pytest.raises(HypervisorError, match="no domain 'other'"):
            ask("other")
    with pytest.raises(HypervisorError, match="no process"):
        machine.pid("echo")
    machine.kill("echo")
    assert connect(machine, "echo").call("again") == "again"
    with pytest.raises(ValueError, match="placement"):
        machine.start("wrong", Echo, placement="moon")


def test_a_class_that_cannot_be_found_by_name_is_refused(machine: Machine) -> None:
    class Local(Echo):
        """Nobody can import this."""

    with pytest.raises(HypervisorError, match="inside a function"):
        machine.start("local", Local)


def test_a_stopped_back_end_is_found_out_and_replaced(machine: Machine) -> None:
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    first = machine.pid("echo")
    os.kill(first, signal.SIGSTOP)
    os.waitid(os.P_PID, first, os.WSTOPPED | os.WNOWAIT)  # a running thread stops a moment later
    assert channel.call("pid") != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_a_zombie_back_end_touches_no_memory_and_completes_no_request(
    machine: Machine, tmp_path: Path
) -> None:
    pid_file, fifo = tmp_path / "pid", tmp_path / "fifo"
    os.mkfifo(fifo)
    machine.start("zombie", Zombie, str(pid_file), str(fifo))
    channel = connect(machine, "zombie")
    with channel.buffer(8192) as buffer:
        channel.submit("work", buffer, token="first")
        channel.push()
        assert finish(channel, 1) == {"first": "good"}
        zombie = int(pid_file.read_text())
        pidfd = os.pidfd_open(zombie)
        try:
            assert channel.reap() == []
            os.kill(zombie, signal.SIGCONT)
            assert fifo.read_bytes() == b"written"  # it wrote to the pages that it still maps
            select.select([channel.fileno()], [], [])  # it answered, and signalled
            assert channel.reap() == []
            assert bytes(buffer.view) == b"good" * 2048
            channel.submit("more", buffer, token="second")
            channel.push()
            assert finish(channel, 1) == {"second": "good"}
            assert channel.statistics().faults == 0
        finally:
            os.kill(zombie, signal.SIGKILL)
            select.select([pidfd], [], [])
            os.close(pidfd)


def test_slow_work_is_not_mistaken_for_death(machine: Machine, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    before = machine.pid("echo")
    with pytest.raises(DeadlineExceeded):  # several times the watchdog's patience
        channel.call(("slow", str(fifo)), timeout=1.5)
    assert machine.pid("echo") == before
    with open(fifo, "rb"):
        assert channel.call("alive") == "alive"


def test_a_driver_that_cannot_start_is_named_with_its_own_error(
    machine: Machine, placement: str
) -> None:
    with pytest.raises(DomainStartError, match="cannot open") as caught:
        machine.start("broken", Broken, "/x", placement=placement)
    assert caught.value.error == "IsADirectoryError"
    machine.start("broken", Echo, placement=placement)


def test_a_back_end_that_cannot_start_again_ends_its_channels(tmp_path: Path) -> None:
    with Machine(intensity=3) as machine:
        machine.start("once", StartsOnce, str(tmp_path / "flag"))
        channel = connect(machine, "once")
        machine.kill("once")
        with pytest.raises(ChannelClosed, match="RestartIntensityExceeded"):
            channel.call("anybody?")
        assert machine.wait().reason.error == "RestartIntensityExceeded"
        with pytest.raises(MachineFailed):
            machine.start("more", Echo)


def test_stopping_a_domain_ends_its_channels(machine: Machine, placement: str) -> None:
    machine.start("echo", Echo, placement=placement)
    channel = connect(machine, "echo")
    machine.shutdown("echo")
    with pytest.raises(ChannelClosed):
        channel.call("gone")


def test_a_temporary_domain_that_dies_ends_its_channels(machine: Machine) -> None:
    machine.start("echo", Echo, restart="temporary")
    channel = connect(machine, "echo")
    machine.kill("echo")
    with pytest.raises(ChannelClosed, match="gone"):
        channel.call("gone")


def test_a_caller_is_woken_when_the_machine_closes(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as pool:
        with Machine(grace=0.1) as machine:
            machine.start("echo", Echo)
            channel = connect(machine, "echo")
            call = pool.submit(channel.call, ("slow", str(fifo)))
            while not channel.statistics().in_flight:
                channel.call("let it go first")
        with pytest.raises(ChannelClosed):
            call.result()
