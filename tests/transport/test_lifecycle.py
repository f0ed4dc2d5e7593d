"""The two tables of a channel's life against the bus's own: every order of words, deaths and ends.

And what an orderly end is worth on a live machine: what is in flight is finished.
"""

from __future__ import annotations

import os
import select
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from hypervisor import HypervisorError, Machine, StaleEpoch, XenbusState
from hypervisor import xenbus as bus
from hypervisor.xenbus import Died, Event, Joint, Pair, Say, Side, Tell, step
from tests.transport.drivers import Echo, Lasting, Leaver
from transport import ChannelClosed, Filter, connect, lifecycle, stack
from transport.lifecycle import (
    BACK,
    CLOSED,
    CLOSING,
    CONNECTED,
    FRONT,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    UNKNOWN,
)

SAYS = {"wait": INIT_WAIT, "offer": INITIALISED, "accept": CONNECTED, "open": CONNECTED}

Word = tuple[int, XenbusState]


@dataclass(frozen=True)
class World:
    """The bus, what each end believes, and the words that are on their way to it."""

    joint: Joint = bus.WAITING
    front: XenbusState = CLOSED
    back: XenbusState = CLOSED
    front_epoch: int = 0
    back_epoch: int = 0
    to_front: tuple[Word, ...] = ()
    to_back: tuple[Word, ...] = ()
    front_lives: bool = True
    front_ends: bool = False  # it has said Closing, in its own end, and hears nothing any more
    back_ends: bool = False

    def does(self, side: Side, event: Event) -> World:
        """The bus hears it. A word that is stale is dropped; one that is illegal fails the test."""
        try:
            joint, effects = step(self.joint, side, event)
        except StaleEpoch:
            return self
        world = replace(self, joint=joint)
        for effect in effects:
            if isinstance(effect, Tell):
                word = (effect.epoch, effect.state)
                if effect.to is bus.BACK:
                    world = replace(world, to_back=(*world.to_back, word))
                elif self.front_lives:
                    world = replace(world, to_front=(*world.to_front, word))
        return world

    def says(self, side: Side, epoch: int, *states: XenbusState) -> World:
        world = self
        for state in states:
            world = world.does(side, Say(epoch, state))
        return world


def front_hears(world: World, used: set[Any]) -> World:
    (epoch, state), *rest = world.to_front
    world = replace(world, to_front=tuple(rest))
    if world.front is UNKNOWN:
        return world
    used.add(("front", world.front, state))
    own, actions = FRONT[world.front, state]
    world = replace(world, front=own, front_epoch=epoch)
    return world.says(bus.FRONT, epoch, *(SAYS[a] for a in actions if a in SAYS))


def back_hears(world: World, used: set[Any]) -> World:
    (epoch, state), *rest = world.to_back
    used.add(("back", world.back, state))
    own, actions = BACK[world.back, state]
    world = replace(world, to_back=tuple(rest), back=own)
    if state is INITIALISING:
        world = replace(world, back_epoch=epoch)
    return world.says(bus.BACK, epoch, *(SAYS[a] for a in actions if a in SAYS))


def after(world: World, used: set[Any]) -> Iterator[World]:
    """What may happen next."""
    joint = world.joint
    live = (INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING)
    live_front, live_back = world.front in live, world.back in live
    if world.to_front and not world.front_ends:
        yield front_hears(world, used)
    if world.to_back and not world.back_ends:
        yield back_hears(world, used)
    if joint.over and joint.epoch < 2 and UNKNOWN not in (joint.front.state, joint.back.state):
        paired = world.does(bus.BUS, Pair(joint.epoch + 1))
        yield paired
        if world.back is CLOSED and not world.to_back:  # it has just come: `advertise` tells it
            early = replace(paired, back=INIT_WAIT, back_epoch=joint.epoch + 1)
            yield early.says(bus.BACK, joint.epoch + 1, INIT_WAIT)
    if joint.back.state is not UNKNOWN:
        closed = world.says(bus.BACK, world.back_epoch, CLOSED) if live_back else world
        for last in {world, closed}:
            for returns in (True, False):
                dead = replace(last, back=CLOSED, to_back=(), back_ends=False)
                yield dead.does(bus.BACK, Died("killed", returns))
    if world.back is CONNECTED and not world.back_ends:
        refused = world.says(bus.BACK, world.back_epoch, CLOSED)  # it lives on
        yield replace(refused, back=CLOSED)
    if live_back and not world.back_ends:
        yield replace(world.says(bus.BACK, world.back_epoch, CLOSING), back_ends=True)
    if world.to_back[:1] == ((joint.epoch, INITIALISING),) and world.back is CLOSED:
        epoch = joint.epoch  # it is ending already, and says so instead of InitWait
        declined = replace(world.says(bus.BACK, epoch, CLOSING), back=CLOSING, back_epoch=epoch)
        yield replace(declined, to_back=(), back_ends=True)
    if world.front_lives and live_front and not world.front_ends:
        yield replace(world.says(bus.FRONT, world.front_epoch, CLOSING), front_ends=True)
        yield replace(world.says(bus.FRONT, world.front_epoch, CLOSED), front_ends=True)
    if world.front_lives:
        closed = world.says(bus.FRONT, world.front_epoch, CLOSED) if world.front_ends else world
        for last in {world, closed}:
            gone = replace(last, front_lives=False, to_front=())
            yield gone.does(bus.FRONT, Died("closed"))


