"""Item 3: every request ends exactly once: in its answer, the driver's error, a deadline, a
cancellation, or `OutcomeUnknown`; the driver hears of it if nobody waits any more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from hypervisor import Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device
from transport import (
    Cancelled,
    Completion,
    DeadlineExceeded,
    FrontEnd,
    OnLoss,
    OutcomeUnknown,
    RemoteError,
    connect,
)


@pytest.fixture(params=["thread", "process"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)  # what holds a FIFO waits for nothing that is simulated


class Holds:
    """Work that runs, and goes on when it is told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def make(self, *names: str) -> None:
        for name in names:
            for what in ("runs", "go", "saw"):
                os.mkfifo(self.directory / f"{name}.{what}")

    def await_running(self, name: str) -> None:
        (self.directory / f"{name}.runs").read_bytes()

    def let_go(self, name: str) -> None:
        with open(self.directory / f"{name}.go", "wb"):
            pass

    def saw(self, name: str) -> str:
        return (self.directory / f"{name}.saw").read_text()


@pytest.fixture
def holds(tmp_path: Path) -> Holds:
    return Holds(tmp_path)


def ended(channel: FrontEnd, count: int) -> dict[Any, Completion]:
    found: dict[Any, Completion] = {}
    while len(found) < count:
        assert channel.wait(30)
        for each in channel.reap():
            assert each.token not in found, "it has ended twice"
            found[each.token] = each
    return found


def test_an_error_keeps_its_type_text_errno_and_traceback(opens: Opens) -> None:
    channel = opens()
    with pytest.raises(RemoteError) as caught:
        channel.call(("raise", "no entry"))
    error = caught.value
    assert (error.error, error.errno) == ("PermissionError", 13)
    assert "no entry" in error.text
    assert "in on_request" in error.traceback


def test_each_caller_gets_an_error_of_his_own(opens: Opens) -> None:
    channel = opens()
    channel.close()
    found = []
    for _ in range(2):
        with pytest.raises(Exception, match="closed") as caught:
            channel.call("x")
        found.append(caught.value)
    assert found[0] is not found[1]


def test_offloaded_work_that_has_not_begun_is_not_done_when_cancelled(
    opens: Opens, holds: Holds, tmp_path: Path
) -> None:
    channel = opens(Device, str(tmp_path))
    holds.make("one", "two")
    for name in ("one", "two"):  # which is all of its workers
        channel.submit(("hold", name), token=name)
    late = channel.submit(("hold", "late"), token="late")
    channel.push()
    for name in ("one", "two"):
        holds.await_running(name)
    channel.cancel(late)
    channel.cancel(late)
    channel.submit("behind the word", token="behind")
    channel.push()
    assert ended(channel, 1).keys() == {"behind"}
    holds.let_go("one")
    holds.let_go("two")
    found = ended(channel, 3)
    assert isinstance(found["late"].error, Cancelled)
    assert found["one"].result == found["two"].result == "held"
    channel.cancel(late)
    assert channel.statistics().in_flight == 0


def test_work_that_runs_sees_that_it_is_cancelled(
    opens: Opens, holds: Holds, tmp_path: Path
) -> None:
    channel = opens(Device, str(tmp_path))
    holds.make("one")
    request = channel.submit(("hold", "one"), token="one")
    channel.push()
    holds.await_running("one")
    channel.cancel(request)
    channel.submit("behind the word", token="behind")
    channel.push()
    ended(channel, 1)
    holds.let_go("one")
    assert ended(channel, 1)["one"].result == "cancelled"


def test_the_deadline_of_a_call_is_told_to_the_driver(
    opens: Opens, holds: Holds, tmp_path: Path
) -> None:
    channel = opens(Device, str(tmp_path))
    holds.make("one")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(channel.call, ("hold", "one"), timeout=0.2)
        holds.await_running("one")
        with pytest.raises(DeadlineExceeded):
            call.result()
    assert channel.call("behind the word") == "behind the word"
    holds.let_go("one")
    assert channel.call("served") == ("one",)


