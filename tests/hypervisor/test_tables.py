"""The pure table of grants."""

from __future__ import annotations

import pytest

from hypervisor import BadGrant, GrantTable, HypercallError


def test_only_the_grantee_may_map_a_grant() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 4096, readonly=True)
    entry = table.map_grant_ref(gref, 2)
    assert (entry.memory, entry.length, entry.readonly) == ("pages", 4096, True)
    with pytest.raises(BadGrant):
        table.map_grant_ref(gref, 3)
    with pytest.raises(BadGrant):
        table.map_grant_ref(gref + 1, 2)


def test_a_mapped_grant_cannot_be_ended_but_can_be_revoked() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 1, readonly=False)
    table.map_grant_ref(gref, 2)
    with pytest.raises(HypercallError, match="in use by domain 2"):
        table.end_access(gref)
    revoked = table.revoke(gref)
    assert revoked is not None
    assert revoked.memory == "pages"
    assert table.revoke(gref) is None
    assert not table.unmap_grant_ref(gref, 2)
    with pytest.raises(BadGrant):
        table.map_grant_ref(gref, 2)


def test_a_grant_ends_after_its_last_mapping() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 1, readonly=False)
    table.map_grant_ref(gref, 2)
    table.map_grant_ref(gref, 2)
    assert not table.unmap_grant_ref(gref, 2)
    assert not table.unmap_grant_ref(gref, 3)
    assert table.unmap_grant_ref(gref, 2)
    assert table.end_access(gref) == "pages"
    assert len(table) == 0
    with pytest.raises(BadGrant):
        table.end_access(gref)


def test_the_mappings_of_a_dead_grantee_are_gone() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 1, readonly=False)
    table.map_grant_ref(gref, 2)
    table.grantee_died(2)
    assert table.end_access(gref) == "pages"


def test_a_dead_granter_loses_every_grant_and_references_are_never_reused() -> None:
    table: GrantTable[str] = GrantTable(1)
    first = table.grant_access(2, "a", 0, 1, readonly=False)
    assert [entry.gref for entry in table.revoke_all()] == [first]
    assert table.grant_access(2, "b", 0, 1, readonly=False) != first
    with pytest.raises(HypercallError, match="not a range"):
        table.grant_access(2, "c", -1, 1, readonly=False)
