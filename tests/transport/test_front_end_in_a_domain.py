"""A driver uses another domain's device: a front end lives in its domain, and dies with it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from actors import System
from hypervisor import DomainSpec, DomainStartError, Machine
from tests.transport.drivers import Echo, OffloadingRelay, Relay, Writer
from transport import BackEnd, Filter, LocalProtocolError, RemoteError, connect, stack

PLACEMENTS = ("thread", "process")


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(intensity=20) as machine:
        yield machine


@pytest.mark.parametrize("front", PLACEMENTS)
@pytest.mark.parametrize("back", PLACEMENTS)
def test_a_driver_uses_a_device_of_another_domain(machine: Machine, front: str, back: str) -> None:
    machine.start("far", Echo, placement=back)
    machine.start("near", Relay, "far", placement=front)
    with connect(machine, "near") as channel, channel.buffer(5) as buffer:
        assert channel.call("hello") == "hello"
        buffer.view[:] = b"pages"
        assert channel.call("upper", buffer) == 5
        assert bytes(buffer.view) == b"PAGES"


@pytest.mark.parametrize("front", PLACEMENTS)
def test_a_device_may_come_after_the_driver_that_uses_it(machine: Machine, front: str) -> None:
    machine.start("near", Relay, "far", placement=front)
    with connect(machine, "near") as channel:
        asked = channel.submit("hello")
        channel.push()
        machine.start("far", Echo, placement="thread")
        assert channel.call("again") == "again"
        assert asked.result == "hello"


@pytest.mark.parametrize("filters", [(), (Filter,)])
@pytest.mark.parametrize("front", PLACEMENTS)
def test_a_driver_has_the_store_and_its_channels_also_below_a_filter(
    machine: Machine, front: str, filters: tuple[type[Filter], ...]
) -> None:
    machine.start("far", Echo, placement="thread")
    machine.start("near", *stack(*filters, (Writer, "far")), placement=front)
    with connect(machine, "near") as channel:
        assert channel.call(b"hello") == b"hello"
    home = machine.store.get_domain_path(machine.domain("near").domid)
    assert machine.store.read(f"{home}/data/asked") == b"hello"


@pytest.mark.parametrize("relay", [Relay, OffloadingRelay])
@pytest.mark.simulate(seeds=10)
def test_a_driver_that_is_restarted_with_the_other_back_end_answers_all_the_same(
    system: System, relay: type[BackEnd]
) -> None:
    with Machine(system=system) as machine:
        members = [DomainSpec("far", Echo), DomainSpec("near", relay, ("far",))]
        machine.group("both", members, strategy="rest_for_one")
        with connect(machine, "near", slots=8, buffer_bytes=1 << 14) as channel:
            asked = [channel.submit(number) for number in range(6)]
            channel.push()
            machine.kill("far")
            assert channel.call("hello") == "hello"
            channel.drain()
            assert [each.result for each in asked] == list(range(6))
        assert [machine.domain(name).restarts for name in ("far", "near")] == [1, 1]


@pytest.mark.parametrize("front", PLACEMENTS)
def test_a_driver_does_not_notice_that_the_other_back_end_is_killed(
    machine: Machine, front: str
) -> None:
    machine.start("far", Echo, placement="process")
    machine.start("near", Relay, "far", placement=front)
    with connect(machine, "near") as channel:
        for _ in range(3):
            pid = channel.call("pid")
            os.kill(pid, signal.SIGKILL)
            assert channel.call("hello") == "hello"
            assert channel.call("pid") != pid


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_driver_that_is_killed_has_its_channel_anew(machine: Machine, placement: str) -> None:
    machine.start("far", Echo, placement="process")
    machine.start("near", Relay, "far", placement=placement)
    with connect(machine, "near") as channel:
        far = channel.call("pid")
        for _ in range(3):
            machine.kill("near")
            assert channel.call("pid") == far


def test_a_driver_is_told_that_the_device_is_gone_for_good(machine: Machine) -> None:
    machine.start("far", Echo, placement="thread")
    machine.start("near", Relay, "far", placement="process")
    with connect(machine, "near") as channel:
        assert channel.call("hello") == "hello"
        machine.destroy("far")
        with pytest.raises(RemoteError, match="ChannelClosed"):
            channel.call("hello")


def test_a_domain_cannot_use_what_it_serves(machine: Machine) -> None:
    with pytest.raises(DomainStartError, match="itself"):
        machine.start("near", Relay, "near", placement="thread")


def test_a_driver_that_nobody_runs_has_no_channels() -> None:
    with pytest.raises(LocalProtocolError):
        BackEnd().connect("far")
