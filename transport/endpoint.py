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
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from actors import Actor, Message, Ref, StartFailed, System
from hypervisor import (
    EventChannel,
    Guest,
    HypercallError,
    HypervisorError,
    Machine,
    Mapping,
    PeerState,
    Region,
    StaleEpoch,
    XenbusState,
)
from transport import descriptors
from transport.errors import ChannelClosed, DeadlineExceeded, RemoteProtocolError
from transport.frontend import DEFAULT_BUFFER_BYTES, DEFAULT_SLOTS, DEFAULT_SPIN, FrontEnd
from transport.handshake import BUFFER_LIMIT, Acceptance, Offer, refusal
from transport.lifecycle import (
    CLOSED,
    CLOSING,
    CONNECTED,
    FRONT,
    INITIALISED,
    INITIALISING,
    UNKNOWN,
)
from transport.link import Link
from transport.ring import page_size


def connect(
    machine: Machine,
    device: str,
    *,
    timeout: float = 10.0,
    slots: int = DEFAULT_SLOTS,
    buffer_bytes: int = DEFAULT_BUFFER_BYTES,
    spin: float = DEFAULT_SPIN,
    memory: str = "mapped",
    version: int | None = None,
    features: Iterable[str] = (),
) -> FrontEnd:
    """Open a channel to ``device``, which may be started before or after.

    Args:
        timeout: seconds to wait for the back end.
        slots: requests in flight at most, a power of two up to 65536.
        buffer_bytes: memory for buffers, a power of two from 16 KiB to 4 GiB; all of it is
            reserved now.
        spin: seconds that a caller looks for its answer before it sleeps, while that pays.
        memory: "mapped": the back end sees the buffers' own pages; or "copied": it has as much
            memory of its own, and the hypervisor copies.
        version: of the back end's protocol (`BackEnd.version`), if it matters.
        features: what this side understands; see `FrontEnd.features`.

    Raises:
        DeadlineExceeded: no back end came in time; nothing is left.
        VersionMismatch: it has another version.
        ChannelClosed: the back end has been given up, or refuses us.
        ActorError: the machine is stopping.
        ValueError: no channel has so many slots or bytes, or such memory.
    """
    if memory not in ("mapped", "copied"):
        raise ValueError(f"memory is 'mapped' or 'copied', not {memory!r}")
    if buffer_bytes > BUFFER_LIMIT:
        raise ValueError(f"a channel has at most {BUFFER_LIMIT} bytes, not {buffer_bytes}")
    system = machine.system
    wish = Wish(memory == "copied", version, frozenset(features))
    front = open_front_end(
        system,
        system.start,
        machine.guest,
        device,
        machine.watchdog,
        slots,
        buffer_bytes,
        spin,
        wish,
    )
    if not front.is_settled_within(timeout):
        front.close()
        raise DeadlineExceeded(f"no back end serves {device!r} after {timeout} s")
    if front.failure is not None:
        front.close()
        raise front.failure
    return front


@dataclass(frozen=True)
class Wish:
    """What a front end asks of every back end.

    Attributes:
        copied, version, features: see `Offer`.
    """

    copied: bool = False
    version: int | None = None
    features: frozenset[str] = frozenset()


