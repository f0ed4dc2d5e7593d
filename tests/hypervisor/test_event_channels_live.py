"""Event channels between real domains: threads and processes, both ends, masks, closes, virqs.

Nothing sleeps: who waits, waits for an event or a message, and a lost one fails by `PATIENCE`.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from queue import SimpleQueue
from typing import Any, Self

import pytest

from actors import Fd
from hypervisor import (
    BadPort,
    EventChannel,
    HypercallError,
    Machine,
    PortInfo,
    PortStatus,
    StalePort,
    Upcalls,
    Virq,
    VirqBound,
    clear_event,
    new_event,
)
from tests.hypervisor.port_programs import PATIENCE, Ear, Ports, Restless, wait_for
from transport import FrontEnd, RemoteError, connect

PLACEMENTS = ("thread", "process")


class World:
    """A machine whose domain 0 hears of its ports, and domains that do what they are asked."""

    def __init__(self, **options: Any) -> None:
        self._stack = ExitStack()
        self.machine = self._stack.enter_context(Machine(spares=0, **options))
        self.guest = self.machine.guest
        self._told: SimpleQueue[list[Any]] = SimpleQueue()
        self.machine.hear(self.machine.system.start(Ear, self._told))
        self._mine: list[EventChannel] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._mine:
            channel.close_signals()
        self._stack.close()

    def domain(self, name: str, placement: str, restart: str = "temporary") -> FrontEnd:
        self.machine.start(name, Ports, placement=placement, restart=restart)
        return self._stack.enter_context(connect(self.machine, name))

    def keep(self, channel: EventChannel) -> EventChannel:
        self._mine.append(channel)
        return channel

    def told(self, channel: EventChannel) -> list[Any]:
        """What domain 0 is told next about that port; what is about transport's is left out."""
        while (said := self._told.get(timeout=PATIENCE))[1] != channel.port:
            pass
        return said


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


def ask(domain: FrontEnd, *body: Any) -> Any:
    return domain.call(list(body), timeout=PATIENCE)


def told(domain: FrontEnd, port: int) -> list[Any]:
    while (said := ask(domain, "told"))[1] != port:
        pass
    return list(said)


