"""A back end that dies between two accesses, or in the middle of one: what the caller sees."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from typing import Any

import pytest

from examples.pci import devices, regs
from examples.pci import protocol as p
from examples.pci.errors import STALE, SUCCESS, BusGone, OperationFailed
from examples.pci.front import OnReset, PciBus
from tests.block.helpers import freeze
from tests.pci.helpers import LINE, NETWORK, STORAGE, emulated, kill, ring


def reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the front end has logged as warnings."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "examples.pci" and record.levelno == logging.WARNING
    ]


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
            poller = select.poll()
            poller.register(port.fileno(), select.POLLIN)
            assert poller.poll()  # until it is readable
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


def test_a_crash_on_a_thread_leaves_no_port_behind() -> None:
    with emulated("thread") as (machine, bus):
        before = bus.incarnation
        ports = bus.enable_msi(NETWORK, 4)
        bus.aer_listen()
        for port in ports:
            port.consume()
        machine.kill("pci")
        poller = select.poll()
        poller.register(ports[0].fileno(), select.POLLIN)
        assert poller.poll()
        assert bus.read(NETWORK, regs.VENDOR_ID, 2) == 0x1B36
        assert bus.incarnation != before


class Replaced:
    """A channel to a bus that is replaced at one of its calls."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.number = 1
        self.bus = devices.make_bus()

    def call(self, body: p.Body, *, timeout: float) -> p.Answer:
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
    guest: Any = None
    bus = PciBus(channel, guest)
    sizes = {bar.index: bar.size for bar in bus.bars(STORAGE)}
    assert sizes == {index: bar.size for index, bar in devices.STORAGE.bars.items()}
    for index, bar in devices.STORAGE.bars.items():
        low = bus.read(STORAGE, regs.BAR_0 + 4 * index, 4)
        assert low == bar.base & 0xFFFFFFFF | bar.flags
