"""What a front end finds out about a bus, without a channel: true of any configuration space."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.pci import devices, regs
from examples.pci.bus import Bus
from examples.pci.dump import dump
from examples.pci.errors import AccessDenied, BadConfiguration, DeviceNotFound, PciError
from examples.pci.protocol import all_ones
from examples.pci.scan import capabilities, scan, size_bars, size_of_space

ROOTS = [(0, 0)]
NETWORK, STORAGE = 0x08, 0x100


class Direct:
    """A bus without a channel, and what was done to it."""

    def __init__(self, bus: Bus | None = None) -> None:
        self.bus = bus or devices.make_bus()
        self.writes: list[tuple[int, int, int]] = []

    def read(self, sbdf: int, offset: int, size: int) -> int:
        try:
            return self.bus.function(sbdf).read(offset, size)
        except DeviceNotFound:
            return all_ones(size)

    def write(self, sbdf: int, offset: int, size: int, value: int) -> None:
        self.writes.append((sbdf, offset, value))
        self.bus.function(sbdf).write(offset, size, value)


class Bytes:
    """One function at every address, made of bytes; nothing of it can be written."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self, sbdf: int, offset: int, size: int) -> int:
        return int.from_bytes(self.data[offset : offset + size].ljust(size, b"\xff"), "little")

    def write(self, sbdf: int, offset: int, size: int, value: int) -> None:
        pass


def linked(*links: tuple[int, int, int], first: int) -> Bytes:
    """A space with capabilities as (at, identifier, next)."""
    data = bytearray(256)
    data[regs.STATUS] = regs.STATUS_CAPABILITIES
    data[regs.CAPABILITY_LIST] = first
    for at, identifier, following in links:
        data[at : at + 2] = bytes((identifier, following))
    return Bytes(bytes(data))


def test_every_function_is_found_also_behind_a_bridge() -> None:
    found = scan(Direct(), ROOTS)
    assert [function.sbdf for function in found] == sorted(devices.MODELS)
    for function in found:
        who = devices.MODELS[function.sbdf].identity
        assert (function.vendor, function.device) == (who.vendor, who.device)
        assert (function.kind, function.revision) == (who.kind, who.revision)
    assert [function.header for function in found] == [0, 0, 0, 1, 0]


def test_a_bus_with_nobody_on_it_is_empty() -> None:
    assert scan(Bytes(b""), [(0, 0), (0, 3)]) == []


def test_functions_beside_the_first_are_looked_for_only_if_it_says_that_there_are_some() -> None:
    alone = {0x08: devices.NETWORK_SECOND, 0x09: devices.NETWORK_SECOND}
    assert [found.sbdf for found in scan(Direct(Bus(alone, {})), ROOTS)] == [0x08]
    gap = {0x08: devices.NETWORK, 0x0F: devices.NETWORK_SECOND, 0x11: devices.NETWORK_SECOND}
    assert [found.sbdf for found in scan(Direct(Bus(gap, {})), ROOTS)] == [0x08, 0x0F]


def test_a_bridge_to_its_own_bus_is_visited_once() -> None:
    config = Direct()
    config.write(0x10, regs.SECONDARY_BUS, 1, 0)
    assert [found.sbdf for found in scan(config, [(0, 0), (0, 0)])] == [0x00, 0x08, 0x09, 0x10]


@pytest.mark.parametrize("sbdf", sorted(devices.MODELS))
def test_capabilities_are_those_of_the_model_in_its_order(sbdf: int) -> None:
    model = devices.MODELS[sbdf]
    found = capabilities(Direct(), sbdf)
    expected = [capability.identifier for capability in model.capabilities]
    assert [each.identifier for each in found] == expected + [regs.EXT_CAP_AER] * model.aer
    assert size_of_space(Direct(), sbdf) == model.size
    assert [each.version for each in found if each.at >= 0x100] == [2] * model.aer


@pytest.mark.parametrize("sbdf", sorted(devices.MODELS))
@pytest.mark.parametrize("command", [0, 7])
def test_bars_are_sized_while_nothing_is_decoded_and_all_is_as_before(
    sbdf: int, command: int
) -> None:
    config = Direct()
    config.write(sbdf, regs.COMMAND, 2, command)
    config.writes.clear()
    before = [config.read(sbdf, at, 4) for at in range(0, 0x40, 4)]
    found = size_bars(config, sbdf)
    assert [config.read(sbdf, at, 4) for at in range(0, 0x40, 4)] == before
    model = devices.MODELS[sbdf].bars
    assert {bar.index: (bar.size, bar.base, bar.io, bar.wide) for bar in found} == {
        index: (bar.size, bar.base, bar.io, bar.wide) for index, bar in model.items()
    }
    assert [bar.prefetchable for bar in found] == [bar.prefetchable for bar in model.values()]
    assert config.writes[0] == (sbdf, regs.COMMAND, command & 4)
    assert config.writes[-1] == (sbdf, regs.COMMAND, command)
    assert {at for _, at, _ in config.writes[1:-1]} <= set(range(0x10, 0x28))


