"""The words between a domain and the hypervisor: every hypercall, notification and frame.

All are declared messages: they travel as msgpack, with file descriptors beside them, over an
actor's mailbox (thread placement) or an AF_UNIX SEQPACKET socket (process placement), unchanged.
None says who is speaking: the hypervisor knows that by the socket or by the guest object that it
made.
"""

from __future__ import annotations

from typing import Any

from actors import Fd, Message, Ref
from hypervisor.hardening import Hardening

# --- hypercalls (xen/include/public: grant_table.h, event_channel.h) ------------------------------


class PopulateMemory(Message):
    """The sealed memfd ``memory`` of ``size`` bytes is this domain's own. Answered by its number.

    Memory is known by that number (int) from then on.
    """

    memory: Fd
    size: int


class ReleaseMemory(Message):
    """This domain needs that memory no more; refused while any of it is granted."""

    memory: int


class GrantAccess(Message):
    """Answered by the grant reference (int). ``rights``: the flags of grant_effects.Rights."""

    grantee: int
    memory: int
    offset: int
    length: int
    rights: int


class GrantTransitive(Message):
    """Grant on a range of what ``granter`` granted to this domain; answered by the new gref."""

    grantee: int
    granter: int
    gref: int
    offset: int
    length: int
    rights: int


class Revoke(Message):
    """Withdraw a grant, whoever maps it; answered by `Withdrawn`."""

    gref: int


class RevokePages(Message):
    """Withdraw every grant of those pages of this domain's memory; answered by `Withdrawn`."""

    memory: int
    offset: int
    length: int


class Withdrawn(Message):
    """What the caller must exchange now, as [memory, offset, length]; `Region.renew` does it."""

    spans: list[tuple[int, int, int]]


class EndAccess(Message):
    """Withdraw a grant that nobody maps; refused while it is in use."""

    gref: int


class MapGrantRef(Message):
    """Answered by `Granted`. ``readonly`` None: as it was granted."""

    granter: int
    gref: int
    readonly: bool | None


class Granted(Message):
    """``handle`` is for `UnmapGrantRef`."""

    handle: int
    memory: Fd
    offset: int
    length: int
    readonly: bool


class UnmapGrantRef(Message):
    handle: int


class OwnSide(Message):
    """One side of a copy: this domain's memory."""

    memory: int
    offset: int


class GrantSide(Message):
    """One side of a copy: what ``granter`` granted to this domain; ``offset`` is within that."""

    granter: int
    gref: int
    offset: int


class GrantCopy(Message):
    """Copy without mapping. Each side is an `OwnSide` or a `GrantSide`."""

    source: Message
    dest: Message
    length: int


class AcceptTransfer(Message):
    """Answered by a gref that ``giver`` may transfer up to ``size`` bytes to."""

    giver: int
    size: int


class Transfer(Message):
    """Make this domain's memory the receiver's own, who gave the gref for it."""

    memory: int
    receiver: int
    gref: int


class QueryGrant(Message):
    """What has become of a grant of this domain? Answered by `GrantIs`."""

    gref: int


class GrantIs(Message):
    """See grant_effects.GrantState."""

    grantee: int
    memory: int
    offset: int
    length: int
    rights: int
    parent: tuple[int, int] | None
    children: list[tuple[int, int]]
    mapped_by: dict[int, int]


class QueryUsage(Message):
    """What does domain ``of`` have? Domain 0 may ask of any. Answered by `UsageIs`."""

    of: int


class UsageIs(Message):
    """See grant_quota.GrantUsage."""

    memory: int
    grants: int
    mapped: int
    mappings: int
    orphans: int
    regions: int


class AllocUnbound(Message):
    """A port for ``remote`` to bind. ``wake``: the eventfd that shall be signalled at our end.

    Answered by `Port`, as the other three that open a port are. ``theirs`` is there already: what
    is sent before the bind waits in it for who binds.
    """

    remote: int
    wake: Fd


class Reoffer(Message):
    """Let the remote bind the port again after `PortClosed`, whose epoch this is; a fresh ``wake``.

    Answered by `Port`.
    """

    port: int
    epoch: int
    wake: Fd


class BindInterdomain(Message):
    """Bind to ``remote_port`` of ``remote``, in the epoch that ``remote`` was told."""

    remote: int
    remote_port: int
    remote_epoch: int


class BindVirq(Message):
    """Have a virtual IRQ (port_effects.Virq) on a new port."""

    virq: int
    wake: Fd


class BindIpi(Message):
    """A port that this domain sends on to itself."""

    wake: Fd


class Port(Message):
    """A port, the eventfd that wakes this end, and the one that wakes the other; None: a virq's."""

    port: int
    epoch: int
    mine: Fd
    theirs: Fd | None


class ClosePort(Message):
    port: int
    epoch: int


class ResetPorts(Message):
    """Close every port of this domain."""


class SetPriority(Message):
    port: int
    epoch: int
    priority: int


class PortStatus(Message):
    """What is port ``port`` of domain ``of``? Answered by `PortIs`."""

    of: int
    port: int


class PortIs(Message):
    """See port_effects.PortInfo."""

    status: int
    remote: int | None
    remote_port: int | None
    virq: int | None
    priority: int


class SetTimer(Message):
    """Raise this domain's virtual IRQ TIMER once, in so many seconds; None: not at all.

    It takes the place of the one before.
    """

    seconds: float | None


