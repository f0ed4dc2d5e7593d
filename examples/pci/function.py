"""One emulated function: its configuration space, its interrupts, and what its registers do.

Pure. `Model` describes a function; `Function` is one of it, with state. A write answers with what
follows from it (`Effect`): interrupts to be signalled, an error to be reported. Who has the ports
(emulated.py) performs them.

A write to INJECT sets errors in AER, as a broken link would: those that are masked there stay where
they are; others are reported, fatal if AER's severity says so. The first one's number is kept in
the control register until its status is cleared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from examples.pci import capabilities as caps
from examples.pci import regs
from examples.pci.header import Bar, Identity, bridge_header, device_header
from examples.pci.interrupts import Interrupts
from examples.pci.space import ConfigSpace, Register

_AER = regs.CONVENTIONAL_SIZE
_FIRST_ERROR = 0x1F


@dataclass(frozen=True)
class Signal:
    """The port of that vector is to be signalled."""

    vector: int


@dataclass(frozen=True)
class ErrorReported:
    """An uncorrectable error for the driver to recover from."""

    fatal: bool


Effect = Signal | ErrorReported


@dataclass(frozen=True)
class Model:
    """What a function is made from.

    Attributes:
        bars: by the number of their (first) register.
        capabilities: in the order of the list.
        aer: whether its extended space has Advanced Error Reporting.
        multi_function: whether the device has functions beside this one, its number 0.
        secondary: the bus behind it, for a bridge.
        window: the memory that a bridge forwards.
    """

    identity: Identity
    bars: Mapping[int, Bar] = field(default_factory=dict)
    capabilities: tuple[caps.Capability, ...] = ()
    aer: bool = False
    multi_function: bool = False
    secondary: int | None = None
    window: tuple[int, int] = (0, 0)

    @property
    def size(self) -> int:
        """Bytes of configuration space: extended with PCIe."""
        express = any(cap.identifier == regs.CAP_EXPRESS for cap in self.capabilities)
        return regs.EXTENDED_SIZE if express else regs.CONVENTIONAL_SIZE


class Function:
    """A function of ``model``, after its reset."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.where, registers = caps.place(model.capabilities)
        registers += _header(model)
        if model.aer:
            registers += caps.extended(caps.advanced_error_reporting(), version=2)
        self.space = ConfigSpace(model.size, registers)
        self.interrupts = Interrupts(self.space, self.where)

    def read(self, offset: int, size: int) -> int:
        """See `ConfigSpace.read`."""
        return self.space.read(offset, size)

    def write(self, offset: int, size: int, value: int) -> tuple[Effect, ...]:
        """See `ConfigSpace.write`; returns what follows from it."""
        self.space.write(offset, size, value)
        vectors = self.interrupts.deliver()
        effects: tuple[Effect, ...] = ()
        special = self.where.get(regs.CAP_VENDOR)
        if special is not None and size == 4:
            if offset == special + caps.DOORBELL:
                vectors += self.interrupts.interrupt(value)
            elif offset == special + caps.INJECT and self.model.aer:
                effects = self._inject(value)
        return (*map(Signal, vectors), *effects)

    def reset(self) -> None:
        """As after power-on."""
        self.space.reset()
        self.interrupts.forget()

    def _inject(self, errors: int) -> tuple[Effect, ...]:
        status = self.space.read(_AER + caps.AER_UNCORRECTABLE, 4)
        mask = self.space.read(_AER + caps.AER_MASK, 4)
        severity = self.space.read(_AER + caps.AER_SEVERITY, 4)
        errors &= caps.UNCORRECTABLE_ERRORS
        if errors and not status:
            first = (errors & -errors).bit_length() - 1
            control = self.space.read(_AER + caps.AER_CONTROL, 4)
            self.space.set(_AER + caps.AER_CONTROL, 4, control & ~_FIRST_ERROR | first)
        self.space.set(_AER + caps.AER_UNCORRECTABLE, 4, status | errors)
        reported = errors & ~mask
        return (ErrorReported(bool(reported & severity)),) if reported else ()


def _header(model: Model) -> list[Register]:
    first = caps.FIRST if model.capabilities else 0
    if model.secondary is None:
        return device_header(
            model.identity,
            model.bars,
            capabilities=first,
            multi_function=model.multi_function,
        )
    return bridge_header(
        model.identity, capabilities=first, secondary=model.secondary, window=model.window
    )
