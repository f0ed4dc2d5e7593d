"""What software finds out about a bus by its configuration space alone.

Pure but for the accesses, which `Config` does: enumeration, sizes of BARs, capability lists.
Nothing here believes a device: a capability list that loops, or points into the header, is an error
(`BadConfiguration`), and a bus that two bridges claim is visited once.

Source: PCI Local Bus 3.0, 6.1, 6.2.5.1, 6.7; PCI Express 3.0, 7.9.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from examples.pci import regs
from examples.pci.errors import AccessDenied, BadConfiguration, DeviceNotFound
from examples.pci.protocol import sbdf_of, slot_name

_UNIMPLEMENTED = 0xFFFFFFFF


class Config(Protocol):
    """Accesses to configuration space; sizes are 1, 2 or 4 bytes."""

    def read(self, sbdf: int, offset: int, size: int) -> int:
        """The value; all ones where nobody answers."""

    def write(self, sbdf: int, offset: int, size: int, value: int) -> None:
        """Dropped where nobody answers."""


@dataclass(frozen=True)
class Found:
    """A function that answered; ``kind`` is its class code of 24 bits, ``header`` 0, 1 or 2."""

    sbdf: int
    vendor: int
    device: int
    kind: int
    revision: int
    header: int


@dataclass(frozen=True)
class FoundCapability:
    """A structure at offset ``at``; ``version`` is 0 in the first 256 bytes."""

    identifier: int
    at: int
    version: int = 0

    @property
    def name(self) -> str:
        """As in the specification."""
        names = regs.CAPABILITY_NAMES if self.at < regs.CONVENTIONAL_SIZE else regs.EXTENDED_NAMES
        return names.get(self.identifier, f"capability {self.identifier:#04x}")


@dataclass(frozen=True)
class FoundBar:
    """A base address register; ``size`` is None where nobody may write, to find it out."""

    index: int
    base: int
    size: int | None
    io: bool
    wide: bool
    prefetchable: bool


def scan(config: Config, roots: Iterable[tuple[int, int]]) -> list[Found]:
    """Every function on these (domain, bus) and behind their bridges, by address."""
    waiting, seen, found = list(roots), set(), []
    while waiting:
        domain, bus = at = waiting.pop()
        if at in seen:
            continue
        seen.add(at)
        for function in _on_bus(config, domain, bus):
            found.append(function)
            if function.header == regs.HEADER_BRIDGE:
                secondary = config.read(function.sbdf, regs.SECONDARY_BUS, 1)
                waiting.append((domain, secondary))
    return sorted(found, key=lambda function: function.sbdf)


def capabilities(config: Config, sbdf: int) -> list[FoundCapability]:
    """The capabilities in the order of the list, those of the extended space last.

    Raises:
        BadConfiguration: a list loops, or points to where no structure can be.
    """
    return [*_conventional(config, sbdf), *_extended(config, sbdf)]


def size_of_space(config: Config, sbdf: int) -> int:
    """Bytes of configuration space that are there: 256, or 4096 with PCI Express."""
    express = any(found.identifier == regs.CAP_EXPRESS for found in _conventional(config, sbdf))
    if express and config.read(sbdf, regs.CONVENTIONAL_SIZE, 4) != _UNIMPLEMENTED:
        return regs.EXTENDED_SIZE
    return regs.CONVENTIONAL_SIZE


def size_bars(config: Config, sbdf: int) -> list[FoundBar]:
    """The implemented BARs. While they are sized the function decodes nothing; all is restored.

    Raises:
        DeviceNotFound: it does not answer (any more).
    """
    command = config.read(sbdf, regs.COMMAND, 2)
    try:
        config.write(
            sbdf, regs.COMMAND, 2, command & ~(regs.COMMAND_IO | regs.COMMAND_MEMORY) & 0xFFFF
        )
    except AccessDenied:
        return list(_bars(config, sbdf, writable=False))
    try:
        return list(_bars(config, sbdf, writable=True))
    finally:
        config.write(sbdf, regs.COMMAND, 2, command)


def _on_bus(config: Config, domain: int, bus: int) -> Iterator[Found]:
    for device in range(32):
        functions = 1
        for number in range(8):
            if number >= functions:
                break
            sbdf = sbdf_of(domain, bus, device, number)
            ids = config.read(sbdf, regs.VENDOR_ID, 4)
            if ids & 0xFFFF == regs.NO_VENDOR:
                if number == 0:
                    break
                continue
            header = config.read(sbdf, regs.HEADER_TYPE, 1)
            if header & regs.MULTI_FUNCTION:
                functions = 8
            kind = config.read(sbdf, regs.CLASS_REVISION, 4)
            yield Found(
                sbdf,
                ids & 0xFFFF,
                ids >> 16,
                kind >> 8,
                kind & 0xFF,
                header & ~regs.MULTI_FUNCTION,
            )


def _conventional(config: Config, sbdf: int) -> Iterator[FoundCapability]:
    if not config.read(sbdf, regs.STATUS, 2) & regs.STATUS_CAPABILITIES:
        return
    at = config.read(sbdf, regs.CAPABILITY_LIST, 1) & 0xFC
    seen: set[int] = set()
    while at:
        _check(sbdf, at, seen, lowest=0x40)
        link = config.read(sbdf, at, 2)
        if link == 0xFFFF:
            raise DeviceNotFound(f"{slot_name(sbdf)} answers no more")
        yield FoundCapability(link & 0xFF, at)
        at = link >> 8 & 0xFC


def _extended(config: Config, sbdf: int) -> Iterator[FoundCapability]:
    if size_of_space(config, sbdf) == regs.CONVENTIONAL_SIZE:
        return
    at = regs.CONVENTIONAL_SIZE
    seen: set[int] = set()
    while at:
        _check(sbdf, at, seen, lowest=regs.CONVENTIONAL_SIZE)
        link = config.read(sbdf, at, 4)
        if link == 0:  # an empty list has a first link of zeros
            return
        if link == _UNIMPLEMENTED:
            raise DeviceNotFound(f"{slot_name(sbdf)} answers no more")
        yield FoundCapability(link & 0xFFFF, at, link >> 16 & 0xF)
        at = link >> 20 & 0xFFC


def _check(sbdf: int, at: int, seen: set[int], *, lowest: int) -> None:
    if at < lowest:
        raise BadConfiguration(f"{slot_name(sbdf)}: a capability at {at:#x}")
    if at in seen:
        raise BadConfiguration(f"{slot_name(sbdf)}: its capability list loops at {at:#x}")
    seen.add(at)


def _bars(config: Config, sbdf: int, *, writable: bool) -> Iterator[FoundBar]:
    header = config.read(sbdf, regs.HEADER_TYPE, 1) & ~regs.MULTI_FUNCTION
    count = regs.BARS.get(header, 0)
    index = 0
    while index < count:
        at = regs.BAR_0 + 4 * index
        low = config.read(sbdf, at, 4)
        io = bool(low & regs.BAR_IO)
        wide = not io and low & regs.BAR_TYPE == regs.BAR_64 and index + 1 < count
        value, mask = low, _probe(config, sbdf, at, low) if writable else low
        if wide:
            high = config.read(sbdf, at + 4, 4)
            value |= high << 32
            mask |= (_probe(config, sbdf, at + 4, high) if writable else high) << 32
        flags = regs.BAR_IO_FLAGS if io else regs.BAR_MEMORY_FLAGS
        if mask & ~flags:
            yield FoundBar(
                index,
                value & ~flags,
                _size(mask & ~flags) if writable else None,
                io,
                wide,
                not io and bool(low & regs.BAR_PREFETCH),
            )
        index += 1 + wide
    if config.read(sbdf, regs.VENDOR_ID, 2) == regs.NO_VENDOR:
        raise DeviceNotFound(f"{slot_name(sbdf)} answers no more")


def _probe(config: Config, sbdf: int, at: int, value: int) -> int:
    """Which bits of a BAR can be written; it is put back."""
    config.write(sbdf, at, 4, 0xFFFFFFFF)
    try:
        return config.read(sbdf, at, 4)
    finally:
        config.write(sbdf, at, 4, value)


def _size(mask: int) -> int:
    """The lowest bit that can be written is the size."""
    return mask & -mask
