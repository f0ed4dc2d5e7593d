"""The emulated bus over a channel, in both placements: accesses, interrupts, error recovery."""

from __future__ import annotations

import random
import select
from collections.abc import Iterator

import pytest

from examples.pci import capabilities as caps
from examples.pci import devices, regs
from examples.pci import protocol as p
from examples.pci.emulated import EmulatedBus
from examples.pci.errors import (
    STALE,
    BusGone,
    InvalidOffset,
    NotImplementedOperation,
    OperationFailed,
)
from examples.pci.front import PciBus, open_bus
from hypervisor import EventChannel, Machine, StalePort
from tests.pci.helpers import LINE, NETWORK, NETWORK_SECOND, STORAGE, emulated, ring, special
from transport import RemoteError, connect


@pytest.fixture(params=["thread", "process"])
def bus(request: pytest.FixtureRequest) -> Iterator[PciBus]:
    with emulated(request.param) as (_, bus):
        yield bus


def taken(ports: list[EventChannel]) -> list[bool]:
    """Which ports have an event; afterwards none has."""
    return [port.consume() for port in ports]


def readable(port: EventChannel) -> bool:
    poller = select.poll()
    poller.register(port.fileno(), select.POLLIN)
    return bool(poller.poll(0))


# --- accesses -------------------------------------------------------------------------------------


def test_any_access_over_the_channel_is_the_one_on_the_bus_itself(bus: PciBus) -> None:
    here = devices.make_bus()
    rng = random.Random(7)
    for _ in range(300):
        sbdf = rng.choice([0x00, NETWORK, NETWORK_SECOND, STORAGE])
        size = rng.choice([1, 2, 4])
        offset = rng.randrange(0, 0x200, size)
        if rng.random() < 0.5:
            value = rng.getrandbits(32)
            bus.write(sbdf, offset, size, value)
            here.function(sbdf).write(offset, size, value)
        assert bus.read(sbdf, offset, size) == here.function(sbdf).read(offset, size)


def test_the_bus_is_enumerated_and_its_bars_are_sized(bus: PciBus) -> None:
    assert [found.sbdf for found in bus.scan()] == sorted(devices.MODELS)
    for sbdf, model in devices.MODELS.items():
        assert {bar.index: bar.size for bar in bus.bars(sbdf)} == {
            index: bar.size for index, bar in model.bars.items()
        }


