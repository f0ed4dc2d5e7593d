"""What code inside a domain uses of the hypervisor: hypercalls as methods.

A `Guest` is made by the hypervisor for one domain, and speaks for that domain alone. The same
methods work in thread placement (`LocalGuest`: asks the hypervisor's actor) and in process
placement (`SocketGuest` in boot.py: frames on a socket). A port that is opened here is an
`EventChannel` (channel_end.py), whose events never pass through the hypervisor.

A domain may use devices, whether it serves one or not. What it is told about a channel of its own
goes from the domain's door straight to that channel's endpoint (`hear`), past the program: so that
a program may wait for an answer of a device whose back end has just been replaced.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar

from actors import Fd, Message, Ref
from hypervisor import errors
from hypervisor import hypercalls as hc
from hypervisor.channel_end import EventChannel, new_event, raise_event
from hypervisor.guest_memory import MemoryCalls
from hypervisor.port_effects import PortInfo, PortStatus, Virq
from hypervisor.publications import Offer
from hypervisor.store_client import StoreClient
from hypervisor.xenbus import XenbusState

TIMEOUT = 10.0
"""Seconds for a hypercall: it never waits for a peer, so this is a fault, not a delay."""


P = ParamSpec("P")
T = TypeVar("T")


class Guest(MemoryCalls):
    """A domain's view of the hypervisor: see also `MemoryCalls`, which it is too.

    Every method raises a `HypercallError` when the hypervisor refuses it, and `DomainDead` when the
    domain may not call any more.

    Attributes:
        store: the machine's store, as this domain may use it.
    """

    def __init__(self, domid: int, name: str, store: StoreClient) -> None:
        super().__init__(domid)
        self.name = name
        self.store = store
        self._channels = itertools.count(1)
        self._endpoints: dict[int, Ref] = {}

    def hear(self, news: hc.News) -> bool:
        if isinstance(news, hc.PeerState) and news.front_domid == self.domid:
            endpoint = self._endpoints.get(news.channel)
            if endpoint is not None:
                endpoint.tell(news, control=True)
            return endpoint is not None
        return super().hear(news)

    def channel(self, port: hc.Port) -> EventChannel:
        """This domain's end of a port that it has just opened."""
        return EventChannel(port.port, port.epoch, port.mine, port.theirs)

    def interruptible(self, function: Callable[P, T]) -> Callable[P, T]:
        """``function`` as this domain calls it, which may die before and after, like anywhere.

        For what a runner calls of its program: only in a simulation is it not the function itself.
        """
        return function

    def alloc_unbound(self, remote: int, wake: Fd | None = None) -> EventChannel:
        """A port that ``remote`` may bind, in the epoch that it is told.

        Its events make ``wake``, an eventfd of ours, readable; without one it gets its own. Many
        ports may share one, as in Xen many share one upcall, if none of them is masked; who held
        such a port once can still make it readable. ``wake`` stays the caller's.

        Raises:
            QuotaExceeded: this domain has as many ports as it may have; so for all that open one.
        """
        return self._open(lambda mine: hc.AllocUnbound(remote, mine), wake)

    def reoffer(self, channel: EventChannel, epoch: int, wake: Fd | None = None) -> EventChannel:
        """After `PortClosed`: let the remote bind the port again, in its new epoch.

        Returns the end anew; the old one is closed. An event that nobody has consumed goes along.

        Raises:
            StalePort: the epoch is not that of the close.
            BadPort: the port does not wait for that.
            HypercallError: the remote domain is dead.
        """
        again = self._open(lambda mine: hc.Reoffer(channel.port, epoch, mine), wake)
        if channel.consume():
            raise_event(again.fileno())
        channel.close_signals()
        return again

    def bind_interdomain(self, remote: int, remote_port: int, remote_epoch: int) -> EventChannel:
        """Bind a new port to ``remote_port`` of domain ``remote``. It has a first event already.

        Raises:
            BadPort: no such port, bound already, or meant for another domain.
            StalePort: that epoch of it is over.
        """
        return self.channel(self.hypercall(hc.BindInterdomain(remote, remote_port, remote_epoch)))

    def bind_virq(self, virq: Virq, wake: Fd | None = None) -> EventChannel:
        """A port that a virtual IRQ is raised on.

        Raises:
            NotPermitted: it is global, and this is not domain 0.
            VirqBound: it is bound already.
        """
        return self._open(lambda mine: hc.BindVirq(virq, mine), wake)

    def bind_ipi(self, wake: Fd | None = None) -> EventChannel:
        """A port that this domain sends on to itself."""
        return self._open(hc.BindIpi, wake)

    def close_port(self, channel: EventChannel) -> None:
        """Close this end; the owner of the other is told."""
        channel.close_signals()
        self.hypercall(hc.ClosePort(channel.port, channel.epoch))

    def reset_ports(self) -> None:
        """Close every port of this domain; `EventChannel.close_signals` remains to be called."""
        self.hypercall(hc.ResetPorts())

    def port_status(self, port: int, of: int | None = None) -> PortInfo:
        """What is at the other end of a port of this domain; domain 0 may ask of any.

        Raises:
            NotPermitted: it is another domain's.
        """
        said = self.hypercall(hc.PortStatus(self.domid if of is None else of, port))
        return PortInfo(
            PortStatus(said.status),
            said.remote,
            said.remote_port,
            None if said.virq is None else Virq(said.virq),
            said.priority,
        )

    def set_priority(self, channel: EventChannel, priority: int) -> None:
        """0 is served first, 15 last, 7 is the default; see `Upcalls` for who serves."""
        self.hypercall(hc.SetPriority(channel.port, channel.epoch, priority))

    def set_timer(self, seconds: float | None) -> None:
        """Have the virtual IRQ TIMER once in so many seconds, and not what was asked for before.

        None: not at all.
        """
        self.hypercall(hc.SetTimer(None if seconds is None else float(seconds)))

    def _open(self, call: Callable[[Fd], Message], wake: Fd | None) -> EventChannel:
        own = new_event() if wake is None else wake
        try:
            return self.channel(self.hypercall(call(own)))
        finally:
            if wake is None:
                own.close()

    def advertise(self, device: str) -> list[tuple[tuple[int, int], int]]:
        """This domain serves ``device`` from now on.

        Returns the pairings with the front ends that waited for it, as (front, epoch). They are
        told by `PeerState` too, as those that follow are; but who is in its start yet, and hears
        nothing, can say InitWait at once.
        """
        pairings = self.hypercall(hc.Advertise(device))
        return [((domid, channel), epoch) for domid, channel, epoch in pairings]

    def unadvertise(self, device: str) -> None:
        """This domain, which serves ``device``, is about to end: no more front ends are paired with
        it. Those that are close in order, and may wait for the next back end.
        """
        self.hypercall(hc.Unadvertise(device))

    def next_channel(self) -> int:
        """A number for one more channel of this domain."""
        return next(self._channels)

    def connect(self, device: str, channel: int, endpoint: Ref | None = None) -> None:
        """Ask for ``device``; `PeerState` messages about ``channel`` follow.

        They go to ``endpoint``, without one to the domain's program, as do those that are late.
        """
        if endpoint is not None:
            self._endpoints[channel] = endpoint
        self.hypercall(hc.Connect(device, channel))

    def disconnect(self, channel: int) -> None:
        """The channel is no more: its back end hears Unknown. Nothing if it is not there."""
        self.hypercall(hc.Disconnect(channel))
        self._endpoints.pop(channel, None)

    def switch(
        self,
        front: tuple[int, int],
        epoch: int,
        state: XenbusState,
        details: Any = None,
        *,
        grants: Iterable[int] = (),
    ) -> None:
        """Say a new state of this end of the pairing, which is told to the other one.

        Args:
            front: the domid and channel number of the front end, whichever end this is.
            details: any msgpack value; the store shows the numbers of a dict.
            grants: references given for this epoch: the hypervisor revokes them at its end.

        Raises:
            StaleEpoch: that epoch is over, and nobody hears of it.
            IllegalTransition: it is not the time for that state; says whose fault it is.
        """
        self.hypercall(hc.Switch(*front, epoch, int(state), details, list(grants)))

    def publish(self, buddy: int, gref: int, channel: EventChannel) -> None:
        """Offer domain ``buddy`` a granted page and an unbound port.

        Raises:
            HypercallError: no such domain, or there is an offer for it already.
        """
        self.hypercall(hc.Publish(buddy, gref, channel.port, channel.epoch))

    def unpublish(self, buddy: int) -> None:
        """Offer domain ``buddy`` nothing any more. What it has mapped and bound stays."""
        self.hypercall(hc.Unpublish(buddy))

    def lookup(self, granter: int) -> Offer:
        """What domain ``granter`` offers to this one.

        Raises:
            NotPublished: nothing.
        """
        return Offer(*self.hypercall(hc.Lookup(granter)))

    def complain(self, channel: int, epoch: int, text: str, *, broken: bool) -> None:
        """Report the back end of ``channel`` as silent, or as breaking the protocol."""
        self.hypercall(hc.Complain(channel, epoch, broken, text))


class LocalGuest(Guest):
    """A domain in the hypervisor's own process."""

    def __init__(self, domid: int, name: str, store: StoreClient, hypervisor: Ref) -> None:
        super().__init__(domid, name, store)
        self._hypervisor = hypervisor
        # It is held over a hypercall: in a simulation who waits for it must let others go on.
        self._numbering = hypervisor.cell.system.runtime.lock(f"a number for memory of {name}")

    def hypercall(self, call: Message) -> Any:
        return unwrap(self._hypervisor.ask(hc.Hypercall(self.domid, call), timeout=TIMEOUT))


def unwrap(answer: Any) -> Any:
    """The value of an answer; a refusal becomes the error that it names."""
    if isinstance(answer, hc.Refused):
        kind = getattr(errors, answer.error, errors.HypercallError)
        raise kind(answer.text)
    return answer
