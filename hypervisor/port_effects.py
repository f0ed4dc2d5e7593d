"""What the event channel table answers: the effects to perform, and what a port is.

Pure, and without any rule: those are in event_channels.py. ``Sig`` is whatever wakes an end; the
table never looks at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from hypervisor.upcall import DEFAULT

Sig = TypeVar("Sig")

CONTROL_DOMAIN = 0


class PortStatus(IntEnum):
    """EVTCHNSTAT_*. There are no physical IRQs here (3)."""

    CLOSED = 0
    UNBOUND = 1
    INTERDOMAIN = 2
    VIRQ = 4
    IPI = 5


class Virq(IntEnum):
    """Virtual IRQ sources, numbered as in xen.h."""

    TIMER = 0
    CONSOLE = 2
    DOM_EXC = 3


GLOBAL_VIRQS = frozenset({Virq.CONSOLE, Virq.DOM_EXC})  # the others: one for each domain


@dataclass(frozen=True, slots=True)
class Raise(Generic[Sig]):
    """Raise ``signal``: an event for that end."""

    domid: int
    port: int
    signal: Sig


@dataclass(frozen=True, slots=True)
class Bound(Generic[Sig]):
    """Tell ``domid`` that its port is bound; ``theirs`` is what it raises from now on."""

    domid: int
    port: int
    epoch: int
    remote_domid: int
    remote_port: int
    theirs: Sig


@dataclass(frozen=True, slots=True)
class PeerClosed:
    """Tell ``domid`` that its port is unbound, in a new ``epoch``, and waits to be offered again.

    ``died``: the domain at the other end is dead, and nobody can ever bind the port.
    """

    domid: int
    port: int
    epoch: int
    remote_domid: int
    died: bool


@dataclass(frozen=True, slots=True)
class Release(Generic[Sig]):
    """That end is closed: the table has no more use for its signal."""

    domid: int
    port: int
    signal: Sig


Effect = Raise[Sig] | Bound[Sig] | PeerClosed | Release[Sig]
Effects = tuple[Effect[Sig], ...]


@dataclass(frozen=True, slots=True)
class Opened(Generic[Sig]):
    """A new port. ``theirs``: what its owner raises to send; None while it is unbound."""

    port: int
    epoch: int
    theirs: Sig | None
    effects: Effects[Sig]


@dataclass(frozen=True, slots=True)
class PortInfo:
    """The answer of `EventChannels.status`; None where a field does not apply."""

    status: PortStatus
    remote_domid: int | None = None
    remote_port: int | None = None
    virq: Virq | None = None
    priority: int = DEFAULT
