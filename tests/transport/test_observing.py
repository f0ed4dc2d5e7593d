"""What an observer of a channel learns: one record of each request, however it ends."""

from __future__ import annotations

import os
from typing import Any

import pytest

from actors import Faults, System
from hypervisor import DOMAIN_FAULTS, DomainStartError, Machine
from tests.transport.conftest import Opens
from transport import (
    OUTCOMES,
    BackEnd,
    Cancelled,
    ChannelClosed,
    DeadlineExceeded,
    FrontEnd,
    OutcomeUnknown,
    RemoteError,
    Request,
    RequestRecord,
    connect,
)
from transport.observing import PHASES


class Seen:
    """An observer."""

    def __init__(self, channel: FrontEnd) -> None:
        self.records: list[RequestRecord] = []
        self.ends = 0
        self.ignore = channel.observe(self.see)

    def see(self, record: RequestRecord | None) -> None:
        if record is None:
            self.ends += 1
        else:
            self.records.append(record)


class Sum(BackEnd):
    """Adds up; nothing may be done twice."""

    def on_start(self) -> None:
        self.total = 0

    def on_request(self, request: Request) -> Any:
        self.total += request.body
        return self.total


def test_a_request_is_recorded_with_its_times(opens: Opens) -> None:
    channel = opens()
    seen = Seen(channel)
    with channel.buffer(64) as buffer:
        channel.call("fill", [buffer[:10], buffer[20:25]])
    (record,) = seen.records
    assert (record.device, record.body, record.size) == ("device", "fill", 15)
    assert (record.outcome, record.error, record.attempts, record.phases) == ("ok", None, 1, ())
    assert record.pushed is not None
    assert record.submitted <= record.pushed <= record.ended
    assert record.seconds == record.ended - record.submitted
    assert record.epoch > 0


def test_what_is_queued_is_pushed_when_it_is_shown(opens: Opens) -> None:
    channel = opens()
    seen = Seen(channel)
    channel.submit("a")
    channel.submit("b")
    channel.push()
    while len(seen.records) < 2:
        channel.wait()
        channel.reap()
    first, second = seen.records
    assert first.pushed == second.pushed


def test_the_data_phases_of_a_stream_are_seen_and_counted(opens: Opens) -> None:
    channel = opens(buffer_bytes=1 << 16)
    seen = Seen(channel)
    data = os.urandom(40_000)
    received = bytearray(len(data))
    channel.call(("mirror", 10_000), send=data, receive=received)
    (record,) = seen.records
    assert {phase.direction for phase in record.phases} == {"pull", "push"}
    assert sum(phase.size for phase in record.phases if phase.direction == "pull") == len(data)
    assert record.size == 2 * len(data)
    assert record.submitted <= record.phases[0].time <= record.phases[-1].time <= record.ended
    assert {phase.epoch for phase in record.phases} == {record.epoch}


def test_of_very_many_phases_the_first_are_kept_and_the_rest_counted(opens: Opens) -> None:
    channel = opens()
    seen = Seen(channel)
    channel.call(("flood-out", PHASES + 5, 1), receive=bytearray(PHASES + 5))
    (record,) = seen.records
    assert (len(record.phases), record.left_out) == (PHASES, 5)


def test_the_drivers_error_is_the_outcome_failed(opens: Opens) -> None:
    channel = opens()
    seen = Seen(channel)
    with pytest.raises(RemoteError) as caught:
        channel.call(("raise", "no"))
    (record,) = seen.records
    assert (record.outcome, record.error) == ("failed", caught.value)


def test_a_request_that_lived_through_two_back_ends_says_so(machine: Machine) -> None:
    machine.start("sum", Sum)
    with connect(machine, "sum") as channel:
        seen = Seen(channel)
        channel.call(1)
        machine.pause("sum")  # it cannot begin the next one
        second = channel.submit(2)
        channel.push()
        machine.kill("sum")
        while not second.done:
            channel.wait()
            channel.reap()
    first, again = seen.records
    assert (again.attempts, again.outcome) == (2, "ok")
    assert again.epoch > first.epoch


