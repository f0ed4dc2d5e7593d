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


class GrantAccess(Message):
    """Answered by the grant reference (int)."""

    grantee: int
    memory: Fd
    offset: int
    length: int
    readonly: bool


class Revoke(Message):
    """Withdraw a grant, whoever maps it; answered by None. The memory half is `Region.renew`."""

    gref: int


class EndAccess(Message):
    """Withdraw a grant that nobody maps; refused while it is in use."""

    gref: int


class MapGrantRef(Message):
    """Answered by `Granted`."""

    granter: int
    gref: int


class Granted(Message):
    memory: Fd
    offset: int
    length: int
    readonly: bool


class UnmapGrantRef(Message):
    granter: int
    gref: int


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
    """This domain serves ``device``."""

    device: str


class Connect(Message):
    """Channel number ``channel`` of this domain wants ``device``."""

    device: str
    channel: int


class Switch(Message):
    """Say a new state to the other end of the pairing (see bus.py)."""

    front_domid: int
    channel: int
    epoch: int
    state: str
    details: Any


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
    """Answered by the domid. ``door`` gets what happens to the domain: `PeerState`, `PortBound`,
    `PortClosed`, `Probe`, `Kill`.
    """

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


class Withdraw(Message):
    """Nobody will serve ``device`` any more: who waits for it is told so. From the machine."""

    device: str
    reason: str


class Hypercall(Message):
    """``call`` in the name of ``domid``; only the domain's own actor or guest sends this."""

    domid: int
    call: Message


class PeerState(Message):
    """The other end of a pairing is in a new state (see bus.py)."""

    device: str
    front_domid: int
    channel: int
    peer: int
    epoch: int
    state: str
    details: Any


class PortBound(Message):
    """The remote has bound a port of this domain. Who does not care ignores it."""

    port: int
    epoch: int
    remote: int
    remote_port: int


class PortClosed(Message):
    """The remote closed its end: the port is unbound, in a new ``epoch``. See `Reoffer`.

    ``died``: nobody can ever bind it. Who does not care ignores it, and closes his end.
    """

    port: int
    epoch: int
    remote: int
    died: bool


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
