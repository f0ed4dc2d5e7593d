"""A guest's hypercalls about memory and grants, as methods; the other half of `Guest`.

It owns what the guest must know for them: which of its regions has which numbers at the
hypervisor, and which `Mapping` has which handle. A region is made known to the hypervisor, and
charged, when it is first granted. A revocation is two halves: `withdraw` (the tables), then
`Region.renew` (the pages); `revoke` does both.

Who wakes whom: `hear` is called by the domain's door with what the hypervisor tells it. A mapping
that was revoked is of no use from there on, in the door's thread, whatever the program does; the
program is told next, and has yet to unmap it.

Corner case: the news that a mapping was revoked can overtake the answer that announced it. So
handles that nobody knows are remembered while anybody is waiting for such an answer.
"""

from __future__ import annotations

import os
import threading
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from actors import Fd, Lock, Message
from hypervisor import hypercalls as hc
from hypervisor.grant_effects import GrantRef, GrantState, Rights
from hypervisor.grant_quota import GrantUsage
from hypervisor.granting import COPY_LIMIT
from hypervisor.memory import Mapping, pages_of
from hypervisor.region import Backing, Region, Span, merged


class MemoryCalls(ABC):
    """Memory, grants and mappings of one domain; see `Guest`."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self._backings: weakref.WeakValueDictionary[int, Backing] = weakref.WeakValueDictionary()
        self._numbering: Lock = threading.Lock()
        self._mappings: dict[int, Mapping] = {}
        self._lock = threading.Lock()  # around the three that follow
        self._mapping = 0  # how many wait for the answer to MapGrantRef
        self._revoked_early: set[int] = set()

    @abstractmethod
    def hypercall(self, call: Message) -> Any:
        """Make one hypercall and wait for its answer."""

    # --- granting ---

    def grant_access(
        self,
        grantee: int,
        region: Region,
        offset: int = 0,
        length: int | None = None,
        *,
        readonly: bool = False,
        copy_only: bool = False,
        sub_page: bool = False,
        may_regrant: bool = False,
    ) -> int:
        """Let domain ``grantee`` use ``length`` bytes from ``offset`` of the region.

        Args:
            length: None: all from ``offset`` on.
            readonly, copy_only, sub_page, may_regrant: see `Rights`.

        Returns:
            The grant reference.

        Raises:
            ValueError: to be mapped read-only, and the region was not made ``readonly_to_peers``,
                so that the kernel would not enforce it; or the other way round. Or the range is
                not in one memfd (`Region.backing`).
            QuotaExceeded: this domain has as much memory, or as many grants, as it may have.

        A descriptor is of all the memory, whatever range of it is granted. Who deals with the
        malicious gives each a region of its own.
        """
        rights = Rights(readonly, copy_only, sub_page, may_regrant)
        if rights.mappable and readonly != region.readonly_to_peers:
            raise ValueError("a region made with readonly_to_peers is granted read-only, no other")
        size = region.size - offset if length is None else length
        backing = region.backing(offset, size)
        memory = self._number_of(backing)
        start = offset - backing.start
        return int(self.hypercall(hc.GrantAccess(grantee, memory, start, size, rights.flags)))

    def grant_transitive(
        self,
        grantee: int,
        granter: int,
        gref: int,
        offset: int,
        length: int,
        *,
        readonly: bool = False,
        copy_only: bool = False,
        sub_page: bool = False,
        may_regrant: bool = False,
    ) -> int:
        """Grant on, to ``grantee``, a range of what ``granter`` granted to this domain.

        Returns:
            The grant reference, of this domain.

        Raises:
            HypercallError: that grant may not be granted on, or not with these rights.
        """
        rights = Rights(readonly, copy_only, sub_page, may_regrant).flags
        call = hc.GrantTransitive(grantee, granter, gref, offset, length, rights)
        return int(self.hypercall(call))

    def end_access(self, gref: int) -> None:
        """Withdraw a grant that nobody uses.

        Raises:
            GrantInUse: somebody maps it, or has granted it on. `LastMappingGone` says when not.

        It is believed of who has unmapped, or died, that he keeps no descriptor and no child with
        one. Only `revoke` and `release` believe that of nobody.
        """
        self.hypercall(hc.EndAccess(gref))

    def query_grant(self, gref: int) -> GrantState[int]:
        """What has become of a grant of this domain; ``memory`` is for `locate`."""
        said = self.hypercall(hc.QueryGrant(gref))
        return GrantState(
            gref,
            said.grantee,
            said.memory,
            said.offset,
            said.length,
            Rights.of(said.rights),
            said.parent,
            tuple(said.children),
            said.mapped_by,
        )

    # --- taking back ---

    def revoke(
        self, gref: int, *, keep: Iterable[Span] | None = None, held: Iterable[Span] = ()
    ) -> None:
        """Take a grant, and all that was made from it, from whoever has it, whatever he does.

        Fresh pages lie under our own views afterwards. Grants of pages that it shared go too; see
        rule 3 of grants.py. Nothing happens if it is gone already.

        Args:
            keep, held: see `Region.renew`; ``keep`` None: all contents. Name also what is to be
                kept of the pages that other grants share with this one: they are taken too.

        Raises:
            OSError: there is no memory for what is kept, whose pages remain to be taken by
                `Region.renew`; or for the rest of the fresh pages (`Region.reserve`). The tables
                have no such grant any more.
        """
        withdrawn = self.withdraw(gref)
        for region, span in withdrawn:
            region.renew([span], [span] if keep is None else keep, held)
        for region in dict.fromkeys(region for region, _ in withdrawn):
            region.reserve()

    def revoke_pages(self, region: Region, offset: int, length: int) -> None:
        """Take those pages of the region, and every grant of them; the contents are kept.

        They are in one memfd afterwards, also if parts of them were renewed by themselves.

        Raises:
            ValueError: the region is closed, or that is no range of it.
            OSError: see `revoke`.
        """
        pieces = region.pieces(offset, length)
        if len(pieces) == 1 and pieces[0][0].memory is None:
            return  # nobody ever had any of it
        spans = [pages_of(offset, length)]
        for backing, (start, size) in pieces:
            if backing.memory is not None:
                call = hc.RevokePages(backing.memory, start - backing.start, size)
                spans += [span for _, span in self._withdrawn(call)]
        taken = merged(spans)
        region.renew(taken, taken)

    def withdraw(self, gref: int) -> list[tuple[Region, Span]]:
        """The first half of `revoke`: what is returned must be renewed, at once."""
        return self._withdrawn(hc.Revoke(gref))

    def release(self, region: Region) -> None:
        """Give a region up, with every grant of it. Idempotent, as `Region.close` is.

        One that is only closed stays charged to this domain until that ends.
        """
        self.withdraw_all(region)
        region.close()

    def withdraw_all(self, region: Region) -> None:
        """The first half of `release`: the region must be closed, at once."""
        for backing in region.backings():
            if backing.memory is not None:
                self.hypercall(hc.RevokePages(backing.memory, 0, backing.size))

    def locate(self, memory: int, offset: int) -> tuple[Region, int]:
        """The region of this domain that has that memory, and the offset in it.

        Raises:
            KeyError: the region is closed or garbage, has been renewed there since, or was never
                granted.
        """
        backing = self._backings[memory]
        region = backing.region
        if region is None or backing not in region.backings():
            raise KeyError(memory)
        return region, backing.start + offset

    # --- using what others granted ---

    def map_grant_ref(self, granter: int, gref: int, *, readonly: bool | None = None) -> Mapping:
        """Map what ``granter`` granted to this domain; ``readonly`` None: as it was granted.

        Raises:
            BadGrant: there is no such grant for this domain.
            QuotaExceeded: this domain maps as much as it may, or holds too much that was revoked.
            OSError: there is no room for it in our address space; nothing is mapped.
        """
        with self._lock:
            self._mapping += 1
        try:
            granted = self.hypercall(hc.MapGrantRef(granter, gref, readonly))
            try:
                mapping = Mapping(
                    granted.memory.fileno(),
                    granted.offset,
                    granted.length,
                    readonly=granted.readonly,
                    handle=granted.handle,
                )
            except OSError:
                self.hypercall(hc.UnmapGrantRef(granted.handle))
                raise
            finally:
                granted.memory.close()
            with self._lock:
                self._mappings[mapping.handle] = mapping
                if mapping.handle in self._revoked_early:
                    mapping.revoked()
            return mapping
        finally:
            with self._lock:
                self._mapping -= 1
                if not self._mapping:
                    self._revoked_early.clear()

    def unmap_grant_ref(self, mapping: Mapping) -> None:
        """Unmap, and tell the hypervisor so; also one that was revoked, once."""
        mapping.close()
        self._mappings.pop(mapping.handle, None)
        self.hypercall(hc.UnmapGrantRef(mapping.handle))

    def grant_copy(
        self,
        source: tuple[Region, int] | GrantRef,
        dest: tuple[Region, int] | GrantRef,
        length: int,
    ) -> None:
        """Copy ``length`` bytes; nobody maps anything.

        Args:
            source, dest: a region of this domain and an offset in it, or what was granted to it.
            length: bytes. Beyond 1 MiB it is copied in pieces, so ranges must not overlap, and a
                revocation in the middle leaves the first part done.

        Raises:
            BadGrant, HypercallError: not granted, or read-only.
            ValueError: a piece of our region is not in one memfd (`Region.backing`).
        """
        for done in range(0, length, COPY_LIMIT) if length > 0 else [0]:
            count = min(COPY_LIMIT, length - done)
            origin, target = self._side(source, done, count), self._side(dest, done, count)
            self.hypercall(hc.GrantCopy(origin, target, count))

    # --- transfer ---

    def accept_transfer(self, giver: int, size: int) -> int:
        """A gref that ``giver`` may transfer up to ``size`` bytes to, charged from now on.

        `Transferred` follows when he does; `end_access` takes the gref back.
        """
        return int(self.hypercall(hc.AcceptTransfer(giver, size)))

    def transfer(self, region: Region, receiver: int, gref: int) -> None:
        """Make the region the receiver's own; ours is closed.

        Raises:
            GrantInUse: some of it is granted.
            BadGrant: the receiver did not accept that.
            ValueError: it is not in one memfd.
            HypercallError: it is larger than 16 MiB.
        """
        backing = region.backing(0, region.size)
        self.hypercall(hc.Transfer(self._number_of(backing), receiver, gref))
        region.close()

    def adopt(self, transferred: hc.Transferred) -> Region:
        """The region that was transferred to this domain."""
        region = Region(transferred.size, fd=transferred.memory.take())
        backing = region.backing(0, region.size)
        backing.memory = transferred.number
        self._backings[transferred.number] = backing
        return region

    def memory_usage(self, of: int | None = None) -> GrantUsage:
        """What this domain has of memory, grants and mappings; domain 0 may ask of any."""
        said = self.hypercall(hc.QueryUsage(self.domid if of is None else of))
        return GrantUsage(
            said.memory, said.grants, said.mapped, said.mappings, said.orphans, said.regions
        )

    def hear(self, news: hc.News) -> bool:
        """For the domain's door: the hypervisor has told it this.

        True: the program shall not hear of it.
        """
        if isinstance(news, hc.MappingRevoked):
            with self._lock:
                for handle in news.handles:
                    mapping = self._mappings.get(handle)
                    if mapping is not None:
                        mapping.revoked()
                    elif self._mapping:
                        self._revoked_early.add(handle)
        return False

    # --- inside ---

    def _number_of(self, backing: Backing) -> int:
        with self._numbering:
            if backing.memory is None:
                memory = Fd(os.dup(backing.fd))
                try:
                    backing.memory = int(self.hypercall(hc.PopulateMemory(memory, backing.size)))
                finally:
                    memory.close()
                self._backings[backing.memory] = backing
            return backing.memory

    def _withdrawn(self, call: Message) -> list[tuple[Region, Span]]:
        taken = []
        for memory, offset, length in self.hypercall(call).spans:
            with suppress(KeyError):  # that region is closed: there is no view to be kept
                region, start = self.locate(memory, offset)
                taken.append((region, (start, length)))
        return taken

    def _side(self, side: tuple[Region, int] | GrantRef, done: int, count: int) -> Message:
        if isinstance(side, GrantRef):
            return hc.GrantSide(side.granter, side.gref, side.offset + done)
        region, offset = side
        backing = region.backing(offset + done, count)
        return hc.OwnSide(self._number_of(backing), offset + done - backing.start)
