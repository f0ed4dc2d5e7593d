"""The first 64 bytes of a function: identity, command and status, base address registers.

Pure: tables of `Register` (space.py) for a device (type 0) and a bridge (type 1), and `Bar`, which
says what one base address register decodes. A BAR of 2**n bytes has n low bits that never change,
which is how software finds its size: it writes all ones and reads back.

Source: PCI Local Bus 3.0 chapter 6.1 and 6.2.5; PCI-to-PCI Bridge 1.2 chapter 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from examples.pci import regs
from examples.pci.space import Register

_COMMAND = 0x0547  # I/O, memory, master, parity, SERR#, INTx off; the others do not exist in PCIe
_STATUS_ERRORS = 0xF900  # parity, aborts, SERR#: cleared by writing 1
_SMALLEST = {True: 4, False: 16}  # bytes that a BAR decodes at least: I/O, memory
_LARGEST_IO = 256


@dataclass(frozen=True)
class Bar:
    """One base address register.

    Attributes:
        size: bytes, a power of two.
        base: the address that the firmware has chosen, aligned to the size.
        io: I/O ports, not memory.
        wide: 64 bits; takes the next register too.
        prefetchable: reading has no side effects.

    Raises:
        ValueError: there is no such BAR.
    """

    size: int
    base: int
    io: bool = False
    wide: bool = False
    prefetchable: bool = False

    def __post_init__(self) -> None:
        limit = _LARGEST_IO if self.io else 1 << (63 if self.wide else 31)
        if self.size.bit_count() != 1 or not _SMALLEST[self.io] <= self.size <= limit:
            raise ValueError(f"a BAR of {self.size} bytes")
        if self.base % self.size or self.base >> (64 if self.wide else 32):
            raise ValueError(f"a BAR of {self.size} bytes at {self.base:#x}")
        if self.io and (self.wide or self.prefetchable):
            raise ValueError("I/O ports are neither 64 bits wide nor prefetchable")

    @property
    def flags(self) -> int:
        """The low bits of the register."""
        if self.io:
            return regs.BAR_IO
        return self.wide * regs.BAR_64 | self.prefetchable * regs.BAR_PREFETCH

    def registers(self, index: int) -> list[Register]:
        """The one or two registers that it takes, from number ``index`` on."""
        value, mask = self.base | self.flags, ~(self.size - 1)
        return [
            Register(
                regs.BAR_0 + 4 * (index + half),
                4,
                value >> 32 * half & 0xFFFFFFFF,
                mask >> 32 * half & 0xFFFFFFFF,
            )
            for half in range(1 + self.wide)
        ]


@dataclass(frozen=True)
class Identity:
    """Who a function says it is; ``kind`` is its class code, 24 bits."""

    vendor: int
    device: int
    kind: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


def device_header(
    identity: Identity, bars: Mapping[int, Bar], *, capabilities: int, multi_function: bool = False
) -> list[Register]:
    """A type 0 header. ``capabilities``: where the list begins, 0 for none."""
    header_type = regs.HEADER_NORMAL | multi_function * regs.MULTI_FUNCTION
    return [
        *_common(identity, header_type, capabilities),
        Register(0x2C, 2, identity.subsystem_vendor),
        Register(0x2E, 2, identity.subsystem),
        *_bars(bars, regs.BARS[regs.HEADER_NORMAL]),
    ]


def bridge_header(
    identity: Identity, *, capabilities: int, secondary: int, window: tuple[int, int]
) -> list[Register]:
    """A type 1 header as the firmware left it.

    ``secondary`` is the bus behind it, and the last one; ``window`` is the first and last address
    of the memory that it forwards, in steps of 1 MiB.
    """
    first, last = (address >> 16 & 0xFFF0 for address in window)
    return [
        *_common(identity, regs.HEADER_BRIDGE, capabilities),
        Register(0x18, 1, 0, 0xFF),  # primary
        Register(regs.SECONDARY_BUS, 1, secondary, 0xFF),
        Register(0x1A, 1, secondary, 0xFF),  # subordinate
        Register(0x1C, 1, 0xF0, 0xF0),  # I/O base and limit: none is forwarded
        Register(0x1D, 1, 0x00, 0xF0),
        Register(0x1E, 2, 0, clears=_STATUS_ERRORS),
        Register(0x20, 2, first, 0xFFF0),
        Register(0x22, 2, last, 0xFFF0),
        Register(0x24, 2, 0xFFF1, 0xFFF0),  # prefetchable memory, 64 bits: none is forwarded
        Register(0x26, 2, 0x0001, 0xFFF0),
        Register(0x28, 4, 0, 0xFFFFFFFF),
        Register(0x2C, 4, 0, 0xFFFFFFFF),
        Register(0x3E, 2, 0, 0x0043),  # parity, SERR#, bus reset
    ]


def _common(identity: Identity, header_type: int, capabilities: int) -> list[Register]:
    status = regs.STATUS_CAPABILITIES if capabilities else 0
    return [
        Register(regs.VENDOR_ID, 2, identity.vendor),
        Register(0x02, 2, identity.device),
        Register(regs.COMMAND, 2, 0, _COMMAND),
        Register(regs.STATUS, 2, status, clears=_STATUS_ERRORS),
        Register(regs.CLASS_REVISION, 1, identity.revision),
        Register(0x09, 3, identity.kind),
        Register(0x0C, 1, 0, 0xFF),  # cache line size: may be written, means nothing
        Register(regs.HEADER_TYPE, 1, header_type),
        Register(regs.CAPABILITY_LIST, 1, capabilities),
        Register(0x3C, 1, 0, 0xFF),  # interrupt line: there is no pin that it would be of
    ]


def _bars(bars: Mapping[int, Bar], count: int) -> list[Register]:
    if any(not 0 <= index < count - bar.wide for index, bar in bars.items()):
        raise ValueError(f"there are {count} base address registers")
    return [register for index, bar in bars.items() for register in bar.registers(index)]
