"""A device is replaced between two watch events (Linux e2dcf9065536), in the machine's own actors.

The real store and hypervisor run under the simulation. A driver domain serves "disk"; a front end
connects, goes, and comes again by the same name, as when a toolstack removes a device and makes
another. The driver domain is woken by the same watch events each time, and reads in one of two
ways: it looks at what is there now (`LevelObserver`), or it asks the log for what has happened
since (`RevisionObserver`). Only the order in which all of them run differs from seed to seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from actors import Actor, ChildSpec, Faults, Message, Options, Ref, Supervisor, System, explore
from hypervisor import PeerState, StaleEpoch
from hypervisor import hypercalls as hc
from hypervisor.guest import unwrap
from hypervisor.hypervisor import Hypervisor
from hypervisor.store_actor import StoreActor
from hypervisor.store_calls import (
    Changes,
    Nodes,
    OpenStore,
    Since,
    StoreCall,
    StoreEvent,
    StoreRequest,
)
from hypervisor.store_log import Seen
from hypervisor.store_mirror import back_directory, words
from hypervisor.xenbus import (
    INIT_WAIT,
    Action,
    LevelObserver,
    RevisionObserver,
    Shown,
    Tell,
    XenbusState,
)
from hypervisor.xs_wire import Frames, Op, Packet, pack

CHANNEL = (0, 7)
BUSY = Options(preemption=0.4)
CRASHES = Options(
    Faults(kinds=("crash_before", "crash_after"), rate=0.2, targets=("driver",)), preemption=0.4
)


class Make(Message):
    """Make these changes, one straight after the other: each "create" or "remove"."""

    changes: list[str]


class Toolstack(Actor):
    """Has the front end's domain do it."""

    def __init__(self, hypervisor: Ref) -> None:
        super().__init__()
        self._hypervisor = hypervisor

    def on_receive(self, message: Message) -> None:
        if isinstance(message, Make):
            for change in message.changes:
                call = hc.Disconnect(7) if change == "remove" else hc.Connect("disk", 7)
                unwrap(self._hypervisor.ask(hc.Hypercall(0, call)))


@dataclass
class Kept:
    """What outlives an incarnation of the driver."""

    served: int = 0  # the epoch of the device that it serves; 0: none
    words: list[tuple[int, int, XenbusState]] = field(default_factory=list)
    observer: RevisionObserver = field(default_factory=RevisionObserver)


KEPT = [Kept()]
"""Of the present run; a child's arguments are messages, and this is none."""


class Driver(Actor):
    """Watches the directory of its end of the channel."""

    def __init__(self, store: Ref, hypervisor: Ref, domid: int) -> None:
        super().__init__()
        self.store = store
        self.hypervisor = hypervisor
        self.domid = domid
        self.kept = KEPT[-1]
        self.directory = back_directory("disk", CHANNEL, domid)

    def on_start(self) -> None:
        self.connection: int = self.store.ask(OpenStore(self.domid, self.ref))
        self.request(Op.WATCH, self.directory, "token")

    def on_receive(self, message: Message) -> None:
        if isinstance(message, StoreEvent):
            self.changed()

    def changed(self) -> None:
        raise NotImplementedError

    def request(self, op: Op, *words: str) -> Packet:
        payload = pack([word.encode() for word in words])
        packet = Packet(op, 1, 0, payload).encode()
        frames = Frames()
        frames.feed(self.store.ask(StoreCall(self.connection, StoreRequest(packet))))
        reply = frames.take()
        assert reply is not None
        return reply

    def say(self, epoch: int, state: XenbusState) -> None:
        call = hc.Switch(*CHANNEL, epoch, int(state), None, [])
        try:
            unwrap(self.hypervisor.ask(hc.Hypercall(self.domid, call)))
        except StaleEpoch:
            return


class LevelDriver(Driver):
    """As Linux before that commit: what is there now is all to see."""

    def on_start(self) -> None:
        self.observer = LevelObserver()
        super().on_start()

    def changed(self) -> None:
        action = self.observer.look(self.shown())
        wrote = self.observer.act(action, self.shown())
        if wrote is not None and self.shown() is not None:
            self.say(self.number("epoch"), wrote)
        if action is Action.REMOVE:
            self.kept.served = 0
        if action is Action.PROBE and self.observer.own is not None:
            self.kept.served = self.number("epoch")
            state = self.observer.switch(self.shown(), INIT_WAIT)
            if state is not None:
                self.say(self.kept.served, state)

    def shown(self) -> Shown | None:
        state = self.number("state")
        return Shown(XenbusState(state), self.number("frontend-id")) if state else None

    def number(self, name: str) -> int:
        """0: it is not there."""
        reply = self.request(Op.READ, f"{self.directory}/{name}")
        return int(reply.payload) if reply.type == Op.READ else 0


