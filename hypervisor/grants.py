"""The grant tables of a machine: who may map, copy and grant on which memory of whom.

Pure: no descriptors, threads or clocks. Memory is an opaque, hashable name that the actor around
this hands in and gets back; what must be done comes back as values (`grant_effects`). Words follow
xen/include/public/grant_table.h. A call that raises has changed nothing.

Rules:

1. Memory has one owner. Nobody else can grant it, except what a grant with ``may_regrant`` gives
   him, and never more than that: ranges and rights only shrink. So grants form trees.
2. `end_access` asks for co-operation and says `GrantInUse`; `revoke` does not ask. It takes the
   grant and all that was made from it, whoever has them.
3. **Memory is taken back by the page, from everybody.** Whoever mapped a page holds the memory
   behind it, so the owner gets other memory (`Withdraw`). Hence what shares a page with a mapped
   grant that is revoked is revoked too, and so on: an island. Grants on other pages stay; so do
   those that share a page with a grant that nobody ever mapped.
4. Only the owner of memory can have it exchanged. Who revokes what he granted *on* cuts the branch
   off; a mapping in it stays in the way of the grants above (`StillReachable`).
5. Grant references, handles and domids are never used again within a machine's life. A stale one,
   and one that is forged or meant for somebody else, names nothing: `BadGrant`.
6. A transfer needs the receiver's word (`accept_transfer`), who pays for it from then on.

Corner cases: a domain may grant to itself. A grant for a domain that has died stays, idle or pinned
from below, until its granter ends it. Trust: `end_access` believes a grantee that says it has
unmapped, and grants are by the page while a descriptor is of all the memory; who deals with the
malicious gives each its own memory, and revokes.

Cost: mapping and unmapping go up the tree (at most `DEPTH`), a revocation costs what it takes.
"""

from __future__ import annotations

from hypervisor.errors import BadGrant, GrantInUse, HypercallError
from hypervisor.grant_cut import attach, cut, detach, pin, unpin, withdraw
from hypervisor.grant_effects import (
    Copy,
    Effect,
    Forget,
    GrantRef,
    GrantState,
    Mapped,
    OwnMemory,
    Rights,
    Withdraw,
)
from hypervisor.grant_entry import Grant, M, Memory
from hypervisor.grant_ownership import Ownership
from hypervisor.page_spans import Span, span_of

DEPTH = 16
"""How often a grant can be granted on."""
PLAIN = Rights()
"""To map, writable, whole pages."""


