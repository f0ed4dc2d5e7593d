"""The configuration space of one function: bytes, and for each bit who may change it.

Pure. A space is made from a table of `Register`: offset, width, reset value, the bits that software
may write, and the bits that it clears by writing 1. All other bits are read-only, and a byte that
no register covers reads 0 (PCI Local Bus 3.0, 6.1: reserved). `read` and `write` are software's
side; `set` and `reset` are the device's own.

Access rules (`check_access`): 1, 2 or 4 bytes, aligned to their size, within 4096 bytes; anything
else is refused. What lies behind the end of a 256 byte space is not implemented: reads are all
ones, writes are dropped, as on a bus where nobody answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from examples.pci import regs
from examples.pci.errors import InvalidOffset
from examples.pci.protocol import all_ones

_SIZES = (1, 2, 4)


@dataclass(frozen=True)
class Register:
    """One row of the table.

    Attributes:
        offset, width: in bytes.
        reset: the value after a reset.
        writable: the bits that a write sets to what is written.
        clears: the bits that a write of 1 clears (RW1C), and a write of 0 leaves alone.
    """

    offset: int
    width: int
    reset: int = 0
    writable: int = 0
    clears: int = 0

    def at(self, base: int) -> Register:
        """The same register in a structure that begins at ``base``."""
        return Register(base + self.offset, self.width, self.reset, self.writable, self.clears)


def check_access(offset: int, size: int) -> None:
    """Raises `InvalidOffset` for an access that no function is asked to do."""
    if size not in _SIZES:
        raise InvalidOffset(f"an access has 1, 2 or 4 bytes, not {size}")
    if not 0 <= offset < regs.EXTENDED_SIZE:
        raise InvalidOffset(f"offset {offset:#x} is outside of configuration space")
    if offset % size:
        raise InvalidOffset(f"offset {offset:#x} is not aligned to {size} bytes")


class ConfigSpace:
    """``size`` bytes made from ``registers``.

    Raises:
        ValueError: two registers overlap, or one of them does not fit its width or the space.
    """

    def __init__(self, size: int, registers: Iterable[Register]) -> None:
        self.size = size
        reset, writable, clears = bytearray(size), bytearray(size), bytearray(size)
        taken: set[int] = set()
        for register in registers:
            start, width = register.offset, register.width
            covered = range(start, start + width)
            if start < 0 or start + width > size or not taken.isdisjoint(covered):
                raise ValueError(f"{register} overlaps another one, or the end")
            if register.writable & register.clears:
                raise ValueError(f"{register} has bits of two kinds")
            taken.update(covered)
            for target, value in (
                (reset, register.reset),
                (writable, register.writable),
                (clears, register.clears),
            ):
                if not 0 <= value <= all_ones(width):
                    raise ValueError(f"{register} has a value that is wider than itself")
                target[start : start + width] = value.to_bytes(width, "little")
        self._reset, self._writable, self._clears = bytes(reset), bytes(writable), bytes(clears)
        self._bytes = reset

    def read(self, offset: int, size: int) -> int:
        """What software reads.

        Raises:
            InvalidOffset: see `check_access`.
        """
        check_access(offset, size)
        if offset >= self.size:
            return all_ones(size)
        return self._get(self._bytes, offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        """Let software write the low ``size`` bytes of ``value``.

        Raises:
            InvalidOffset: see `check_access`.
        """
        check_access(offset, size)
        if offset >= self.size:
            return
        value &= all_ones(size)
        writable = self._get(self._writable, offset, size)
        clears = self._get(self._clears, offset, size)
        old = self._get(self._bytes, offset, size)
        self.set(offset, size, (old & ~writable | value & writable) & ~(value & clears))

    def set(self, offset: int, size: int, value: int) -> None:
        """Let the device itself change a register, whoever else may."""
        self._bytes[offset : offset + size] = value.to_bytes(size, "little")

    def reset(self) -> None:
        """Give every register its reset value."""
        self._bytes[:] = self._reset

    @staticmethod
    def _get(of: bytes | bytearray, offset: int, size: int) -> int:
        return int.from_bytes(of[offset : offset + size], "little")
