"""A process that was granted memory, and does with it all that it can.

The grantee is a real process that uses system calls instead of our runtime: it keeps descriptors
and mappings, opens the descriptor again, forks a child that outlives it, and unmaps nothing. What
it can do, and what not:

- Read-only memory: nothing but read. The kernel refuses every way to write it, or to free it.
- Writable memory, before the revocation: anything to the contents, which is what was granted; a
  hole that it punches is zeros to the owner, never a fault, since it cannot change the size.
- Afterwards: nothing that the owner could see, and it sees nothing of the owner. It keeps what it
  had read, the old snapshot of what was read-only, and orphan pages.
- The orphans count against it until it says that it has unmapped. That is believed: a descriptor or
  a child that it keeps shows in no account. What it has by them is memory of its own making (it
  can fill the old memfd up to its size), or a snapshot, for which the owner pays no more.
- Death ends the account, too; a child that it left has what was said above, and no hypercalls.
- A process with CAP_LINUX_IMMUTABLE, as one of root's is, can lock a memfd against holes for
  everybody. It could as well trace the owner: it is no peer to be protected from.
"""

from __future__ import annotations

import mmap
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor import GrantQuota, Mapping, Virq
from tests.hypervisor.grant_programs import PATIENCE, Domain, World
from tests.hypervisor.hostile_programs import RESIZE, WRITE_ANYWAY, Hostile
from tests.hypervisor.port_programs import wait_for

PAGE = mmap.PAGESIZE
PAGES = 16
SIZE = PAGES * PAGE


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture
def owner(world: World) -> Domain:
    return world.domain("here")


@pytest.fixture
def hostile(world: World) -> Domain:
    return Domain(None, world.front(Hostile, "process", "hostile"))


class Child:
    """The other end of what `hostile_programs.fork` leaves."""

    def __init__(self, hostile: Domain, directory: Path) -> None:
        path = str(directory / "child")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            listener.bind(path)
            listener.listen()
            listener.settimeout(PATIENCE)
            self.pid: int = hostile("fork", path)
            self._socket, _ = listener.accept()
        self._socket.settimeout(PATIENCE)
        assert self._socket.recv(PAGE) == b"here"

    def __call__(self, what: str, data: bytes) -> bytes:
        self._socket.send(f"{what}:".encode() + data)
        return self._socket.recv(PAGE)

    def close(self) -> None:
        """Let it go, and return when it is gone."""
        self._socket.shutdown(socket.SHUT_WR)
        assert self._socket.recv(PAGE) == b""
        self._socket.close()