def test_the_two_ends_never_break_the_protocol_and_need_every_row_of_their_tables() -> None:
    used: set[Any] = set()
    known, queue = {World()}, deque([World()])
    open_at_once = 0
    while queue:
        world = queue.popleft()
        open_at_once += world.front is world.back is CONNECTED
        for following in after(world, used):
            if following not in known:
                known.add(following)
                queue.append(following)
    assert open_at_once
    rows = {("front", *row) for row in FRONT} | {("back", *row) for row in BACK}
    assert used == rows


def test_the_drawings_in_the_docs_are_those_of_the_tables() -> None:
    text = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text()
    for drawing in (bus.mermaid(), lifecycle.mermaid()):
        assert f"```mermaid\n{drawing}```\n" in text


# --- an orderly end -------------------------------------------------------------------------------


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(spares=0) as machine:
        yield machine


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_a_domain_that_is_stopped_finishes_what_its_workers_do(
    machine: Machine, placement: str, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    machine.start("echo", Echo, placement=placement)
    channel = connect(machine, "echo")
    with ThreadPoolExecutor(2) as pool:
        slow = pool.submit(channel.call, ("slow", str(fifo)))
        while not channel.statistics().in_flight:
            channel.call("let it go first")
        channel.call("behind it: so it has arrived")
        stopping = pool.submit(machine.shutdown, "echo")
        with open(fifo, "rb"):
            assert slow.result() == "slow"
        stopping.result()
    with pytest.raises(ChannelClosed):
        channel.call("late")


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_what_lies_in_the_ring_of_a_back_end_that_ends_is_served_still(
    machine: Machine, placement: str, tmp_path: Path
) -> None:
    begun, end = tmp_path / "begun", tmp_path / "end"
    os.mkfifo(begun)
    os.mkfifo(end)
    machine.start("leaver", Leaver, placement=placement, restart="temporary")
    first, channel = connect(machine, "leaver"), connect(machine, "leaver")
    poller = select.poll()
    poller.register(channel.fileno(), select.POLLIN)
    first.submit(("leave", str(begun), str(end)))
    first.push()
    with open(begun, "rb"):  # it is in its handler, and looks at no ring before it ends
        for number in range(20):
            channel.submit(number, token=number)
        channel.push()
    with open(end, "rb"):
        pass
    ended: dict[Any, Any] = {}
    while len(ended) < 20:
        poller.poll()
        ended |= {done.token: done.error or done.result for done in channel.reap()}
    assert ended == {number: number for number in range(20)}


def test_an_answer_that_is_there_when_a_channel_is_closed_counts(machine: Machine) -> None:
    machine.start("echo", Echo, placement="thread")
    channel = connect(machine, "echo")
    number = channel.fileno()
    assert channel.reap() == []
    channel.submit("x", token="t")
    channel.push()
    select.select([number], [], [])
    channel.close()
    assert [(done.token, done.error, done.result) for done in channel.reap()] == [("t", None, "x")]


def test_a_channel_that_is_closed_before_anybody_served_it_is_gone_from_the_bus(
    machine: Machine,
) -> None:
    front = (machine.guest.domid, 1 << 20)
    machine.guest.connect("nobody", front[1])
    machine.guest.disconnect(front[1])
    machine.guest.disconnect(front[1])
    machine.guest.connect("nobody", front[1])
    with pytest.raises(HypervisorError, match="connected already"):
        machine.guest.connect("nobody", front[1])


@pytest.mark.parametrize("filters", [(), (Filter,)])
def test_a_driver_whose_work_lasts_for_ever_is_told_and_ends_in_order(
    filters: tuple[type[Filter], ...], host: Machine, place: str, tmp_path: Path
) -> None:
    ended = tmp_path / "ended"
    host.start("lasting", *stack(*filters, (Lasting, str(ended))), placement=place)
    with connect(host, "lasting") as channel:
        channel.submit("anything")
        channel.push()
        host.shutdown("lasting")
        assert ended.exists()
