"""The receiving guest: mask and pending over every interleaving, and the order of service.

`World` is one port with everything around it that may move on its own: the sender, the eventfd, the
epoll set, the thread that wakes up, the consumer. It is walked twice: at random by hypothesis, and
completely, state by state. Breaking any rule of `PortState` must be noticed by the same walk.
"""

from __future__ import annotations

import copy
import os
import select
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypervisor.errors import BadPort
from hypervisor.upcall import PortState, Upcall


def test_an_upcall_serves_by_priority_and_skips_what_is_masked() -> None:
    upcall = Upcall()
    for port, priority in ((1, 7), (2, 3), (3, 3), (4, 0)):
        upcall.open(port, priority)
    with pytest.raises(BadPort, match="open already"):
        upcall.open(4)
    assert upcall.first() is None
    assert [upcall.arrived(port) for port in (1, 3, 2, 4)] == [True] * 4
    assert not upcall.arrived(4)
    assert upcall.ready() == [4, 3, 2, 1]
    upcall.mask(4)
    upcall.mask(3)
    assert (upcall.first(), upcall.ready(), upcall.held()) == (2, [2, 1], [4, 3])
    assert upcall.unmask(3)
    assert upcall.ready() == [2, 3, 1]
    assert upcall.consume(2)
    assert upcall.consume(4)  # a mask does not keep its owner from polling
    assert not upcall.unmask(4)
    upcall.close(3)
    upcall.close(3)
    assert (upcall.arrived(3), upcall.consume(3, found=True)) == (False, False)
    assert (upcall.first(), upcall.ready(), upcall.held()) == (1, [1], [])
    for call in (upcall.mask, upcall.unmask, upcall.priority):
        with pytest.raises(BadPort, match="no port 3"):
            call(3)


# --- PortState: every interleaving ----------------------------------------------------------------

Rule = Literal[
    "",
    "R2 in step with the state",
    "R3 read and arrived in one step",
    "R3 only if the read found one",
    "R4 consume, then look",
    "R5 what was latched is in the answer",
    "R7 the peer's close takes nothing",
]


@dataclass
class World:
    """A port and what moves around it. Each method of `STEPS` is one atomic step of somebody."""

    broken: Rule = ""
    state: PortState = field(default_factory=PortState)
    readable: bool = False  # the eventfd has a count
    waiting_for: bool = True  # the eventfd is in the epoll set
    woken: bool = False  # epoll_wait has returned, and nothing is done about it yet
    read: bool | None = None  # only if R3 is broken: read, and `arrived` not yet called
    looked: bool = False  # only if R4 is broken: looked, and `consume` not yet called
    upcalls: int = 0  # made, and not yet served
    unseen: bool = False  # sent since the consumer last looked
    peer: bool = True  # the other end is open

    def key(self) -> tuple[object, ...]:
        state = self.state
        return (
            *(state.masked, state.pending, state.closed),
            *(self.readable, self.waiting_for, self.woken, self.read, self.looked),
            *(self.upcalls, self.unseen, self.peer),
        )

    # the other side

    def send(self) -> bool:
        if not self.peer:
            return False
        if not self.state.closed:  # otherwise nobody holds the descriptor but the sender
            self.readable = self.unseen = True
        return True

    def peer_close(self) -> bool:
        if not self.peer:
            return False
        self.peer = False
        if self.broken == "R7 the peer's close takes nothing":
            self.readable = False
        return True

    # the thread that waits

    def wake(self) -> bool:
        if self.woken or self.read is not None or not (self.waiting_for and self.readable):
            return False
        self.woken = True
        return True

    def take(self) -> bool:
        if not self.woken:
            return False
        self.woken = False
        self.read, self.readable = self.readable, False
        if self.broken != "R3 read and arrived in one step":
            self.call_arrived()
        return True

    def call_arrived(self) -> bool:
        if self.read is None:
            return False
        found, self.read = self.read, None
        if found or self.broken == "R3 only if the read found one":
            closed, masked = self.state.closed, self.state.masked
            if self.state.arrived():
                assert not masked, "a masked port woke its guest"
                assert not closed, "a closed port woke its guest"
                self.upcalls += 1
        return True

    # the consumer

    def serve(self) -> bool:
        """The upcall: R6."""
        if not self.upcalls or self.looked:
            return False
        self.upcalls -= 1
        if self.state.ready:
            assert not self.state.masked, "an upcall served a masked port"
            self.poll()
        return True

    def poll(self) -> bool:
        """Consume without being asked to, masked or not."""
        if self.state.closed or self.looked:
            return False
        if self.broken == "R4 consume, then look":
            self.unseen, self.looked = False, True
            return True
        found, self.readable = self.readable, False
        if self.state.consume(found):
            assert self.unseen, "an event was invented"
            self.unseen = False
        assert not self.unseen, "an event was lost: nothing was found though something was sent"
        return True

    def call_consume(self) -> bool:
        if not self.looked:
            return False
        self.looked = False
        found, self.readable = self.readable, False
        self.state.consume(found)
        return True

    # the owner

    def mask(self) -> bool:
        self.state.mask()
        self.waiting_for = self.state.waits
        return True

    def unmask(self) -> bool:
        wake = self.state.unmask()
        if self.broken != "R2 in step with the state":
            self.waiting_for = self.state.waits
        if wake and self.broken != "R5 what was latched is in the answer":
            self.upcalls += 1
        return True

    def close(self) -> bool:
        if self.state.closed:
            return False
        self.state.close()
        self.waiting_for = self.state.waits
        self.readable = self.unseen = False
        return True

    # what must be true between any two steps

    def check(self) -> None:
        state = self.state
        if state.closed:
            assert not state.pending
            assert not self.waiting_for
            return
        if self.broken != "R2 in step with the state":
            assert self.waiting_for == state.waits
        in_hand = self.read is True
        if not self.looked:
            assert (self.readable or state.pending or in_hand) == self.unseen, "lost or invented"
        if self.unseen and not state.masked:
            underway = self.readable and self.waiting_for
            served = state.pending and self.upcalls > 0
            assert underway or served or in_hand or self.looked, "nothing will ever wake the guest"


