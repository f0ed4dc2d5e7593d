"""Which port of which domain is bound to which: the event channel table, without any signal in it.

Pure. Names follow xen/include/public/event_channel.h. An event carries no data and coalesces; the
signal itself is an eventfd that the two ends hold, and never passes through this table. A port is
UNBOUND (allocated for one named remote domain), INTERDOMAIN (bound) or gone. Only the remote domain
that was named may bind a port, once; it takes the signals out of the table, which has no more use
for them. Closing one end leaves the other where it is, to be closed by its own domain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from hypervisor.errors import BadPort

Signals = TypeVar("Signals")


@dataclass
class PortEntry(Generic[Signals]):
    """One end of an event channel. ``signals`` waits, for both ends, until the port is bound."""

    domid: int
    port: int
    remote_domid: int
    signals: Signals | None = None
    remote_port: int | None = None


class EventChannels(Generic[Signals]):
    """The ports of every domain of a machine."""

    def __init__(self) -> None:
        self._ports: dict[tuple[int, int], PortEntry[Signals]] = {}
        self._next: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._ports)

    def alloc_unbound(self, domid: int, remote_domid: int, signals: Signals) -> int:
        """A new port of ``domid`` that only ``remote_domid`` may bind; returns its number."""
        entry = self._add(domid, remote_domid)
        entry.signals = signals
        return entry.port

    def bind_interdomain(
        self, domid: int, remote_domid: int, remote_port: int
    ) -> tuple[int, Signals]:
        """Bind a new port of ``domid`` to the remote one; returns it and the signals of both.

        Raises:
            BadPort: no such port, already bound, or meant for another domain.
        """
        remote = self._ports.get((remote_domid, remote_port))
        if remote is None or remote.remote_domid != domid or remote.signals is None:
            raise BadPort(f"domain {remote_domid} has no port {remote_port} for domain {domid}")
        entry = self._add(domid, remote_domid)
        entry.remote_port, remote.remote_port = remote_port, entry.port
        signals, remote.signals = remote.signals, None
        return entry.port, signals

    def close(self, domid: int, port: int) -> Signals | None:
        """Close one end; returns the signals that nobody took.

        Raises:
            BadPort: the domain has no such port.
        """
        entry = self._ports.pop((domid, port), None)
        if entry is None:
            raise BadPort(f"domain {domid} has no port {port}")
        return entry.signals

    def close_all(self, domid: int) -> list[Signals]:
        """The domain has died: close every port of it; returns the signals that nobody took."""
        mine = [key for key in self._ports if key[0] == domid]
        left = [self._ports.pop(key).signals for key in mine]
        return [signals for signals in left if signals is not None]

    def _add(self, domid: int, remote_domid: int) -> PortEntry[Signals]:
        port = self._next.get(domid, 1)  # port 0 is never valid, as in Xen
        self._next[domid] = port + 1
        entry: PortEntry[Signals] = PortEntry(domid, port, remote_domid)
        self._ports[domid, port] = entry
        return entry