def open_front_end(
    system: System,
    start: Callable[..., Ref],
    guest: Guest,
    device: str,
    watchdog: float,
    slots: int,
    buffer_bytes: int,
    spin: float,
    wish: Wish = Wish(),
) -> FrontEnd:
    """A channel of the domain of ``guest`` that is not open yet; ``start`` starts its endpoint."""
    spin_or_not = None if system.simulation else spin
    front = FrontEnd(device, slots, buffer_bytes, system.runtime, spin_or_not)
    channel = guest.next_channel()
    name = f"{guest.name}-{device}-{channel}"
    with ExitStack() as undo:
        undo.callback(front.dispose, failed=False)
        undo.callback(front.end)
        try:
            start(FrontEndActor, front, guest, channel, watchdog, wish, name=name)
        except StartFailed as failure:
            raise failure.__cause__ or failure from None
        undo.pop_all()
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

    def __init__(self, number: int, guest: Guest, front: FrontEnd) -> None:
        self.number = number
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

        Returns the spans of the buffer memory that must be renewed. The peer's page stays mapped,
        for its journal: see `forget`.
        """
        guest = self._guest
        guest.release(self.ring)
        if self.port is not None:
            guest.close_port(self.port)
        return [span for gref in self.grants[1:] for _, span in guest.withdraw(gref)]

    def forget(self) -> None:
        """What the peer's journal says is settled."""
        if self.peer is not None:
            self._guest.unmap_grant_ref(self.peer)


class FrontEndActor(Actor):
    """See the module's text."""

    def __init__(
        self, front: FrontEnd, guest: Guest, channel: int, watchdog: float, wish: Wish
    ) -> None:
        super().__init__()
        self._front = front
        self._guest = guest
        self._channel = channel
        self._watchdog = watchdog
        self._wish = wish
        self._state = CLOSED
        self._epoch: _Epoch | None = None
        self._lost: _Epoch | None = None  # the last that had been open
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
            epoch.forget()
        self._forget_lost()
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
        self._epoch = epoch = _Epoch(said.epoch, self._guest, self._front)
        self.after(self._watchdog, Overdue(said.epoch))
        with suppress(HypervisorError):  # it died meanwhile: its end is in our mailbox already
            epoch.grants.append(self._guest.grant_access(said.peer, epoch.ring, readonly=True))
            memory = self._guest.grant_access(
                said.peer, self._front.memory, copy_only=self._wish.copied
            )
            epoch.grants.append(memory)
            epoch.port = self._guest.alloc_unbound(said.peer, self._front.wake)

    def _offer(self, said: PeerState) -> None:
        epoch = self._epoch
        assert epoch is not None
        if epoch.port is None:
            return  # it had died before
        ring, buffers = epoch.grants
        offer = Offer(
            ring,
            buffers,
            epoch.port.port,
            epoch.port.epoch,
            self._front.slots,
            self._front.memory.size,
            self._wish.copied,
            self._wish.version,
            self._wish.features,
        )
        self._say(said.epoch, INITIALISED, offer.details(), epoch.grants)

    def _open(self, said: PeerState) -> None:
        epoch = self._epoch
        assert epoch is not None
        assert epoch.port is not None
        slots = self._front.slots
        try:
            accepted = Acceptance.of(said.details, self._wish.features)
            epoch.peer = self._guest.map_grant_ref(said.peer, accepted.ring)
            link = Link(said.epoch, epoch.ring, epoch.port, epoch.peer, slots, accepted)
        except HypervisorError:
            return  # it died meanwhile, as above
        except RemoteProtocolError as error:
            self._front.count_fault()
            self._complain(said.epoch, str(error), broken=True)
            return
        self._front.open(link)
        self._forget_lost()
        self._say(said.epoch, CONNECTED)
        self._front.reserve()

    def _forget_lost(self) -> None:
        lost, self._lost = self._lost, None
        if lost is not None:
            lost.forget()

    def _reset(self, said: PeerState) -> None:
        started = self.system.now()
        self._front.lose()
        epoch, self._epoch = self._epoch, None
        assert epoch is not None
        self._front.take_back(epoch.take_back(), started)
        if epoch.peer is not None:
            self._forget_lost()
            self._lost = epoch
        refused = refusal(self.device, said.details)
        if refused is not None:
            self._state = UNKNOWN
            self._guest.disconnect(self._channel)
            self._front.end(refused)
            return
        # A back end that lives waits for us to begin anew; one that has died is waited for.
        self._say(said.epoch, CLOSED)
        with suppress(HypercallError):  # the next one is there already, and the bus was quicker
            self._guest.connect(self.device, self._channel, self.ref)

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
