"""Ramsdell's pair between two real domains: a page one way, notifications both ways, every end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pyxs import Client

from actors import System
from hypervisor import HypercallError, Machine, NotPublished, QuotaExceeded, advertise_endpoint
from hypervisor.guest import LocalGuest, unwrap
from hypervisor.hypercalls import CreateDomain
from hypervisor.hypervisor import Hypervisor
from hypervisor.publications import Offer, Publications
from hypervisor.store_actor import StoreActor
from hypervisor.store_client import StoreClient
from tests.actors.parts import Recorder
from tests.hypervisor.endpoint_programs import Buddy
from transport import FrontEnd, RemoteError, connect

TWO = [("process", "process"), ("thread", "process"), ("process", "thread")]


class World:
    """Two domains that know each other's numbers."""

    def __init__(self, stack: ExitStack, placements: tuple[str, str]) -> None:
        self.machine = stack.enter_context(Machine(spares=0))
        names = ("writer", "reader")
        for name, placement in zip(names, placements, strict=True):
            self.machine.start(name, Buddy, placement=placement, restart="temporary")
        self.writer, self.reader = [
            stack.enter_context(connect(self.machine, name)) for name in names
        ]
        self.writes: int = ask(self.writer, "domid")
        self.reads: int = ask(self.reader, "domid")

    def pair(self) -> None:
        ask(self.writer, "advertise", self.reads, "for the writer")
        ask(self.reader, "connect", self.writes, "for the reader")
        assert ask(self.reader, "handled") == [self.writes, "for the reader", bytes(4)]


def ask(domain: FrontEnd, *body: Any) -> Any:
    answer = domain.call(list(body))
    return list(answer) if isinstance(answer, tuple) else answer


@pytest.fixture(params=TWO, ids=["-".join(pair) for pair in TWO])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, request.param)


@pytest.fixture
def processes() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, ("process", "process"))


def test_what_is_written_is_read_and_each_side_hears_of_the_other(world: World) -> None:
    world.pair()
    for text in (b"one.", b"two."):
        ask(world.writer, "write", world.reads, text)
        assert ask(world.reader, "handled") == [world.writes, "for the reader", text]
        ask(world.reader, "done", world.writes)
        assert ask(world.writer, "handled") == [world.reads, "for the writer", b""]


def test_what_was_written_before_the_buddy_came_is_there_for_it(world: World) -> None:
    ask(world.writer, "advertise", world.reads, None)
    ask(world.writer, "write", world.reads, b"old.")
    ask(world.reader, "connect", world.writes, None)
    assert ask(world.reader, "handled") == [world.writes, None, b"old."]


def test_two_pairs_are_a_channel_in_both_directions(world: World) -> None:
    world.pair()
    guest = world.machine.guest
    with pytest.raises(NotPublished):
        guest.lookup(world.writes)  # it is not for domain 0
    third = advertise_endpoint(guest, world.reads, lambda *_: None)
    ask(world.reader, "connect", guest.domid, "another")
    assert ask(world.reader, "handled") == [guest.domid, "another", bytes(4)]
    third.close()
    assert ask(world.reader, "closed") == [guest.domid, False]


def test_the_reader_cannot_write_the_page(processes: World) -> None:
    processes.pair()
    with pytest.raises(RemoteError, match="read-write bytes-like"):
        ask(processes.reader, "deface", processes.writes)


@pytest.mark.parametrize("first", ["writer", "reader"])
def test_who_closes_first_is_told_of_to_the_other_and_both_can_pair_anew(
    world: World, first: str
) -> None:
    ends = {"writer": (world.writer, world.reads), "reader": (world.reader, world.writes)}
    closes, other = ends.pop(first), *ends.values()
    for _ in range(2):
        world.pair()
        ask(closes[0], "close", closes[1])
        assert ask(other[0], "closed") == [other[1], False]
        ask(other[0], "close", other[1])