def test_a_caller_that_has_gone_has_his_memory_back_and_the_driver_hears_of_it(
    opens: Opens, holds: Holds, tmp_path: Path
) -> None:
    channel = opens(Device, str(tmp_path))
    holds.make("one")
    data = bytearray(b"data")
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(channel.call, ("hold", "one"), send=data, timeout=0.2)
        holds.await_running("one")
        with pytest.raises(DeadlineExceeded):
            call.result()
    del call
    data.extend(b"more")  # BufferError, if anybody looked at it still
    holds.let_go("one")
    with ThreadPoolExecutor(1) as pool:
        saw = pool.submit(holds.saw, "one")
        while not saw.done():
            channel.call("take its word")
        assert saw.result() == "Cancelled"
    assert channel.drain() is None  # type: ignore[func-returns-value]
    assert channel.statistics().free_bytes == 16 << 20


def test_what_was_cancelled_before_it_was_sent_is_not_sent(machine: Machine) -> None:
    machine.start("device", Device)
    channel = connect(machine, "device")
    channel.call("x")
    machine.kill("device")
    told: list[Completion] = []
    requests = [channel.submit(("note", n), callback=told.append) for n in range(2)]
    for request in requests:
        channel.cancel(request)
    channel.push()
    assert channel.call("pid")
    for request in requests:
        while not request.done:
            channel.call("go on")
    assert len(told) == 2
    noted = [each.result for each in told if each.error is None]
    assert set(channel.call("served")) <= set(noted)


Case = tuple[str, OnLoss, bool]
CASES: dict[str, Case] = {
    "declared to be repeatable": ("again-die", OnLoss.SETTLE, True),
    "declared, and the caller forbids": ("again-die", OnLoss.FAIL, False),
    "begun": ("die", OnLoss.SETTLE, False),
    "begun, and the caller allows": ("die", OnLoss.REISSUE, True),
    "begun, and the caller forbids": ("die", OnLoss.FAIL, False),
    "begun by a worker": ("offloaded-die", OnLoss.SETTLE, False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_a_request_whose_back_end_is_lost_ends_as_it_is_declared(
    machine: Machine, tmp_path: Path, case: Case
) -> None:
    name, on_loss, again = case
    machine.start("device", Device, str(tmp_path))
    channel = connect(machine, "device")
    asked: Callable[[], Any] = lambda: channel.call((name, "flag"), on_loss=on_loss)  # noqa: E731
    if again:
        assert asked() == "the second time"
    else:
        with pytest.raises(OutcomeUnknown, match="may have been done"):
            asked()
        assert channel.call("go on") == "go on"
    assert channel.statistics().unknown == (not again)
    assert channel.statistics().requests == (1 if again else 2)


def test_what_had_not_begun_is_sent_again_though_it_may_not_be_done_twice(
    machine: Machine, tmp_path: Path
) -> None:
    machine.start("device", Device, str(tmp_path))
    channel = connect(machine, "device")
    channel.submit(("die", "flag"), token="die")
    for number in range(20):
        channel.submit(("note", number), token=number)
    channel.push()
    found = ended(channel, 21)
    assert isinstance(found.pop("die").error, OutcomeUnknown)
    assert {token: each.result for token, each in found.items()} == {n: n for n in range(20)}
    channel.submit("served", token="served")
    channel.push()
    assert ended(channel, 1)["served"].result == tuple(range(20))


def test_a_callback_that_fails_keeps_no_other_from_its_answer(
    opens: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    channel = opens()
    told: list[Any] = []

    def fail(_: Completion) -> None:
        raise ZeroDivisionError

    for callback in (fail, lambda each: told.append(each.result), fail):
        channel.submit("x", callback=callback)
    channel.push()
    channel.drain()
    assert told == ["x"]
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2
