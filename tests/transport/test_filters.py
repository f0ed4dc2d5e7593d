"""Filters by themselves and in stacks, on real channels in every placement, and in virtual time."""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from actors import System
from hypervisor import DomainStartError, HypervisorError, Machine
from tests.transport.drivers import Broken, Echo, Leaver
from transport import (
    STATISTICS,
    BackEnd,
    Cancelled,
    DelayFilter,
    ErrorFilter,
    Filter,
    LogFilter,
    Offloaded,
    RemoteError,
    Request,
    StatisticsFilter,
    connect,
    stack,
)


class Worker(BackEnd):
    """Does everything in offloaded work, with declarations of its own."""

    workers = 7
    spin = 1e-6
    features = frozenset({"work"})

    stopped: ClassVar[int] = 0

    def on_stop(self) -> None:
        Worker.stopped += 1

    def is_idempotent(self, body: Any) -> bool:
        return bool(body == "may be repeated")

    def on_request(self, request: Request) -> Any:
        return self.offload(self._work, request)

    def _work(self, request: Request) -> Any:
        match request.body:
            case ("raise", str(text)):
                raise FileNotFoundError(2, text)
            case "send it back":
                request.push(bytes(request.pull()))
        return request.body


class Tag(Filter):
    """Puts its name around the answer."""

    def on_attach(self, name: str) -> None:
        self._name = name

    def on_request(self, request: Request) -> Any:
        return f"{self._name}({self.below.on_request(request)})"


class Unwilling(Filter):
    """Cannot start."""

    def on_attach(self) -> None:
        raise PermissionError(1, "not with me")


class Caller(Filter):
    """Counts which threads the driver below is called in."""

    def on_attach(self) -> None:
        self._threads: set[int] = set()

    def on_request(self, request: Request) -> Any:
        self._threads.add(threading.get_ident())
        if request.body == "threads":
            return len(self._threads)
        return self.below.on_request(request)


FILTERS: list[Any] = [DelayFilter, LogFilter, StatisticsFilter, ErrorFilter]


@pytest.fixture(params=["thread", "process"])
def placement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(spares=0) as machine:
        yield machine


def layers_in(order: list[Any], log: Path) -> list[Any]:
    arguments = {DelayFilter: (0.001,), LogFilter: (str(log),), ErrorFilter: (0.0,)}
    return [(each, *arguments.get(each, ())) for each in order]


@pytest.mark.parametrize("first", range(len(FILTERS)))
@pytest.mark.parametrize("driver", [Echo, Worker])
def test_filters_in_any_order_change_neither_answers_nor_errors(
    machine: Machine, placement: str, first: int, driver: type[BackEnd], tmp_path: Path
) -> None:
    order = FILTERS[first:] + FILTERS[:first]
    layers = layers_in(order, tmp_path / "log")
    machine.start("device", *stack(*layers, driver), placement=placement)
    with connect(machine, "device") as channel:
        assert [channel.call(body) for body in ("a", 7)] == ["a", 7]
        with pytest.raises(RemoteError) as caught:
            channel.call(("raise", "missing"))
        assert (caught.value.error, caught.value.errno) == ("FileNotFoundError", errno.ENOENT)
        counted = channel.call(STATISTICS)
        assert {key: counted[key] for key in ("begun", "ended", "failed", "bytes")} == {
            "begun": 3,
            "ended": 3,
            "failed": 1,
            "bytes": 0,
        }
        assert counted["seconds"] >= counted["longest"] > 0
    machine.shutdown("device")


@pytest.mark.parametrize("layers", [(), (DelayFilter,), (StatisticsFilter,), (DelayFilter,) * 3])
def test_data_phases_and_buffers_pass_through(
    machine: Machine, layers: tuple[Any, ...], tmp_path: Path
) -> None:
    machine.start("device", *stack(*layers_in(list(layers), tmp_path), Worker))
    machine.start("echo", *stack(*layers_in(list(layers), tmp_path), Echo))
    with connect(machine, "device") as channel, connect(machine, "echo") as echo:
        received = bytearray(100_000)
        data = os.urandom(100_000)
        assert channel.call("send it back", send=data, receive=received) == "send it back"
        assert received == data
        with echo.buffer(5) as buffer:
            buffer.view[:] = b"hello"
            assert echo.call("upper", buffer) == 5
            assert bytes(buffer.view) == b"HELLO"


def test_a_request_passes_a_stack_from_left_to_right_and_its_answer_back(machine: Machine) -> None:
    layers = (Tag, "outer"), (Tag, "inner"), Echo
    machine.start("echo", *stack(*layers), placement="thread")
    with connect(machine, "echo") as channel:
        assert channel.call("x") == "outer(inner(x))"


def test_a_filter_declares_what_is_below_it() -> None:
    program, *args = stack(StatisticsFilter, (DelayFilter, 0.0), Worker)
    found = program()
    found.runtime = System("unused").runtime
    found.on_start(*args)
    assert (found.workers, found.spin, found.features) == (7, 1e-6, {"work"})
    assert not found.idempotent
    assert found.is_idempotent("may be repeated")
    assert not found.is_idempotent("may not")
    assert found.is_idempotent(STATISTICS)
    found.on_stop()


def test_only_a_filter_can_stand_before_a_driver() -> None:
    with pytest.raises(ValueError, match="ends in a driver"):
        stack()
    with pytest.raises(TypeError, match="Echo is no filter"):
        stack(Echo, Echo)
    with pytest.raises(TypeError, match="Leaver is run by"):
        stack(StatisticsFilter, Leaver)

    class Local(BackEnd):
        pass

    with pytest.raises(HypervisorError, match="must be importable"):
        stack(StatisticsFilter, Local)


