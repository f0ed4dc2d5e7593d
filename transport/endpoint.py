"""The endpoint actor of a front end: drives the channel's life cycle, and watches for silence.

It owns what belongs to one epoch: the ring page, the grants, the port, the mapping of the peer's
page. Requests never pass through it. It is woken by the other end's states (`PeerState`), by `Busy`
when requests are in flight after a time without any, and by its watchdog's deadline.

What it offers is made as soon as it is told of a pairing, while the back end gets ready, so that
the back end's InitWait is answered at once. A word of ours that comes too late (`StaleEpoch`) is
dropped: that the epoch is over is in the mailbox already, and takes back what belonged to it.

The watchdog is a deadline, not a poll of the peer: only while requests are in flight, and only when
nothing at all has come back for ``watchdog`` seconds, it signals both sides once more, in case a
signal was lost, and complains to the hypervisor, which makes the back end prove that it lives. It
complains, too, of a back end that does not get connected for so long: until there is a ring no
request could show that it hangs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from actors import Actor, Message, Ref, StartFailed, System
from hypervisor import (
    EventChannel,
    Guest,
    HypervisorError,
    Machine,
    Mapping,
    PeerState,
    Region,
    StaleEpoch,
    XenbusState,
)
from transport import descriptors
from transport.errors import ChannelClosed, DeadlineExceeded
from transport.frontend import DEFAULT_BUFFER_BYTES, DEFAULT_SLOTS, DEFAULT_SPIN, FrontEnd, Link
from transport.lifecycle import (
    CLOSED,
    CLOSING,
    CONNECTED,
    FRONT,
    INITIALISED,
    INITIALISING,
    UNKNOWN,
)
from transport.ring import page_size


def connect(
    machine: Machine,
    device: str,
    *,
    timeout: float = 10.0,
    slots: int = DEFAULT_SLOTS,
    buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    spin: float = DEFAULT_SPIN,
) -> FrontEnd:
    """Open a channel to ``device``, which may be started before or after.

    Args:
        timeout: seconds to wait for the back end.
        slots: requests in flight at most, a power of two.
        buffer_bytes: memory for buffers, a power of two of at least 16 KiB; all of it is reserved
        now.
        spin: seconds that a caller looks for its answer before it sleeps, while that pays.

    Raises:
        DeadlineExceeded: no back end came in time; nothing is left.
        ChannelClosed: the back end has been given up.
    """
    system = machine.system
    front = open_front_end(
        system, system.start, machine.guest, device, machine.watchdog, slots, buffer_bytes, spin
    )
    if not front.is_settled_within(timeout):
        front.close()
        raise DeadlineExceeded(f"no back end serves {device!r} after {timeout} s")
    if front.failure is not None:
        failure = front.failure
        front.close()
        raise failure
    return front


def open_front_end(
    system: System,
    start: Callable[..., Ref],
    guest: Guest,
    device: str,
    watchdog: float,
    slots: int,
    buffer_bytes: int,
    spin: float,
) -> FrontEnd:
    """A channel of the domain of ``guest`` that is not open yet; ``start`` starts its endpoint."""
    spin = 0.0 if system.simulation else spin
    front = FrontEnd(device, slots, buffer_bytes, system.runtime, spin)
    channel = guest.next_channel()
    name = f"{guest.name}-{device}-{channel}"
    try:
        start(FrontEndActor, front, guest, channel, watchdog, name=name)
    except StartFailed as failure:
        front.end()
        front.dispose(failed=False)
        raise failure.__cause__ or failure from None
    return front


class Busy(Message):
    """Requests are in flight again."""


class Tick(Message):
    """The watchdog's deadline has come."""


class Drive(Message):
    """Reap for all from now on."""


class Overdue(Message):
    """The back end of that epoch has had time to get connected."""

    epoch: int


class Fault(Message):
    """The back end of that epoch broke the protocol."""

    epoch: int
    text: str


class _Epoch:
    """What belongs to one pairing, from its first word on."""

    def __init__(self, number: int, back: int, guest: Guest, front: FrontEnd) -> None:
        self.number = number
        self.back = back
        self.ring = Region(
            page_size(front.slots, descriptors.RECORD_LIMIT),
            name="xenidc-ring",
            readonly_to_peers=True,
        )
        self.grants: list[int] = []  # of the ring, then of the channel's buffer memory
        self.port: EventChannel | None = None
        self.peer: Mapping | None = None
        self._guest = guest

    def take_back(self) -> list[tuple[int, int]]:
        """Withdraw the grants, the port and the ring; ask nobody for permission.

        Returns the spans of the buffer memory that must be renewed.
        """
        guest = self._guest
        guest.release(self.ring)
        if self.port is not None:
            guest.close_port(self.port)
        if self.peer is not None:
            guest.unmap_grant_ref(self.peer)
        return [span for gref in self.grants[1:] for _, span in guest.withdraw(gref)]