class RevisionDriver(Driver):
    """Every change since the last that it has dealt with; a new incarnation goes on from there."""

    def on_start(self) -> None:
        super().on_start()
        self.changed()

    def changed(self) -> None:
        now, news = self.news()
        for revision, told in news:
            self.kept.words.append((revision, told.epoch, told.state))
            action = self.kept.observer.take(revision, told)
            if action is Action.REMOVE:
                self.kept.served = 0
            if action in (Action.PROBE, Action.REPLACE):
                self.kept.served = self.kept.observer.epoch
                self.say(self.kept.served, INIT_WAIT)
        self.kept.observer.revision = now

    def news(self) -> tuple[int, list[tuple[int, Tell]]]:
        since = self.kept.observer.revision
        answer = self.store.ask(StoreCall(self.connection, Since(self.directory, since)))
        match answer:
            case Changes(now, changes):
                return now, words(Seen(*change) for change in changes)
            case Nodes(now, values):  # at its first start: there is nothing to go on from yet
                return now, words(Seen(now, path, None, v, 0) for path, v in values)
        raise TypeError(answer)


class Door(Actor):
    """What the hypervisor tells a domain: kept to be compared."""

    def __init__(self, told: list[tuple[int, int, XenbusState]]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Message) -> None:
        if isinstance(message, PeerState):
            self._told.append((message.revision, message.epoch, XenbusState(message.state)))


def replace(
    system: System, driver: type[Driver], *script: list[str]
) -> tuple[Kept, list[tuple[int, int, XenbusState]]]:
    """The toolstack makes each part of the script when all is quiet after the one before.

    The device that is there in the end must be served.
    """
    assert system.simulation is not None
    KEPT[:] = [Kept()]
    told: list[tuple[int, int, XenbusState]] = []
    store = system.start(StoreActor, name="store")
    hypervisor = system.start(Hypervisor, store, 64, name="hypervisor")
    hypervisor.ask(hc.CreateDomain("front", system.start(Door, [], name="front")))
    domid = hypervisor.ask(hc.CreateDomain("disk", system.start(Door, told, name="door")))
    child = ChildSpec.of("driver", driver, store, hypervisor, domid)
    system.start(Supervisor, [child], intensity=100, name="top")
    assert unwrap(hypervisor.ask(hc.Hypercall(domid, hc.Advertise("disk")))) == []
    toolstack = system.start(Toolstack, hypervisor, name="toolstack")
    for changes in script:
        toolstack.tell(Make(changes))
        system.simulation.settle()
    kept, last = KEPT[-1], max(epoch for _, epoch, _ in told)
    assert kept.served == last, f"nobody serves {last}"
    return kept, told


def level(system: System) -> None:
    replace(system, LevelDriver, ["create"], ["remove", "create"])


def level_with_time(system: System) -> None:
    replace(system, LevelDriver, ["create"], ["remove"], ["create"])


def revisions(system: System) -> None:
    kept, told = replace(system, RevisionDriver, ["create"], ["remove", "create"])
    assert kept.words == told


def revisions_twice(system: System) -> None:
    script = ["create", "remove", "create", "remove", "create"]
    kept, told = replace(system, RevisionDriver, script)
    assert kept.words == told


def test_who_looks_at_what_is_there_now_loses_a_replaced_device() -> None:
    ended = [explore(level, [seed], BUSY, shrinking=0) for seed in range(50)]
    lost = [failure for failure in ended if failure is not None]
    assert 0 < len(lost) < len(ended), "it depends on the order alone"
    for failure in lost:
        assert isinstance(failure.error, AssertionError)
        assert "nobody serves" in str(failure.error)
    assert explore(level_with_time, 50, BUSY) is None


@pytest.mark.parametrize("options", [BUSY, CRASHES], ids=["living", "crashing"])
@pytest.mark.parametrize("test", [revisions, revisions_twice])
def test_who_asks_for_what_has_happened_since_never_loses_one(
    test: Callable[[System], None], options: Options
) -> None:
    assert explore(test, 100, options) is None
