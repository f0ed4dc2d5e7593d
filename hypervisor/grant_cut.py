"""How mappings hold grants, and how grants are taken away: the only code that changes the trees.

Pure functions on the entries of `grant_entry`. ``tables`` has the table of every domain that an
entry belongs to, also of one that is dying.
"""

from __future__ import annotations

from collections.abc import Mapping

from hypervisor.grant_effects import (
    Effect,
    GrantGone,
    LastMappingGone,
    Overdrawn,
    Revoked,
    StillReachable,
    Withdraw,
)
from hypervisor.grant_entry import Grant, M, MapTrack, Memory, Table
from hypervisor.page_spans import Span

Tables = Mapping[int, Table[M]]


def attach(tables: Tables[M], grant: Grant[M]) -> None:
    """Put a new grant into its table and its tree."""
    tables[grant.owner].grants[grant.gref] = grant
    if grant.parent is None:
        grant.memory.grants.add(grant.pages, grant.gref)
    else:
        grant.parent.children[grant.key] = grant


def detach(tables: Tables[M], grant: Grant[M]) -> None:
    """Take a grant, with all below it, out of all tables and out of its tree."""
    if grant.parent is not None:
        del grant.parent.children[grant.key]
    else:
        grant.memory.grants.remove(grant.pages, grant.gref)
        if grant.exposed:
            grant.memory.exposed.remove(grant.pages, grant.gref)
    for gone in grant.subtree():
        table = tables[gone.owner]
        del table.grants[gone.gref]
        table.account.grants -= 1
        if gone.users:
            table.account.mapped -= 1


def pin(tables: Tables[M], track: MapTrack[M], grant: Grant[M]) -> None:
    """A new mapping holds the grant that it was made from, and all above."""
    track.pinned = grant
    grant.tracks[track.domid, track.handle] = track
    for held in grant.upwards():
        if held.users == 0:
            tables[held.owner].account.mapped += 1
        held.users += 1
        if held.parent is None and not held.exposed:
            held.exposed = True
            held.memory.exposed.add(held.pages, held.gref)


def unpin(tables: Tables[M], track: MapTrack[M]) -> list[Effect[M]]:
    """The mapping is gone: settle its account, and tell those whose grant nobody maps now."""
    account = tables[track.domid].account
    account.mappings -= 1
    if track.revoked:
        account.orphans -= track.size
    effects: list[Effect[M]] = []
    if track.pinned is None:
        return effects
    del track.pinned.tracks[track.domid, track.handle]
    for held in track.pinned.upwards():
        held.users -= 1
        if held.users == 0:
            tables[held.owner].account.mapped -= 1
            effects.append(LastMappingGone(held.owner, held.gref))
    return effects


def cut(tables: Tables[M], grant: Grant[M]) -> list[Effect[M]]:
    """Revoke a grant and all below it; its mappings go over to the grant above, if there is one."""
    detach(tables, grant)
    effects: list[Effect[M]] = []
    for gone in grant.subtree():
        if gone.users:
            effects.append(LastMappingGone(gone.owner, gone.gref))
        effects.append(GrantGone(gone.owner, gone.gref))
        handles = tuple(track.handle for track in gone.tracks.values() if not track.revoked)
        if gone.grantee in tables:  # one that is dead keeps what it was granted, to no avail
            effects.append(Revoked(gone.grantee, gone.owner, gone.gref, handles))
        if handles and grant.parent is not None:
            memory = gone.memory
            effects.append(
                StillReachable(memory.owner, memory.handle, gone.offset, gone.length, gone.grantee)
            )
        for track in gone.tracks.values():
            effects += _orphan(tables, track, grant.parent)
    return effects


def withdraw(tables: Tables[M], memory: Memory[M], span: Span, page: int) -> list[Effect[M]]:
    """Take pages from everybody, with the island that mapped grants make of them."""
    island = memory.exposed.island(span)
    owner = tables[memory.owner]
    effects: list[Effect[M]] = []
    for start, stop in memory.withdrawn.add(island):
        size = (stop - start) * page
        owner.account.memory -= size
        effects.append(Withdraw(memory.owner, memory.handle, start * page, size))
    for gref in memory.grants.overlapping(island):
        effects += cut(tables, owner.grants[gref])
    return effects


def _orphan(tables: Tables[M], track: MapTrack[M], heir: Grant[M] | None) -> list[Effect[M]]:
    """Its grant is gone. ``heir`` counts this mapping already, as all above the grant did."""
    track.pinned = heir
    if heir is not None:
        heir.tracks[track.domid, track.handle] = track
    if track.revoked:
        return []
    track.revoked = True
    account = tables[track.domid].account
    if account.charge_orphan(track.size):
        return [Overdrawn(track.domid, account.quota.orphans)]
    return []
