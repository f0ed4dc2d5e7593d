"""The descriptors behind the event channel table, and the effects that it asks for.

`Ports` is the hypervisor actor's half of event channels; the rules are in event_channels.py. It
holds an eventfd only while nobody else can be asked for it: that of an unbound port and the one
made in advance for who binds it, until they are handed over by the bind; that of a virtual IRQ, as
long as it is bound. An interdomain channel costs the hypervisor no descriptor.

Corner case: ``wake`` comes from a domain, which may have put anything there. What is not a
non-blocking eventfd is refused: the hypervisor itself and the other end will write to it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from typing import Any

from actors import Fd, Message
from hypervisor import hypercalls as hc
from hypervisor.channel_end import new_event, raise_event
from hypervisor.errors import HypercallError
from hypervisor.event_channels import EventChannels
from hypervisor.port_effects import Bound, Effects, Opened, PeerClosed, Raise, Release, Virq


class Signal:
    """What the hypervisor holds for one end.

    Attributes:
        wake: wakes this end, or None.
        ahead: while it is unbound: will wake the end of who binds it. None otherwise.
    """

    __slots__ = ("ahead", "wake")

    def __init__(self, wake: Fd | None = None, ahead: Fd | None = None) -> None:
        self.wake = wake
        self.ahead = ahead

    def close(self) -> None:
        """Close what is held. Idempotent."""
        for held in (self.wake, self.ahead):
            if held is not None:
                held.close()
        self.wake = self.ahead = None


class Ports:
    """Every hypercall about ports. ``tell`` takes a domid and what its door shall hear."""

    def __init__(self, quota: int, tell: Callable[[int, Message], None]) -> None:
        self._channels: EventChannels[Signal] = EventChannels(quota)
        self._tell = tell
        self.domain_created = self._channels.domain_created

    def handlers(self) -> dict[type[Message], Callable[[int, Any], Any]]:
        """What serves each hypercall: called with the calling domid and the hypercall."""
        return {
            hc.AllocUnbound: self._alloc_unbound,
            hc.Reoffer: self._reoffer,
            hc.BindInterdomain: self._bind_interdomain,
            hc.BindVirq: self._bind_virq,
            hc.BindIpi: self._bind_ipi,
            hc.ClosePort: self._close,
            hc.ResetPorts: lambda domid, _: self._perform(self._channels.reset(domid)),
            hc.SetPriority: lambda domid, call: self._channels.set_priority(
                domid, call.port, call.epoch, call.priority
            ),
            hc.PortStatus: self._status,
        }

    def domain_died(self, domid: int) -> None:
        """Close what it had; its peers are told."""
        self._perform(self._channels.domain_died(domid))

    def raise_virq(self, virq: Virq, domid: int) -> None:
        """The source of a virtual IRQ speaks."""
        self._perform(self._channels.raise_virq(virq, domid))

    def _alloc_unbound(self, domid: int, call: hc.AllocUnbound) -> Message:
        signal = Signal(_checked(call.wake), new_event())
        return _port(self._channels.alloc_unbound(domid, call.remote, signal), signal)

    def _reoffer(self, domid: int, call: hc.Reoffer) -> Message:
        signal = Signal(_checked(call.wake), new_event())
        self._perform(self._channels.reoffer(domid, call.port, call.epoch, signal))
        return _port(Opened(call.port, call.epoch, None, ()), signal)

    def _bind_interdomain(self, domid: int, call: hc.BindInterdomain) -> Message:
        mine = Signal()
        opened = self._channels.bind_interdomain(
            domid, call.remote, call.remote_port, call.remote_epoch, mine
        )
        offer = opened.theirs
        assert offer is not None
        mine.wake, mine.ahead = offer.ahead, offer.wake
        offer.wake = offer.ahead = None
        self._perform(opened.effects)
        answer = _port(opened, mine)
        mine.wake = mine.ahead = None  # both ends have their own; ours close with the answer
        return answer

    def _bind_virq(self, domid: int, call: hc.BindVirq) -> Message:
        signal = Signal(_checked(call.wake))
        opened = self._channels.bind_virq(domid, call.virq, signal)
        self._perform(opened.effects)
        return _port(opened, signal)

    def _bind_ipi(self, domid: int, call: hc.BindIpi) -> Message:
        both = Signal(_checked(call.wake), call.wake)  # which its domain holds, and we need not
        return _port(self._channels.bind_ipi(domid, Signal()), both)

    def _close(self, domid: int, call: hc.ClosePort) -> None:
        self._perform(self._channels.close(domid, call.port, call.epoch))

    def _status(self, domid: int, call: hc.PortStatus) -> Message:
        info = self._channels.status(domid, call.of, call.port)
        virq = None if info.virq is None else int(info.virq)
        return hc.PortIs(int(info.status), info.remote_domid, info.remote_port, virq, info.priority)

    def _perform(self, effects: Effects[Signal]) -> None:
        for effect in effects:
            match effect:
                case Raise(signal=Signal(wake=Fd() as wake)):
                    raise_event(wake.fileno())
                case Release(signal=signal):
                    signal.close()
                case Bound(domid, port, epoch, remote, remote_port):
                    self._tell(domid, hc.PortBound(port, epoch, remote, remote_port))
                case PeerClosed(domid, port, epoch, remote, died):
                    self._tell(domid, hc.PortClosed(port, epoch, remote, died))


def _port(opened: Opened[Signal], signal: Signal) -> Message:
    assert signal.wake is not None
    return hc.Port(opened.port, opened.epoch, signal.wake, signal.ahead)


def _checked(wake: Fd) -> Fd:
    number = wake.fileno()
    if os.readlink(f"/proc/self/fd/{number}") != "anon_inode:[eventfd]":
        raise HypercallError("an event channel is woken by an eventfd, not by that descriptor")
    if not fcntl.fcntl(number, fcntl.F_GETFL) & os.O_NONBLOCK:
        raise HypercallError("an event channel's eventfd must be non-blocking")
    return wake
