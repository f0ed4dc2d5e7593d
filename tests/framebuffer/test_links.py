"""The handshake of drawer and display, with the test's own process as the other side."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from actors import Actor, Message
from examples.framebuffer import protocol as p
from examples.framebuffer.damage import Rect
from examples.framebuffer.event_ring import EventRing
from examples.framebuffer.surface import Picture, Surface, packed_mode
from hypervisor import (
    EventChannel,
    GrantRevoked,
    Machine,
    Mapping,
    MappingRevoked,
    PeerState,
    Region,
    XenbusState,
)
from tests.framebuffer.helpers import HEIGHT, WIDTH, Painter, Shown, drawn, shown
from transport import Incoming, Outgoing, page_size, split_page

CHANNEL = 1


class Ear(Actor):
    """Passes on what it is told."""

    def __init__(self, heard: SimpleQueue[Message]) -> None:
        super().__init__()
        self._heard = heard

    def on_receive(self, message: Message) -> None:
        self._heard.put(message)


class Side:
    """Domain 0 as one side of a connection."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.guest = machine.guest
        self._heard: SimpleQueue[Message] = SimpleQueue()
        self.ear = machine.system.start(Ear, self._heard, name="ear")
        machine.hear(self.ear)
        self.page = Region(page_size(1, p.RING_BYTES), readonly_to_peers=True)

    def until(self, wanted: Callable[[Message], bool]) -> Any:
        while not wanted(message := self._heard.get()):
            pass
        return message

    def state(self, state: XenbusState) -> PeerState:
        said: PeerState = self.until(lambda m: isinstance(m, PeerState) and m.state == state)
        return said


class FakeDrawer(Side):
    """Offers a surface; what else it does is the test's business."""

    def offer(self, **changed: Any) -> PeerState:
        """Offer it; returns INIT_WAIT."""
        self.surface = Surface(packed_mode(WIDTH, HEIGHT))
        self.guest.connect(p.DEVICE, CHANNEL, self.ear)
        said = self.state(XenbusState.INIT_WAIT)
        self.channel: EventChannel = self.guest.alloc_unbound(said.peer)
        details = {
            "ring-ref": self.guest.grant_access(said.peer, self.page, readonly=True),
            "surface-ref": self.guest.grant_access(said.peer, self.surface.region, readonly=True),
            "event-channel": self.channel.port,
            "event-channel-epoch": self.channel.epoch,
        }
        self.guest.switch((0, CHANNEL), said.epoch, XenbusState.INITIALISED, {**details, **changed})
        return said

    def say(self, said: PeerState, data: bytes) -> None:
        """Put bytes into the ring of a display that is ``CONNECTED``."""
        peer = self.guest.map_grant_ref(said.peer, said.details["ring-ref"])
        ours, _ = split_page(self.page.view, 1, p.RING_BYTES)
        theirs, _ = split_page(peer.view, 1, p.RING_BYTES)
        Incoming(ours, theirs)
        ring = Outgoing(ours, theirs)
        ring.write(data)
        ring.publish()
        self.channel.send()
        self.guest.unmap_grant_ref(peer)

    def close(self) -> None:
        self.guest.close_port(self.channel)
        self.guest.release(self.page)
        self.guest.release(self.surface.region)


@pytest.fixture
def screen() -> Iterator[Shown]:
    with shown(drawing=False) as screen:
        yield screen


def goes_on(screen: Shown) -> None:
    """The display serves others."""
    screen.machine.start("painter", Painter, WIDTH, HEIGHT, 32, placement="thread")
    with screen.viewer() as viewer:
        viewer.until(drawn())


@pytest.mark.parametrize(
    "changed",
    [
        {"surface-ref": "no number"},
        {"ring-ref": None},
        {"event-channel": [1]},
        {"event-channel-epoch": 1.5},
    ],
    ids=str,
)
def test_an_offer_that_lacks_something_is_refused(screen: Shown, changed: dict[str, Any]) -> None:
    drawer = FakeDrawer(screen.machine)
    drawer.offer(**changed)
    said = drawer.state(XenbusState.CLOSED)
    assert said.details[0] == "refused"
    drawer.close()
    goes_on(screen)


