"""A back end that dies between two accesses, or in the middle of one: what the caller sees."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from examples.pci import devices, regs
from examples.pci import protocol as p
from examples.pci.access import ConfigAccess, OnReset
from examples.pci.emulated import EmulatedBus
from examples.pci.errors import STALE, SUCCESS, BadAnswer, BusGone, OperationFailed
from examples.pci.front import PciBus, open_bus
from examples.pci.runner import OwnedPorts
from hypervisor import EventChannel, Machine, StalePort
from tests.block.helpers import freeze
from tests.pci.helpers import LINE, NETWORK, STORAGE, emulated, kill, ring


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the front end has logged as warnings."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "examples.pci" and record.levelno == logging.WARNING
    ]


def until_readable(port: EventChannel) -> None:
    """Sleep until the port has an event."""
    poller = select.poll()
    poller.register(port.fileno(), select.POLLIN)
    assert poller.poll()


def test_the_next_access_is_done_on_the_new_bus_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with emulated() as (machine, bus):
        bus.write(NETWORK, LINE, 1, 0xB)
        before = bus.incarnation
        kill(machine)
        assert bus.read(NETWORK, LINE, 1) == 0
        assert bus.incarnation != before
        bus.write(NETWORK, LINE, 1, 0xC)
        assert bus.read(NETWORK, LINE, 1) == 0xC
        (reason,) = reasons(caplog)
        assert reason.startswith(f"the bus of incarnation {before} has died: {bus.incarnation} ")


def test_the_next_access_reads_all_ones_with_a_reason_until_the_bus_is_attached_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with emulated(on_reset="all-ones") as (machine, bus):
        bus.write(NETWORK, LINE, 1, 0xB)
        kill(machine)
        assert [bus.read(NETWORK, 0, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]
        bus.write(NETWORK, LINE, 1, 0xC)
        assert bus.scan() == []
        with pytest.raises(BusGone, match="has died"):
            bus.enable_msi(NETWORK)
        (reason,) = reasons(caplog)
        assert "reads all ones until it is attached again" in reason
        bus.attach()
        assert bus.read(NETWORK, LINE, 1) == 0
        assert len(bus.scan()) == len(devices.MODELS)


@pytest.mark.parametrize("on_reset", ["retry", "all-ones"])
def test_a_write_in_flight_is_never_done_to_the_bus_that_forgot_what_was_before(
    on_reset: OnReset, caplog: pytest.LogCaptureFixture
) -> None:
    with emulated(on_reset=on_reset) as (machine, bus):
        freeze(machine.pid("pci"))
        writer = threading.Thread(target=bus.write, args=(NETWORK, LINE, 1, 0xB))
        writer.start()
        kill(machine)
        writer.join()
        assert len(reasons(caplog)) == 1
        if on_reset == "all-ones":
            bus.attach()
        assert bus.read(NETWORK, LINE, 1) == (0xB if on_reset == "retry" else 0)


def test_who_sleeps_on_an_interrupt_is_woken_when_the_back_end_dies() -> None:
    with emulated() as (machine, bus):
        ports = [*bus.enable_msi(NETWORK, 2), bus.aer_listen()]
        for port in ports:
            assert port.consume()
        kill(machine)
        for port in ports:
            until_readable(port)
        before = bus.incarnation
        again = bus.enable_msi(NETWORK, 2)
        assert bus.incarnation != before
        assert [port.consume() for port in again] == [True, True]
        ring(bus, NETWORK, 1)
        assert [port.consume() for port in again] == [False, True]


def test_interrupts_of_a_dead_bus_are_disabled_already() -> None:
    with emulated() as (machine, bus):
        bus.enable_msi(NETWORK)
        bus.enable_msix(STORAGE, [1])
        kill(machine)
        with pytest.raises(OperationFailed, match="not enabled"):
            bus.disable_msi(NETWORK)


@pytest.mark.parametrize("on_reset", ["retry", "all-ones"])
def test_a_back_end_that_hangs_is_all_ones_with_a_reason_and_not_a_hang(
    on_reset: OnReset, caplog: pytest.LogCaptureFixture
) -> None:
    with emulated(on_reset=on_reset, watchdog=30.0) as (machine, bus):
        pid = machine.pid("pci")
        freeze(pid)
        bus.completion_timeout = 0.05
        assert bus.read(NETWORK, 0, 4) == 0xFFFFFFFF
        assert bus.read(NETWORK, 0, 4) == 0xFFFFFFFF
        times = 1 if on_reset == "all-ones" else 2
        assert reasons(caplog) == ["the bus does not answer: 'pci' did not answer in time"] * times
        bus.completion_timeout = 10.0
        os.kill(pid, signal.SIGCONT)
        answer = bus.read(NETWORK, 0, 4)
        assert answer == (0xFFFFFFFF if on_reset == "all-ones" else 0x00051B36)


@pytest.mark.parametrize("on_reset", ["retry", "all-ones"])
def test_a_bus_that_is_given_up_is_all_ones_with_a_reason(
    on_reset: OnReset, caplog: pytest.LogCaptureFixture
) -> None:
    with emulated(on_reset=on_reset, intensity=0) as (machine, bus):
        bus.enable_msi(NETWORK)
        kill(machine)
        assert bus.read(NETWORK, 0, 4) == 0xFFFFFFFF
        assert bus.read(NETWORK, 0, 4) == 0xFFFFFFFF
        (reason,) = reasons(caplog)
        assert "the bus does not answer: 'pci' is gone" in reason
        with pytest.raises(BusGone):
            bus.attach()


class Recording(EmulatedBus):
    """Shows the test the ports that it is given."""

    given: ClassVar[list[OwnedPorts]] = []

    def on_start(self, ports: OwnedPorts) -> None:
        super().on_start(ports)
        self.given.append(ports)


def test_a_crash_on_a_thread_closes_every_port() -> None:
    with Machine() as machine:
        machine.start("pci", Recording, placement="thread")
        with open_bus(machine, "pci") as bus:
            (ports,) = Recording.given
            (mine,) = ports.open(0, 1)
            told = bus.aer_listen()
            told.consume()
            machine.kill("pci")
            until_readable(told)
            with pytest.raises(StalePort):
                mine.send()
    Recording.given.clear()


def test_a_crash_on_a_thread_is_a_reset_like_any_other() -> None:
    with emulated("thread") as (machine, bus):
        before = bus.incarnation
        ports = bus.enable_msi(NETWORK, 4)
        bus.aer_listen()
        for port in ports:
            port.consume()
        machine.kill("pci")
        until_readable(ports[0])
        assert bus.read(NETWORK, regs.VENDOR_ID, 2) == 0x1B36
        assert bus.incarnation != before


class Replaced:
    """A channel to a bus that is replaced at one of its calls."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.number = 1
        self.bus = devices.make_bus()

    def call(self, body: p.Body, **_: Any) -> p.Answer:
        if self.left == 0:
            self.number, self.bus = 2, devices.make_bus()
        self.left -= 1
        operation, incarnation, sbdf, offset, size, value = body
        if operation == p.ROOTS:
            return SUCCESS, (self.number, ((0, 0),))
        if incarnation != self.number:
            return STALE, "it has died"
        function = self.bus.function(sbdf)
        if operation == p.CONF_READ:
            return SUCCESS, function.read(offset, size)
        return SUCCESS, function.write(offset, size, value) and None


