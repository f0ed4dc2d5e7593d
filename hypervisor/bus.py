"""The machine's bus: who serves and who uses which device, and the handshake of every channel.

Pure. A back end advertises a device by name; front ends connect to the name, before or after. For
each front end's channel there is one `Joint`, and `xenbus.step` decides all that may become of it:
this file only knows who is at either end, and gives each pairing its epoch, a number that grows
over the whole machine.

A channel is there from `connect` until `disconnect`, or the death of its domain; every back end
that comes meanwhile is paired with it, whoever closed the epoch before. A front end that has said
Closed may connect again at once. A device whose back end is gone for good stays Unknown to those
that were connected then.

Each input returns its effects, in order, and the actor around it performs them in that order:
`EndEpoch` before any `Notice` about that end, and `Removed` after all of them.

Corner cases: a domain is not its own back end (which end speaks is known by its domid alone). A
word of an epoch that is over is `StaleEpoch` whoever says it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypervisor.errors import HypercallError, StaleEpoch
from hypervisor.xenbus import (
    BACK,
    BUS,
    CLOSED,
    FRONT,
    UNKNOWN,
    WAITING,
    Died,
    EndEpoch,
    Event,
    Joint,
    Pair,
    Say,
    Side,
    XenbusState,
    step,
)

Front = tuple[int, int]  # (domid, channel number within that domain)

NOBODY = -1
"""The back end of a channel that has not met one yet."""


@dataclass(frozen=True, slots=True)
class Notice:
    """For domain ``to``, the ``side`` of that channel: its ``peer`` is in ``state``."""

    to: int
    side: Side
    device: str
    front: Front
    peer: int
    epoch: int
    state: XenbusState
    details: Any = None


@dataclass(frozen=True, slots=True)
class Removed:
    """The channel is no more; ``back`` was its last back end, or `NOBODY`."""

    device: str
    front: Front
    back: int


Effect = EndEpoch | Notice | Removed


@dataclass(slots=True)
class _Channel:
    device: str
    back: int = NOBODY
    joint: Joint = WAITING


class Bus:
    """Every device of a machine, and every channel to one."""

    def __init__(self) -> None:
        self._backs: dict[str, int] = {}
        self._ending: set[str] = set()  # devices whose back end takes no more front ends
        self._channels: dict[Front, _Channel] = {}
        self._epoch = 0

    def advertise(self, domid: int, device: str) -> list[Effect]:
        """``domid`` serves ``device`` from now on; every front end that waits is paired with it.

        Raises:
            HypercallError: the device is served already, or the domain uses it itself.
        """
        if device in self._backs:
            raise HypercallError(f"advertise: domain {self._backs[device]} serves {device!r}")
        fronts = self._fronts_of(device)
        if domid in (front[0] for front in fronts):
            raise HypercallError(f"advertise: domain {domid} uses {device!r} itself")
        self._backs[device] = domid
        return [effect for front in fronts for effect in self._pair(front)]

    def unadvertise(self, domid: int, device: str) -> None:
        """``domid`` is about to end: who connects from now on waits for the next back end.

        Nothing if it does not serve the device.
        """
        if self._backs.get(device) == domid:
            self._ending.add(device)

    def connect(self, front: Front, device: str) -> list[Effect]:
        """The front end wants ``device``, now or whenever it comes; again, if it has said Closed.

        Raises:
            HypercallError: that channel has a device and has not closed, or a device that is gone
                for good; or the domain serves the device itself.
        """
        if self._backs.get(device) == front[0]:
            raise HypercallError(f"connect: domain {front[0]} serves {device!r} itself")
        known = self._channels.get(front)
        if known is not None:
            ends = (known.joint.front.state, known.joint.back.state)
            if known.device != device or ends[0] is not CLOSED or ends[1] is UNKNOWN:
                raise HypercallError(f"connect: channel {front[1]} is connected already")
        else:
            self._channels[front] = _Channel(device)
        served = device in self._backs and device not in self._ending
        return self._pair(front) if served else []

    def disconnect(self, front: Front, reason: str) -> list[Effect]:
        """The front end is gone for good; no effects if the channel is not there."""
        if front not in self._channels:
            return []
        effects = self._step(front, FRONT, Died(reason))
        channel = self._channels.pop(front)
        return [*effects, Removed(channel.device, front, channel.back)]

    def switch(
        self, domid: int, front: Front, epoch: int, state: int, details: Any
    ) -> list[Effect]:
        """``domid``, one of the two ends of ``front``'s pairing, says its new state.

        Raises:
            StaleEpoch: that pairing is over.
            IllegalTransition: it may not say that now.
            HypercallError: no state of that number, or the caller is neither of the two.
        """
        channel = self._channels.get(front)
        if channel is None or epoch < channel.joint.epoch:
            raise StaleEpoch(f"epoch {epoch} of channel {front} is over")
        if domid not in (front[0], channel.back):
            raise HypercallError(f"switch: domain {domid} is not an end of channel {front}")
        if state not in list(XenbusState):
            raise HypercallError(f"switch: {state} is not a state")
        side = FRONT if domid == front[0] else BACK
        return self._step(front, side, Say(epoch, XenbusState(state), details))

    def is_over(self, front: Front, epoch: int) -> bool:
        """Whether nothing of that epoch of the channel is worth anything any more."""
        channel = self._channels.get(front)
        return channel is None or channel.joint.epoch != epoch or channel.joint.over

    def back_end_of(self, front: Front, epoch: int) -> int:
        """The domid that serves the front end in that epoch.

        Raises:
            StaleEpoch: it is over.
        """
        if self.is_over(front, epoch):
            raise StaleEpoch(f"epoch {epoch} of channel {front} is over")
        return self._channels[front].back

    def domain_died(self, domid: int, reason: str, *, returns: bool) -> list[Effect]:
        """It serves and uses nothing any more. ``returns``: its devices will be served again."""
        effects: list[Effect] = []
        for device in [name for name, back in self._backs.items() if back == domid]:
            del self._backs[device]
            self._ending.discard(device)
            for front in self._fronts_of(device):
                effects += self._step(front, BACK, Died(reason, returns))
        for front in [front for front in self._channels if front[0] == domid]:
            effects += self.disconnect(front, reason)
        return effects

    def revoke(self, device: str) -> list[Effect]:
        """End every pairing of the device though both ends live, and begin each anew."""
        live = [front for front in self._fronts_of(device) if not self._channels[front].joint.over]
        return [effect for front in live for effect in self._pair(front)]

    def withdraw(self, device: str, reason: str) -> list[Effect]:
        """Nobody will serve the device any more; every front end of it hears of that."""
        self._backs.pop(device, None)
        self._ending.discard(device)
        fronts = self._fronts_of(device)
        return [effect for front in fronts for effect in self._step(front, BACK, Died(reason))]

    def withdraw_all(self, reason: str) -> list[Effect]:
        """The machine's supervisor gave up: nobody will serve anything any more."""
        self._backs.clear()
        self._ending.clear()
        fronts = sorted(self._channels, key=lambda front: (self._channels[front].device, front))
        return [effect for front in fronts for effect in self._step(front, BACK, Died(reason))]

    def _fronts_of(self, device: str) -> list[Front]:
        return [
            front
            for front, channel in self._channels.items()
            if channel.device == device and channel.joint.back.state is not UNKNOWN
        ]

    def _pair(self, front: Front) -> list[Effect]:
        channel = self._channels[front]
        channel.back = self._backs[channel.device]
        self._epoch += 1
        return self._step(front, BUS, Pair(self._epoch))

    def _step(self, front: Front, side: Side, event: Event) -> list[Effect]:
        channel = self._channels[front]
        channel.joint, told = step(channel.joint, side, event)
        effects: list[Effect] = []
        for effect in told:
            if isinstance(effect, EndEpoch):
                effects.append(effect)
                continue
            ends = (front[0], channel.back)
            to, peer = ends if effect.to is FRONT else ends[::-1]
            effects.append(
                Notice(
                    to,
                    effect.to,
                    channel.device,
                    front,
                    peer,
                    effect.epoch,
                    effect.state,
                    effect.details,
                )
            )
        return effects