def test_what_nobody_serves_ends_closed_and_then_the_observer_hears_the_end(
    machine: Machine,
) -> None:
    machine.start("sum", Sum)
    channel = connect(machine, "sum")
    seen = Seen(channel)
    channel.call(1)
    machine.pause("sum")
    late = channel.submit(2)
    channel.push()
    channel.close()
    assert isinstance(late.error, ChannelClosed)
    assert [record.outcome for record in seen.records] == ["ok", "closed"]
    assert seen.ends == 1
    with pytest.raises(ChannelClosed):
        channel.observe(seen.see)


def test_a_caller_that_has_gone_is_not_the_end_of_its_request(machine: Machine) -> None:
    machine.start("sum", Sum)
    with connect(machine, "sum") as channel:
        seen = Seen(channel)
        machine.pause("sum")
        with pytest.raises(DeadlineExceeded):
            channel.call(1, timeout=0.0)
        assert seen.records == []
        machine.unpause("sum")
        assert channel.call(2) == 3
    assert [record.outcome for record in seen.records] == ["ok", "ok"]


def test_an_observer_may_leave_and_one_that_raises_harms_nobody(
    opens: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    channel = opens()
    stays, leaves = Seen(channel), Seen(channel)
    leaves.ignore()
    leaves.ignore()
    channel.observe(lambda _: 1 / 0)
    assert channel.call("pid") is not None
    assert len(stays.records) == 1
    assert leaves.records == []
    assert "a callback of device failed" in caplog.text


def test_what_was_in_flight_before_is_not_recorded(opens: Opens) -> None:
    channel = opens()
    before = channel.submit("before")
    seen = Seen(channel)
    channel.call("after")
    while not before.done:
        channel.reap()
        channel.wait()
    assert [record.body for record in seen.records] == ["after"]


def test_statistics_have_bytes_and_latency(opens: Opens) -> None:
    channel = opens(buffer_bytes=1 << 16)
    with channel.buffer(100) as buffer:
        channel.call("fill", buffer)
    channel.call(("drain-in", 0), send=b"x" * 50)
    of = channel.statistics()
    assert of.bytes == 150
    assert of.latency.count == of.requests == 2


# --- under the simulation -------------------------------------------------------------------------

ERRORS: dict[str, type[Exception] | None] = {
    "ok": None,
    "failed": RemoteError,
    "unknown": OutcomeUnknown,
    "cancelled": Cancelled,
    "closed": ChannelClosed,
}


def test_each_outcome_has_its_error() -> None:
    assert set(ERRORS) == set(OUTCOMES)


@pytest.mark.simulate(seeds=60, faults=Faults(DOMAIN_FAULTS, rate=0.01))
def test_every_request_is_recorded_once_and_as_it_ended(system: System) -> None:
    with Machine(system=system, intensity=1000) as machine:
        while True:
            try:
                machine.start("sum", Sum)
            except DomainStartError:
                continue
            break
        with connect(machine, "sum", slots=8, timeout=1000) as channel:
            seen = Seen(channel)
            made = [channel.submit(1) for _ in range(6)]
            channel.push()
            while not all(request.done for request in made):
                channel.wait(1000)
                channel.reap()
            now = system.now()
        assert sorted(record.number for record in seen.records) == sorted(
            request.number for request in made
        )
        for record in seen.records:
            (request,) = [each for each in made if each.number == record.number]
            assert record.error is request.error
            wanted = ERRORS[record.outcome]
            assert record.error is None if wanted is None else isinstance(record.error, wanted)
            assert 0 <= record.submitted <= record.ended <= now
            assert record.attempts >= (record.outcome == "ok")
        assert seen.ends == 1
        assert channel.statistics().latency.count == len(made)
