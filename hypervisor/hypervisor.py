"""The hypervisor: one actor around the pure tables of a machine.

It owns the grant tables, the event channel table (in ports.py) and the bus, and the descriptors
that are behind their entries. It never blocks and never asks anybody: domains ask it (`Hypercall`),
and it tells the door of a domain (`CreateDomain.door`) what happens to that domain. Only control
passes here; a signal or a request never does.

Corner case: a domain's door may be dead already when a notification is for it. That is a counted
dead letter and nothing else: the door's own end sends `DestroyDomain`, which settles all it had.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from actors import Actor, Down, Fd, Message, Ref, Timer
from hypervisor import hypercalls as hc
from hypervisor.bus import Bus, Notice
from hypervisor.errors import BadGrant, HypercallError
from hypervisor.grant_table import GrantTable
from hypervisor.port_effects import CONTROL_DOMAIN, Virq
from hypervisor.ports import Ports
from hypervisor.store_actor import Introduce, Put, Release, Remove
from hypervisor.store_mirror import picture

_NO_QUOTA = 1 << 31  # domain 0 is the machine itself
_LONGEST_TIMER = 30 * 86400.0  # seconds


@dataclass
class _Domain:
    name: str
    door: Ref
    grants: GrantTable[Fd] = field(init=False)
    timer: Timer | None = None


class Hypervisor(Actor):
    """The machine's one authority on who may map, signal and talk to whom."""

    pooled = True

    def __init__(self, store: Ref, port_quota: int) -> None:
        super().__init__()
        self._store = store
        self._ports = Ports(port_quota, self._tell)

    def on_start(self) -> None:
        self._domains: dict[int, _Domain] = {}
        self._bus = Bus()
        self._next_domid = 0
        self._table: dict[type[Message], Callable[[int, Any], Any]] = {
            hc.GrantAccess: self._grant_access,
            hc.Revoke: self._revoke,
            hc.EndAccess: self._end_access,
            hc.MapGrantRef: self._map_grant_ref,
            hc.UnmapGrantRef: self._unmap_grant_ref,
            **self._ports.handlers(),
            hc.SetTimer: self._set_timer,
            hc.Advertise: lambda domid, call: self._notify(self._bus.advertise(domid, call.device)),
            hc.Connect: lambda domid, call: self._notify(
                self._bus.connect((domid, call.channel), call.device)
            ),
            hc.Switch: self._switch,
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
            case hc.Withdraw(device, reason):
                return self._notify(self._bus.withdraw(device, reason))
            case _TimerDue(domid):
                return self._timer_due(domid)
            case Down(reason=reason):
                return self._notify(self._bus.withdraw_all(str(reason)))
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
        domain = _Domain(name, door)
        domain.grants = GrantTable(domid)
        self._ports.domain_created(domid, _NO_QUOTA if domid == CONTROL_DOMAIN else None)
        self._domains[domid] = domain
        self._store.tell(Introduce(domid, {"name": name, "domid": str(domid)}))
        return domid

    def _destroy(self, message: hc.DestroyDomain) -> None:
        domain = self._domains.pop(message.domid, None)
        if domain is None:
            return
        for entry in domain.grants.revoke_all():
            entry.memory.close()
        if domain.timer is not None:
            domain.timer.cancel()
        self._ports.domain_died(message.domid)
        if message.crashed:
            self._ports.raise_virq(Virq.DOM_EXC, CONTROL_DOMAIN)
        for other in self._domains.values():
            other.grants.grantee_died(message.domid)
        reason = f"domain {domain.name!r} has ended: {message.reason}"
        self._notify(self._bus.domain_died(message.domid, reason, returns=message.returns))
        self._store.tell(Release(message.domid))

    def _grant_access(self, domid: int, call: hc.GrantAccess) -> int:
        self._known(call.grantee)
        return self._domains[domid].grants.grant_access(
            call.grantee, call.memory, call.offset, call.length, readonly=call.readonly
        )

    def _revoke(self, domid: int, call: hc.Revoke) -> None:
        entry = self._domains[domid].grants.revoke(call.gref)
        if entry is not None:
            entry.memory.close()

    def _end_access(self, domid: int, call: hc.EndAccess) -> None:
        self._domains[domid].grants.end_access(call.gref).close()

    def _map_grant_ref(self, domid: int, call: hc.MapGrantRef) -> Message:
        if call.granter not in self._domains:
            raise BadGrant(f"domain {call.granter} has ended, and its grants with it")
        entry = self._domains[call.granter].grants.map_grant_ref(call.gref, domid)
        return hc.Granted(entry.memory, entry.offset, entry.length, entry.readonly)

    def _unmap_grant_ref(self, domid: int, call: hc.UnmapGrantRef) -> None:
        granter = self._domains.get(call.granter)
        if granter is not None:
            granter.grants.unmap_grant_ref(call.gref, domid)

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

    def _switch(self, domid: int, call: hc.Switch) -> None:
        front = (call.front_domid, call.channel)
        self._notify(self._bus.switch(domid, front, call.epoch, call.state, call.details))

    def _complain(self, domid: int, call: hc.Complain) -> None:
        back = self._domains[self._bus.back_end_of((domid, call.channel), call.epoch)]
        verdict = hc.Kill(call.text) if call.broken else hc.Probe(call.text)
        back.door.tell(verdict, control=True)

    def _known(self, domid: int) -> None:
        if domid not in self._domains:
            raise HypercallError(f"there is no domain {domid}")

    def _notify(self, notices: list[Notice]) -> None:
        for notice in notices:
            domain = self._domains.get(notice.to)
            if domain is not None:
                values, readers, removed = picture(notice)
                self._store.tell(Remove(removed))
                self._store.tell(Put(values, readers))
                message = hc.PeerState(
                    notice.device,
                    *notice.front,
                    notice.peer,
                    notice.epoch,
                    notice.state,
                    notice.details,
                )
                domain.door.tell(message, control=True)


class _TimerDue(Message):
    domid: int