def test_where_nobody_answers_reads_are_all_ones_and_writes_are_dropped(bus: PciBus) -> None:
    bus.write(0x18, 0, 4, 0)
    assert [bus.read(0x18, 0, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]


def test_an_impossible_access_is_a_typed_error(bus: PciBus) -> None:
    with pytest.raises(InvalidOffset, match="not aligned"):
        bus.read(NETWORK, 1, 4)
    with pytest.raises(InvalidOffset, match="outside"):
        bus.write(NETWORK, 4096, 4, 0)


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_what_no_front_end_says_is_refused_and_harms_nobody(placement: str) -> None:
    with Machine() as machine:
        machine.start("pci", EmulatedBus, placement=placement)
        with connect(machine, "pci") as channel:
            _, (incarnation, roots) = channel.call((p.ROOTS, 0, 0, 0, 0, 0))
            assert roots == ((0, 0),)

            def answer(*body: object) -> object:
                return channel.call(body)[0]

            assert answer(99, incarnation, NETWORK, 0, 4, 0) == NotImplementedOperation.code
            assert answer(p.CONF_READ, incarnation, NETWORK, 1, 4, 0) == InvalidOffset.code
            assert answer(p.CONF_READ, incarnation + 1, NETWORK, 0, 4, 0) == STALE
            assert answer(p.ENABLE_MSI, incarnation, NETWORK, 0, 4, 12345) == OperationFailed.code
            for wrong in ("x", None, (p.CONF_READ,), (p.ENABLE_MSI, incarnation, 8, 0, 2, "me")):
                with pytest.raises(RemoteError):
                    channel.call(wrong)
            with open_bus(machine, "pci") as bus:
                assert bus.read(NETWORK, 0, 2) == 0x1B36
                assert taken(bus.enable_msi(NETWORK, 4)) == [True] * 4


def test_what_may_be_done_twice_is_declared() -> None:
    bus = EmulatedBus()
    yes = {p.CONF_READ, p.ROOTS, p.AER_NEXT}
    assert {n for n in range(p.AER_RESULT + 1) if bus.is_idempotent((n, 0, 0, 0, 0, 0))} == yes


# --- interrupts -----------------------------------------------------------------------------------


def test_an_interrupt_makes_its_port_readable_and_no_other(bus: PciBus) -> None:
    ports = bus.enable_msi(NETWORK, 4)
    assert taken(ports) == [True] * 4  # a bind has a first event
    ring(bus, NETWORK, 2)
    assert [readable(port) for port in ports] == [False, False, True, False]
    assert taken(ports) == [False, False, True, False]
    ring(bus, NETWORK, 0)
    ring(bus, NETWORK, 0)
    assert taken(ports) == [True, False, False, False]  # events coalesce
    ring(bus, NETWORK, 9)
    assert taken(ports) == [False] * 4


def test_a_masked_interrupt_comes_when_it_is_unmasked(bus: PciBus) -> None:
    (at,) = (each.at for each in bus.capabilities(NETWORK) if each.name == "MSI")
    ports = bus.enable_msi(NETWORK, 2)
    taken(ports)
    bus.write(NETWORK, at + caps.MSI_MASK, 4, 0b10)
    ring(bus, NETWORK, 1)
    assert taken(ports) == [False, False]
    assert bus.read(NETWORK, at + caps.MSI_PENDING, 4) == 0b10
    bus.write(NETWORK, at + caps.MSI_MASK, 4, 0)
    assert taken(ports) == [False, True]


def test_msix_has_a_port_for_each_entry_in_the_order_asked_for(bus: PciBus) -> None:
    ports = bus.enable_msix(STORAGE, [32, 0, 7])
    taken(ports)
    ring(bus, STORAGE, 7)
    ring(bus, STORAGE, 32)
    ring(bus, STORAGE, 1)
    assert taken(ports) == [True, False, True]


def test_two_functions_have_interrupts_of_their_own(bus: PciBus) -> None:
    first, second = bus.enable_msi(NETWORK), bus.enable_msi(NETWORK_SECOND)
    taken(first + second)
    ring(bus, NETWORK_SECOND, 0)
    assert taken(first + second) == [False, True]


def test_an_interrupt_stays_a_devices_when_the_number_of_its_bus_changes(bus: PciBus) -> None:
    (port,) = bus.enable_msi(STORAGE)
    taken([port])
    bus.write(0x10, regs.SECONDARY_BUS, 1, 7)
    ring(bus, 0x700, 0)
    assert taken([port]) == [True]
    bus.disable_msi(0x700)
    ring(bus, 0x700, 0)
    assert taken(bus.enable_msi(0x700)) == [True]


def test_disabling_closes_the_ports_and_enabling_again_makes_new_ones(bus: PciBus) -> None:
    (port,) = bus.enable_msi(NETWORK)
    bus.disable_msi(NETWORK)
    with pytest.raises(StalePort):
        port.send()
    with pytest.raises(OperationFailed, match="not enabled"):
        bus.disable_msi(NETWORK)
    with pytest.raises(OperationFailed, match="not enabled"):
        bus.disable_msix(NETWORK)
    ring(bus, NETWORK, 0)
    ports = bus.enable_msix(NETWORK, [4])
    taken(ports)
    ring(bus, NETWORK, 4)
    assert taken(ports) == [True]
    bus.disable_msix(NETWORK)


def test_an_enable_that_is_refused_leaves_the_ports_that_there_are(bus: PciBus) -> None:
    ports = bus.enable_msi(NETWORK)
    taken(ports)
    with pytest.raises(OperationFailed, match="enabled already"):
        bus.enable_msi(NETWORK)
    with pytest.raises(OperationFailed, match="enabled already"):
        bus.enable_msix(NETWORK, [0])
    with pytest.raises(OperationFailed, match="129 entries"):
        bus.enable_msix(NETWORK, range(129))
    with pytest.raises(NotImplementedOperation):
        bus.enable_msix(NETWORK_SECOND, [0])
    ring(bus, NETWORK, 0)
    assert taken(ports) == [True]


def test_a_back_end_that_may_have_no_more_ports_enables_nothing() -> None:
    with Machine(port_quota=9) as machine:
        machine.start("pci", EmulatedBus, placement="thread")
        with open_bus(machine, "pci") as bus:
            with pytest.raises(OperationFailed, match="ports"):
                bus.enable_msix(STORAGE, range(33))
            assert taken(bus.enable_msix(STORAGE, range(8))) == [True] * 8


def test_listening_again_and_again_costs_one_port() -> None:
    with Machine(port_quota=4) as machine:
        machine.start("pci", EmulatedBus, placement="thread")
        with open_bus(machine, "pci") as bus:
            for _ in range(10):
                bus.aer_listen()


def test_a_bus_may_be_opened_again_in_the_same_machine() -> None:
    with Machine() as machine:
        machine.start("pci", EmulatedBus, placement="thread")
        for _ in range(2):
            with open_bus(machine, "pci") as bus:
                assert taken(bus.enable_msi(NETWORK)) == [True]
            assert machine.system.whereis("pci-ports") is None


def test_a_bus_that_is_opened_again_finds_its_interrupts_disabled(bus: PciBus) -> None:
    bus.enable_msi(NETWORK)
    bus.enable_msix(STORAGE, [3])
    bus.close()
    bus.close()
    assert taken(bus.enable_msix(NETWORK, [0])) == [True]
    assert taken(bus.enable_msi(STORAGE)) == [True]


# --- error recovery -------------------------------------------------------------------------------


def test_a_fatal_error_is_recovered_by_a_slot_reset(bus: PciBus) -> None:
    errors = bus.aer_listen()
    (vector,) = bus.enable_msi(STORAGE)
    taken([errors, vector])
    bus.write(STORAGE, LINE, 1, 0xB)
    bus.write(STORAGE, special(bus, STORAGE) + caps.INJECT, 4, 1 << 18)
    assert taken([errors]) == [True]
    assert bus.read(STORAGE, 0x104, 4) == 1 << 18
    assert bus.aer_next() == (p.AER_DETECTED, STORAGE)
    with pytest.raises(OperationFailed):
        bus.aer_answer(p.AER_RESUME, STORAGE, p.ERS_RECOVERED)
    bus.aer_answer(p.AER_DETECTED, STORAGE, p.ERS_NEED_RESET)
    assert taken([errors]) == [True]
    assert bus.aer_next() == (p.AER_SLOT_RESET, STORAGE)
    assert bus.read(STORAGE, LINE, 1) == 0
    assert bus.read(STORAGE, 0x104, 4) == 0
    ring(bus, STORAGE, 0)  # no interrupt is enabled any more
    (vector,) = bus.enable_msi(STORAGE)
    bus.aer_answer(p.AER_SLOT_RESET, STORAGE, p.ERS_RECOVERED)
    assert bus.aer_next() == (p.AER_RESUME, STORAGE)
    bus.aer_answer(p.AER_RESUME, STORAGE, p.ERS_NONE)
    assert bus.aer_next() is None
    taken([errors, vector])
    ring(bus, STORAGE, 0)
    assert taken([errors, vector]) == [False, True]


def test_an_error_that_came_before_anybody_listened_is_not_lost(bus: PciBus) -> None:
    bus.write(NETWORK, special(bus, NETWORK) + caps.INJECT, 4, 1 << 12)
    first = bus.aer_listen()
    assert taken([first]) == [True]
    assert bus.aer_next() == (p.AER_DETECTED, NETWORK)
    second = bus.aer_listen()
    assert taken([second]) == [True]
    with pytest.raises(StalePort):
        first.send()
    bus.aer_answer(p.AER_DETECTED, NETWORK, p.ERS_CAN_RECOVER)
    assert taken([second]) == [True]
    assert bus.aer_next() == (p.AER_MMIO, NETWORK)


def test_a_bus_that_nobody_serves_is_no_bus() -> None:
    with Machine() as machine:
        opening = open_bus(machine, "pci", timeout=0.01)
        with pytest.raises(BusGone, match="no back end"):
            opening.__enter__()
