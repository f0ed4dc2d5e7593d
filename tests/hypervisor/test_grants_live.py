"""Grants between real domains: this process, threads and processes, in every role.

Nothing sleeps: who waits, waits for news, and news that are lost fail by `PATIENCE`.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hypervisor import GrantQuota, Region
from tests.hypervisor.grant_programs import Domain, World
from tests.hypervisor.hostile_hypercalls import HOSTILE

PAGE = mmap.PAGESIZE
MIB = 1 << 20

PAIRS = (("here", "process"), ("process", "here"), ("thread", "process"), ("here", "thread"))
"""Who grants, and who is granted."""
PLACEMENTS = ("thread", "process")
ON = {"may_regrant": True}

REFUSALS = {"HypercallError", "BadGrant", "GrantInUse", "NotPermitted", "QuotaExceeded"}


@pytest.fixture
def world() -> Iterator[World]:
    with World() as made:
        yield made


@pytest.fixture(params=PAIRS, ids="-".join)
def pair(world: World, request: pytest.FixtureRequest) -> tuple[Domain, Domain]:
    owner, grantee = request.param
    return world.domain(owner), world.domain(grantee)


def usage(domain: Domain, of: Domain | None = None) -> dict[str, int]:
    names = ("memory", "grants", "mapped", "mappings", "orphans", "regions")
    return dict(zip(names, domain("usage", (of or domain).domid), strict=True))


# --- granting, mapping, ending --------------------------------------------------------------------


def test_both_sides_share_the_granted_range_until_its_last_mapping_is_gone(
    pair: tuple[Domain, Domain],
) -> None:
    owner, grantee = pair
    before = usage(owner)
    number = owner("make", 4 * PAGE, False)
    owner("put", number, PAGE, b"ours")
    gref = owner("grant", number, grantee.domid, PAGE, 2 * PAGE, {})
    one = grantee("map", owner.domid, gref, None)
    other = grantee("map", owner.domid, gref, True)
    assert grantee("peek", other, 0, 4) == b"ours"
    grantee("poke", one, PAGE, b"theirs")
    assert owner("get", number, 2 * PAGE, 6) == grantee("peek", other, PAGE, 6) == b"theirs"
    assert grantee.refused("poke", other, 0, b"no") == "TypeError"
    assert grantee("peek", one, 2 * PAGE, 9) == b""  # it shows the range and no more
    now = usage(owner)
    assert now["memory"] - before["memory"] == 4 * PAGE
    assert (now["grants"] - before["grants"], now["mapped"] - before["mapped"]) == (1, 1)
    assert list(owner("query", gref)) == [grantee.domid, PAGE, 2 * PAGE, {grantee.domid: 2}]
    assert owner.refused("end", gref) == "GrantInUse"
    grantee("unmap", one)
    assert owner.refused("end", gref) == "GrantInUse"
    grantee("unmap", other)
    owner.told("last", gref)
    owner("end", gref)
    assert grantee.refused("map", owner.domid, gref, None) == "BadGrant"
    assert grantee.refused("unmap", one) == "BadGrant"
    owner("release", number)
    assert usage(owner) == before


def test_a_read_only_grant_is_read_only(pair: tuple[Domain, Domain]) -> None:
    owner, grantee = pair
    sealed, plain = owner("make", PAGE, True), owner("make", PAGE, False)
    readonly = {"readonly": True}
    assert owner.refused("grant", sealed, grantee.domid, 0, PAGE, {}) == "ValueError"
    assert owner.refused("grant", plain, grantee.domid, 0, PAGE, readonly) == "ValueError"
    gref = owner("grant", sealed, grantee.domid, 0, PAGE, readonly)
    assert grantee.refused("map", owner.domid, gref, False) == "HypercallError"
    handle = grantee("map", owner.domid, gref, None)
    owner("put", sealed, 0, b"seen")
    assert grantee("peek", handle, 0, 4) == b"seen"
    assert grantee.refused("poke", handle, 0, b"no") == "TypeError"
    owner("revoke", gref)
    owner("put", sealed, 0, b"kept")
    grantee.told("revoked", gref)
    assert grantee.refused("peek", handle, 0, 4) == "GrantRevoked"


def test_a_grant_is_for_one_domain_alone(world: World) -> None:
    owner, named, third = (world.domain(where) for where in ("here", "thread", "process"))
    number = owner("make", PAGE, False)
    gref = owner("grant", number, named.domid, 0, PAGE, ON)
    assert third.refused("map", owner.domid, gref, None) == "BadGrant"
    assert third.refused("regrant", 0, owner.domid, gref, 0, PAGE, {}) == "BadGrant"
    assert third.refused("copy", ["gref", owner.domid, gref, 0], ["own", 0, 0], 1) != ""
    named("map", owner.domid, gref, None)


def test_a_grant_that_there_is_no_room_for_stays_unmapped(world: World) -> None:
    owner, grantee = world.domain("here"), world.domain("process")
    before = usage(grantee)
    number = owner("make", 64 * MIB, False)
    gref = owner("grant", number, grantee.domid, 0, 64 * MIB, {})
    assert grantee.refused("map without room", owner.domid, gref) == "OSError"
    assert usage(grantee) == before
    owner("end", gref)
    owner("release", number)


def test_threads_that_grant_a_new_region_at_once_grant_the_same_memory(world: World) -> None:
    guest = world.machine.guest
    with ThreadPoolExecutor(4) as pool:
        for _ in range(50):
            region = Region(PAGE)
            grants = [pool.submit(guest.grant_access, 0, region) for _ in range(4)]
            assert len({guest.query_grant(grant.result()).memory for grant in grants}) == 1
            guest.release(region)


# --- copying --------------------------------------------------------------------------------------


def test_a_copy_goes_between_any_two_of_own_and_granted_memory(
    pair: tuple[Domain, Domain],
) -> None:
    owner, copier = pair
    size = 3 * MIB
    theirs, mine = owner("make", size, False), copier("make", size, False)
    line, lines = bytes(range(256)), 2 * MIB // 256
    owner("fill", theirs, 0, line, lines)
    owner("put", theirs, 2 * MIB, b"the end")
    length = 2 * MIB + 7
    rights = {"copy_only": True}
    whole = ["gref", owner.domid, owner("grant", theirs, copier.domid, 0, size, rights), 0]
    own = ["own", mine, 0]
    mapped = usage(copier)["mappings"]
    copier("copy", whole, own, length)
    for at in (0, MIB - 256, MIB, 2 * MIB - 256):
        assert copier("get", mine, at, 256) == line
    assert copier("get", mine, 2 * MIB, 9) == b"the end\0\0"
    copier("put", mine, 0, b"back")
    copier("copy", own, [*whole[:2], whole[2], 5], 4)
    assert owner("get", theirs, 5, 4) == b"back"
    copier("copy", [*whole[:3], 5], [*whole[:3], MIB], 4)
    assert owner("get", theirs, MIB, 4) == b"back"
    copier("copy", ["own", mine, 0], ["own", mine, 2], 4)  # the ranges overlap
    assert copier("get", mine, 0, 6) == b"baback"
    assert usage(copier)["mappings"] == mapped
    assert copier.refused("map", owner.domid, whole[2], None) == "HypercallError"
    assert copier.refused("copy", whole, own, size + 1) in ("HypercallError", "ValueError")


def test_a_copy_is_refused_where_the_rights_end(pair: tuple[Domain, Domain]) -> None:
    owner, copier = pair
    theirs, mine = owner("make", PAGE, False), copier("make", PAGE, False)
    sealed = copier("make", PAGE, True)
    owner("put", theirs, 0, b"0123456789")
    part = owner("grant", theirs, copier.domid, 2, 4, {"sub_page": True, "readonly": True})
    there, here = ["gref", owner.domid, part, 0], ["own", mine, 0]
    copier("copy", there, here, 4)
    assert copier("get", mine, 0, 5) == b"2345\0"
    assert copier.refused("copy", here, there, 1) == "HypercallError"
    assert copier.refused("copy", there, here, 5) == "HypercallError"
    assert copier.refused("copy", there, here, 0) == "HypercallError"
    assert copier.refused("copy", there, ["own", sealed, 0], 1) == "HypercallError"
    assert copier.refused("map", owner.domid, part, True) == "HypercallError"
    assert owner.refused("grant", theirs, copier.domid, 2, 4, {"copy_only": True})
    assert owner("get", theirs, 0, 10) == b"0123456789"
    owner("end", part)
    assert copier.refused("copy", there, here, 1) == "BadGrant"


# --- transfer -------------------------------------------------------------------------------------


def test_a_transfer_gives_the_memory_away_with_its_contents(pair: tuple[Domain, Domain]) -> None:
    giver, receiver = pair
    before = usage(giver), usage(receiver)
    number = giver("make", 2 * PAGE, False)
    giver("put", number, PAGE, b"a gift")
    again = giver("grant", number, giver.domid, 0, 2 * PAGE, {})
    old = giver("map", giver.domid, again, None)
    assert giver.refused("transfer", number, receiver.domid, 8) == "GrantInUse"
    giver("keep", old)
    giver("unmap", old)
    giver("end", again)
    gref = receiver("accept", giver.domid, 2 * PAGE)
    assert usage(receiver)["memory"] - before[1]["memory"] == 2 * PAGE
    giver("transfer", number, receiver.domid, gref)
    assert receiver.told("transferred", gref) == [2 * PAGE, giver.domid]
    mine = receiver("adopt", gref)
    assert receiver("get", mine, PAGE, 6) == b"a gift"
    receiver("put", mine, 0, b"mine")
    assert giver("get", number, 0, 4) == bytes(4)
    assert usage(giver) == before[0]
    back = receiver("grant", mine, giver.domid, 0, 2 * PAGE, {})
    handle = giver("map", receiver.domid, back, None)
    giver("poke", handle, 0, b"yours")
    assert receiver("get", mine, 0, 5) == b"yours"
    receiver("release", mine)
    giver.told("revoked", back)
    assert usage(receiver) == before[1]


def test_what_the_giver_still_maps_of_a_transfer_touches_nobody(world: World) -> None:
    giver, receiver = world.domain("here"), world.domain("process")
    number = giver("make", PAGE, False)
    giver("put", number, 0, b"a gift")
    hidden = mmap.mmap(world.here.regions[number].fd, PAGE)
    gref = receiver("accept", giver.domid, PAGE)
    giver("transfer", number, receiver.domid, gref)
    receiver.told("transferred", gref)
    mine = receiver("adopt", gref)
    hidden[:4] = b"evil"
    assert receiver("get", mine, 0, 6) == b"a gift"
    receiver("put", mine, 0, b"secret")
    assert hidden[:6] == b"evil\0\0"
    hidden.close()


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_transfer_needs_the_receivers_word_and_has_a_limit(world: World, placement: str) -> None:
    giver, receiver = world.domain(placement), world.domain("here")
    small, large = giver("make", 2 * PAGE, False), giver("make", 16 * MIB + PAGE, False)
    giver("put", small, 0, b"still")
    assert giver.refused("transfer", small, receiver.domid, 8) == "BadGrant"
    gref = receiver("accept", giver.domid, PAGE)
    assert giver.refused("transfer", small, receiver.domid, gref) == "HypercallError"
    receiver("end", gref)
    for_another = receiver("accept", receiver.domid, 2 * PAGE)
    assert giver.refused("transfer", small, receiver.domid, for_another) == "BadGrant"
    gref = receiver("accept", giver.domid, 32 * MIB)
    assert giver.refused("transfer", large, receiver.domid, gref) == "HypercallError"
    giver("release", large)
    assert giver("get", small, 0, 5) == b"still"
    giver("transfer", small, receiver.domid, gref)
    receiver.told("transferred", gref)
    assert giver.refused("transfer", small, receiver.domid, gref) == "ValueError"


def test_a_transfer_that_there_is_no_memory_for_leaves_the_giver_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_fd: int, _offset: int, _length: int) -> None:
        raise OSError(errno.ENOMEM, "no memory left")

    giver, receiver = world.domain("process"), world.domain("here")
    number = giver("make", PAGE, False)
    giver("put", number, 0, b"still")
    gref = receiver("accept", giver.domid, PAGE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", none_left)
        assert giver.refused("transfer", number, receiver.domid, gref) == "HypercallError"
    assert giver("get", number, 0, 5) == b"still"
    giver("transfer", number, receiver.domid, gref)
    receiver.told("transferred", gref)
    assert receiver("get", receiver("adopt", gref), 0, 5) == b"still"


# --- revocation -----------------------------------------------------------------------------------


def test_after_a_revocation_nothing_reaches_the_grantee_nor_comes_from_it(
    pair: tuple[Domain, Domain],
) -> None:
    owner, grantee = pair
    before = usage(grantee)
    number = owner("make", 2 * PAGE, False)
    owner("put", number, 0, b"ours")
    gref = owner("grant", number, grantee.domid, 0, 2 * PAGE, {})
    handle = grantee("map", owner.domid, gref, None)
    grantee("keep", handle)  # an array and a slice go on exporting the view
    assert grantee("kept", handle, 0, 4) == b"ours"
    owner("revoke", gref)
    owner.told("last", gref)
    owner.told("gone", gref)
    assert grantee.told("revoked", gref) == [owner.domid, [handle]]
    assert grantee.refused("peek", handle, 0, 4) == "GrantRevoked"
    assert grantee("kept", handle, 0, 4) == bytes(4)
    grantee("scribble", handle, 1, b"evil")
    assert grantee("kept", handle, 1, 4) == b"evil"
    assert owner("get", number, 0, 6) == b"ours\0\0"
    owner("put", number, 0, b"new")
    assert grantee("kept", handle, 0, 1) == b"\0"
    assert usage(grantee)["orphans"] == 2 * PAGE
    owner("revoke", gref)  # of what is gone, nothing
    grantee("unmap", handle)
    assert grantee.refused("unmap", handle) == "BadGrant"
    assert usage(grantee) == before


def test_an_array_of_a_revoked_read_only_grant_shows_the_old_snapshot(
    pair: tuple[Domain, Domain],
) -> None:
    owner, grantee = pair
    number = owner("make", PAGE, True)
    owner("put", number, 0, b"old")
    gref = owner("grant", number, grantee.domid, 0, PAGE, {"readonly": True})
    handle = grantee("map", owner.domid, gref, None)
    grantee("keep", handle)
    owner("revoke", gref)
    owner("put", number, 0, b"new")
    grantee.told("revoked", gref)
    assert grantee.refused("peek", handle, 0, 3) == "GrantRevoked"
    assert grantee("kept", handle, 0, 3) == b"old"
    grantee("unmap", handle)
    assert grantee("kept", handle, 0, 3) == bytes(3)
    assert owner("get", number, 0, 3) == b"new"


def test_pages_are_taken_by_themselves_and_leave_the_other_grants_alone(
    pair: tuple[Domain, Domain],
) -> None:
    owner, grantee = pair
    before = usage(owner)
    number = owner("make", 8 * PAGE, False)
    for page in range(8):
        owner("fill", number, page * PAGE, bytes([page]), PAGE)
    grefs = [owner("grant", number, grantee.domid, at * PAGE, PAGE, {}) for at in range(8)]
    handles = [grantee("map", owner.domid, gref, None) for gref in grefs]

    def shared(at: int) -> None:
        grantee("poke", handles[at], 0, b"to you")
        owner("put", number, at * PAGE + 8, b"to me")
        assert owner("get", number, at * PAGE, 6) == b"to you"
        assert grantee("peek", handles[at], 8, 5) == b"to me"

    def taken(at: int) -> None:
        grantee.told("revoked", grefs[at])
        assert grantee.refused("peek", handles[at], 0, 1) == "GrantRevoked"
        assert owner("get", number, (at + 1) * PAGE - 4, 4) == bytes([at] * 4)

    owner("revoke", grefs[3])
    taken(3)
    owner("revoke pages", number, 5 * PAGE, PAGE)
    taken(5)
    for at in (0, 1, 2, 4, 6, 7):
        shared(at)
    again = owner("grant", number, grantee.domid, 3 * PAGE, PAGE, {})  # on the page's new memory
    grefs[3], handles[3] = again, grantee("map", owner.domid, again, None)
    shared(3)
    owner("revoke pages", number, 3 * PAGE, 3 * PAGE)  # pieces of three memfds
    taken(3)
    taken(4)
    for at in (0, 1, 2, 6, 7):
        shared(at)
    assert owner.refused("grant", number, grantee.domid, 0, 8 * PAGE, {}) == "ValueError"
    owner("revoke pages", number, 0, 8 * PAGE)
    for at in (0, 1, 2, 6, 7):
        taken(at)
    whole = owner("grant", number, grantee.domid, 0, 8 * PAGE, {})  # it is in one piece again
    handle = grantee("map", owner.domid, whole, None)
    for at in range(8):
        assert grantee("peek", handle, (at + 1) * PAGE - 4, 4) == bytes([at] * 4)
    assert usage(owner)["memory"] - before["memory"] == 8 * PAGE
    owner("release", number)
    grantee.told("revoked", whole)
    assert usage(owner) == before


def test_what_shares_a_page_with_a_revoked_mapping_goes_with_it(
    pair: tuple[Domain, Domain],
) -> None:
    owner, grantee = pair
    number = owner("make", 3 * PAGE, False)
    one = owner("grant", number, grantee.domid, 0, 2 * PAGE, {})
    other = owner("grant", number, grantee.domid, PAGE, 2 * PAGE, {})
    handles = [grantee("map", owner.domid, gref, None) for gref in (one, other)]
    owner("put", number, 2 * PAGE, b"kept")
    owner("revoke", one)
    for gref, handle in zip((one, other), handles, strict=True):
        owner.told("gone", gref)
        grantee.told("revoked", gref)
        assert grantee.refused("peek", handle, 0, 1) == "GrantRevoked"
    assert owner("get", number, 2 * PAGE, 4) == b"kept"


def test_a_region_that_was_only_closed_can_be_revoked_and_shows_nothing(
    pair: tuple[Domain, Domain],
) -> None:
    owner, grantee = pair
    number = owner("make", PAGE, False)
    owner("put", number, 0, b"ours")
    gref = owner("grant", number, grantee.domid, 0, PAGE, {})
    handle = grantee("map", owner.domid, gref, None)
    grantee("keep", handle)
    owner("close", number)
    assert grantee("kept", handle, 0, 4) == bytes(4)
    owner("revoke", gref)
    grantee.told("revoked", gref)


# --- grants of grants -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "places", [("here", "thread", "process"), ("process", "here", "thread")], ids="-".join
)
def test_revoking_a_node_of_a_tree_revokes_what_is_below_it(
    world: World, places: tuple[str, str, str]
) -> None:
    owner, middle, last = (world.domain(place) for place in places)
    number = owner("make", 4 * PAGE, False)
    owner("put", number, 2 * PAGE, b"passed on")
    root = owner("grant", number, middle.domid, PAGE, 3 * PAGE, ON)
    node = middle("regrant", last.domid, owner.domid, root, PAGE, PAGE, {})
    assert last.refused("map", owner.domid, root, None) == "BadGrant"
    assert last.refused("regrant", owner.domid, middle.domid, node, 0, PAGE, {}) == "HypercallError"
    more = middle("grant", middle("make", PAGE, False), last.domid, 0, PAGE, {})
    unrelated = last("map", middle.domid, more, None)
    handle = last("map", middle.domid, node, None)
    assert last("peek", handle, 0, 9) == b"passed on"
    assert owner.refused("end", root) == "GrantInUse"
    owner("revoke", root)
    owner.told("last", root)
    owner.told("gone", root)
    middle.told("last", node)
    middle.told("gone", node)
    assert last.told("revoked", node) == [middle.domid, [handle]]
    assert last.refused("peek", handle, 0, 1) == "GrantRevoked"
    assert last("peek", unrelated, 0, 1) == b"\0"
    assert owner("get", number, 2 * PAGE, 9) == b"passed on"


@pytest.mark.parametrize(
    "places", [("here", "thread", "process"), ("process", "here", "thread")], ids="-".join
)
def test_who_granted_on_cannot_take_the_pages_but_their_owner_can(
    world: World, places: tuple[str, str, str]
) -> None:
    owner, middle, last = (world.domain(place) for place in places)
    number = owner("make", 2 * PAGE, False)
    root = owner("grant", number, middle.domid, 0, 2 * PAGE, ON)
    node = middle("regrant", last.domid, owner.domid, root, PAGE, PAGE, {})
    handle = last("map", middle.domid, node, None)
    last("keep", handle)
    middle("revoke", node)
    assert last.told("revoked", node) == [middle.domid, [handle]]
    assert last.refused("peek", handle, 0, 1) == "GrantRevoked"
    memory, offset, length = owner.told("still", last.domid)
    owner("put", number, PAGE, b"open")
    assert last("kept", handle, 0, 4) == b"open"  # by who kept an array: it is only cut off
    assert owner.refused("end", root) == "GrantInUse"
    region, at = owner("locate", memory, offset)
    assert (region, at, length) == (number, PAGE, PAGE)
    owner("revoke pages", region, at, length)
    owner("put", number, PAGE, b"shut")
    assert last("kept", handle, 0, 4) == bytes(4)
    assert owner("get", number, PAGE, 4) == b"shut"
    assert owner.refused("locate", memory, PAGE) == "KeyError"


def test_the_death_of_who_granted_on_reaches_the_owner(world: World) -> None:
    owner, last, middle = (world.domain(place) for place in ("here", "thread", "process"))
    number = owner("make", PAGE, False)
    root = owner("grant", number, middle.domid, 0, PAGE, ON)
    node = middle("regrant", last.domid, owner.domid, root, 0, PAGE, {})
    handle = last("map", middle.domid, node, None)
    world.machine.kill("process")
    _, offset, length = owner.told("still", last.domid)
    assert (offset, length) == (0, PAGE)
    last.told("revoked", node)
    last("unmap", handle)
    owner.told("last", root)
    owner("end", root)


# --- the last mapping -----------------------------------------------------------------------------


def test_the_owner_hears_of_the_last_mapping_of_a_domain_that_was_killed(world: World) -> None:
    owner, other, dying = (world.domain(place) for place in ("here", "thread", "process"))
    number = other("make", PAGE, False)
    theirs = other("grant", number, dying.domid, 0, PAGE, {})
    number = owner("make", PAGE, False)
    gref = owner("grant", number, dying.domid, 0, PAGE, {})
    for _ in range(2):
        dying("map", owner.domid, gref, None)
    dying("map", other.domid, theirs, None)
    before = usage(owner)
    world.machine.kill("process")
    owner.told("last", gref)
    other.told("last", theirs)
    assert usage(owner)["mapped"] <= before["mapped"] - 1
    owner("end", gref)
    other("end", theirs)
    assert owner.refused("grant", number, dying.domid, 0, PAGE, {}) == "HypercallError"


def test_memory_of_a_domain_that_was_killed_shows_zeros_to_its_grantees(world: World) -> None:
    grantee, third, dying = (world.domain(place) for place in ("here", "thread", "process"))
    number = dying("make", PAGE, False)
    dying("put", number, 0, b"secret")
    gref = dying("grant", number, grantee.domid, 0, PAGE, ON)
    handle = grantee("map", dying.domid, gref, None)
    grantee("keep", handle)
    node = grantee("regrant", third.domid, dying.domid, gref, 0, PAGE, {})
    there = third("map", grantee.domid, node, None)
    third("keep", there)
    world.machine.kill("process")
    assert grantee.told("revoked", gref) == [dying.domid, [handle]]
    third.told("revoked", node)
    assert grantee("kept", handle, 0, 6) == third("kept", there, 0, 6) == bytes(6)
    assert grantee.refused("map", dying.domid, gref, None) == "BadGrant"
    grantee("unmap", handle)


# --- quotas ---------------------------------------------------------------------------------------

SMALL = GrantQuota(memory=4 * MIB, grants=12, mappings=6, regions=6)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_quota_stops_the_domain_that_reached_it_alone_and_ends_with_the_use(
    placement: str,
) -> None:
    with World(grant_quota=SMALL) as world:
        greedy, other = world.domain(placement, "greedy"), world.domain("thread", "other")
        start = usage(greedy)
        assert greedy.refused("usage", other.domid) == "NotPermitted"
        large = greedy("make", 5 * MIB, False)
        assert greedy.refused("grant", large, other.domid, 0, PAGE, {}) == "QuotaExceeded"
        number = greedy("make", PAGE, False)
        grefs = [
            greedy("grant", number, greedy.domid, 0, PAGE, {}) for _ in range(12 - start["grants"])
        ]
        assert greedy.refused("grant", number, other.domid, 0, PAGE, {}) == "QuotaExceeded"
        assert greedy.refused("accept", other.domid, PAGE) == "QuotaExceeded"
        handles = [
            greedy("map", greedy.domid, grefs[0], None) for _ in range(6 - start["mappings"])
        ]
        assert greedy.refused("map", greedy.domid, grefs[0], None) == "QuotaExceeded"
        assert usage(world.domain("here"), greedy) == {
            "memory": start["memory"] + PAGE,
            "grants": 12,
            "mapped": start["mapped"] + 1,
            "mappings": 6,
            "orphans": 0,
            "regions": start["regions"] + 1,
        }
        theirs = other("make", PAGE, False)
        gref = other("grant", theirs, other.domid, 0, PAGE, {})
        other("map", other.domid, gref, None)
        greedy("revoke", grefs[0])
        assert usage(greedy)["orphans"] == len(handles) * PAGE
        for handle in handles:
            greedy("unmap", handle)
        greedy("release", number)
        assert usage(greedy) == start
        spare = [greedy("accept", other.domid, PAGE) for _ in range(6 - start["regions"])]
        assert greedy.refused("accept", other.domid, PAGE) == "QuotaExceeded"
        for gref in spare:
            greedy("end", gref)
        assert usage(greedy) == start


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_dead_domain_owes_nothing_and_nobody_may_ask(world: World, placement: str) -> None:
    here, domain = world.domain("here"), world.domain(placement)
    domain("grant", domain("make", PAGE, False), here.domid, 0, PAGE, {})
    world.machine.shutdown(placement)
    assert here.refused("usage", domain.domid) == "HypercallError"


# --- hostile hypercalls ---------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_no_hostile_hypercall_changes_anything(world: World, placement: str) -> None:
    stranger, hostile = world.domain("here"), world.domain(placement)
    theirs = stranger("make", PAGE, True)
    stranger("put", theirs, 0, b"secret")
    readonly = {"readonly": True}
    received = stranger("grant", theirs, hostile.domid, 0, PAGE, readonly)
    secret = stranger("grant", theirs, stranger.domid, 0, PAGE, {**readonly, **ON})
    mine = hostile("make", PAGE, False)
    hostile("put", mine, 0, b"mine")
    gref = hostile("grant", mine, hostile.domid, 0, PAGE, ON)
    facts = [
        hostile("memory of", gref),
        gref,
        stranger.domid,
        stranger("memory of", secret),
        received,
        secret,
    ]

    def picture() -> list[object]:
        return [
            usage(stranger),
            usage(hostile),
            stranger("query", secret),
            hostile("query", gref),
            stranger("get", theirs, 0, 64),
            hostile("get", mine, 0, 64),
        ]

    before = picture()
    refusals = {name: hostile.refused("hostile", name, *facts) for name in HOSTILE}
    assert {name: how for name, how in refusals.items() if how not in REFUSALS} == {}
    assert picture() == before