def robbed(owner: Domain, hostile: Domain, *, readonly: bool = False) -> tuple[int, int]:
    """A region that the hostile one has all of; its number, and the gref."""
    number = owner("make", SIZE, readonly)
    owner("fill", number, 0, b"ours", SIZE // 4)
    gref = owner("grant", number, hostile.domid, 0, SIZE, {"readonly": readonly})
    hostile("take", owner.domid, gref)
    return number, gref


# --- before the revocation ------------------------------------------------------------------------


@pytest.mark.parametrize("readonly", [False, True])
def test_granted_memory_can_neither_change_its_size_nor_its_seals(
    owner: Domain, hostile: Domain, readonly: bool
) -> None:
    number, _ = robbed(owner, hostile, readonly=readonly)
    outcome = hostile("resize", 0)
    assert set(outcome) == set(RESIZE)
    assert {name for name, how in outcome.items() if how == "done"} == set()
    owner("put", number, SIZE - 4, b"fine")
    assert owner("get", number, SIZE - 8, 8) == b"oursfine"


def test_read_only_memory_can_only_be_read(owner: Domain, hostile: Domain) -> None:
    number, _ = robbed(owner, hostile, readonly=True)
    outcome = hostile("write anyway", 0)
    assert set(outcome) == set(WRITE_ANYWAY)
    assert {name for name, how in outcome.items() if how == "done"} == set()
    assert owner("get", number, 0, 8) == b"oursours"
    assert hostile("look", 0, bytes(4)) == b"ours"


def test_to_writable_memory_everything_can_be_done_and_none_of_it_is_a_fault(
    owner: Domain, hostile: Domain
) -> None:
    number, _ = robbed(owner, hostile)
    outcome = hostile("write anyway", 0)
    assert outcome["punch a hole"] == outcome["advise it away"] == "done"
    hostile("punch", 0)
    assert owner("get", number, 0, 8) == bytes(8)
    owner("put", number, 0, b"oursours")
    hostile("write everywhere", 0, b"evil")
    assert owner("get", number, 0, 8) == b"evilours"


def test_flags_on_the_shared_descriptor_stop_neither_copies_nor_a_revocation(
    world: World, owner: Domain, hostile: Domain
) -> None:
    number, gref = robbed(owner, hostile)
    hostile("append", 0)
    owner("copy", ["own", number, 0], ["own", number, SIZE - 2], 2)
    assert owner("get", number, SIZE - 4, 4) == b"ouou"
    region = world.here.regions[number]
    world.machine.guest.revoke(gref, keep=[(0, PAGE)], held=[(PAGE, PAGE)])
    again = owner("grant", number, hostile.domid, 0, SIZE, {})
    hostile("take", owner.domid, again)
    hostile("append", 1)
    region.settle(PAGE, PAGE)
    assert owner("get", number, 2 * PAGE - 4, 8) == b"ours" + bytes(4)
    mapping = Mapping(region.fd, PAGE, 4, readonly=True)
    assert bytes(mapping.view) == b"ours"
    mapping.close()


# --- after it -------------------------------------------------------------------------------------


def test_a_revocation_asks_neither_the_process_nor_its_child(
    world: World, owner: Domain, hostile: Domain, tmp_path: Path
) -> None:
    number, gref = robbed(owner, hostile)
    child = Child(hostile, tmp_path)
    owner("revoke", gref)
    assert hostile("bytes that it has", 0) == 0  # freed, whoever maps it
    owner("put", number, 0, b"secret")
    for thief in (lambda what, data: hostile(what, 0, data), child):
        for look in ("look", "look anew"):
            assert thief(look, bytes(4)) == bytes(4)
        thief("write everywhere", b"evil")
        assert thief("look anew", bytes(4)) == b"evil"
        assert owner("get", number, 0, 8) == b"secretrs"
        assert owner("get", number, SIZE - PAGE, 8) == b"oursours"
        hostile("punch", 0)
    hostile("resize", 0)
    again = owner("grant", number, owner.domid, 0, SIZE, {})
    mine = owner("map", owner.domid, again, None)
    child("write everywhere", b"evil")
    assert owner("peek", mine, 0, 8) == b"secretrs"
    child.close()


def test_a_child_that_outlives_its_domain_is_cut_off_as_well(
    world: World, owner: Domain, hostile: Domain, tmp_path: Path
) -> None:
    number, gref = robbed(owner, hostile)
    exception = world.machine.guest.bind_virq(Virq.DOM_EXC)
    child = Child(hostile, tmp_path)
    world.machine.kill("hostile")
    owner.told("last", gref)
    assert wait_for(exception)
    child("write everywhere", b"evil")  # which is why nobody relies on the last mapping's end
    assert owner("get", number, 0, 4) == b"evil"
    owner("revoke", gref)
    child("write everywhere", b"lost")
    owner("put", number, 0, b"ours")
    assert owner("get", number, 0, 8) == b"oursours"
    assert owner("get", number, PAGE, 4) == b"evil"
    assert child("look", bytes(4)) == b"lost"
    exception.close_signals()
    child.close()


def test_the_old_snapshot_of_read_only_memory_is_all_that_is_left_of_it(
    owner: Domain, hostile: Domain
) -> None:
    number, gref = robbed(owner, hostile, readonly=True)
    owner("revoke", gref)
    owner("fill", number, 0, b"new!", SIZE // 4)
    for look in ("look", "look anew"):
        assert hostile(look, 0, bytes(8)) == b"oursours"
    outcome = hostile("write anyway", 0)
    assert {name for name, how in outcome.items() if how == "done"} == set()
    assert hostile("bytes that it has", 0) == SIZE  # nobody can free it: what it holds is its own
    owner("release", number)
    assert hostile("look anew", 0, bytes(4)) == b"ours"


def test_a_lie_about_unmapping_is_believed_by_the_account_and_not_by_a_revocation(
    owner: Domain, hostile: Domain
) -> None:
    number, gref = robbed(owner, hostile)
    before = owner("usage", hostile.domid)
    hostile("say unmapped", 0)
    owner.told("last", gref)
    after = owner("usage", hostile.domid)
    assert before[3] - after[3] == 1
    hostile("write everywhere", 0, b"evil")
    assert owner("get", number, 0, 4) == b"evil"
    owner("revoke", gref)
    hostile("write everywhere", 0, b"lost")
    assert owner("get", number, 0, 8) == b"evilours"
    assert owner("usage", hostile.domid)[4] == 0


# --- orphans --------------------------------------------------------------------------------------


def test_who_keeps_too_much_of_what_was_revoked_is_killed_and_nobody_else() -> None:
    quota = GrantQuota(orphans=SIZE)
    with World(grant_quota=quota, watchdog=3.0) as world:
        owner = world.domain("here")
        exception = world.machine.guest.bind_virq(Virq.DOM_EXC)
        modest, sorry, greedy = (
            Domain(None, world.front(Hostile, "process", name))
            for name in ("modest", "sorry", "greedy")
        )
        taken = {
            domain.domid: [robbed(owner, domain) for _ in range(1 if domain is modest else 2)]
            for domain in (modest, sorry, greedy)
        }
        for domain in (modest, sorry, greedy):  # so the greedy one's time is over last
            for _, gref in taken[domain.domid]:
                owner("revoke", gref)
            if domain is sorry:
                sorry("say unmapped", 0)
        assert wait_for(exception)
        for domain in (modest, sorry):
            assert owner("usage", domain.domid)[4] == SIZE
            assert domain("look anew", 0, bytes(4)) == bytes(4)
        assert owner.refused("usage", greedy.domid) == "HypercallError"
        assert not exception.consume()
        exception.close_signals()


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_who_has_too_many_orphans_maps_nothing_before_it_lets_go(placement: str) -> None:
    with World(grant_quota=GrantQuota(orphans=PAGE), watchdog=60.0) as world:
        owner, grantee = world.domain("here"), world.domain(placement)
        number = owner("make", 3 * PAGE, False)
        grefs = [owner("grant", number, grantee.domid, at * PAGE, PAGE, {}) for at in range(3)]
        handles = [grantee("map", owner.domid, gref, None) for gref in grefs[:2]]
        for gref in grefs[:2]:
            owner("revoke", gref)
            grantee.told("revoked", gref)
        assert grantee.refused("map", owner.domid, grefs[2], None) == "QuotaExceeded"
        grantee("unmap", handles[0])
        grantee("map", owner.domid, grefs[2], None)
