"""What code inside a simulated domain uses of the hypervisor.

Hypercalls are asks, as in thread placement, and so the scheduler's to order. `SimulatedGuest` is
what all have in common: signals may be lost, or come late. `ControlGuest` is domain 0's: what it
has granted may be revoked by the machine at any time. `ProcessGuest` is that of a domain whose
process (actors/simulated_process.py) may be killed: before and after everything that others can see
of it, it may be over; and what the kernel would take from it at its death is taken from it.

Who wakes whom: a signal is written to the peer's real eventfd, now or by an alarm; the scheduler
sees that it is readable.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from actors import Message, Ref, Scheduler, SimulatedProcess
from hypervisor import hypercalls as hc
from hypervisor.channel_end import EventChannel
from hypervisor.errors import BadPort
from hypervisor.guest import LocalGuest
from hypervisor.memory import Mapping
from hypervisor.simulated_faults import DELAY_SIGNAL, LOSE_SIGNAL, REVOKE
from hypervisor.store_client import StoreClient

P = ParamSpec("P")
T = TypeVar("T")


class SimulatedGuest(LocalGuest):
    """A domain under a scheduler."""

    def __init__(
        self,
        domid: int,
        name: str,
        store: StoreClient,
        hypervisor: Ref,
        simulation: Scheduler,
    ) -> None:
        super().__init__(domid, name, store, hypervisor)
        self._simulation = simulation

    def point(self) -> None:
        """Here something could happen to the domain: others can see what comes next, or came."""

    def channel(self, port: hc.Port) -> EventChannel:
        """See `Guest.channel`."""
        return _SimulatedChannel(port, self, self._simulation)


class ControlGuest(SimulatedGuest):
    """Domain 0."""

    def __init__(
        self,
        domid: int,
        name: str,
        store: StoreClient,
        hypervisor: Ref,
        simulation: Scheduler,
    ) -> None:
        super().__init__(domid, name, store, hypervisor, simulation)
        self._devices: dict[str, None] = {}  # that it has used, in this order

    def point(self) -> None:
        """See `SimulatedGuest.point`."""
        if self._devices and self._simulation.strikes(REVOKE, self.name):
            device = list(self._devices)[self._simulation.choose(len(self._devices))]
            self._hypervisor.tell(hc.RevokeDevice(device), control=True)

    def hypercall(self, call: Message) -> Any:
        """See `Guest.hypercall`."""
        if isinstance(call, hc.Connect):
            self._devices[call.device] = None
        self.point()
        return super().hypercall(call)


class ProcessGuest(SimulatedGuest):
    """A domain whose process may be killed."""

    def __init__(
        self,
        domid: int,
        name: str,
        store: StoreClient,
        hypervisor: Ref,
        simulation: Scheduler,
        process: SimulatedProcess,
    ) -> None:
        super().__init__(domid, name, store, hypervisor, simulation)
        self._process = process

    def point(self) -> None:
        """See `SimulatedProcess.point`."""
        self._process.point()

    def hypercall(self, call: Message) -> Any:
        """See `Guest.hypercall`."""
        self._process.point()
        with self._process.outside():  # what travels with it is the hypervisor's
            answer = super().hypercall(call)
        self._process.point()
        return answer

    def interruptible(self, function: Callable[P, T]) -> Callable[P, T]:
        """See `Guest.interruptible`."""

        @functools.wraps(function)
        def interrupted(*args: P.args, **kwargs: P.kwargs) -> T:
            self._process.point()
            result = function(*args, **kwargs)
            self._process.point()
            return result

        return interrupted

    def channel(self, port: hc.Port) -> EventChannel:
        """See `Guest.channel`."""
        channel = super().channel(port)
        self._process.at_death(channel.close_signals)
        return channel

    def map_grant_ref(self, granter: int, gref: int, *, readonly: bool | None = None) -> Mapping:
        """See `Guest.map_grant_ref`."""
        mapping = super().map_grant_ref(granter, gref, readonly=readonly)
        self._process.at_death(mapping.close)
        return mapping


class _SimulatedChannel(EventChannel):
    def __init__(self, port: hc.Port, guest: SimulatedGuest, simulation: Scheduler) -> None:
        super().__init__(port.port, port.epoch, port.mine, port.theirs)
        self._guest = guest
        self._simulation = simulation

    def send(self) -> None:
        simulation, name = self._simulation, self._guest.name
        self._guest.point()
        if simulation.strikes(LOSE_SIGNAL, name):
            return
        if simulation.strikes(DELAY_SIGNAL, name):
            simulation.later(simulation.delay(), f"a signal of {name}", self._send_late)
        else:
            super().send()
        self._guest.point()

    def _send_late(self) -> None:
        with suppress(BadPort):  # it was closed meanwhile
            super().send()
