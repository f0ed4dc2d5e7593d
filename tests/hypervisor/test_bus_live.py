"""The bus behind the hypervisor and the store: what a guest is refused, what the end of an epoch
takes back, and that the store has every word before anybody hears it.
"""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from actors import Actor, Message, Ref, System
from hypervisor import (
    BadGrant,
    HypercallError,
    IllegalTransition,
    Machine,
    PeerState,
    Region,
    StaleEpoch,
    XenbusState,
)
from hypervisor import hypercalls as hc
from hypervisor.guest import LocalGuest, unwrap
from hypervisor.hypervisor import Hypervisor
from hypervisor.store_actor import StoreActor
from hypervisor.store_calls import Changes, OpenStore, Since, StoreCall
from hypervisor.store_client import StoreClient
from hypervisor.store_log import Seen
from hypervisor.store_mirror import back_directory, front_directory, words
from hypervisor.xenbus import (
    CLOSED,
    CLOSING,
    CONNECTED,
    FRONT,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    UNKNOWN,
)
from tests.transport.drivers import Echo
from transport import connect

PATIENCE = 10.0
CHANNEL = 7


class Door(Actor):
    """Passes on what its domain is told."""

    def __init__(self, told: SimpleQueue[PeerState]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Message) -> None:
        if isinstance(message, PeerState):
            self._told.put(message)


class Domain:
    """A guest in the test's hands."""

    def __init__(self, system: System, hypervisor: Ref, name: str) -> None:
        self._told: SimpleQueue[PeerState] = SimpleQueue()
        door = system.start(Door, self._told, name=name)
        self._hypervisor = hypervisor
        self.domid: int = hypervisor.ask(hc.CreateDomain(name, door))
        self.guest = LocalGuest(self.domid, name, StoreClient(unwrap), hypervisor)

    def hears(self) -> PeerState:
        return self._told.get(timeout=PATIENCE)

    def says(self, epoch: int, state: XenbusState, details: Any = None, **more: Any) -> None:
        self.guest.switch((0, CHANNEL), epoch, state, details, **more)

    def dies(self, *, returns: bool) -> None:
        self._hypervisor.ask(hc.DestroyDomain(self.domid, "killed", returns, False))


class World:
    """A store, a hypervisor, a front end in domain 0 and a back end in domain 1; nothing paired."""

    def __init__(self, system: System) -> None:
        self.system = system
        self.store = system.start(StoreActor)
        self.hypervisor = system.start(Hypervisor, self.store, 64)
        self.front = self.domain("front")
        self.back = self.domain("back")

    def domain(self, name: str) -> Domain:
        return Domain(self.system, self.hypervisor, name)

    def pair(self) -> int:
        """The epoch."""
        self.front.guest.connect("disk", CHANNEL)
        self.back.guest.advertise("disk")
        epoch = self.front.hears().epoch
        assert self.back.hears().epoch == epoch
        return epoch

    def log(self, path: str) -> list[tuple[int, int, XenbusState]]:
        looker = self.store.ask(OpenStore(0, self.system.start(Door, SimpleQueue())))
        answer = self.store.ask(StoreCall(looker, Since(path, 0)))
        assert isinstance(answer, Changes)
        found = words(Seen(*change) for change in answer.changes)
        return [(revision, told.epoch, told.state) for revision, told in found]


@pytest.fixture
def world() -> Iterator[World]:
    with System() as system:
        yield World(system)


def test_a_handshake_is_heard_by_both_sides_with_details_and_growing_revisions(
    world: World,
) -> None:
    epoch = world.pair()
    world.back.says(epoch, INIT_WAIT)
    world.front.says(epoch, INITIALISED, {"ring-ref": 8, "name": "x"})
    world.back.says(epoch, CONNECTED, [1])
    waits, offered, connected = world.front.hears(), world.back.hears(), world.front.hears()
    assert (waits.state, waits.peer, waits.device) == (INIT_WAIT, world.back.domid, "disk")
    assert (offered.state, offered.details) == (INITIALISED, {"ring-ref": 8, "name": "x"})
    assert (connected.state, connected.details, connected.channel) == (CONNECTED, [1], CHANNEL)
    assert 0 < waits.revision < offered.revision < connected.revision


def test_a_word_out_of_turn_comes_back_as_the_error_that_it_is(world: World) -> None:
    epoch = world.pair()
    with pytest.raises(IllegalTransition, match="the front end's fault") as refused:
        world.front.says(epoch, CONNECTED)
    assert refused.value.fault is None  # only the text comes back
    with pytest.raises(StaleEpoch):
        world.front.says(epoch - 1, INITIALISED)
    with pytest.raises(HypercallError, match="9 is not a state"):
        world.front.guest.hypercall(hc.Switch(0, CHANNEL, epoch, 9, None, []))
    other = world.domain("other")
    with pytest.raises(HypercallError, match="not an end of channel"):
        other.says(epoch, CLOSED)