@pytest.mark.parametrize("first", ["writer", "reader"])
def test_the_death_of_either_side_is_told_to_the_other_which_loses_nothing_of_its_own(
    processes: World, first: str
) -> None:
    world = processes
    world.pair()
    ask(world.writer, "write", world.reads, b"last")
    assert ask(world.reader, "handled")[2] == b"last"
    world.machine.kill(first)
    lives, dead = (world.reader, world.writes) if first == "writer" else (world.writer, world.reads)
    assert ask(lives, "closed") == [dead, True]
    ask(lives, "close", dead)
    with pytest.raises(RemoteError, match=r"no endpoint|no domain"):
        ask(lives, *(("connect", dead, None) if first == "writer" else ("advertise", dead, None)))
    ask(lives, "advertise", world.machine.guest.domid, None)  # it goes on with others
    ask(lives, "close", world.machine.guest.domid)


def test_a_buddy_that_is_not_advertised_to_hears_so_and_nothing_is_left(world: World) -> None:
    with pytest.raises(RemoteError, match="no endpoint for domain"):
        ask(world.reader, "connect", world.writes, None)
    ask(world.writer, "advertise", world.reads, None)
    with pytest.raises(RemoteError, match="already"):
        ask(world.writer, "advertise", world.reads, None)
    ask(world.writer, "close", world.reads)
    with pytest.raises(RemoteError, match="no endpoint for domain"):
        ask(world.reader, "connect", world.writes, None)


def test_an_advertisement_that_is_refused_leaves_nothing_behind() -> None:
    with System() as system:
        hypervisor = system.start(Hypervisor, system.start(StoreActor), 1)
        door = system.start(Recorder)
        hypervisor.ask(CreateDomain("machine", door))
        guest = LocalGuest(
            hypervisor.ask(CreateDomain("writer", door)), "writer", StoreClient(unwrap), hypervisor
        )
        for _ in range(3):  # it may have one port, so a port that stayed open would be missed
            with pytest.raises(HypercallError, match="no domain"):
                advertise_endpoint(guest, 99, print)
            with pytest.raises(HypercallError, match="to itself"):
                advertise_endpoint(guest, guest.domid, print)
        end = advertise_endpoint(guest, 0, print)
        with pytest.raises(QuotaExceeded):
            advertise_endpoint(guest, 0, print)
        end.close()
        advertise_endpoint(guest, 0, print).close()


def test_the_store_shows_an_offer_while_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with Machine(spares=0, store_socket=path) as machine:
        machine.start("reader", Buddy, placement="thread")
        with Client(unix_socket_path=str(path)) as client:
            end = advertise_endpoint(machine.guest, 1, print)
            at = b"/local/domain/0/endpoint/1/"
            assert int(client[at + b"event-channel"]) == end.read_port.port
            assert list(client.get_perms(at + b"ring-ref")) == [b"n0", b"r1"]
            end.close()
            assert not client.exists(at[:-1])
            end = advertise_endpoint(machine.guest, 1, print)
            machine.shutdown("reader")
            assert not client.exists(at[:-1])
            end.close()


# --- the table ------------------------------------------------------------------------------------


def test_an_offer_is_for_its_buddy_alone_and_one_at_a_time() -> None:
    table = Publications()
    table.publish(1, 2, Offer(8, 3, 0))
    assert table.lookup(1, 2) == Offer(8, 3, 0)
    for granter, caller in ((1, 3), (2, 1)):
        with pytest.raises(NotPublished):
            table.lookup(granter, caller)
    with pytest.raises(HypercallError, match="already"):
        table.publish(1, 2, Offer(9, 4, 0))
    with pytest.raises(HypercallError, match="to itself"):
        table.publish(1, 1, Offer(9, 4, 0))
    assert table.withdraw(1, 2)
    assert not table.withdraw(1, 2)


def test_the_offers_of_and_for_a_dead_domain_are_gone() -> None:
    table = Publications()
    for granter, buddy in ((1, 2), (2, 3), (3, 1), (3, 4)):
        table.publish(granter, buddy, Offer(8, 3, 0))
    assert table.domain_died(1) == [(1, 2), (3, 1)]
    assert table.domain_died(1) == []
    assert table.lookup(3, 4) == Offer(8, 3, 0)
