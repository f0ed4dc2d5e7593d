"""The actor of a back end that raises interrupts: a `BackEndActor` whose driver has event channels.

A driver is a plain object that knows no guest; one that names this `runner` gets `OwnedPorts` as
the first argument of its ``on_start``. The ports belong to the actor: they are closed whatever ends
it, also a crash, after which nobody asks the driver.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from hypervisor import EventChannel, Guest, HypervisorError
from transport import BackEnd, BackEndActor


class OwnedPorts:
    """The event channels of one driver. For the endpoint's thread alone."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._open: dict[int, EventChannel] = {}

    @property
    def domid(self) -> int:
        """The domain that the ports are in; another incarnation has another one."""
        return self._guest.domid

    def open(self, remote: int, count: int) -> list[EventChannel]:
        """``count`` ports for ``remote`` to bind; all of them, or none.

        What is sent on a port before it is bound is not lost.

        Raises:
            HypercallError: the hypervisor refuses it (no such domain, or too many ports).
        """
        made: list[EventChannel] = []
        try:
            for _ in range(count):
                channel = self._guest.alloc_unbound(remote)
                self._open[channel.port] = channel
                made.append(channel)
        except BaseException:
            self.close(made)
            raise
        return made

    def close(self, channels: Iterable[EventChannel]) -> None:
        """Close ports that were opened here."""
        for channel in channels:
            del self._open[channel.port]
            with suppress(HypervisorError):  # the domain may be ending: then they are closed
                self._guest.close_port(channel)

    def close_all(self) -> None:
        """Close every port. Idempotent."""
        self.close(list(self._open.values()))


class PortsActor(BackEndActor):
    """See the module's text."""

    def __init__(self, guest: Guest, program: type[BackEnd], args: list[Any]) -> None:
        self._ports = OwnedPorts(guest)
        super().__init__(guest, program, [self._ports, *args])

    def on_stop(self) -> None:
        try:
            super().on_stop()
        finally:
            self._ports.close_all()