STEPS = (
    World.send,
    World.peer_close,
    World.wake,
    World.take,
    World.call_arrived,
    World.serve,
    World.poll,
    World.call_consume,
    World.mask,
    World.unmask,
    World.close,
)


def every_state(broken: Rule = "") -> Iterator[World]:
    """Walk from the first world to every one that any interleaving of any length reaches.

    Upcalls are bounded at three waiting ones: more are no new situation for anybody.
    """
    first = World(broken)
    known, queue = {first.key()}, deque([first])
    while queue:
        world = queue.popleft()
        yield world
        for step in STEPS:
            after = copy.deepcopy(world)
            if not step(after) or after.upcalls > 3:
                continue
            after.check()
            if after.key() not in known:
                known.add(after.key())
                queue.append(after)


def test_no_interleaving_loses_or_invents_an_event() -> None:
    worlds = list(every_state())
    assert len(worlds) > 100
    for world in worlds:
        settled = copy.deepcopy(world)
        if settled.state.closed:
            continue
        settled.unmask()
        for _ in range(8):  # whoever is awake does his part; nobody sends or polls
            for step in (World.wake, World.take, World.serve):
                step(settled)
                settled.check()
        assert not settled.unseen, f"{world} ends without the event being seen"
        assert settled.upcalls == 0


@pytest.mark.parametrize("broken", [name for name in Rule.__args__ if name])  # type: ignore[attr-defined]
def test_without_any_one_of_the_rules_some_interleaving_goes_wrong(broken: Rule) -> None:
    with pytest.raises(AssertionError, match=r"lost|invented|ever wake"):
        for _ in every_state(broken):
            pass


def test_a_port_answers_once_for_an_event_and_never_after_its_close() -> None:
    state = PortState()
    assert state.arrived()
    assert not state.arrived()
    assert not state.unmask()  # the upcall for it has been made already
    state.mask()
    assert not state.ready
    assert state.unmask()
    assert not state.unmask()
    assert state.consume()
    assert not state.consume()
    assert state.consume(found=True)
    state.close()
    assert (state.arrived(), state.consume(found=True), state.unmask()) == (False,) * 3
    assert (state.pending, state.ready, state.waits) == (False,) * 3


class PortMachine(RuleBasedStateMachine):
    """The same world at random: long runs, many upcalls."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()

    @rule(step=st.sampled_from(STEPS))
    def step(self, step: Callable[[World], bool]) -> None:
        step(self.world)

    @rule()
    def burst(self) -> None:
        for step in (World.send, World.wake, World.send, World.take, World.mask, World.send):
            step(self.world)
            self.world.check()

    @invariant()
    def nothing_is_lost_or_invented(self) -> None:
        self.world.check()


PortMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=60)
TestPort = PortMachine.TestCase


def test_the_kernel_does_what_the_rules_rest_on() -> None:
    """R5: an eventfd written while out of the set is reported when it is back; a read takes all."""
    number = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    with select.epoll() as waits:
        waits.register(number, select.EPOLLIN)
        waits.modify(number, 0)
        os.eventfd_write(number, 1)
        os.eventfd_write(number, 1)
        assert waits.poll(0) == []
        waits.modify(number, select.EPOLLIN)
        assert waits.poll(0) == [(number, select.EPOLLIN)]
        assert waits.poll(0) == [(number, select.EPOLLIN)]
        assert os.eventfd_read(number) == 2
        assert waits.poll(0) == []
        with pytest.raises(BlockingIOError):
            os.eventfd_read(number)
    os.close(number)