class FrontEndActor(Actor):
    """See the module's text."""

    def __init__(self, front: FrontEnd, guest: Guest, channel: int, watchdog: float) -> None:
        super().__init__()
        self._front = front
        self._guest = guest
        self._channel = channel
        self._watchdog = watchdog
        self._state = CLOSED
        self._epoch: _Epoch | None = None
        self._seen: Any = None
        self._drives = False

    def on_start(self) -> None:
        ref = self.ref
        self._front.attach(
            ref.stop,
            lambda: ref.tell(Busy()),
            lambda epoch, text: ref.tell(Fault(epoch, text), control=True),
            lambda: ref.tell(Drive(), control=True),
        )
        self._guest.connect(self.device, self._channel, ref)

    def on_stop(self) -> None:
        epoch, self._epoch = self._epoch, None
        failed = self.exit_reason.kind == "error"
        self._front.end(
            ChannelClosed(f"the endpoint failed: {self.exit_reason}") if failed else None
        )
        if epoch is not None:
            self._say(epoch.number, CLOSING)
            self._say(epoch.number, CLOSED)
            epoch.take_back()
        self._guest.disconnect(self._channel)
        if self._drives:
            self.unwatch(self._front.wake.fileno())
        self._guest.withdraw_all(self._front.memory)
        self._front.dispose(failed=failed)

    @property
    def device(self) -> str:
        return self._front.device

    @property
    def _front_id(self) -> tuple[int, int]:
        return (self._guest.domid, self._channel)

    def on_receive(self, message: Message) -> None:
        match message:
            case PeerState():
                self._on_peer(message)
            case Busy():
                self._seen = None
                self.after(self._watchdog, Tick())
            case Drive():
                self._drive()
            case Tick():
                self._tick()
            case Overdue(epoch):
                self._overdue(epoch)
            case Fault(epoch, text):
                self._complain(epoch, text, broken=True)
            case _:
                raise TypeError(f"a front end does not take {type(message).__name__}")

    def _drive(self) -> None:
        if not self._drives:
            self._drives = True
            self.watch(self._front.wake.fileno(), self._front.on_signal)

    def _on_peer(self, said: PeerState) -> None:
        if self._state is UNKNOWN:
            return
        self._state, actions = FRONT[self._state, XenbusState(said.state)]
        for action in actions:
            {
                "prepare": self._prepare,
                "offer": self._offer,
                "open": self._open,
                "hold": lambda _: self._front.hold(),
                "reset": self._reset,
                "end": self._end,
            }[action](said)

    def _say(
        self, epoch: int, state: XenbusState, details: Any = None, grants: Iterable[int] = ()
    ) -> None:
        with suppress(StaleEpoch):
            self._guest.switch(self._front_id, epoch, state, details, grants=grants)

    def _prepare(self, said: PeerState) -> None:
        self._epoch = epoch = _Epoch(said.epoch, said.peer, self._guest, self._front)
        self.after(self._watchdog, Overdue(said.epoch))
        with suppress(HypervisorError):  # it died meanwhile: its end is in our mailbox already
            epoch.grants.append(self._guest.grant_access(said.peer, epoch.ring, readonly=True))
            epoch.grants.append(self._guest.grant_access(said.peer, self._front.memory))
            epoch.port = self._guest.alloc_unbound(said.peer, self._front.wake)

    def _offer(self, said: PeerState) -> None:
        epoch = self._epoch
        assert epoch is not None
        if epoch.port is None:
            return  # it had died before
        ring, buffers = epoch.grants
        details = {
            "ring-ref": ring,
            "buffer-ref": buffers,
            "event-channel": epoch.port.port,
            "event-channel-epoch": epoch.port.epoch,
            "slots": self._front.slots,
        }
        self._say(said.epoch, INITIALISED, details, epoch.grants)

    def _open(self, said: PeerState) -> None:
        epoch = self._epoch
        assert epoch is not None
        assert epoch.port is not None
        gref = said.details["ring-ref"]
        try:
            epoch.peer = self._guest.map_grant_ref(said.peer, gref)
            link = Link(
                said.epoch,
                epoch.ring,
                epoch.port,
                epoch.peer,
                self._front.slots,
                idempotent=said.details["idempotent"] is True,
            )
        except HypervisorError:
            return  # it died meanwhile, as above
        self._front.open(link)
        self._say(said.epoch, CONNECTED)

    def _reset(self, said: PeerState) -> None:
        started = self.system.now()
        self._front.lose()
        epoch, self._epoch = self._epoch, None
        assert epoch is not None
        self._front.take_back(epoch.take_back(), started)
        if isinstance(said.details, list):  # it lives, but will not talk to us: our own fault
            self._state = UNKNOWN
            self._guest.disconnect(self._channel)
            self._front.end(ChannelClosed(f"{self.device!r} refused us: {said.details[-1]}"))

    def _end(self, said: PeerState) -> None:
        self._front.end(ChannelClosed(f"{self.device!r} is gone: {said.details}"))

    def _tick(self) -> None:
        seen, self._seen = self._seen, self._front.progress()
        if self._seen is None:
            return  # nothing is in flight; `Busy` comes when there is
        if seen == self._seen and self._state is CONNECTED:
            self._front.signal_again()
            text = f"no answer for {self._watchdog} s with requests in flight"
            self._complain(self._seen[0], text, broken=False)
        self.after(self._watchdog, Tick())

    def _overdue(self, epoch: int) -> None:
        number = None if self._epoch is None else self._epoch.number
        if number == epoch and self._state in (INITIALISING, INITIALISED):
            text = f"it was not connected within {self._watchdog} s"
            self._complain(epoch, text, broken=False)
            self.after(self._watchdog, Overdue(epoch))

    def _complain(self, epoch: int, text: str, *, broken: bool) -> None:
        if self._state not in (INITIALISING, INITIALISED, CONNECTED) or self._epoch is None:
            return
        with suppress(HypervisorError):  # that epoch is over already, which is what we wanted
            self._guest.complain(self._channel, epoch, text, broken=broken)
