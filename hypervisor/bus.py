"""The handshake between front and back ends: what xenbus is for, but nothing is ever lost.

Pure. A back end advertises a device by name; front ends connect to the name, before or after.
Each pairing of a front end's channel with a back end's incarnation has an *epoch*, a number that
only grows, and every later word between the two names it: a word of an ended epoch is refused
(`StaleEpoch`), so a close and reopen in quick succession cannot be mistaken for nothing.

States are XenbusState's (xen/include/public/io/xenbus.h), spoken in this order:

    back:  init_wait     a back end is there; here is the epoch            (said by the bus itself)
    front: initialised   ring, buffers and port are ready: details
    back:  connected     mapped and bound: details
    either: closed       the epoch is over; with the reason
    bus:   gone          no back end will come any more; with the reason   (ours, not Xen's)

Each input returns the notifications that it causes, in order; the actor around it delivers them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypervisor.errors import HypercallError, StaleEpoch

INIT_WAIT = "init_wait"
INITIALISED = "initialised"
CONNECTED = "connected"
CLOSED = "closed"
GONE = "gone"

Front = tuple[int, int]  # (domid, channel number within that domain)


@dataclass(frozen=True)
class Notice:
    """For domain ``to``: ``peer`` is in ``state`` towards (``front_domid``, ``channel``)."""

    to: int
    device: str
    front: Front
    peer: int
    epoch: int
    state: str
    details: Any = None


class Bus:
    """Every device of a machine, who serves it and who uses it."""

    def __init__(self) -> None:
        self._backs: dict[str, int] = {}
        self._fronts: dict[Front, str] = {}
        self._epochs: dict[Front, int] = {}
        self._epoch = 0

    def advertise(self, domid: int, device: str) -> list[Notice]:
        """``domid`` serves ``device`` from now on; every waiting front end hears of it."""
        if device in self._backs:
            raise HypercallError(f"advertise: domain {self._backs[device]} serves {device!r}")
        self._backs[device] = domid
        return [self._pair(front) for front, name in self._fronts.items() if name == device]

    def connect(self, front: Front, device: str) -> list[Notice]:
        """The front end wants ``device``, now or whenever it comes."""
        if front in self._fronts:
            raise HypercallError(f"connect: channel {front[1]} is connected already")
        self._fronts[front] = device
        return [self._pair(front)] if device in self._backs else []

    def switch(
        self, domid: int, front: Front, epoch: int, state: str, details: Any
    ) -> list[Notice]:
        """``domid``, one of the two ends of ``front``'s pairing, says its new state to the other.

        Raises:
            StaleEpoch: that pairing is over.
            HypercallError: not a state that an end may say, or the caller is not one of the two.
        """
        device = self._fronts.get(front)
        if device is None or self._epochs.get(front) != epoch:
            raise StaleEpoch(f"epoch {epoch} of channel {front} is over")
        back = self._backs[device]
        said_by_front = domid == front[0] and state in (INITIALISED, CLOSED)
        if not said_by_front and not (domid == back and state in (CONNECTED, CLOSED)):
            raise HypercallError(f"switch: domain {domid} may not say {state!r} here")
        to, peer = (back, domid) if said_by_front else (front[0], back)
        if state == CLOSED:
            del self._epochs[front]
            if said_by_front:
                del self._fronts[front]
        return [Notice(to, device, front, peer, epoch, state, details)]

    def back_end_of(self, front: Front, epoch: int) -> int:
        """The domid that serves the front end in that epoch."""
        if self._epochs.get(front) != epoch:
            raise StaleEpoch(f"epoch {epoch} of channel {front} is over")
        return self._backs[self._fronts[front]]

    def domain_died(self, domid: int, reason: str, *, returns: bool) -> list[Notice]:
        """End every pairing of the domain. ``returns``: its devices will be served again."""
        notices = []
        for device in [name for name, back in self._backs.items() if back == domid]:
            notices += self._end_epochs(device, reason)
            del self._backs[device]
            if not returns:
                notices += self.withdraw(device, reason)
        for front in [front for front in self._fronts if front[0] == domid]:
            device = self._fronts.pop(front)
            epoch = self._epochs.pop(front, None)
            if epoch is not None:
                back = self._backs[device]
                notices.append(Notice(back, device, front, domid, epoch, CLOSED, reason))
        return notices

    def withdraw(self, device: str, reason: str) -> list[Notice]:
        """Nobody will serve the device any more; every front end of it hears of that."""
        fronts = [front for front, name in self._fronts.items() if name == device]
        for front in fronts:
            del self._fronts[front]
            self._epochs.pop(front, None)
        return [Notice(front[0], device, front, -1, 0, GONE, reason) for front in fronts]

    def withdraw_all(self, reason: str) -> list[Notice]:
        """The machine's supervisor gave up: nobody will serve anything any more."""
        devices = sorted(set(self._fronts.values()))
        return [notice for name in devices for notice in self.withdraw(name, reason)]

    def _pair(self, front: Front) -> Notice:
        device = self._fronts[front]
        self._epoch += 1
        self._epochs[front] = self._epoch
        back = self._backs[device]
        return Notice(front[0], device, front, back, self._epoch, INIT_WAIT)

    def _end_epochs(self, device: str, reason: str) -> list[Notice]:
        back, notices = self._backs[device], []
        for front, name in self._fronts.items():
            if name == device and front in self._epochs:
                epoch = self._epochs.pop(front)
                notices.append(Notice(front[0], device, front, back, epoch, CLOSED, reason))
        return notices
