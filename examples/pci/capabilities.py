"""The capability structures of an emulated function, and the list that links them.

Pure. A `Capability` is an identifier and a table of registers relative to its own beginning;
`place` puts several one behind the other, writes identifiers and next pointers, and says where each
came to lie. The list of the first 256 bytes has one-byte links, that of the extended space begins
at 0x100 and has 12-bit ones.

Enable bits of MSI and MSI-X are read-only here: interrupts are enabled by operations of their own,
which make the ports (protocol.py), as in Xen's pciback.

Source: PCI Power Management 1.2 chapter 3; PCI Local Bus 3.0 chapter 6.8; PCI Express 3.0 chapters
7.8 and 7.10 (linux/pci_regs.h has the offsets).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from examples.pci import regs
from examples.pci.space import Register

FIRST = 0x40
ENDPOINT, ROOT_PORT, INTEGRATED_ENDPOINT = 0, 4, 9  # device/port types

# Offsets within their structures, for who works with them.
CONTROL = 2
MSI_MASK, MSI_PENDING = 16, 20
DOORBELL, INJECT = 4, 8
AER_UNCORRECTABLE, AER_MASK, AER_SEVERITY = 4, 8, 12
AER_CONTROL = 24
UNCORRECTABLE_ERRORS = 0x007FF030


@dataclass(frozen=True)
class Capability:
    """One structure: ``length`` bytes, ``registers`` without the link at its beginning."""

    identifier: int
    length: int
    registers: Sequence[Register]


def place(capabilities: Sequence[Capability]) -> tuple[dict[int, int], list[Register]]:
    """Where each identifier lies in the first 256 bytes, and all registers."""
    where: dict[int, int] = {}
    found: list[Register] = []
    at = FIRST
    for number, capability in enumerate(capabilities, 1):
        end = at + -(-capability.length // 4) * 4
        found += [
            Register(at, 1, capability.identifier),
            Register(at + 1, 1, end if number < len(capabilities) else 0),
        ]
        found += [register.at(at) for register in capability.registers]
        where[capability.identifier] = at
        at = end
    return where, found


def extended(capability: Capability, version: int) -> list[Register]:
    """The only capability of the extended space."""
    link = Register(regs.CONVENTIONAL_SIZE, 4, capability.identifier | version << 16)
    return [link, *(register.at(regs.CONVENTIONAL_SIZE) for register in capability.registers)]


def power_management() -> Capability:
    """Version 3; D0 and D3hot, a wake-up (PME) from both, registers kept in D3hot."""
    return Capability(
        regs.CAP_PM,
        8,
        [
            Register(2, 2, 0x0003 | 1 << 11 | 1 << 14),
            Register(4, 2, 1 << 3, writable=0x0103, clears=1 << 15),  # state, PME on; PME status
        ],
    )


def msi(vectors: int) -> Capability:
    """MSI of ``vectors`` (a power of two up to 32), 64-bit address, a mask for each vector."""
    lines = (1 << vectors) - 1
    return Capability(
        regs.CAP_MSI,
        24,
        [
            Register(CONTROL, 2, (vectors.bit_length() - 1) << 1 | 1 << 7 | 1 << 8),
            Register(4, 4, 0, 0xFFFFFFFC),
            Register(8, 4, 0, 0xFFFFFFFF),
            Register(12, 2, 0, 0xFFFF),
            Register(MSI_MASK, 4, 0, lines),
            Register(MSI_PENDING, 4),
        ],
    )


def msix(vectors: int, bar: int, table: int, pending: int) -> Capability:
    """MSI-X; ``table`` and ``pending`` (the PBA) are offsets in base address register ``bar``."""
    return Capability(
        regs.CAP_MSIX,
        12,
        [
            Register(CONTROL, 2, vectors - 1, writable=1 << 14),  # function mask
            Register(4, 4, table | bar),
            Register(8, 4, pending | bar),
        ],
    )


def express(kind: int, speed: int, width: int) -> Capability:
    """PCI Express, version 2. ``speed``: 1 is 2.5 GT/s, 3 is 8; ``width`` in lanes."""
    link = speed | width << 4
    if kind == INTEGRATED_ENDPOINT:
        link = 0
    return Capability(
        regs.CAP_EXPRESS,
        60,
        [
            Register(2, 2, 2 | kind << 4),
            Register(4, 4, 1 | 1 << 5 | 1 << 15),  # payload 256 bytes, extended tags, error roles
            Register(8, 2, 0x2810, 0x7FFF),  # payload 128, requests 512 bytes, relaxed ordering
            Register(10, 2, clears=0x000F),
            Register(12, 4, link),
            Register(16, 2, 0, 0x00C3 if link else 0),
            Register(18, 2, link),
            Register(0x24, 4, 1 << 4),  # completion timeouts can be turned off
            Register(0x28, 2, 0, 1 << 4),
            Register(0x2C, 4, ((1 << speed) - 1) << 1 if link else 0),
            Register(0x30, 2, speed if link else 0, 0x000F if link else 0),
        ],
    )


def vendor() -> Capability:
    """What our devices have in the place of memory: two registers that make something happen.

    Four bytes written to DOORBELL raise the interrupt of that number; written to INJECT they become
    uncorrectable errors (the bits of AER). Both read 0.
    """
    registers = [Register(2, 1, 12), Register(DOORBELL, 4), Register(INJECT, 4)]
    return Capability(regs.CAP_VENDOR, 12, registers)


def advanced_error_reporting() -> Capability:
    """AER of an endpoint, version 2 of the structure."""
    uncorrectable, correctable = UNCORRECTABLE_ERRORS, 0x0000F1C1
    return Capability(
        regs.EXT_CAP_AER,
        0x48,
        [
            Register(AER_UNCORRECTABLE, 4, clears=uncorrectable),
            Register(AER_MASK, 4, 0, uncorrectable),
            Register(AER_SEVERITY, 4, 0x00462030, uncorrectable),
            Register(16, 4, clears=correctable),
            Register(20, 4, 1 << 13, correctable),  # advisory errors are masked
            Register(AER_CONTROL, 4),
        ],
    )
