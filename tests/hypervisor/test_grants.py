"""The pure grant tables: what each operation does, what it refuses, what it costs whom.

The same operations in any order: test_grant_model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from hypervisor.errors import BadGrant, GrantInUse, HypercallError, QuotaExceeded
from hypervisor.grant_effects import (
    Copy,
    Forget,
    GrantGone,
    GrantRef,
    GrantState,
    LastMappingGone,
    Mapped,
    Overdrawn,
    OwnMemory,
    Revoked,
    Rights,
    StillReachable,
    Transferred,
    Withdraw,
)
from hypervisor.grant_quota import GrantQuota, GrantUsage
from hypervisor.grants import DEPTH, Grants

PAGE = 16
PAGES = 6

RO = Rights(readonly=True)
COPY = Rights(copy_only=True)
SUB = Rights(sub_page=True)
ON = Rights(may_regrant=True)
RO_ON = Rights(readonly=True, may_regrant=True)


def machine(quota: GrantQuota | None = None) -> Grants[str]:
    """Domains 1 to 4; 1 has memory "m" of six pages, 2 has "n" of one."""
    grants: Grants[str] = Grants(page=PAGE)
    for domid in (1, 2, 3, 4):
        grants.add_domain(domid, quota)
    grants.populate(1, "m", PAGES * PAGE)
    grants.populate(2, "n", PAGE)
    return grants


def give(
    grants: Grants[str], to: int, first: int, last: int, rights: Rights = ON, domid: int = 1
) -> int:
    """Pages ``first`` to before ``last`` of "m"."""
    return grants.grant_access(domid, to, "m", first * PAGE, (last - first) * PAGE, rights)


# --- cases: what is done, what comes of it --------------------------------------------------------


def test_a_grant_is_mapped_and_unmapped_by_its_grantee() -> None:
    grants = machine()
    gref = give(grants, 2, 1, 3, RO)
    assert grants.map_grant_ref(2, 1, gref) == Mapped(1, "m", PAGE, 2 * PAGE, readonly=True)
    assert grants.map_grant_ref(2, 1, gref).handle == 2
    assert grants.query(1, gref) == GrantState(
        gref, 2, "m", PAGE, 2 * PAGE, RO, None, (), mapped_by={2: 2}
    )
    assert grants.usage(1) == GrantUsage(
        PAGES * PAGE, grants=1, mapped=1, mappings=0, orphans=0, regions=1
    )
    assert grants.usage(2) == GrantUsage(PAGE, grants=0, mapped=0, mappings=2, orphans=0, regions=1)
    assert grants.unmap_grant_ref(2, 1) == []
    assert grants.unmap_grant_ref(2, 2) == [LastMappingGone(1, gref)]
    assert grants.usage(1).idle == 1
    grants.end_access(1, gref)
    assert grants.grants_of(1) == []


def test_a_mapping_may_be_read_only_though_the_grant_is_not() -> None:
    grants = machine()
    gref = give(grants, 2, 0, 1)
    assert [
        grants.map_grant_ref(2, 1, gref, readonly=it).readonly for it in (None, False, True)
    ] == [
        False,
        False,
        True,
    ]


def test_a_last_mapping_is_told_each_time_that_it_goes() -> None:
    grants = machine()
    gref = give(grants, 2, 0, 1)
    for _ in range(3):
        handle = grants.map_grant_ref(2, 1, gref).handle
        assert grants.unmap_grant_ref(2, handle) == [LastMappingGone(1, gref)]


def test_revoking_a_mapped_grant_leaves_an_orphan_until_it_is_unmapped() -> None:
    grants = machine()
    gref = give(grants, 2, 1, 3)
    handle = grants.map_grant_ref(2, 1, gref).handle
    assert grants.revoke(1, gref) == [
        Withdraw(1, "m", PAGE, 2 * PAGE),
        LastMappingGone(1, gref),
        GrantGone(1, gref),
        Revoked(2, 1, gref, (handle,)),
    ]
    assert grants.revoke(1, gref) == []
    assert grants.usage(1) == GrantUsage(
        4 * PAGE, grants=0, mapped=0, mappings=0, orphans=0, regions=1
    )
    assert (grants.orphans(2), grants.usage(2).mappings) == (2 * PAGE, 1)
    assert grants.unmap_grant_ref(2, handle) == []
    assert (grants.orphans(2), grants.usage(2).mappings) == (0, 0)
    with pytest.raises(BadGrant, match="domain 2 has no mapping"):
        grants.unmap_grant_ref(2, handle)


def test_revoking_what_nobody_ever_mapped_needs_no_other_memory() -> None:
    grants = machine()
    gone, shared = give(grants, 2, 0, 2), give(grants, 3, 1, 3)
    assert grants.revoke(1, gone) == [GrantGone(1, gone), Revoked(2, 1, gone, ())]
    assert grants.grants_of(1) == [shared]
    assert grants.map_grant_ref(3, 1, shared).offset == PAGE
    assert give(grants, 2, 0, 2) > shared


def test_what_was_mapped_once_is_withdrawn_although_its_grantee_says_it_has_let_go() -> None:
    grants = machine()
    gref = give(grants, 2, 0, 1)
    grants.unmap_grant_ref(2, grants.map_grant_ref(2, 1, gref).handle)
    assert grants.revoke(1, gref)[0] == Withdraw(1, "m", 0, PAGE)


def test_revoking_pages_takes_what_overlaps_them_and_leaves_the_rest() -> None:
    grants = machine()
    before, at, idle, after = (
        give(grants, 2, 0, 1),
        give(grants, 2, 1, 3),
        give(grants, 3, 2, 4),
        give(grants, 3, 4, 6),
    )
    handles = {
        gref: grants.map_grant_ref(to, 1, gref).handle
        for to, gref in ((2, before), (2, at), (3, after))
    }
    assert grants.revoke_pages(1, "m", 2 * PAGE + 3, 1) == [
        Withdraw(1, "m", PAGE, 2 * PAGE),
        LastMappingGone(1, at),
        GrantGone(1, at),
        Revoked(2, 1, at, (handles[at],)),
        GrantGone(1, idle),
        Revoked(3, 1, idle, ()),
    ]
    assert grants.grants_of(1) == [before, after]
    assert grants.unmap_grant_ref(2, handles[before]) == [LastMappingGone(1, before)]
    assert grants.revoke_pages(1, "m", PAGE, 2 * PAGE) == []
    with pytest.raises(HypercallError, match="withdrawn"):
        give(grants, 2, 2, 3)
    give(grants, 2, 3, 4)


def test_mapped_grants_that_share_pages_are_an_island() -> None:
    grants = machine()
    chain = [give(grants, 2, at, at + 2) for at in (0, 1, 2)]
    apart = give(grants, 3, 4, 5)
    for gref in chain:
        grants.map_grant_ref(2, 1, gref)
    grants.map_grant_ref(3, 1, apart)
    effects = grants.revoke(1, chain[0])
    assert effects[0] == Withdraw(1, "m", 0, 4 * PAGE)
    assert [effect for effect in effects if isinstance(effect, GrantGone)] == [
        GrantGone(1, gref) for gref in chain
    ]
    assert grants.grants_of(1) == [apart]


def test_what_has_ended_is_no_part_of_an_island() -> None:
    grants = machine()
    ended, other = give(grants, 2, 0, 2), give(grants, 3, 1, 3)
    grants.unmap_grant_ref(2, grants.map_grant_ref(2, 1, ended).handle)
    grants.end_access(1, ended)
    grants.map_grant_ref(3, 1, other)
    assert grants.revoke(1, other)[0] == Withdraw(1, "m", PAGE, 2 * PAGE)


def test_what_was_granted_to_a_dead_domain_is_still_the_granters_to_take() -> None:
    grants = machine()
    mapped, idle = give(grants, 2, 0, 1), give(grants, 2, 1, 2)
    grants.map_grant_ref(2, 1, mapped)
    grants.domain_died(2)
    assert grants.revoke(1, mapped) == [Withdraw(1, "m", 0, PAGE), GrantGone(1, mapped)]
    assert grants.revoke(1, idle) == [GrantGone(1, idle)]


def test_copy_only_grants_are_never_in_the_way_of_a_revocation() -> None:
    grants = machine()
    copied, other = give(grants, 2, 0, 2, COPY), give(grants, 3, 0, 1, COPY)
    assert grants.copy(2, GrantRef(1, copied, 3), OwnMemory("n", 1), 4) == Copy("m", 3, "n", 1, 4)
    assert grants.revoke(1, copied) == [GrantGone(1, copied), Revoked(2, 1, copied, ())]
    assert grants.grants_of(1) == [other]


def test_memory_that_is_withdrawn_whole_is_forgotten_and_no_longer_charged() -> None:
    grants = machine()
    grants.revoke_pages(1, "m", 0, 2 * PAGE)
    assert grants.usage(1).memory == 4 * PAGE
    assert grants.revoke_pages(1, "m", PAGE, 5 * PAGE) == [
        Withdraw(1, "m", 2 * PAGE, 4 * PAGE),
        Forget(1, "m"),
    ]
    assert grants.usage(1).memory == 0
    assert grants.revoke_pages(1, "m", 0, 1) == []
    grants.populate(3, "m", PAGE)


def test_both_sides_of_a_copy() -> None:
    grants = machine()
    all_of_it, readable = give(grants, 2, 0, 6), give(grants, 2, 2, 3, RO)
    part = grants.grant_access(1, 2, "m", 5, 7, SUB)
    mine = OwnMemory("n", 0)
    assert grants.copy(2, mine, mine, PAGE) == Copy("n", 0, "n", 0, PAGE)
    assert grants.copy(2, GrantRef(1, readable), mine, PAGE) == Copy("m", 32, "n", 0, PAGE)
    assert grants.copy(2, mine, GrantRef(1, all_of_it, 90), 6) == Copy("n", 0, "m", 90, 6)
    assert grants.copy(2, GrantRef(1, part, 1), GrantRef(1, part, 0), 6) == Copy("m", 6, "m", 5, 6)
    assert grants.usage(2).mappings == grants.usage(1).mapped == 0


def test_memory_changes_hands_when_the_receiver_asked_for_it() -> None:
    grants = machine()
    gref = grants.accept_transfer(3, 2, 2 * PAGE)
    assert grants.usage(3) == GrantUsage(
        2 * PAGE, grants=1, mapped=0, mappings=0, orphans=0, regions=1
    )
    assert grants.transfer(2, "n", 3, gref) == [Transferred(3, gref, "n", PAGE, 2)]
    assert grants.usage(3) == GrantUsage(PAGE, grants=0, mapped=0, mappings=0, orphans=0, regions=1)
    assert grants.usage(2).memory == 0
    grants.grant_access(3, 2, "n", 0, PAGE)
    back = grants.accept_transfer(2, 3, PAGE)
    with pytest.raises(GrantInUse, match="granted 1 times"):
        grants.transfer(3, "n", 2, back)
    grants.end_access(2, back)
    assert grants.usage(2) == GrantUsage(0, grants=0, mapped=0, mappings=0, orphans=0, regions=0)
    again = grants.accept_transfer(2, 3, PAGE)
    assert grants.revoke(2, again) == []
    assert grants.usage(2).grants == 0


# --- cases: trees ---------------------------------------------------------------------------------


@dataclass
class Tree:
    """1 grants pages 1 to 5 to 2; 2 grants pages 2 to 4 on to 3, and 3 page 3 to 4, read-only."""

    grants: Grants[str] = field(default_factory=machine)

    def __post_init__(self) -> None:
        grants = self.grants
        self.top = give(grants, 2, 1, 5)
        self.middle = grants.grant_transitive(2, 3, 1, self.top, PAGE, 2 * PAGE, ON)
        self.leaf = grants.grant_transitive(3, 4, 2, self.middle, PAGE, PAGE, RO)


def test_a_grant_of_a_grant_is_of_the_same_memory() -> None:
    tree = Tree()
    grants = tree.grants
    assert grants.map_grant_ref(4, 3, tree.leaf) == Mapped(1, "m", 3 * PAGE, PAGE, readonly=True)
    assert grants.map_grant_ref(3, 2, tree.middle).offset == 2 * PAGE
    assert grants.query(1, tree.top).mapped_by == {3: 1, 4: 1}
    assert grants.query(1, tree.top).children == ((2, tree.middle),)
    assert grants.query(3, tree.leaf).parent == (2, tree.middle)
    assert [grants.usage(domid).mapped for domid in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert grants.unmap_grant_ref(3, 1) == []
    assert grants.unmap_grant_ref(4, 1) == [
        LastMappingGone(3, tree.leaf),
        LastMappingGone(2, tree.middle),
        LastMappingGone(1, tree.top),
    ]


def test_the_owner_revokes_a_whole_tree() -> None:
    tree = Tree()
    grants = tree.grants
    grants.map_grant_ref(2, 1, tree.top)
    grants.map_grant_ref(4, 3, tree.leaf)
    assert grants.revoke(1, tree.top) == [
        Withdraw(1, "m", PAGE, 4 * PAGE),
        LastMappingGone(1, tree.top),
        GrantGone(1, tree.top),
        Revoked(2, 1, tree.top, (1,)),
        LastMappingGone(2, tree.middle),
        GrantGone(2, tree.middle),
        Revoked(3, 2, tree.middle, ()),
        LastMappingGone(3, tree.leaf),
        GrantGone(3, tree.leaf),
        Revoked(4, 3, tree.leaf, (1,)),
    ]
    assert [grants.grants_of(domid) for domid in (1, 2, 3, 4)] == [[], [], [], []]
    assert [grants.orphans(domid) for domid in (1, 2, 3, 4)] == [0, 4 * PAGE, 0, PAGE]


@pytest.mark.parametrize("by", ["revocation", "death"])
def test_a_branch_that_is_cut_off_stays_in_the_way_of_what_is_above(by: str) -> None:
    tree = Tree()
    grants = tree.grants
    grants.map_grant_ref(4, 3, tree.leaf)
    grants.release(2, "n")
    effects = grants.revoke(2, tree.middle) if by == "revocation" else grants.domain_died(2)
    told = [LastMappingGone(2, tree.middle), GrantGone(2, tree.middle)]
    assert effects == [
        *(told if by == "revocation" else []),
        Revoked(3, 2, tree.middle, ()),
        LastMappingGone(3, tree.leaf),
        GrantGone(3, tree.leaf),
        Revoked(4, 3, tree.leaf, (1,)),
        StillReachable(1, "m", 3 * PAGE, PAGE, 4),
    ]
    assert grants.orphans(4) == PAGE
    with pytest.raises(GrantInUse, match="mapped by domain 4"):
        grants.end_access(1, tree.top)
    with pytest.raises(BadGrant):
        grants.map_grant_ref(4, 3, tree.leaf)
    assert grants.unmap_grant_ref(4, 1) == [LastMappingGone(1, tree.top)]
    grants.end_access(1, tree.top)


def test_what_was_cut_off_is_taken_by_the_owner_without_being_told_twice() -> None:
    tree = Tree()
    grants = tree.grants
    grants.map_grant_ref(4, 3, tree.leaf)
    grants.revoke(2, tree.middle)
    assert grants.revoke(1, tree.top) == [
        Withdraw(1, "m", PAGE, 4 * PAGE),
        LastMappingGone(1, tree.top),
        GrantGone(1, tree.top),
        Revoked(2, 1, tree.top, ()),
    ]
    assert grants.orphans(4) == PAGE
    assert grants.unmap_grant_ref(4, 1) == []


def test_a_grant_in_use_below_cannot_be_ended() -> None:
    tree = Tree()
    grants = tree.grants
    with pytest.raises(GrantInUse, match="granted on by domain 3"):
        grants.end_access(2, tree.middle)
    handle = grants.map_grant_ref(4, 3, tree.leaf).handle
    with pytest.raises(GrantInUse, match="mapped by domain 4"):
        grants.end_access(1, tree.top)
    grants.unmap_grant_ref(4, handle)
    grants.end_access(3, tree.leaf)
    grants.end_access(2, tree.middle)
    grants.end_access(1, tree.top)


def test_the_death_of_the_owner_takes_all_of_its_memory() -> None:
    tree = Tree()
    grants = tree.grants
    grants.map_grant_ref(4, 3, tree.leaf)
    effects = grants.domain_died(1)
    assert effects == [
        Withdraw(1, "m", 0, PAGES * PAGE),
        Revoked(2, 1, tree.top, ()),
        LastMappingGone(2, tree.middle),
        GrantGone(2, tree.middle),
        Revoked(3, 2, tree.middle, ()),
        LastMappingGone(3, tree.leaf),
        GrantGone(3, tree.leaf),
        Revoked(4, 3, tree.leaf, (1,)),
        Forget(1, "m"),
    ]
    assert grants.domain_died(1) == []
    assert grants.orphans(4) == PAGE
    assert grants.domain_died(4) == []


def test_the_death_of_a_grantee_releases_its_mappings() -> None:
    grants = machine()
    gref, other = give(grants, 2, 0, 1), give(grants, 3, 1, 2)
    for _ in range(2):
        grants.map_grant_ref(2, 1, gref)
    grants.map_grant_ref(3, 1, other)
    assert grants.domain_died(2) == [
        LastMappingGone(1, gref),
        Withdraw(2, "n", 0, PAGE),
        Forget(2, "n"),
    ]
    assert grants.usage(1) == GrantUsage(
        PAGES * PAGE, grants=2, mapped=1, mappings=0, orphans=0, regions=1
    )
    grants.end_access(1, gref)


def test_a_grant_can_be_granted_on_only_so_often() -> None:
    grants = machine()
    key, at = (1, give(grants, 2, 0, 1)), 2
    for _ in range(DEPTH):
        key, at = (at, grants.grant_transitive(at, 5 - at, *key, 0, PAGE, ON)), 5 - at
    with pytest.raises(HypercallError, match=f"granted on {DEPTH} times"):
        grants.grant_transitive(at, 5 - at, *key, 0, PAGE, ON)
    assert len(grants.domain_died(1)) == 1 + 1 + 1 + 2 * DEPTH


# --- refusals -------------------------------------------------------------------------------------

Do = Callable[[Grants[str]], Any]

REFUSALS: list[tuple[type[HypercallError], str, list[Do]]] = [
    # memory
    (HypercallError, "not whole pages", [lambda g: g.populate(1, "x", PAGE + 1)]),
    (HypercallError, "not whole pages", [lambda g: g.populate(1, "x", 0)]),
    (HypercallError, "somebody's already", [lambda g: g.populate(2, "m", PAGE)]),
    (HypercallError, "somebody's already", [lambda g: g.populate(1, "m", PAGE)]),
    (HypercallError, "no domain 9", [lambda g: g.populate(9, "x", PAGE)]),
    (HypercallError, "not memory of domain 2", [lambda g: g.release(2, "m")]),
    (GrantInUse, "granted 1 times", [lambda g: give(g, 2, 0, 1), lambda g: g.release(1, "m")]),
    # granting
    (HypercallError, "not memory of domain 2", [lambda g: give(g, 3, 0, 1, domid=2)]),
    (HypercallError, "no domain 9", [lambda g: give(g, 9, 0, 1)]),
    (HypercallError, "not in 0 to 96", [lambda g: give(g, 2, 5, 7)]),
    (HypercallError, "not in 0 to 96", [lambda g: give(g, 2, -1, 1)]),
    (HypercallError, "not in 0 to 96", [lambda g: give(g, 2, 1, 1)]),
    (HypercallError, "must be for a sub_page", [lambda g: g.grant_access(1, 2, "m", 1, PAGE)]),
    (HypercallError, "must be for a sub_page", [lambda g: g.grant_access(1, 2, "m", 0, 1)]),
    # using
    (BadGrant, "domain 1 has no grant 8 for domain 2", [lambda g: g.map_grant_ref(2, 1, 8)]),
    (
        BadGrant,
        "domain 1 has no grant 8 for domain 3",
        [lambda g: g.map_grant_ref(3, 1, give(g, 2, 0, 1))],
    ),
    (
        BadGrant,
        "domain 2 has no grant 8 for domain 2",
        [lambda g: g.map_grant_ref(2, 2, give(g, 2, 0, 1))],
    ),
    (
        BadGrant,
        "domain 1 has no grant 8 for domain 1",
        [lambda g: g.map_grant_ref(1, 1, give(g, 2, 0, 1))],
    ),
    (BadGrant, "there is no domain 9", [lambda g: g.map_grant_ref(2, 9, 8)]),
    (BadGrant, "there is no domain -1", [lambda g: g.map_grant_ref(2, -1, 8)]),
    (
        BadGrant,
        "domain 1 has ended, and its grants with it",
        [
            lambda g: give(g, 2, 0, 1),
            lambda g: g.domain_died(1),
            lambda g: g.map_grant_ref(2, 1, 8),
        ],
    ),
    (
        BadGrant,
        "domain 1 has no grant 8 for domain 2",
        [
            lambda g: give(g, 2, 0, 1),
            lambda g: g.end_access(1, 8),
            lambda g: give(g, 2, 0, 1),
            lambda g: g.map_grant_ref(2, 1, 8),
        ],
    ),
    (BadGrant, "no grant 8", [lambda g: g.map_grant_ref(2, 1, g.accept_transfer(1, 2, PAGE))]),
    (HypercallError, "for copying only", [lambda g: g.map_grant_ref(2, 1, give(g, 2, 0, 1, COPY))]),
    (HypercallError, "for copying only", [lambda g: g.map_grant_ref(2, 1, give(g, 2, 0, 1, SUB))]),
    (
        HypercallError,
        "read-only",
        [lambda g: g.map_grant_ref(2, 1, give(g, 2, 0, 1, RO), readonly=False)],
    ),
    (BadGrant, "domain 3 has no mapping 1", [lambda g: g.unmap_grant_ref(3, 1)]),
    (
        BadGrant,
        "domain 3 has no mapping 1",
        [lambda g: g.map_grant_ref(2, 1, give(g, 2, 0, 1)), lambda g: g.unmap_grant_ref(3, 1)],
    ),
    # ending
    (BadGrant, "domain 1 has no grant 8", [lambda g: g.end_access(1, 8)]),
    (BadGrant, "domain 2 has no grant 8", [lambda g: g.end_access(2, give(g, 2, 0, 1))]),
    (BadGrant, "domain 2 has no grant 8", [lambda g: g.query(2, give(g, 2, 0, 1))]),
    (
        GrantInUse,
        "in use; mapped by domain 2",
        [lambda g: g.map_grant_ref(2, 1, give(g, 2, 0, 1)), lambda g: g.end_access(1, 8)],
    ),
    # copying
    (
        HypercallError,
        "not memory of domain 2",
        [lambda g: g.copy(2, OwnMemory("m", 0), OwnMemory("n", 0), 1)],
    ),
    (
        HypercallError,
        "not in 0 to 16",
        [lambda g: g.copy(2, OwnMemory("n", 0), OwnMemory("n", 9), 8)],
    ),
    (
        HypercallError,
        "not in 0 to 16",
        [lambda g: g.copy(2, OwnMemory("n", 0), OwnMemory("n", 0), 0)],
    ),
    (
        HypercallError,
        "not in 0 to 16",
        [lambda g: g.copy(2, GrantRef(1, give(g, 2, 0, 1), 9), OwnMemory("n", 0), 8)],
    ),
    (
        HypercallError,
        "not in 0 to 16",
        [lambda g: g.copy(2, GrantRef(1, give(g, 2, 1, 2), -1), OwnMemory("n", 0), 1)],
    ),
    (
        HypercallError,
        "read-only",
        [lambda g: g.copy(2, OwnMemory("n", 0), GrantRef(1, give(g, 2, 0, 1, RO)), 1)],
    ),
    (
        BadGrant,
        "for domain 3",
        [lambda g: g.copy(3, GrantRef(1, give(g, 2, 0, 1)), GrantRef(1, 8), 1)],
    ),
    (
        HypercallError,
        "withdrawn",
        [
            lambda g: g.revoke_pages(1, "m", 0, 1),
            lambda g: g.copy(1, OwnMemory("m", PAGE - 1), OwnMemory("m", PAGE), 1),
        ],
    ),
    # granting on
    (
        HypercallError,
        "may not be granted on",
        [lambda g: g.grant_transitive(2, 3, 1, give(g, 2, 0, 1, Rights()), 0, PAGE)],
    ),
    (
        HypercallError,
        "is more than",
        [lambda g: g.grant_transitive(2, 3, 1, give(g, 2, 0, 1, RO_ON), 0, PAGE)],
    ),
    (
        HypercallError,
        "is more than",
        [
            lambda g: g.grant_transitive(
                2, 3, 1, give(g, 2, 0, 1, replace(ON, copy_only=True)), 0, 16
            )
        ],
    ),
    (
        HypercallError,
        "not in 0 to 32",
        [lambda g: g.grant_transitive(2, 3, 1, give(g, 2, 1, 3), PAGE, 2 * PAGE)],
    ),
    (
        HypercallError,
        "not in 0 to 32",
        [lambda g: g.grant_transitive(2, 3, 1, give(g, 2, 1, 3), -PAGE, PAGE)],
    ),
    (BadGrant, "for domain 3", [lambda g: g.grant_transitive(3, 2, 1, give(g, 2, 0, 1), 0, PAGE)]),
    (
        HypercallError,
        "no domain 9",
        [lambda g: g.grant_transitive(2, 9, 1, give(g, 2, 0, 1), 0, PAGE)],
    ),
    # transferring
    (HypercallError, "is no memory", [lambda g: g.accept_transfer(1, 2, 0)]),
    (HypercallError, "no domain 9", [lambda g: g.accept_transfer(1, 9, PAGE)]),
    (BadGrant, "no grant 8 for domain 2", [lambda g: g.transfer(2, "n", 3, 8)]),
    (BadGrant, "there is no domain 9", [lambda g: g.transfer(2, "n", 9, 8)]),
    (
        BadGrant,
        "domain 3 has no grant 8 for domain 2",
        [lambda g: g.accept_transfer(3, 1, PAGE), lambda g: g.transfer(2, "n", 3, 8)],
    ),
    (
        HypercallError,
        "96 bytes; domain 3 takes 16",
        [lambda g: g.accept_transfer(3, 1, PAGE), lambda g: g.transfer(1, "m", 3, 8)],
    ),
    (
        HypercallError,
        "not memory of domain 2",
        [lambda g: g.accept_transfer(3, 2, PAGE), lambda g: g.transfer(2, "m", 3, 8)],
    ),
    (
        HypercallError,
        "withdrawn",
        [
            lambda g: g.accept_transfer(3, 1, 6 * PAGE),
            lambda g: g.revoke_pages(1, "m", 0, 1),
            lambda g: g.transfer(1, "m", 3, 8),
        ],
    ),
    (HypercallError, "not memory of domain 2", [lambda g: g.revoke_pages(2, "m", 0, 1)]),
    (HypercallError, "not in 0 to 96", [lambda g: g.revoke_pages(1, "m", 90, 7)]),
]


@pytest.mark.parametrize(("error", "text", "steps"), REFUSALS)
def test_what_is_refused(error: type[HypercallError], text: str, steps: list[Do]) -> None:
    grants = machine()
    for step in steps[:-1]:
        step(grants)
    with pytest.raises(HypercallError, match=text) as caught:
        steps[-1](grants)
    assert type(caught.value) is error


def test_a_domid_is_never_used_again() -> None:
    grants = machine()
    grants.domain_died(4)
    for domid in (4, 1, 0):
        with pytest.raises(ValueError, match="the next is 5"):
            grants.add_domain(domid)


# --- quotas ---------------------------------------------------------------------------------------


def test_a_domain_may_have_exactly_as_much_as_its_quota_says() -> None:
    quota = GrantQuota(memory=8 * PAGE, grants=2, mappings=2, orphans=PAGE)
    grants = machine(quota)
    grants.populate(1, "x", 2 * PAGE)
    with pytest.raises(QuotaExceeded, match="domain 1 may have 128 bytes of memory, not 144"):
        grants.populate(1, "y", PAGE)
    with pytest.raises(QuotaExceeded, match="bytes of memory"):
        grants.accept_transfer(1, 2, 1)
    grants.populate(2, "y", PAGE)  # nobody else is affected
    gref, _ = give(grants, 2, 0, 1), give(grants, 2, 1, 2)
    with pytest.raises(QuotaExceeded, match="domain 1 may have 2 grants, not 3"):
        give(grants, 2, 2, 3)
    handles = [grants.map_grant_ref(2, 1, gref).handle for _ in range(2)]
    with pytest.raises(QuotaExceeded, match="domain 2 may have 2 mappings, not 3"):
        grants.map_grant_ref(2, 1, gref)
    grants.unmap_grant_ref(2, handles[0])
    grants.map_grant_ref(2, 1, gref)
    grants.end_access(1, gref + 1)
    give(grants, 2, 1, 2)


def test_accepting_a_transfer_is_charged_or_refused_whole() -> None:
    grants = machine(GrantQuota(grants=1))
    grants.accept_transfer(3, 2, PAGE)
    with pytest.raises(QuotaExceeded, match="grants"):
        grants.accept_transfer(3, 2, PAGE)
    assert grants.usage(3).memory == PAGE
    assert grants.usage(3).regions == 1


def test_memory_costs_its_owner_a_region_however_little_it_is() -> None:
    grants = machine(GrantQuota(regions=2))
    grants.populate(1, "x", PAGE)
    for call in (
        lambda: grants.populate(1, "y", PAGE),
        lambda: grants.accept_transfer(1, 2, PAGE),
    ):
        with pytest.raises(QuotaExceeded, match="domain 1 may have 2 regions, not 3"):
            call()
    assert grants.usage(1).memory == (PAGES + 1) * PAGE
    grants.revoke_pages(1, "x", 0, PAGE)
    grants.end_access(1, grants.accept_transfer(1, 2, PAGE))
    grants.populate(1, "y", PAGE)
    grants.release(1, "y")
    assert grants.usage(1).regions == 1


def test_too_many_orphans_are_said_once_and_must_be_let_go() -> None:
    grants = machine(GrantQuota(orphans=2 * PAGE))
    grefs = [give(grants, 2, at, at + 1) for at in range(5)]
    handles = [grants.map_grant_ref(2, 1, gref).handle for gref in grefs[:4]]
    said = [Overdrawn(2, 2 * PAGE) in grants.revoke(1, gref) for gref in grefs[:4]]
    assert said == [False, False, True, False]
    assert grants.overdrawn(2)
    with pytest.raises(QuotaExceeded, match="revoked and it still maps"):
        grants.map_grant_ref(2, 1, grefs[4])
    grants.unmap_grant_ref(2, handles[0])
    assert grants.overdrawn(2)
    grants.unmap_grant_ref(2, handles[1])
    assert not grants.overdrawn(2)
    grants.map_grant_ref(2, 1, grefs[4])
    assert Overdrawn(2, 2 * PAGE) in grants.revoke(1, grefs[4])
    grants.domain_died(2)
    assert not grants.overdrawn(2)