def test_what_was_lent_for_an_epoch_is_revoked_before_anybody_hears_of_its_end(
    world: World,
) -> None:
    epoch = world.pair()
    region = Region(4096)
    lent = world.front.guest.grant_access(world.back.domid, region)
    other = Region(4096)  # what shares a page with a grant that is revoked goes with it
    kept = world.front.guest.grant_access(world.back.domid, other)
    world.back.says(epoch, INIT_WAIT)
    world.front.says(epoch, INITIALISED, grants=[lent])
    assert world.back.hears().state == INITIALISED
    world.back.guest.map_grant_ref(0, lent).close()
    world.front.says(epoch, CLOSING)
    world.back.guest.map_grant_ref(0, lent).close()
    world.front.says(epoch, CLOSED)
    assert [world.back.hears().state for _ in range(2)] == [CLOSING, CLOSED]
    with pytest.raises(BadGrant):
        world.back.guest.map_grant_ref(0, lent)
    world.back.guest.map_grant_ref(0, kept).close()
    for span in world.front.guest.withdraw(lent):
        assert span == (region, (0, 4096)), "its owner has the pages to exchange"
    region.close()
    other.close()


def test_what_is_lent_for_an_epoch_that_is_over_is_revoked_at_once(world: World) -> None:
    epoch = world.pair()
    world.back.says(epoch, CLOSED)
    region = Region(4096)
    lent = world.front.guest.grant_access(world.back.domid, region)
    world.front.says(epoch, CLOSED, grants=[lent])
    with pytest.raises(BadGrant):
        world.back.guest.map_grant_ref(0, lent)
    region.close()


def test_the_log_has_every_word_with_its_epoch_and_the_revision_that_was_told(
    world: World,
) -> None:
    heard: list[PeerState] = []
    world.front.guest.connect("disk", CHANNEL)
    for returns in (True, True, False):
        world.back.guest.advertise("disk")
        heard.append(world.front.hears())
        world.back.says(heard[-1].epoch, INIT_WAIT)
        heard.append(world.front.hears())
        world.back.dies(returns=returns)
        heard.append(world.front.hears())
        world.back = world.domain("back")
    told = [(word.revision, word.epoch, XenbusState(word.state)) for word in heard]
    assert [(epoch, state) for _, epoch, state in told] == [
        *((epoch, state) for epoch in (1, 2) for state in (INITIALISING, INIT_WAIT, CLOSED)),
        *((3, state) for state in (INITIALISING, INIT_WAIT, UNKNOWN)),
    ]
    assert world.log(front_directory("disk", (0, CHANNEL))) == told


def test_the_back_ends_words_outlive_its_directory_in_the_log(world: World) -> None:
    epoch = world.pair()
    world.front.guest.disconnect(CHANNEL)
    gone = world.back.hears()
    assert (gone.state, gone.epoch) == (UNKNOWN, epoch)
    found = world.log(back_directory("disk", (0, CHANNEL), world.back.domid))
    assert [state for _, _, state in found] == [INITIALISING, UNKNOWN]
    assert found[-1][0] == gone.revision


def test_a_word_of_a_dead_domain_leaves_no_home_behind(world: World) -> None:
    world.pair()
    world.back.dies(returns=True)
    world.front.guest.disconnect(CHANNEL)
    for path in ("/local/domain/1", "/local/domain/0/device"):
        looker = world.store.ask(OpenStore(0, world.system.start(Door, SimpleQueue())))
        answer = world.store.ask(StoreCall(looker, Since(path, 0)))
        last = {change[1]: change[3] for change in answer.changes}
        left = [at for at, new in last.items() if new is not None]
        assert left in ([], ["/local/domain/0/device", "/local/domain/0/device/disk"])


def test_a_channels_whole_life_is_in_the_log_of_its_machine() -> None:
    with Machine(spares=0, intensity=10) as machine:
        (store,) = [Ref(cell) for cell in machine.system.top() if cell.name == "store"]
        machine.start("echo", Echo, placement="thread")
        with connect(machine, "echo") as channel:
            channel.call("x")
            machine.kill("echo")
            while channel.statistics().epochs == 1:
                channel.call("y")  # the dying one finishes what it has begun
        looker = store.ask(OpenStore(0, machine.system.start(Door, SimpleQueue())))
        call = StoreCall(looker, Since("/local/domain/0/device/echo", 0))
        changes = store.ask(call).changes
        told = [tell for _, tell in words(Seen(*change) for change in changes)]
        assert {tell.to for tell in told} == {FRONT}
        assert [(tell.epoch, tell.state) for tell in told] == [
            *((1, state) for state in (INITIALISING, INIT_WAIT, CONNECTED, CLOSING, CLOSED)),
            *((2, state) for state in (INITIALISING, INIT_WAIT, CONNECTED)),
        ]
