"""Event channels without any signal in them: ports, who may bind them, and who hears of it.

Pure: no descriptors, threads, clocks or actors. Names and rules follow
xen/include/public/event_channel.h; an event carries no data and coalesces. `EventChannels` has the
ports of every domain. What an end is woken by is an opaque *signal* that the actor around this
table hands in, one for each end, and gets back in effects: it raises, tells and releases, this
table only says what.

Who wakes whom. A sender raises the other end's signal itself (an eventfd); neither this table nor
an actor is on that way, so mask, pending and the order of service belong to the receiving guest
(upcall.py). Through this table pass only what the hypervisor itself raises: virtual IRQs, the
first event of a bind, and `send` for who has no descriptor. A priority is kept here for who asks.

Rules:
1. Port numbers are small: the lowest free one of the domain, from 1, as in Xen (heap: log n). Every
   end carries an *epoch* as well, a number that the machine never uses twice, and every operation
   on a port names both. So a number may be used again at once, and nobody's leave is waited for,
   but who comes with an old one gets `StalePort`, never somebody else's channel.
2. Only the domain that was named may bind an unbound port, and only in the epoch that it was told.
3. Closing one end leaves the other unbound towards the closer's domain, as in Xen, but in a new
   epoch, and not to be bound before its owner, who alone is told (`PeerClosed`), offers it again
   (`reoffer`): he has seen the close, and waits on a fresh signal (rule 6). Sends in the old epoch
   are refused; the owner's own close and priority go through in both.
4. A bind always raises the binder's signal once, as in Xen: the other end may have sent before.
5. A virtual IRQ that is raised while nobody has bound it waits for who binds it, once.
6. A signal must be fresh for every end that is opened. An eventfd cannot be taken back from who
   held it; a new one for each end means that a late write of his wakes nobody.
7. The death of a domain closes its ports, and tells every peer, and whoever waited for it to bind.

Everything is O(1) in the number of channels but for the heap of rule 1; `reset` and `domain_died`
are linear in the ports that they concern.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic

from hypervisor.errors import (
    BadPort,
    HypercallError,
    NotPermitted,
    QuotaExceeded,
    StalePort,
    VirqBound,
)
from hypervisor.port_effects import (
    CONTROL_DOMAIN,
    GLOBAL_VIRQS,
    Bound,
    Effect,
    Effects,
    Opened,
    PeerClosed,
    PortInfo,
    PortStatus,
    Raise,
    Release,
    Sig,
    Virq,
)
from hypervisor.upcall import DEFAULT, checked_priority


@dataclass(eq=False, slots=True)
class _End(Generic[Sig]):
    domid: int
    port: int
    born: int  # the epoch that it was opened in
    epoch: int  # the epoch that it is in: later, if a peer of it has closed since
    status: PortStatus
    signal: Sig
    priority: int = DEFAULT
    remote_domid: int | None = None
    peer: _End[Sig] | None = None
    virq: Virq | None = None


@dataclass(eq=False, slots=True)
class _Ports(Generic[Sig]):
    """What belongs to one domain."""

    domid: int
    quota: int
    ends: dict[int, _End[Sig]] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)  # heap of closed numbers, all below `unused`
    unused: int = 1  # port 0 is never valid
    virqs: dict[Virq, int] = field(default_factory=dict)
    missed: set[Virq] = field(default_factory=set)  # raised while not bound
    offered: dict[_End[Sig], None] = field(default_factory=dict)  # unbound ports that name it


class EventChannels(Generic[Sig]):
    """The ports of every domain of a machine.

    Every method that takes a ``domid`` first does so in the name of that domain. A refusal is a
    `HypercallError`, and nothing was changed.
    """

    def __init__(self, quota: int = 4096) -> None:
        self._quota = quota
        self._domains: dict[int, _Ports[Sig]] = {}
        self._epoch = 0
        self._count = 0

    def __len__(self) -> int:
        """How many ends are open."""
        return self._count

    def domain_created(self, domid: int, quota: int | None = None) -> None:
        """The domain may have up to ``quota`` open ports from now on."""
        if domid in self._domains:
            raise HypercallError(f"domain {domid} exists already")
        self._domains[domid] = _Ports(domid, self._quota if quota is None else quota)

    def domain_died(self, domid: int) -> Effects[Sig]:
        """Close everything that the domain had. Idempotent."""
        domain = self._domains.pop(domid, None)
        if domain is None:
            return ()
        waiting = [end for end in domain.offered if end.domid != domid]
        effects = self._close_all(domain, died=True)
        effects += [PeerClosed(end.domid, end.port, end.epoch, domid, True) for end in waiting]
        return tuple(effects)

    def alloc_unbound(self, domid: int, remote_domid: int, signal: Sig) -> Opened[Sig]:
        """A new port that only ``remote_domid`` may bind (itself is allowed: a loopback)."""
        domain, remote = self._domain(domid), self._domain(remote_domid)
        end = self._open(domain, PortStatus.UNBOUND, signal)
        end.remote_domid = remote_domid
        remote.offered[end] = None
        return Opened(end.port, end.epoch, None, ())

    def reoffer(self, domid: int, port: int, epoch: int, signal: Sig) -> Effects[Sig]:
        """Let the remote domain bind the port again after it closed its end; a fresh signal.

        Raises:
            StalePort: the epoch is not that of the close.
            BadPort: the port does not wait for that.
            HypercallError: the remote domain is dead.
        """
        end = self._mine(domid, port, epoch)
        if end.epoch != epoch:
            raise StalePort(f"port {port} of domain {domid}: epoch {epoch} is over")
        if end.status is not PortStatus.UNBOUND:
            raise BadPort(f"port {port} of domain {domid} is not unbound")
        assert end.remote_domid is not None
        remote = self._domain(end.remote_domid)
        if end in remote.offered:
            raise BadPort(f"port {port} of domain {domid} is offered already")
        old, end.signal = end.signal, signal
        remote.offered[end] = None
        return (Release(domid, port, old),)

    def bind_interdomain(
        self, domid: int, remote_domid: int, remote_port: int, remote_epoch: int, signal: Sig
    ) -> Opened[Sig]:
        """Bind a new port to the remote one, and raise its signal once (rule 4).

        Raises:
            BadPort: no such port, bound already, or meant for another domain (not told apart).
            StalePort: the number is right, the epoch is over.
        """
        domain = self._domain(domid)
        remote = self._domains.get(remote_domid)
        offer = None if remote is None else remote.ends.get(remote_port)
        if offer is None or offer not in domain.offered:
            raise BadPort(
                f"domain {remote_domid} has no unbound port {remote_port} for domain {domid}"
            )
        if offer.epoch != remote_epoch:
            raise StalePort(
                f"port {remote_port} of domain {remote_domid}: epoch {remote_epoch} is over"
            )
        end = self._open(domain, PortStatus.INTERDOMAIN, signal)
        del domain.offered[offer]
        offer.status = PortStatus.INTERDOMAIN
        end.peer, offer.peer = offer, end
        end.remote_domid = remote_domid
        bound = Bound(offer.domid, offer.port, offer.epoch, domid, end.port, signal)
        return Opened(end.port, end.epoch, offer.signal, (bound, *_raise(end)))

    def bind_virq(self, domid: int, virq: int, signal: Sig) -> Opened[Sig]:
        """A new port that the virtual IRQ is raised on.

        Raises:
            NotPermitted: the virtual IRQ is global, and the domain is not the control domain.
            VirqBound: the domain has bound it already.
        """
        domain, kind = self._domain(domid), _checked_virq(virq)
        if kind in GLOBAL_VIRQS and domid != CONTROL_DOMAIN:
            raise NotPermitted(
                f"{kind.name} is global: domain {CONTROL_DOMAIN} binds it, not {domid}"
            )
        if kind in domain.virqs:
            raise VirqBound(f"domain {domid} has {kind.name} on port {domain.virqs[kind]}")
        end = self._open(domain, PortStatus.VIRQ, signal)
        end.virq, domain.virqs[kind] = kind, end.port
        missed = kind in domain.missed
        domain.missed.discard(kind)
        return Opened(end.port, end.epoch, None, _raise(end) if missed else ())

    def bind_ipi(self, domid: int, signal: Sig) -> Opened[Sig]:
        """A new port that its own domain sends on, to itself."""
        end = self._open(self._domain(domid), PortStatus.IPI, signal)
        return Opened(end.port, end.epoch, signal, ())

    def close(self, domid: int, port: int, epoch: int) -> Effects[Sig]:
        """Close one end; the other one becomes unbound, and its owner is told (rule 3)."""
        end = self._mine(domid, port, epoch)
        return tuple(self._close(self._domains[domid], end, died=False))

    def reset(self, domid: int) -> Effects[Sig]:
        """Close every port of the domain, which lives on."""
        return tuple(self._close_all(self._domain(domid), died=False))

    def send(self, domid: int, port: int, epoch: int) -> Effects[Sig]:
        """An event for the other end: which signal to raise.

        What is sent on an unbound port is seen by who binds it (rule 4).

        Raises:
            StalePort: the other end was closed since the epoch.
            BadPort: there is no such port, or it is a virtual IRQ's.
        """
        end = self._mine(domid, port, epoch)
        if end.epoch != epoch:
            raise StalePort(f"the peer of port {port} of domain {domid} has closed its end")
        match end.status:
            case PortStatus.INTERDOMAIN:
                assert end.peer is not None
                return _raise(end.peer)
            case PortStatus.IPI:
                return _raise(end)
            case PortStatus.UNBOUND:
                return ()
        raise BadPort(f"port {port} of domain {domid} is a virtual IRQ's: not for sending")

    def raise_virq(self, virq: int, domid: int = CONTROL_DOMAIN) -> Effects[Sig]:
        """The source of a virtual IRQ speaks; a global one is for the control domain alone."""
        kind = _checked_virq(virq)
        if kind in GLOBAL_VIRQS and domid != CONTROL_DOMAIN:
            raise HypercallError(f"{kind.name} is global, not domain {domid}'s")
        domain = self._domains.get(domid)
        if domain is None:
            return ()  # it died before its timer
        if kind not in domain.virqs:
            domain.missed.add(kind)
            return ()
        return _raise(domain.ends[domain.virqs[kind]])

    def set_priority(self, domid: int, port: int, epoch: int, priority: int) -> None:
        """0 is the highest, 15 the lowest, 7 the default."""
        self._mine(domid, port, epoch).priority = checked_priority(priority)

    def status(self, domid: int, of: int, port: int) -> PortInfo:
        """What a port of domain ``of`` is; of another domain only the control domain may ask."""
        if domid not in {of, CONTROL_DOMAIN}:
            raise NotPermitted(f"domain {domid} may not ask for the ports of domain {of}")
        end = self._domain(of).ends.get(port)
        if end is None:
            return PortInfo(PortStatus.CLOSED)
        return PortInfo(
            end.status,
            end.remote_domid,
            None if end.peer is None else end.peer.port,
            end.virq,
            end.priority,
        )

    def _domain(self, domid: int) -> _Ports[Sig]:
        domain = self._domains.get(domid)
        if domain is None:
            raise HypercallError(f"there is no domain {domid}")
        return domain

    def _mine(self, domid: int, port: int, epoch: int) -> _End[Sig]:
        """The end, in the epoch that it was opened in or any later one of its own.

        Epochs only grow, so whatever lies between is of this end, or was never told to its domain.
        """
        end = self._domain(domid).ends.get(port)
        if end is None:
            raise BadPort(f"domain {domid} has no port {port}")
        if not end.born <= epoch <= end.epoch:
            raise StalePort(f"port {port} of domain {domid}: epoch {epoch} is over")
        return end

    def _open(self, domain: _Ports[Sig], status: PortStatus, signal: Sig) -> _End[Sig]:
        if len(domain.ends) >= domain.quota:
            raise QuotaExceeded(f"domain {domain.domid} has {domain.quota} ports, its quota")
        if domain.free:
            port = heappop(domain.free)
        else:
            port, domain.unused = domain.unused, domain.unused + 1
        epoch = self._next_epoch()
        end = _End(domain.domid, port, epoch, epoch, status, signal)
        domain.ends[port] = end
        self._count += 1
        return end

    def _close(self, domain: _Ports[Sig], end: _End[Sig], *, died: bool) -> list[Effect[Sig]]:
        del domain.ends[end.port]
        heappush(domain.free, end.port)
        self._count -= 1
        effects: list[Effect[Sig]] = [Release(end.domid, end.port, end.signal)]
        if end.virq is not None:
            del domain.virqs[end.virq]
        if end.peer is not None:
            effects.append(self._unbind(end.peer, died=died))
        elif end.remote_domid in self._domains:
            self._domains[end.remote_domid].offered.pop(end, None)
        return effects

    def _unbind(self, end: _End[Sig], *, died: bool) -> PeerClosed:
        """The other end of ``end`` is closed: rule 3."""
        assert end.remote_domid is not None
        end.status, end.peer, end.epoch = PortStatus.UNBOUND, None, self._next_epoch()
        return PeerClosed(end.domid, end.port, end.epoch, end.remote_domid, died)

    def _close_all(self, domain: _Ports[Sig], *, died: bool) -> list[Effect[Sig]]:
        effects = []
        for end in list(domain.ends.values()):
            effects += self._close(domain, end, died=died)
        # the other end of a loopback is closed as well: its owner has nothing to hear
        return [
            effect
            for effect in effects
            if not (isinstance(effect, PeerClosed) and effect.domid == domain.domid)
        ]

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch


def _raise(end: _End[Sig]) -> Effects[Sig]:
    return (Raise(end.domid, end.port, end.signal),)


def _checked_virq(virq: int) -> Virq:
    try:
        return Virq(virq)
    except ValueError:
        raise HypercallError(f"there is no virtual IRQ {virq}") from None