class Advertise(Message):
    """This domain serves ``device``.

    Answered by the pairings that this has made, a [front domid, channel, epoch] each: the words
    about them come as well, but who is still starting can say InitWait without waiting for them.
    """

    device: str


class Unadvertise(Message):
    """This domain, which serves ``device``, is about to end, and takes no more front ends."""

    device: str


class Connect(Message):
    """Channel number ``channel`` of this domain wants ``device``."""

    device: str
    channel: int


class Disconnect(Message):
    """Channel number ``channel`` of this domain is no more; nothing if it is not there."""

    channel: int


class Switch(Message):
    """Say a new state, a number of xenbus.XenbusState, to the other end of the pairing.

    ``grants``: grant references of the caller that belong to this epoch; the hypervisor revokes
    them at its end, before anybody is told of that.
    """

    front_domid: int
    channel: int
    epoch: int
    state: int
    details: Any
    grants: list[int]


class Publish(Message):
    """Offer ``buddy`` a page and a port of the caller's; see publications.py."""

    buddy: int
    gref: int
    port: int
    epoch: int


class Unpublish(Message):
    """Offer ``buddy`` nothing any more; nothing if there was no offer."""

    buddy: int


class Lookup(Message):
    """What does ``granter`` offer the caller? Answered by [gref, port, epoch]."""

    granter: int


class Complain(Message):
    """The back end of ``channel`` is silent, or (``broken``) breaks the protocol.

    A silent one is probed, and killed if it does not answer; a broken one is killed. Either way its
    supervisor decides what happens next.
    """

    channel: int
    epoch: int
    broken: bool
    text: str


class Refused(Message):
    """A hypercall was refused; ``error`` is the name of a class in hypervisor.errors."""

    error: str
    text: str


# --- between the hypervisor and the actors that stand for domains ---------------------------------


class CreateDomain(Message):
    """Answered by the domid. ``door`` gets what happens to the domain: `News`, `Probe`, `Kill`."""

    name: str
    door: Ref


class DestroyDomain(Message):
    """The domain has ended; ``returns``: its supervisor will start it again.

    ``crashed``: by a failure, so that domain 0 gets the virtual IRQ DOM_EXC.
    """

    domid: int
    reason: str
    returns: bool
    crashed: bool


class RevokeDevice(Message):
    """The machine takes back what the front ends of ``device`` have granted: their channels are
    over, and are established anew, in new epochs.
    """

    device: str


class Withdraw(Message):
    """Nobody will serve ``device`` any more: who waits for it is told so. From the machine."""

    device: str
    reason: str


class Hypercall(Message):
    """``call`` in the name of ``domid``; only the domain's own actor or guest sends this."""

    domid: int
    call: Message


class News(Message):
    """What a domain is told without having asked; its doors pass it on to its program."""


class PeerState(News):
    """The other end of a pairing is in a new state, a number of xenbus.XenbusState.

    ``revision``: of this word in the store, whose log has it and all that were told before
    (store_mirror.py). Words about one channel arrive in the order of their revisions.
    """

    device: str
    front_domid: int
    channel: int
    peer: int
    epoch: int
    state: int
    details: Any
    revision: int


class PortBound(News):
    """The remote has bound a port of this domain. Who does not care ignores it."""

    port: int
    epoch: int
    remote: int
    remote_port: int


class PortClosed(News):
    """The remote closed its end: the port is unbound, in a new ``epoch``. See `Reoffer`.

    ``died``: nobody can ever bind it. Who does not care ignores it, and closes his end.
    """

    port: int
    epoch: int
    remote: int
    died: bool


class MappingRevoked(News):
    """What ``granter`` granted as ``gref`` is over; so are the mappings of these ``handles``.

    They show zeros or an old snapshot, and are counted against this domain until it unmaps them.
    Who maps nothing of it is not told.
    """

    granter: int
    gref: int
    handles: list[int]


class GrantGone(News):
    """A grant of this domain was revoked: by itself, or with what it shared a page with."""

    gref: int


class LastMappingGone(News):
    """Nobody maps that grant of this domain any more: unmapped, died, or was revoked."""

    gref: int


class StillReachable(News):
    """``holder`` has a grant of this domain's memory no more, but still maps it.

    Its granter, who granted on, cannot take the pages; this domain can, with `RevokePages`.
    """

    memory: int
    offset: int
    length: int
    holder: int


class Transferred(News):
    """``memory`` is this domain's own, and has the number; ``gref`` was its `AcceptTransfer`."""

    gref: int
    number: int
    memory: Fd
    size: int
    giver: int


class Probe(Message):
    """Somebody waits for this domain in vain: prove that it lives, or end it."""

    text: str


class Kill(Message):
    """End this domain at once."""

    text: str


# --- frames on the socket of a process domain -----------------------------------------------------


class Boot(Message):
    """What a spare process becomes."""

    name: str
    domid: int
    program: str
    args: list[Any]
    cpus: list[int] | None
    harden: Hardening | None


class Booted(Message):
    """The program's start has ended well."""


class Ended(Message):
    """The program could not start, or has ended: why."""

    error: str
    text: str
    traceback: str


class Shutdown(Message):
    """End in an orderly way."""


class Call(Message):
    number: int
    call: Message


class Answer(Message):
    """``value`` is a plain value; ``message`` is set instead when the answer is a message."""

    number: int
    value: Any
    message: Message | None


class Ping(Message):
    number: int


class Pong(Message):
    number: int