def refused(domain: FrontEnd, *body: Any) -> str:
    """The name of the error."""
    with pytest.raises(RemoteError) as error:
        ask(domain, *body)
    return error.value.error


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_channel_from_its_first_event_to_its_last(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    domid = ask(domain, "domid")
    mine = world.keep(world.guest.alloc_unbound(domid))
    mine.send()  # before the bind: it waits for who binds
    port, _ = ask(domain, "bind", 0, mine.port, mine.epoch)
    assert world.told(mine) == ["bound", mine.port, mine.epoch, domid, port]
    assert ask(domain, "wait", port)
    assert not ask(domain, "consume", port)
    for _ in range(3):
        mine.send()
    assert ask(domain, "wait", port)
    assert not ask(domain, "consume", port)
    ask(domain, "send", port)
    assert wait_for(mine)
    assert world.guest.port_status(mine.port) == PortInfo(PortStatus.INTERDOMAIN, domid, port)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_what_comes_behind_a_mask_is_pending_until_it_is_unmasked(
    world: World, placement: str
) -> None:
    domain = world.domain("d", placement)
    mine = world.keep(world.guest.alloc_unbound(ask(domain, "domid")))
    port, _ = ask(domain, "bind", 0, mine.port, mine.epoch)
    mine.mask()
    number = mine.upcall_fileno()
    ask(domain, "send", port)
    assert (mine.masked, mine.pending) == (True, True)
    assert not readable(number)
    assert not mine.unmask()  # it is not latched, so W says it
    assert readable(number)
    assert wait_for(mine)
    assert (mine.masked, mine.pending) == (False, False)
    ask(domain, "send", port)
    assert mine.arrived()
    mine.mask()
    assert mine.unmask()  # latched: nobody else will say it
    assert mine.consume()


def readable(number: int) -> bool:
    poller = select.poll()
    poller.register(number, select.POLLIN)
    return bool(poller.poll(0))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_close_of_either_side_is_seen_by_the_other_and_the_port_can_be_bound_again(
    world: World, placement: str
) -> None:
    domain = world.domain("d", placement)
    domid = ask(domain, "domid")
    mine = world.keep(world.guest.alloc_unbound(domid))
    port, _ = ask(domain, "bind", 0, mine.port, mine.epoch)
    world.told(mine)
    ask(domain, "send", port)
    ask(domain, "close", port)
    kind, number, epoch, remote, died = world.told(mine)
    assert (kind, number, remote, died) == ("closed", mine.port, domid, False)
    assert epoch > mine.epoch
    assert refused(domain, "bind", 0, mine.port, epoch) == "BadPort"
    mine.send()  # into nothing, as in Xen
    again = world.keep(world.guest.reoffer(mine, epoch))
    assert refused(domain, "bind", 0, mine.port, mine.epoch) == "StalePort"
    assert again.consume()  # what came before the close is not taken away
    with pytest.raises(StalePort):
        mine.send()
    port, bound = ask(domain, "bind", 0, again.port, epoch)
    ask(domain, "consume", port)
    again.send()
    assert ask(domain, "wait", port)
    world.guest.close_port(again)
    kind, number, epoch, remote, died = told(domain, port)
    assert (kind, number, remote, died) == ("closed", port, 0, False)
    assert epoch > bound
    ask(domain, "close", port)
    with pytest.raises(BadPort):
        world.guest.close_port(again)


def test_only_the_named_domain_may_bind(world: World) -> None:
    named, third = world.domain("named", "thread"), world.domain("third", "process")
    mine = world.keep(world.guest.alloc_unbound(ask(named, "domid")))
    assert refused(third, "bind", 0, mine.port, mine.epoch) == "BadPort"
    with pytest.raises(BadPort):
        world.guest.bind_interdomain(0, mine.port, mine.epoch)
    ask(named, "bind", 0, mine.port, mine.epoch)
    assert refused(named, "bind", 0, mine.port, mine.epoch) == "BadPort"
    assert refused(third, "status", 0, mine.port) == "NotPermitted"
    assert refused(third, "virq", int(Virq.DOM_EXC)) == "NotPermitted"
    with pytest.raises(HypercallError, match="no domain 99"):
        world.guest.alloc_unbound(99)


def test_two_domains_meet_without_domain_0(world: World) -> None:
    one, other = world.domain("one", "thread"), world.domain("other", "process")
    port, epoch = ask(one, "alloc", ask(other, "domid"))
    theirs, _ = ask(other, "bind", ask(one, "domid"), port, epoch)
    assert told(one, port)[3:] == [ask(other, "domid"), theirs]
    ask(one, "send", port)
    assert ask(other, "wait", theirs)
    ask(other, "send", theirs)
    assert ask(one, "wait", port)
    assert world.guest.port_status(port, ask(one, "domid")).remote_port == theirs


def test_the_death_of_a_process_is_a_virq_of_domain_0_and_closes_its_ports(world: World) -> None:
    domain = world.domain("d", "process")
    domid = ask(domain, "domid")
    mine = world.keep(world.guest.alloc_unbound(domid))
    ask(domain, "bind", 0, mine.port, mine.epoch)
    world.told(mine)
    exception = world.keep(world.guest.bind_virq(Virq.DOM_EXC))
    with pytest.raises(VirqBound):
        world.guest.bind_virq(Virq.DOM_EXC)
    with pytest.raises(BadPort, match="not for sending"):
        exception.send()
    world.machine.kill("d")
    assert wait_for(exception)
    kind, _, epoch, remote, died = world.told(mine)
    assert (kind, remote, died) == ("closed", domid, True)
    with pytest.raises(HypercallError, match=f"no domain {domid}"):
        world.guest.reoffer(mine, epoch)
    assert not exception.consume()


def test_an_orderly_end_is_no_exception(world: World) -> None:
    exception = world.keep(world.guest.bind_virq(Virq.DOM_EXC))
    world.domain("d", "thread")
    world.machine.shutdown("d")
    assert not exception.consume()


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_guest_has_one_timer_which_is_a_virq(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    ask(domain, "timer", 0)  # before anybody has bound it: it waits
    port, _ = ask(domain, "virq", int(Virq.TIMER))
    assert ask(domain, "wait", port)
    ask(domain, "timer", 3600)
    ask(domain, "timer", None)
    ask(domain, "timer", 0.001)
    assert ask(domain, "wait", port)
    assert not ask(domain, "consume", port)
    for wrong in (-1.0, float("nan"), float("inf"), 1e9):
        assert refused(domain, "timer", wrong) == "HypercallError"
    assert refused(domain, "send", port) == "BadPort"


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_ipi_comes_back_to_its_domain(world: World, placement: str) -> None:
    domain = world.domain("d", placement)
    port, _ = ask(domain, "ipi")
    assert ask(domain, "status", ask(domain, "domid"), port) == PortStatus.IPI
    ask(domain, "send", port)
    assert ask(domain, "wait", port)
    assert not ask(domain, "consume", port)


def test_over_its_quota_a_domain_alone_is_refused() -> None:
    with World(port_quota=3) as world:
        greedy, modest = world.domain("greedy", "process"), world.domain("modest", "process")
        ask(greedy, "ipi")  # one port is transport's
        port, _ = ask(greedy, "ipi")
        for body in (["ipi"], ["alloc", 0], ["virq", 0]):
            assert refused(greedy, *body) == "QuotaExceeded"
        ask(modest, "ipi")
        for _ in range(5):
            world.keep(world.guest.bind_ipi())
        ask(greedy, "close", port)
        ask(greedy, "ipi")


def test_a_reset_closes_all_ports_of_a_domain_that_lives_on(world: World) -> None:
    ends = [world.keep(world.guest.bind_ipi()) for _ in range(3)]
    world.guest.reset_ports()
    for end in ends:
        assert world.guest.port_status(end.port).status is PortStatus.CLOSED
        with pytest.raises(BadPort):
            world.guest.close_port(end)
    assert world.keep(world.guest.bind_ipi()).port == 1


def test_what_wakes_an_end_must_be_an_eventfd_that_nobody_can_block_on(world: World) -> None:
    reading, writing = (Fd(number) for number in os.pipe2(os.O_NONBLOCK))
    blocking = Fd(os.eventfd(0))
    for wake in (reading, writing, blocking):
        for call in (
            lambda fd: world.guest.alloc_unbound(0, fd),
            world.guest.bind_ipi,
            lambda fd: world.guest.bind_virq(Virq.TIMER, fd),
        ):
            with pytest.raises(HypercallError, match="eventfd"):
                call(wake)
        wake.close()
    assert world.guest.port_status(1).status is PortStatus.CLOSED


def test_upcalls_are_served_by_priority_and_skip_what_is_masked(world: World) -> None:
    upcalls = Upcalls()
    ends = [world.keep(world.guest.bind_ipi()) for _ in range(4)]
    for end, priority in zip(ends, (7, 15, 0, 7), strict=True):
        upcalls.add(end, priority)
        world.guest.set_priority(end, priority)
        assert world.guest.port_status(end.port).priority == priority
    with pytest.raises(HypercallError, match="not within"):
        world.guest.set_priority(ends[0], 16)
    with pytest.raises(BadPort, match="open already"):
        upcalls.add(ends[0])
    assert upcalls.take() is None
    assert not readable(upcalls.fileno())
    ends[2].mask()
    for end in (ends[3], ends[1], ends[2]):
        end.send()
    assert readable(upcalls.fileno())
    assert upcalls.take() is ends[3]
    ends[0].send()
    assert not ends[2].unmask()  # W says it
    assert [upcalls.take(), upcalls.take(), upcalls.take()] == [ends[2], ends[0], ends[1]]
    assert upcalls.take() is None
    ends[3].send()
    upcalls.set_priority(ends[3], 1)
    world.guest.close_port(ends[3])
    assert upcalls.take() is None
    for call in (ends[3].arrived, ends[3].consume, ends[3].unmask):
        assert not call()
    ends[3].mask()
    upcalls.close()
    upcalls.close()
    with pytest.raises(StalePort):
        ends[0].send()


# --- hammers --------------------------------------------------------------------------------------


def test_no_signal_is_lost_between_two_threads_and_a_process(world: World) -> None:
    """One event at a time goes there and back, while both ends mask and unmask all the time.

    Each event is the last one until it is answered, so any that is lost stops everything. Between
    the generations the ends are closed, from either side, and opened again.
    """
    rounds = 100
    domain = world.domain("d", "process")
    domid = ask(domain, "domid")
    mine = world.guest.alloc_unbound(domid)
    for generation in range(6):
        port, _ = ask(domain, "bind", 0, mine.port, mine.epoch)
        world.told(mine)
        assert ask(domain, "wait", port)  # the bind's own
        with closing(Restless(mine)) as restless, ThreadPoolExecutor(1) as pool:
            echoed = pool.submit(domain.call, ["echo", port, rounds])  # each round has a deadline
            for done in range(rounds):
                mine.send()
                assert restless.wait(), f"lost in round {done} of generation {generation}"
            assert echoed.result() == rounds
        assert restless.turns > 0
        assert not mine.consume()
        assert not ask(domain, "consume", port)
        if generation % 2:
            ask(domain, "close", port)
            mine = world.guest.reoffer(mine, world.told(mine)[2])
        else:
            world.guest.close_port(mine)
            assert told(domain, port)[0] == "closed"
            ask(domain, "close", port)
            mine = world.guest.alloc_unbound(domid)
    mine.close_signals()


def test_two_senders_and_a_restless_mask_lose_nothing_and_a_close_is_loud(world: World) -> None:
    sends, lock = 3000, threading.Lock()
    mine = world.guest.alloc_unbound(0)
    theirs = world.guest.bind_interdomain(0, mine.port, mine.epoch)
    sent = 0

    def send() -> None:
        nonlocal sent
        for _ in range(sends):
            with lock:
                sent += 1
            theirs.send()

    restless = Restless(mine)
    senders = [threading.Thread(target=send) for _ in range(2)]
    for sender in senders:
        sender.start()
    seen = 0
    while seen < 2 * sends:  # consume first, look afterwards: the last event cannot be missed
        assert restless.wait(), f"lost after {seen}"
        seen = sent
    for sender in senders:
        sender.join()
    with ThreadPoolExecutor(2) as pool:
        stubborn = [pool.submit(send_until_closed, theirs) for _ in range(2)]
        assert restless.wait()
        world.guest.close_port(theirs)
        assert all("has been closed" in sender.result() for sender in stubborn)
    restless.close()
    world.guest.close_port(mine)


def send_until_closed(channel: EventChannel) -> str:
    while True:
        try:
            channel.send()
        except StalePort as error:
            return str(error)


def test_a_send_never_writes_to_the_descriptor_that_took_the_closed_ones_number() -> None:
    with ThreadPoolExecutor(1) as pool:
        for _ in range(300):
            channel = EventChannel(1, 1, new_event(), new_event())
            sender = pool.submit(send_until_closed, channel)
            channel.close_signals()
            others = [new_event() for _ in range(3)]  # the kernel gives the lowest free numbers
            assert "has been closed" in sender.result()
            for other in others:
                assert not clear_event(other.fileno())
                other.close()