@pytest.mark.parametrize("at", range(1, 30))
def test_bars_are_sized_rightly_whenever_the_bus_is_replaced_meanwhile(at: int) -> None:
    channel: Any = Replaced(at)
    bus = ConfigAccess(channel)
    sizes = {bar.index: bar.size for bar in bus.bars(STORAGE)}
    assert sizes == {index: bar.size for index, bar in devices.STORAGE.bars.items()}
    for index, bar in devices.STORAGE.bars.items():
        low = bus.read(STORAGE, regs.BAR_0 + 4 * index, 4)
        assert low == bar.base & 0xFFFFFFFF | bar.flags


class Answering:
    """A channel to a back end that answers what it likes."""

    def __init__(self, answers: Callable[[p.Body], Any]) -> None:
        self.answers = answers

    def call(self, body: p.Body, **_: Any) -> Any:
        return self.answers(body)


@pytest.mark.parametrize(
    "answer",
    [None, 5, (), (0,), (0, "x"), (0, -1), (0, 0x1FF), (0, True), (-99, "no"), (-3, 5), ("0", 5)],
)
def test_an_answer_that_cannot_be_is_an_error_and_not_a_value(answer: Any) -> None:
    channel: Any = Answering(
        lambda body: answer if body[0] == p.CONF_READ else (SUCCESS, (1, ((0, 0),)))
    )
    bus = ConfigAccess(channel)
    with pytest.raises(BadAnswer):
        bus.read(NETWORK, 0, 1)


@pytest.mark.parametrize("roots", [None, (1,), (1, 2), (1, (2,)), (1, ((2,),)), (1, (("a", 0),))])
def test_roots_that_cannot_be_are_an_error(roots: Any) -> None:
    channel: Any = Answering(lambda _: (SUCCESS, roots))
    with pytest.raises(BadAnswer, match="roots"):
        ConfigAccess(channel)


@pytest.mark.parametrize("ports", [None, (1, ()), (1, ((1, 2), (3, 4))), (1, ((1, "x"),))])
def test_ports_that_cannot_be_are_an_error(ports: Any) -> None:
    channel: Any = Answering(
        lambda body: (SUCCESS, ports if body[0] == p.ENABLE_MSI else (1, ((0, 0),)))
    )
    with Machine() as machine, pytest.raises(BadAnswer, match="the ports of 1 interrupts"):
        PciBus(channel, machine.guest).enable_msi(NETWORK)


def test_a_port_that_is_not_there_to_be_bound_is_an_error_and_the_interrupt_is_disabled() -> None:
    asked = []

    def answers(body: p.Body) -> Any:
        asked.append(body[0])
        return SUCCESS, (1, ((0, 0),)) if body[0] == p.ROOTS else (77, ((1, 1),))

    channel: Any = Answering(answers)
    with Machine() as machine:
        bus = PciBus(channel, machine.guest)
        with pytest.raises(OperationFailed, match="cannot be bound"):
            bus.enable_msi(NETWORK)
    assert asked == [p.ROOTS, p.ENABLE_MSI, p.DISABLE_MSI]


def test_a_bus_that_dies_again_and_again_under_one_access_is_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    channel: Any = Answering(
        lambda body: (SUCCESS, (1, ((0, 0),))) if body[0] == p.ROOTS else (STALE, "it has died")
    )
    bus = ConfigAccess(channel)
    assert bus.read(NETWORK, 0, 2) == 0xFFFF
    with pytest.raises(BusGone, match="8 buses in a row"):
        bus.call(p.AER_NEXT)
    assert len(reasons(caplog)) == 16
