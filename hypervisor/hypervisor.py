"""The hypervisor: one actor around the pure tables of a machine.

It owns the grant tables (in granting.py), the event channel table (in ports.py) and the bus, and
the descriptors that are behind their entries. It never blocks and never asks anybody: domains ask
it (`Hypercall`), and it tells the door of a domain (`CreateDomain.door`) what happens to that
domain. Only control passes here; a signal or a request never does. A word of the bus goes to its
door through the store, which writes it down first (store_actor.py).

When an epoch ends, the hypervisor revokes the grants that were named for it, before anybody hears
of it: from then on nobody can map them. The rest is the ends' own work: the memory half of the
revocation (`Region.renew`, of the owner), their ports (a stale one signals nobody), and to run
nothing more of that epoch.

Corner case: a domain's door may be dead already when a notification is for it. That is a counted
dead letter and nothing else: the door's own end sends `DestroyDomain`, which settles all it had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors import Actor, Down, Message, Ref, Timer
from hypervisor import hypercalls as hc
from hypervisor.bus import Bus, Effect, Notice, Removed
from hypervisor.errors import HypercallError
from hypervisor.grant_quota import GrantQuota
from hypervisor.granting import Granting
from hypervisor.port_effects import CONTROL_DOMAIN, Virq
from hypervisor.ports import Ports
from hypervisor.publications import Offer, Publications, directory, shown
from hypervisor.store_actor import Deliver, Introduce, Put, Release, Remove
from hypervisor.store_mirror import directories, picture
from hypervisor.xenbus import EndEpoch

_NO_QUOTA = 1 << 62  # domain 0 is the machine itself
_NO_GRANT_QUOTA = GrantQuota(_NO_QUOTA, _NO_QUOTA, _NO_QUOTA, _NO_QUOTA, _NO_QUOTA)
_LONGEST_TIMER = 30 * 86400.0  # seconds


@dataclass
class _Domain:
    name: str
    door: Ref
    timer: Timer | None = None


class Hypervisor(Actor):
    """The machine's one authority on who may map, signal and talk to whom."""

    pooled = True

    def __init__(
        self,
        store: Ref,
        port_quota: int,
        grant_quota: GrantQuota | None = None,
        patience: float = 1.0,
    ) -> None:
        super().__init__()
        self._store = store
        self._grant_quota = grant_quota or GrantQuota()
        self._patience = patience  # seconds
        self._grants = Granting(self._tell, self._warn)
        self._ports = Ports(port_quota, self._tell)

    def on_start(self) -> None:
        self._domains: dict[int, _Domain] = {}
        self._bus = Bus()
        self._publications = Publications()
        self._lent: dict[int, list[tuple[int, int]]] = {}  # epoch -> (granter, grant reference)
        self._next_domid = 0
        self._table: dict[type[Message], Callable[[int, Any], Any]] = {
            **self._grants.handlers(),
            **self._ports.handlers(),
            hc.SetTimer: self._set_timer,
            hc.Advertise: self._advertise,
            hc.Unadvertise: lambda domid, call: self._bus.unadvertise(domid, call.device),
            hc.Connect: lambda domid, call: self._act(
                self._bus.connect((domid, call.channel), call.device)
            ),
            hc.Disconnect: lambda domid, call: self._act(
                self._bus.disconnect((domid, call.channel), "its front end has closed")
            ),
            hc.Switch: self._switch,
            hc.Publish: self._publish,
            hc.Unpublish: lambda domid, call: self._unpublish(domid, call.buddy),
            hc.Lookup: lambda domid, call: list(self._publications.lookup(call.granter, domid)),
            hc.Complain: self._complain,
        }

    def on_stop(self) -> None:
        for domid in list(self._domains):
            self._destroy(hc.DestroyDomain(domid, "the machine has ended", False, False))

    def on_receive(self, message: Message) -> Any:
        match message:
            case hc.Hypercall(domid, call):
                return self._hypercall(domid, call)
            case hc.CreateDomain(name, door):
                return self._create(name, door)
            case hc.DestroyDomain():
                return self._destroy(message)
            case _Overdrawn(domid, limit):
                return self._still_overdrawn(domid, limit)
            case hc.RevokeDevice(device):
                return self._act(self._bus.revoke(device))
            case hc.Withdraw(device, reason):
                return self._act(self._bus.withdraw(device, reason))
            case _TimerDue(domid):
                return self._timer_due(domid)
            case Down(reason=reason):
                return self._act(self._bus.withdraw_all(str(reason)))
        raise TypeError(f"the hypervisor does not take {type(message).__name__}")

    def _hypercall(self, domid: int, call: Message) -> Any:
        handler = self._table.get(type(call))
        try:
            if handler is None:
                raise HypercallError(f"{type(call).__name__} is not a hypercall")
            if domid not in self._domains:
                raise HypercallError(f"domain {domid} has ended")
            return handler(domid, call)
        except HypercallError as error:  # the caller's fault, so the caller's alone to hear of
            return hc.Refused(type(error).__name__, str(error))

    def _create(self, name: str, door: Ref) -> int:
        domid = self._next_domid
        self._next_domid += 1
        free = domid == CONTROL_DOMAIN
        self._grants.domain_created(domid, _NO_GRANT_QUOTA if free else self._grant_quota)
        self._ports.domain_created(domid, _NO_QUOTA if free else None)
        self._domains[domid] = _Domain(name, door)
        self._write(Introduce(domid, {"name": name, "domid": str(domid)}))
        return domid

    def _destroy(self, message: hc.DestroyDomain) -> None:
        domain = self._domains.pop(message.domid, None)
        if domain is None:
            return
        self._grants.domain_died(message.domid)
        if domain.timer is not None:
            domain.timer.cancel()
        self._ports.domain_died(message.domid)
        if message.crashed:
            self._ports.raise_virq(Virq.DOM_EXC, CONTROL_DOMAIN)
        for granter, buddy in self._publications.domain_died(message.domid):
            self._write(Remove([directory(granter, buddy)]))
        reason = f"domain {domain.name!r} has ended: {message.reason}"
        self._act(self._bus.domain_died(message.domid, reason, returns=message.returns))
        self._write(Release(message.domid))

    def _warn(self, domid: int, limit: int) -> None:
        """It holds too much revoked memory. Who is told so may need a moment to let go."""
        self.after(self._patience, _Overdrawn(domid, limit))

    def _still_overdrawn(self, domid: int, limit: int) -> None:
        if self._grants.overdrawn(domid):
            held = self._grants.orphans(domid)
            text = f"it holds {held} bytes of memory that was revoked; {limit} are allowed"
            self._tell(domid, hc.Kill(text))

    def _set_timer(self, domid: int, call: hc.SetTimer) -> None:
        if call.seconds is not None and not 0 <= call.seconds <= _LONGEST_TIMER:
            raise HypercallError(f"a timer is due within 0 to {_LONGEST_TIMER} s")
        domain = self._domains[domid]
        if domain.timer is not None:
            domain.timer.cancel()
        domain.timer = None if call.seconds is None else self.after(call.seconds, _TimerDue(domid))

    def _timer_due(self, domid: int) -> None:
        domain = self._domains.get(domid)
        if domain is not None:
            domain.timer = None
            self._ports.raise_virq(Virq.TIMER, domid)

    def _tell(self, domid: int, message: Message) -> None:
        domain = self._domains.get(domid)
        if domain is not None:
            domain.door.tell(message, control=True)

    def _advertise(self, domid: int, call: hc.Advertise) -> list[list[int]]:
        effects = self._bus.advertise(domid, call.device)
        self._act(effects)
        return [[*e.front, e.epoch] for e in effects if isinstance(e, Notice) and e.to == domid]

    def _switch(self, domid: int, call: hc.Switch) -> None:
        front = (call.front_domid, call.channel)
        effects = self._bus.switch(domid, front, call.epoch, call.state, call.details)
        self._lent.setdefault(call.epoch, []).extend((domid, gref) for gref in call.grants)
        if self._bus.is_over(front, call.epoch):
            self._end_epoch(call.epoch)
        self._act(effects)

    def _publish(self, domid: int, call: hc.Publish) -> None:
        self._known(call.buddy)
        offer = Offer(call.gref, call.port, call.epoch)
        self._publications.publish(domid, call.buddy, offer)
        self._write(Put(shown(domid, call.buddy, offer), [domid, call.buddy]))

    def _unpublish(self, domid: int, buddy: int) -> None:
        if self._publications.withdraw(domid, buddy):
            self._write(Remove([directory(domid, buddy)]))

    def _complain(self, domid: int, call: hc.Complain) -> None:
        back = self._domains[self._bus.back_end_of((domid, call.channel), call.epoch)]
        verdict = hc.Kill(call.text) if call.broken else hc.Probe(call.text)
        back.door.tell(verdict, control=True)

    def _known(self, domid: int) -> None:
        if domid not in self._domains:
            raise HypercallError(f"there is no domain {domid}")

    def _act(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case EndEpoch(epoch):
                    self._end_epoch(epoch)
                case Notice():
                    self._notify(effect)
                case Removed(device, front, back):
                    self._write(Remove(directories(device, front, back)))

    def _end_epoch(self, epoch: int) -> None:
        for granter, gref in self._lent.pop(epoch, []):
            self._grants.take(granter, gref)

    def _notify(self, notice: Notice) -> None:
        domain = self._domains.get(notice.to)
        if domain is not None:
            word = hc.PeerState(
                notice.device,
                *notice.front,
                notice.peer,
                notice.epoch,
                int(notice.state),
                notice.details,
                revision=0,  # the store knows it
            )
            self._write(Deliver(*picture(notice), domain.door, word))

    def _write(self, message: Message) -> None:
        """On the control lane: however much the clients of the store ask, no word waits for it."""
        self._store.tell(message, control=True)


class _TimerDue(Message):
    domid: int


class _Overdrawn(Message):
    domid: int
    limit: int