class Grants(Ownership[M]):
    """Everything about grants in one machine. The first argument is always who calls.

    Args:
        page: bytes of a page.
    """

    def domain_died(self, domid: int) -> list[Effect[M]]:
        """Its mappings are gone; what it granted, and granted on, is revoked. Idempotent."""
        table = self._tables.get(domid)
        if table is None:
            return []
        effects: list[Effect[M]] = []
        for track in table.tracks.values():
            effects += unpin(self._tables, track)
        table.tracks.clear()
        for memory in list(table.memory.values()):
            effects += self._withdraw(memory, (0, memory.pages))
        while table.grants:
            effects += cut(self._tables, next(iter(table.grants.values())))
        del self._tables[domid]
        return [
            effect
            for effect in effects
            if isinstance(effect, Withdraw | Forget) or effect.domid in self._tables
        ]

    # --- granting ---

    def grant_access(
        self,
        domid: int,
        grantee: int,
        memory: M,
        offset: int,
        length: int,
        rights: Rights = PLAIN,
    ) -> int:
        """Let ``grantee`` use a range of ``domid``'s memory; returns the grant reference."""
        record = self._own(domid, memory, "grant_access")
        self._in_range(offset, length, record.pages * self._page, "grant_access")
        self._refuse_withdrawn(record, span_of(offset, length, self._page), "grant_access")
        return self._grant(domid, grantee, record, offset, length, rights, None)

    def grant_transitive(
        self,
        domid: int,
        grantee: int,
        granter: int,
        gref: int,
        offset: int,
        length: int,
        rights: Rights = PLAIN,
    ) -> int:
        """Grant on, to ``grantee``, a range of what ``granter`` granted to ``domid``.

        ``offset`` is within that grant. Unlike in Xen the result can be mapped.
        """
        parent = self._granted(domid, granter, gref)
        if not parent.rights.may_regrant:
            raise HypercallError(f"grant {gref} of domain {granter} may not be granted on")
        if not rights.within(parent.rights):
            raise HypercallError(f"{rights} is more than the {parent.rights} of grant {gref}")
        if sum(1 for _ in parent.upwards()) > DEPTH:
            raise HypercallError(f"grant {gref} of domain {granter} was granted on {DEPTH} times")
        self._in_range(offset, length, parent.length, "grant_transitive")
        offset += parent.offset
        return self._grant(domid, grantee, parent.memory, offset, length, rights, parent)

    def end_access(self, domid: int, gref: int) -> None:
        """Withdraw what nobody uses: a grant, or an `accept_transfer`.

        Raises:
            BadGrant: the domain has no such entry.
            GrantInUse: it is mapped, or granted on.
        """
        table = self._table(domid)
        if self._cancel(table, gref):
            return
        grant = table.grants.get(gref)
        if grant is None:
            raise BadGrant(f"end_access: domain {domid} has no grant {gref}")
        if grant.users:
            who = ", ".join(map(str, sorted(grant.mapped_by())))
            raise GrantInUse(f"end_access: grant {gref} is in use; mapped by domain {who}")
        if grant.children:
            raise GrantInUse(
                f"end_access: grant {gref} is in use; granted on by domain {grant.grantee}"
            )
        detach(self._tables, grant)

    # --- using ---

    def map_grant_ref(
        self, domid: int, granter: int, gref: int, *, readonly: bool | None = None
    ) -> Mapped[M]:
        """Map what ``granter`` granted to ``domid``; ``readonly`` None: as it was granted."""
        grant = self._granted(domid, granter, gref)
        if not grant.rights.mappable:
            raise HypercallError(f"grant {gref} of domain {granter} is for copying only")
        if grant.rights.readonly and readonly is False:
            raise HypercallError(f"grant {gref} of domain {granter} is read-only")
        first, last = grant.pages
        track = self._tables[domid].new_track((last - first) * self._page)
        pin(self._tables, track, grant)
        return Mapped(
            track.handle,
            grant.memory.handle,
            grant.offset,
            grant.length,
            grant.rights.readonly if readonly is None else readonly,
        )

    def unmap_grant_ref(self, domid: int, handle: int) -> list[Effect[M]]:
        """The mapping is gone, whether it had been revoked or not."""
        track = self._table(domid).tracks.pop(handle, None)
        if track is None:
            raise BadGrant(f"unmap_grant_ref: domain {domid} has no mapping {handle}")
        return unpin(self._tables, track)

    def copy(
        self,
        domid: int,
        source: OwnMemory[M] | GrantRef,
        dest: OwnMemory[M] | GrantRef,
        length: int,
    ) -> Copy[M]:
        """May ``domid`` copy that? Each side is memory of its own or was granted to it."""
        origin, start = self._copy_side(domid, source, length, write=False)
        target, at = self._copy_side(domid, dest, length, write=True)
        return Copy(origin, start, target, at, length)

    # --- taking back ---

    def revoke(self, domid: int, gref: int) -> list[Effect[M]]:
        """Withdraw a grant, whoever uses it, and what rule 3 says. Nothing if it is gone."""
        table = self._table(domid)
        grant = table.grants.get(gref)
        if grant is None:
            self._cancel(table, gref)
            return []
        if grant.exposed:
            return self._withdraw(grant.memory, grant.pages)
        return cut(self._tables, grant)

    def revoke_pages(self, domid: int, memory: M, offset: int, length: int) -> list[Effect[M]]:
        """Withdraw the pages of that range, and every grant of them, whether mapped or not.

        Nothing if they are gone.
        """
        if memory not in self._memory:
            self._table(domid)
            return []
        record = self._own(domid, memory, "revoke_pages")
        self._in_range(offset, length, record.pages * self._page, "revoke_pages")
        return self._withdraw(record, span_of(offset, length, self._page))

    # --- looking ---

    def query(self, domid: int, gref: int) -> GrantState[M]:
        """What has become of one's own grant."""
        grant = self._table(domid).grants.get(gref)
        if grant is None:
            raise BadGrant(f"query: domain {domid} has no grant {gref}")
        return grant.state()

    def grants_of(self, domid: int) -> list[int]:
        """Its grant references, oldest first."""
        return list(self._table(domid).grants)

    # --- inside ---

    def _grant(
        self,
        domid: int,
        grantee: int,
        memory: Memory[M],
        offset: int,
        length: int,
        rights: Rights,
        parent: Grant[M] | None,
    ) -> int:
        self._table(grantee)
        if not rights.sub_page and (offset % self._page or length % self._page):
            raise HypercallError(
                f"{length} bytes from {offset} are not whole pages of {self._page}; "
                "such a grant must be for a sub_page"
            )
        gref = self._tables[domid].new_gref()
        pages = span_of(offset, length, self._page)
        attach(
            self._tables,
            Grant(domid, gref, grantee, memory, offset, length, pages, rights, parent),
        )
        return gref

    def _granted(self, domid: int, granter: int, gref: int) -> Grant[M]:
        """The grant, if it is for ``domid``."""
        self._table(domid)
        table = self._tables.get(granter)
        grant = table.grants.get(gref) if table is not None else None
        if grant is None or grant.grantee != domid:
            raise self._no_grant(domid, granter, gref)
        return grant

    def _copy_side(
        self, domid: int, side: OwnMemory[M] | GrantRef, length: int, *, write: bool
    ) -> tuple[M, int]:
        if isinstance(side, OwnMemory):
            memory = self._own(domid, side.memory, "copy")
            self._in_range(side.offset, length, memory.pages * self._page, "copy")
            span = span_of(side.offset, length, self._page)
            self._refuse_withdrawn(memory, span, "copy")
            return side.memory, side.offset
        grant = self._granted(domid, side.granter, side.gref)
        self._in_range(side.offset, length, grant.length, "copy")
        if write and grant.rights.readonly:
            raise HypercallError(f"grant {side.gref} of domain {side.granter} is read-only")
        return grant.memory.handle, grant.offset + side.offset

    def _withdraw(self, memory: Memory[M], span: Span) -> list[Effect[M]]:
        effects = withdraw(self._tables, memory, span, self._page)
        if len(memory.withdrawn) == memory.pages:
            self._remove(memory)
            effects.append(Forget(memory.owner, memory.handle))
        return effects

    def _in_range(self, offset: int, length: int, size: int, what: str) -> None:
        if offset < 0 or length < 1 or offset + length > size:
            raise HypercallError(f"{what}: {length} bytes from {offset} are not in 0 to {size}")
