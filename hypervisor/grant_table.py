"""Who may map which memory of whom: the grant table of one domain, without any memory in it.

Pure: no descriptors, no threads. What stands behind a grant is an opaque value that the actor
around this table hands in and gets back. Names follow xen/include/public/grant_table.h.

Life of an entry: `grant_access` -> (`map_grant_ref` / `unmap_grant_ref`)* -> `end_access` (only
when nobody maps it) or `revoke` (at once, whoever maps it). Grant references are never reused
within a machine's life, so that a stale one is an error and never somebody else's memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from hypervisor.errors import BadGrant, HypercallError

Memory = TypeVar("Memory")


@dataclass
class GrantEntry(Generic[Memory]):
    """One grant: ``length`` bytes from ``offset`` of ``memory``, for ``grantee`` alone."""

    gref: int
    grantee: int
    memory: Memory
    offset: int
    length: int
    readonly: bool
    mappings: int = 0


class GrantTable(Generic[Memory]):
    """The grants that one domain has given."""

    def __init__(self, domid: int) -> None:
        self.domid = domid
        self._entries: dict[int, GrantEntry[Memory]] = {}
        self._next = 8  # as in Xen, the first eight references are reserved for the toolstack

    def __len__(self) -> int:
        return len(self._entries)

    def grant_access(
        self, grantee: int, memory: Memory, offset: int, length: int, *, readonly: bool
    ) -> int:
        """Let ``grantee`` map the range; returns the grant reference."""
        if offset < 0 or length < 1:
            raise HypercallError(f"grant_access: {length} bytes from {offset} is not a range")
        gref = self._next
        self._next += 1
        self._entries[gref] = GrantEntry(gref, grantee, memory, offset, length, readonly)
        return gref

    def map_grant_ref(self, gref: int, caller: int) -> GrantEntry[Memory]:
        """Count one more mapping by ``caller``; refuses anybody but the grantee.

        Raises:
            BadGrant: no such grant, or not for the caller (the text does not tell which).
        """
        entry = self._of(gref, caller)
        entry.mappings += 1
        return entry

    def unmap_grant_ref(self, gref: int, caller: int) -> bool:
        """Count one mapping less; True when it was the last. A revoked grant has none: False."""
        entry = self._entries.get(gref)
        if entry is None or entry.grantee != caller or entry.mappings == 0:
            return False
        entry.mappings -= 1
        return entry.mappings == 0

    def end_access(self, gref: int) -> Memory:
        """Withdraw a grant that nobody maps.

        Raises:
            BadGrant: there is no such grant.
            HypercallError: it is still mapped.
        """
        entry = self._entries.get(gref)
        if entry is None:
            raise BadGrant(f"end_access: domain {self.domid} has no grant {gref}")
        if entry.mappings:
            raise HypercallError(f"end_access: grant {gref} is in use by domain {entry.grantee}")
        del self._entries[gref]
        return entry.memory

    def revoke(self, gref: int) -> GrantEntry[Memory] | None:
        """Withdraw a grant, whoever maps it. None when it is gone already, which is fine."""
        return self._entries.pop(gref, None)

    def revoke_all(self) -> list[GrantEntry[Memory]]:
        """The granter has died: withdraw everything."""
        entries = list(self._entries.values())
        self._entries.clear()
        return entries

    def grantee_died(self, domid: int) -> None:
        """The mappings of a dead domain are gone with it; its grants stay until they are ended."""
        for entry in self._entries.values():
            if entry.grantee == domid:
                entry.mappings = 0

    def _of(self, gref: int, caller: int) -> GrantEntry[Memory]:
        entry = self._entries.get(gref)
        if entry is None or entry.grantee != caller:
            raise BadGrant(f"domain {self.domid} has no grant {gref} for domain {caller}")
        return entry