@pytest.mark.parametrize("gref", ["surface-ref", "ring-ref"])
def test_an_offer_of_what_was_not_granted_connects_to_nothing(screen: Shown, gref: str) -> None:
    drawer = FakeDrawer(screen.machine)
    drawer.offer(**{gref: 999_999})
    drawer.close()
    goes_on(screen)


@pytest.mark.parametrize(
    "data", [bytes(40), b"\xff" * 40, p.RefreshPeriod(20).pack(), b"\2" * 30], ids=str
)
def test_a_drawer_that_says_what_is_no_event_is_refused(screen: Shown, data: bytes) -> None:
    drawer = FakeDrawer(screen.machine)
    drawer.offer()
    drawer.say(drawer.state(XenbusState.CONNECTED), data)
    assert drawer.state(XenbusState.CLOSED).details[0] == "refused"
    drawer.close()
    goes_on(screen)


def test_a_mode_that_becomes_impossible_is_refused_and_the_picture_stays(screen: Shown) -> None:
    drawer = FakeDrawer(screen.machine)
    drawer.offer()
    connected = drawer.state(XenbusState.CONNECTED)
    drawer.surface.pixels[:] = 0x123456
    words = drawer.surface.region.view[:4096].cast("Q")
    words[1] += 2
    words[2] = 1 << 30
    drawer.say(connected, p.Resize(1 << 30, 1, 4, 32, 4096).pack())
    assert drawer.state(XenbusState.CLOSED).details[0] == "refused"
    with screen.viewer() as viewer:
        viewer.ask()
        viewer.update()
        assert (viewer.decoder.picture == 0x123456).all()
    drawer.close()
    goes_on(screen)


class FakeDisplay(Side):
    """Takes what a drawer offers."""

    def accept(self) -> PeerState:
        """Connect; returns INITIALISED."""
        self.guest.advertise(p.DEVICE)
        paired = self.state(XenbusState.INITIALISING)
        front = (paired.front_domid, paired.channel)
        self.guest.switch(front, paired.epoch, XenbusState.INIT_WAIT)
        said = self.state(XenbusState.INITIALISED)
        self.surface: Mapping = self.guest.map_grant_ref(said.peer, said.details["surface-ref"])
        self.channel = self.guest.bind_interdomain(
            said.peer, said.details["event-channel"], said.details["event-channel-epoch"]
        )
        gref = self.guest.grant_access(said.peer, self.page, readonly=True)
        front = (said.front_domid, said.channel)
        self.guest.switch(front, said.epoch, XenbusState.CONNECTED, {"ring-ref": gref})
        return said

    def first(self, said: PeerState) -> p.OutEvent:
        """The first event that the drawer sends."""
        peer = self.guest.map_grant_ref(said.peer, said.details["ring-ref"])
        events = EventRing(self.page.view, peer.view, self.channel)
        poller = select.poll()
        poller.register(self.channel.fileno(), select.POLLIN)
        while not (got := events.receive()):
            poller.poll()
        self.guest.unmap_grant_ref(peer)
        return p.out_event(got[0])

    def close(self) -> None:
        self.guest.unmap_grant_ref(self.surface)
        self.guest.close_port(self.channel)
        self.guest.release(self.page)


def test_what_a_display_had_is_revoked_when_it_is_over() -> None:
    with Machine(spares=0) as machine:
        display = FakeDisplay(machine)
        machine.start("painter", Painter, WIDTH, HEIGHT, 32, placement="thread")
        said = display.accept()
        assert Picture(display.surface.view).mode == packed_mode(WIDTH, HEIGHT)
        assert display.surface.view.readonly
        # What was drawn while the two connected was told to nobody.
        assert display.first(said) == p.Update(Rect(0, 0, WIDTH, HEIGHT))
        machine.guest.switch((said.front_domid, said.channel), said.epoch, XenbusState.CLOSED)
        display.until(
            lambda m: isinstance(m, MappingRevoked) and display.surface.handle in m.handles
        )
        with pytest.raises(GrantRevoked):
            _ = display.surface.view
        display.close()
