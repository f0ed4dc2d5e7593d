"""MSI and MSI-X of one function: which vectors are enabled, masked, pending.

Pure: works on the function's configuration space, and answers with the vectors whose ports are to
be signalled now. Rules (PCI Local Bus 3.0, 6.8):

1. MSI and MSI-X exclude each other; enabling while one of them is enabled is refused.
2. MSI: a power of two of vectors, from 0, at most as many as the function has. MSI-X: any entries
   of the table, each once.
3. A vector that is raised while it is masked becomes pending; the write that unmasks it delivers
   it, once. MSI has a mask for each vector; of MSI-X only the function mask lies in configuration
   space (the table's own lie in memory, which this protocol does not reach).
4. A vector that is not enabled is lost when it is raised: there is no interrupt pin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from examples.pci import capabilities as caps
from examples.pci import regs
from examples.pci.errors import NotImplementedOperation, OperationFailed
from examples.pci.space import ConfigSpace

_MSI_ENABLE = 1 << 0
_MSI_MULTIPLE = 7 << 4
_MSIX_ENABLE, _MSIX_MASK = 1 << 15, 1 << 14
_MSIX_SIZE = 0x07FF


class Interrupts:
    """``where``: the places of the function's capabilities in ``space``."""

    def __init__(self, space: ConfigSpace, where: Mapping[int, int]) -> None:
        self._space = space
        self._where = where
        self._pending: set[int] = set()
        self.kind: int | None = None  # CAP_MSI or CAP_MSIX while enabled
        self.vectors: tuple[int, ...] = ()  # those that are enabled

    def enable_msi(self, count: int) -> None:
        """Enable vectors 0 to ``count`` - 1.

        Raises:
            NotImplementedOperation: the function has no MSI.
            OperationFailed: enabled already, or it cannot have so many.
        """
        control = self._disabled(regs.CAP_MSI, "MSI")
        most = 1 << (control >> 1 & 7)
        if count.bit_count() != 1 or count > most:
            raise OperationFailed(f"{count} vectors of MSI; it may be 1 to {most}, a power of two")
        self._enable(regs.CAP_MSI, range(count))
        self._control(regs.CAP_MSI, control | _MSI_ENABLE | (count.bit_length() - 1) << 4)

    def enable_msix(self, entries: Sequence[int]) -> None:
        """Enable these entries of the MSI-X table.

        Raises:
            NotImplementedOperation: the function has no MSI-X.
            OperationFailed: enabled already, or there are no such entries.
        """
        control = self._disabled(regs.CAP_MSIX, "MSI-X")
        size = (control & _MSIX_SIZE) + 1
        if not entries or len(set(entries)) != len(entries) or not set(entries) <= {*range(size)}:
            raise OperationFailed(f"entries {list(entries)!r:.80} of an MSI-X table of {size}")
        self._enable(regs.CAP_MSIX, entries)
        self._control(regs.CAP_MSIX, control | _MSIX_ENABLE)

    def disable(self, kind: int) -> bool:
        """Disable what is enabled of that kind. False: it was not. What is pending is lost."""
        if self.kind != kind:
            return False
        off = _MSI_ENABLE | _MSI_MULTIPLE if kind == regs.CAP_MSI else _MSIX_ENABLE
        self._control(kind, self._read(kind) & ~off)
        self.forget()
        return True

    def forget(self) -> None:
        """The function was reset: nothing is enabled or pending."""
        self.kind, self.vectors = None, ()
        self._pending.clear()
        if regs.CAP_MSI in self._where:
            self._show_pending()

    def interrupt(self, vector: int) -> tuple[int, ...]:
        """The device raises a vector; returns what to signal now."""
        if vector not in self.vectors:
            return ()
        self._pending.add(vector)
        return self.deliver()

    def deliver(self) -> tuple[int, ...]:
        """What is pending and not masked (any more); to be called after each write."""
        if not self._pending:
            return ()
        now = tuple(sorted(vector for vector in self._pending if not self._masked(vector)))
        self._pending.difference_update(now)
        if self.kind == regs.CAP_MSI:
            self._show_pending()
        return now

    def _masked(self, vector: int) -> bool:
        if self.kind == regs.CAP_MSIX:
            return bool(self._read(regs.CAP_MSIX) & _MSIX_MASK)
        at = self._where[regs.CAP_MSI] + caps.MSI_MASK
        return bool(self._space.read(at, 4) >> vector & 1)

    def _show_pending(self) -> None:
        at = self._where[regs.CAP_MSI] + caps.MSI_PENDING
        self._space.set(at, 4, sum(1 << vector for vector in self._pending))

    def _disabled(self, kind: int, name: str) -> int:
        if kind not in self._where:
            raise NotImplementedOperation(f"the function has no {name}")
        if self.kind is not None:
            raise OperationFailed("its interrupts are enabled already")
        return self._read(kind)

    def _enable(self, kind: int, vectors: Sequence[int]) -> None:
        self.kind, self.vectors = kind, tuple(vectors)

    def _read(self, kind: int) -> int:
        return self._space.read(self._where[kind] + caps.CONTROL, 2)

    def _control(self, kind: int, value: int) -> None:
        self._space.set(self._where[kind] + caps.CONTROL, 2, value)