def test_bars_that_may_not_be_written_are_found_without_their_sizes() -> None:
    class ReadOnly(Direct):
        def write(self, sbdf: int, offset: int, size: int, value: int) -> None:
            raise AccessDenied

    found = size_bars(ReadOnly(), STORAGE)
    assert [(bar.index, bar.size, bar.base) for bar in found] == [
        (index, None, bar.base) for index, bar in devices.STORAGE.bars.items()
    ]


def test_a_function_that_goes_away_while_it_is_sized_has_no_sizes() -> None:
    with pytest.raises(DeviceNotFound):
        size_bars(Bytes(b""), NETWORK)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (linked((0x40, 1, 0x40), first=0x40), "loops at 0x40"),
        (linked((0x40, 1, 0x80), (0x80, 5, 0x40), first=0x40), "loops at 0x40"),
        (linked((0x40, 1, 0x20), first=0x40), "a capability at 0x20"),
        (linked(first=0x04), "a capability at 0x4"),
    ],
)
def test_a_capability_list_that_cannot_be_is_an_error(config: Bytes, words: str) -> None:
    with pytest.raises(BadConfiguration, match=words):
        capabilities(config, NETWORK)


@pytest.mark.parametrize(
    ("links", "error"),
    [
        ({0x100: 0x200 << 20 | 1 << 16 | 3, 0x200: 0x100 << 20 | 1 << 16 | 4}, "loops at 0x100"),
        ({0x100: 0x080 << 20 | 1 << 16 | 3}, "a capability at 0x80"),
        ({0x100: 0x200 << 20 | 1 << 16 | 3, 0x200: 0xFFFFFFFF}, "answers no more"),
    ],
)
def test_an_extended_list_that_cannot_be_is_an_error(links: dict[int, int], error: str) -> None:
    data = bytearray(linked((0x40, regs.CAP_EXPRESS, 0), first=0x40).data.ljust(4096, b"\0"))
    for at, link in links.items():
        data[at : at + 4] = link.to_bytes(4, "little")
    with pytest.raises(PciError, match=error):
        capabilities(Bytes(bytes(data)), NETWORK)


def test_low_bits_of_links_are_reserved_and_ignored() -> None:
    config = linked((0x40, 1, 0x83), (0x80, 5, 0x02), first=0x43)
    assert [found.at for found in capabilities(config, NETWORK)] == [0x40, 0x80]


def test_a_status_without_the_bit_means_that_there_is_no_list() -> None:
    config = linked((0x40, 1, 0), first=0x40)
    without = bytearray(config.data)
    without[regs.STATUS] = 0
    assert capabilities(Bytes(bytes(without)), NETWORK) == []


@given(st.binary(max_size=300), st.sampled_from([capabilities, size_bars, size_of_space]))
def test_any_bytes_at_all_are_read_to_an_end(
    data: bytes, what: Callable[[Bytes, int], object]
) -> None:
    with contextlib.suppress(BadConfiguration, DeviceNotFound):
        what(Bytes(data), NETWORK)
    found = scan(Bytes(data.ljust(64, b"\0")), ROOTS)
    assert len(found) <= 256 * 256


def test_a_dump_leaves_out_what_nobody_may_read() -> None:
    class Unprivileged(Direct):
        def read(self, sbdf: int, offset: int, size: int) -> int:
            if offset + size > 64:
                raise AccessDenied
            return super().read(sbdf, offset, size)

    config = Unprivileged()
    (network,) = (found for found in scan(config, ROOTS) if found.sbdf == NETWORK)
    assert list(dump(config, [network])) == [
        "0000:00:01.0 Ethernet controller [0200]: 1b36:0005 (rev 03)",
        "00: 36 1b 05 00 00 00 10 00 03 00 00 02 00 00 80 00",
        "10: 00 00 b8 fe 00 00 00 00 01 c0 00 00 00 00 ba fe",
        "20: 00 00 00 00 00 00 00 00 00 00 00 00 36 1b 01 00",
        "30: 00 00 00 00 40 00 00 00 00 00 00 00 00 00 00 00",
        "",
    ]
