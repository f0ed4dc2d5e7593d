"""What a domain may have of grants, and what it has.

Pure. Who causes a cost bears it: memory is charged to its owner (its bytes, and the descriptor that
the machine holds of each memfd), a grant to its granter (also when
it grants on what it was granted), a mapping to who maps, and the pages behind a mapping that was
revoked, *orphans*, to who has not let go of them. So an error of a quota is always the caller's.

Corner cases: a revoked mapping counts as a mapping until it is unmapped, or one could collect them
without end. Orphans are counted by mapping, in whole pages: who maps a page twice is charged twice.
They are counted on the holder's word, too: one that says it has unmapped, and keeps the descriptor
or lets a child keep it, holds memory that no account shows. It is none of the owner's (see
region.py); what a whole process may hold is for the kernel to limit (cgroups).
The limit of orphans cannot be refused like the others (it is the owner who revokes), so the account
only says when it is passed; see `grant_effects.Overdrawn` for what follows from that.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypervisor.errors import QuotaExceeded


@dataclass(frozen=True)
class GrantQuota:
    """The limits of one domain; it may have exactly as much as they say.

    Attributes:
        memory: bytes that it owns and may grant.
        grants: entries of its grant table; Xen's default is 64 frames of 512.
        mappings: of others' grants, those that were revoked but not unmapped included.
        orphans: bytes that it may keep although they were revoked.
        regions: memfds that it owns, and transfers that it accepts.
    """

    memory: int = 1 << 30
    grants: int = 64 * 512
    mappings: int = 64 * 512
    orphans: int = 256 << 20
    regions: int = 256


@dataclass(frozen=True)
class GrantUsage:
    """What a domain has of each, in the words of `GrantQuota`; ``mapped`` of its grants are."""

    memory: int
    grants: int
    mapped: int
    mappings: int
    orphans: int
    regions: int

    @property
    def idle(self) -> int:
        """How many of its grants nobody maps."""
        return self.grants - self.mapped


class Account:
    """The running account of one domain. What is given back is simply subtracted."""

    def __init__(self, domid: int, quota: GrantQuota) -> None:
        self._domid = domid
        self.quota = quota
        self.memory = 0
        self.grants = 0
        self.mapped = 0
        self.mappings = 0
        self.orphans = 0
        self.regions = 0

    def charge_region(self, size: int) -> None:
        self._check(self.memory + size, self.quota.memory, "bytes of memory")
        self._check(self.regions + 1, self.quota.regions, "regions")
        self.memory += size
        self.regions += 1

    def return_region(self, size: int) -> None:
        self.memory -= size
        self.regions -= 1

    def charge_grant(self) -> None:
        self._check(self.grants + 1, self.quota.grants, "grants")
        self.grants += 1

    def charge_mapping(self) -> None:
        """Also refused while there are too many orphans: let go of those first."""
        self._check(self.mappings + 1, self.quota.mappings, "mappings")
        self._check(self.orphans, self.quota.orphans, "bytes that were revoked and it still maps")
        self.mappings += 1

    def charge_orphan(self, size: int) -> bool:
        """True if this passes the limit, which the charges before did not."""
        before, self.orphans = self.orphans, self.orphans + size
        return before <= self.quota.orphans < self.orphans

    def usage(self) -> GrantUsage:
        return GrantUsage(
            self.memory, self.grants, self.mapped, self.mappings, self.orphans, self.regions
        )

    def _check(self, amount: int, limit: int, what: str) -> None:
        if amount > limit:
            raise QuotaExceeded(f"domain {self._domid} may have {limit} {what}, not {amount}")
