"""What code inside a domain uses of the hypervisor: hypercalls as methods.

A `Guest` is made by the hypervisor for one domain, and speaks for that domain alone. The same
methods work in thread placement (`LocalGuest`: asks the hypervisor's actor) and in process
placement (`SocketGuest` in boot.py: frames on a socket). `EventChannel` is a port with its two
signals.

Who wakes whom: `EventChannel.send` makes the other end's eventfd readable, without the hypervisor.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from typing import Any

from actors import Fd, Message, Ref
from hypervisor import errors
from hypervisor import hypercalls as hc
from hypervisor.memory import Mapping, Region

_TIMEOUT = (
    10.0  # seconds for a hypercall: it never waits for a peer, so this is a fault, not a delay
)


class EventChannel:
    """One end of an event channel: a port number, and the two eventfds behind it."""

    def __init__(self, port: int, mine: Fd, theirs: Fd) -> None:
        self.port = port
        self._mine = mine
        self._theirs = theirs
        self._their_number = theirs.fileno()

    def fileno(self) -> int:
        """The descriptor that is readable while an event is pending at this end."""
        return self._mine.fileno()

    def send(self) -> None:
        """Raise an event at the other end. Events coalesce; this never blocks."""
        raise_event(self._their_number)

    def clear(self) -> None:
        """Take the pending event, if any."""
        clear_event(self._mine.fileno())

    def close_signals(self) -> None:
        """Close the descriptors; the port itself is closed by `Guest.close_port`. Idempotent."""
        self._their_number = -1
        self._mine.close()
        self._theirs.close()


def new_event() -> Fd:
    """An eventfd in the form that event channels use: non-blocking, closed on exec."""
    return Fd(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))


def raise_event(number: int) -> None:
    """Make the eventfd readable. One that is full is readable already."""
    try:
        os.eventfd_write(number, 1)
    except BlockingIOError:
        return


def clear_event(number: int) -> None:
    """Make the eventfd not readable."""
    try:
        os.eventfd_read(number)
    except BlockingIOError:
        return


class Guest(ABC):
    """A domain's view of the hypervisor.

    Every method raises a `HypercallError` when the hypervisor refuses it, and `DomainDead` when the
    domain may not call any more.
    """

    def __init__(self, domid: int, name: str) -> None:
        self.domid = domid
        self.name = name

    @abstractmethod
    def hypercall(self, call: Message) -> Any:
        """Make one hypercall and wait for its answer."""

    def grant_access(self, grantee: int, region: Region, *, readonly: bool = False) -> int:
        """Let domain ``grantee`` map the whole region; returns the grant reference.

        Raises:
            ValueError: read-only, but the region was not made ``readonly_to_peers``, so that the
                kernel would not enforce it.
        """
        if readonly and not region.readonly_to_peers:
            raise ValueError("a read-only grant needs a region made with readonly_to_peers")
        memory = Fd(os.dup(region.fd))
        try:
            return int(self.hypercall(hc.GrantAccess(grantee, memory, 0, region.size, readonly)))
        finally:
            memory.close()

    def end_access(self, gref: int) -> None:
        """Withdraw a grant that nobody maps; refused while somebody does."""
        self.hypercall(hc.EndAccess(gref))

    def revoke(self, gref: int) -> None:
        """Withdraw a grant at once: nobody can map it any more.

        What the grantee has mapped already is taken from it by `Region.renew` or `Region.close`.
        """
        self.hypercall(hc.Revoke(gref))

    def map_grant_ref(self, granter: int, gref: int) -> Mapping:
        """Map what ``granter`` granted to this domain."""
        granted = self.hypercall(hc.MapGrantRef(granter, gref))
        try:
            return Mapping(
                granted.memory.fileno(), granted.offset, granted.length, readonly=granted.readonly
            )
        finally:
            granted.memory.close()

    def unmap_grant_ref(self, granter: int, gref: int, mapping: Mapping) -> None:
        """Unmap, and tell the hypervisor so."""
        mapping.close()
        self.hypercall(hc.UnmapGrantRef(granter, gref))

    def alloc_unbound(self, remote: int, wake: Fd) -> EventChannel:
        """A port that ``remote`` may bind. Its events make ``wake``, an eventfd of ours, readable:
        as in Xen, many ports may share one upcall. ``wake`` stays the caller's.
        """
        return _channel(self.hypercall(hc.AllocUnbound(remote, wake)))

    def bind_interdomain(self, remote: int, remote_port: int) -> EventChannel:
        """Bind a new port to ``remote_port`` of domain ``remote``."""
        return _channel(self.hypercall(hc.BindInterdomain(remote, remote_port)))

    def close_port(self, channel: EventChannel) -> None:
        """Close this end."""
        channel.close_signals()
        self.hypercall(hc.ClosePort(channel.port))

    def advertise(self, device: str) -> None:
        """This domain serves ``device`` from now on."""
        self.hypercall(hc.Advertise(device))

    def connect(self, device: str, channel: int) -> None:
        """Ask for ``device``; `PeerState` messages about ``channel`` follow."""
        self.hypercall(hc.Connect(device, channel))

    def switch(self, front: tuple[int, int], epoch: int, state: str, details: Any = None) -> None:
        """Say a new state to the other end of the pairing."""
        self.hypercall(hc.Switch(*front, epoch, state, details))

    def complain(self, channel: int, epoch: int, text: str, *, broken: bool) -> None:
        """Report the back end of ``channel`` as silent, or as breaking the protocol."""
        self.hypercall(hc.Complain(channel, epoch, broken, text))


class LocalGuest(Guest):
    """A domain in the hypervisor's own process."""

    def __init__(self, domid: int, name: str, hypervisor: Ref) -> None:
        super().__init__(domid, name)
        self._hypervisor = hypervisor

    def hypercall(self, call: Message) -> Any:
        return unwrap(self._hypervisor.ask(hc.Hypercall(self.domid, call), timeout=_TIMEOUT))


def unwrap(answer: Any) -> Any:
    """The value of an answer; a refusal becomes the error that it names."""
    if isinstance(answer, hc.Refused):
        kind = getattr(errors, answer.error, errors.HypercallError)
        raise kind(answer.text)
    return answer


def _channel(port: hc.Port) -> EventChannel:
    return EventChannel(port.port, port.mine, port.theirs)