@pytest.mark.parametrize(
    ("layers", "error"),
    [
        ([StatisticsFilter, Broken], "IsADirectoryError"),
        ([Unwilling, Worker], "PermissionError"),
        ([StatisticsFilter, Unwilling, Worker], "PermissionError"),
        ([(DelayFilter, -1.0), Worker], "ValueError"),
        ([(ErrorFilter, 1.5), Worker], "ValueError"),
        ([(LogFilter, "/"), Worker], "IsADirectoryError"),
    ],
)
def test_a_stack_of_which_one_cannot_start_leaves_nothing_open(
    machine: Machine, layers: list[Any], error: str
) -> None:
    Worker.stopped = 0
    with pytest.raises(DomainStartError) as caught:
        machine.start("device", *stack(*layers), placement="thread")
    assert caught.value.error == error
    assert Worker.stopped == layers.count(Worker)


def test_a_driver_below_is_called_in_one_thread_whatever_is_above(machine: Machine) -> None:
    machine.start("echo", *stack((DelayFilter, 0.001), Caller, Echo), placement="thread")
    with connect(machine, "echo") as channel:
        for number in range(10):
            channel.submit(number)
        channel.push()
        assert channel.call("threads") == 1


def test_errors_are_the_same_share_for_the_same_seed_and_each_ends_its_request_alone(
    machine: Machine, placement: str, tmp_path: Path
) -> None:
    def failures(name: str, *args: Any) -> list[int]:
        layers = (ErrorFilter, *args), (LogFilter, str(tmp_path / name)), Echo
        machine.start(name, *stack(*layers), placement=placement)
        failed = []
        numbers: set[int | None] = set()
        with connect(machine, name) as channel:
            for number in range(100):
                try:
                    assert channel.call(number) == number
                except RemoteError as error:
                    numbers.add(error.errno)
                    failed.append(number)
        machine.shutdown(name)
        begun = re.findall(r"begins (\d+)", (tmp_path / name).read_text())
        assert [int(body) for body in begun] == sorted(set(range(100)) - set(failed))
        assert numbers <= {errno.ENOSPC if len(args) == 3 else errno.EIO}
        return failed

    some = failures("one", 0.3, 5)
    assert 10 < len(some) < 50
    assert failures("two", 0.3, 5, errno.ENOSPC) == some
    assert failures("three", 0.3, 6) != some
    assert failures("none", 0.0) == []
    assert failures("all", 1.0) == list(range(100))


def test_a_log_has_a_line_for_each_beginning_and_end_across_incarnations(
    machine: Machine, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    machine.start("echo", *stack((LogFilter, str(log)), Echo))
    with connect(machine, "echo") as channel:
        channel.call("two\nlines")
        with channel.buffer(7) as buffer:
            channel.call("with a buffer", buffer)
        with pytest.raises(RemoteError):
            channel.call(("raise", "missing"))
        assert channel.call(("once", str(tmp_path / "once"))) == "served again"
    machine.shutdown("echo")
    lines = [re.fullmatch(r"(\d+\.\d{6}) (\d+) (.*)", line) for line in log.read_text().split("\n")]
    assert lines.pop() is None  # behind the last end of line
    once = f"begins ('once', '{tmp_path}/once') with 0 bytes"
    assert [(line[2], line[3]) for line in lines if line] == [
        ("1", r"begins 'two\nlines' with 0 bytes"),
        ("1", "ends"),
        ("2", "begins 'with a buffer' with 7 bytes"),
        ("2", "ends"),
        ("3", "begins ('raise', 'missing') with 0 bytes"),
        ("3", "fails FileNotFoundError(2, 'missing')"),
        ("4", once),
        ("1", once),
        ("1", "ends"),
    ]
    times = [float(line[1]) for line in lines if line]
    assert times == sorted(times)


def test_a_delay_takes_virtual_time_in_a_simulation_and_none_of_the_real_one() -> None:
    with System(simulation=3) as system, Machine(system=system, watchdog=100.0) as machine:
        machine.start("echo", *stack((DelayFilter, 50.0), Echo))
        with connect(machine, "echo", slots=8, buffer_bytes=1 << 14, timeout=1000) as channel:
            since = system.now()
            assert channel.call("late") == "late"
            assert 50.0 <= system.now() - since < 51.0
            since = system.now()
            with pytest.raises(RemoteError, match="missing"):
                channel.call(("raise", "missing"))
            assert 50.0 <= system.now() - since < 51.0


def test_what_a_delay_holds_back_has_been_done_and_cannot_be_cancelled() -> None:
    with System(simulation=3) as system, Machine(system=system, watchdog=100.0) as machine:
        machine.start("echo", *stack((DelayFilter, 5.0), Echo))
        machine.start("worker", *stack((DelayFilter, 5.0), Worker))
        ended = {}
        for name in ("echo", "worker"):
            with connect(machine, name, slots=64, buffer_bytes=1 << 14, timeout=1000) as channel:
                many = [channel.submit(number) for number in range(20)]
                channel.push()
                assert not channel.wait(1.0) or not channel.reap()  # it has come, and waits
                channel.cancel(many[-1])  # its turn with the workers is far away
                while not all(request.done for request in many):
                    assert channel.wait(1000)
                    channel.reap()
                ended[name] = many[-1]
        assert (ended["echo"].result, ended["echo"].error) == (19, None)
        assert isinstance(ended["worker"].error, Cancelled)


def test_offloaded_work_can_be_done_at_once() -> None:
    assert Offloaded(divmod, (7, 2)).run() == (3, 1)
