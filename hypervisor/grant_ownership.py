"""Whose memory is whose: the domains of a machine, what each owns, and how it passes it on.

Pure; the lower half of `Grants`, which has the rules. Memory is known from `populate` on, until its
owner releases it, dies, or has had all its pages withdrawn; it is charged to the owner as long. A
transfer goes to a gref that the receiver made for it, and has paid for already: nobody can be given
more than he wants.
"""

from __future__ import annotations

from typing import Generic

from hypervisor.errors import BadGrant, GrantInUse, HypercallError
from hypervisor.grant_effects import Effect, Transferred
from hypervisor.grant_entry import Accept, M, Memory, Table
from hypervisor.grant_quota import Account, GrantQuota, GrantUsage
from hypervisor.page_spans import Span


class Ownership(Generic[M]):
    """Domains, their memory, their accounts. The first argument is always who calls."""

    def __init__(self, *, page: int = 4096) -> None:
        self._page = page
        self._tables: dict[int, Table[M]] = {}
        self._memory: dict[M, Memory[M]] = {}
        self._next_domid = 0

    def add_domain(self, domid: int, quota: GrantQuota | None = None) -> None:
        """Domids only grow, so that an old one is known to be dead.

        Raises:
            ValueError: this one does not.
        """
        if domid < self._next_domid:
            raise ValueError(f"domain {domid} is, or has been; the next is {self._next_domid}")
        self._next_domid = domid + 1
        self._tables[domid] = Table(domid, Account(domid, quota or GrantQuota()))

    def populate(self, domid: int, memory: M, size: int) -> None:
        """``memory`` is the domain's own, ``size`` bytes of it: whole pages."""
        table = self._table(domid)
        if size < 1 or size % self._page:
            raise HypercallError(f"populate: {size} bytes are not whole pages of {self._page}")
        if memory in self._memory:
            raise HypercallError(f"populate: {memory!r} is somebody's already")
        table.account.charge_region(size)
        self._add(table, memory, size)

    def release(self, domid: int, memory: M) -> None:
        """The domain needs ``memory`` no more. Refused while any of it is granted."""
        record = self._own(domid, memory, "release")
        self._refuse_granted(record, "release")
        self._remove(record)

    def accept_transfer(self, domid: int, giver: int, size: int) -> int:
        """A gref for ``giver`` to transfer memory to, up to ``size`` bytes, charged from now on.

        `Grants.end_access` and `Grants.revoke` take it back.
        """
        table = self._table(domid)
        self._table(giver)
        if size < 1:
            raise HypercallError(f"accept_transfer: {size} bytes is no memory")
        table.account.charge_region(size)
        try:
            gref = table.new_gref()
        except HypercallError:
            table.account.return_region(size)
            raise
        table.accepts[gref] = Accept(giver, size)
        return gref

    def transfer(self, domid: int, memory: M, receiver: int, gref: int) -> list[Effect[M]]:
        """Make ``memory`` the ``receiver``'s own, who said `accept_transfer`, which is used up.

        Refused while any of it is granted (so, while it is mapped), and once part of it was
        withdrawn. The giver may still map it: the actor that cannot trust it hands over a copy.
        """
        record = self._own(domid, memory, "transfer")
        self._refuse_granted(record, "transfer")
        self._refuse_withdrawn(record, (0, record.pages), "transfer")
        table = self._tables.get(receiver)
        accept = table.accepts.get(gref) if table is not None else None
        if table is None or accept is None or accept.giver != domid:
            raise self._no_grant(domid, receiver, gref)
        size = record.pages * self._page
        if size > accept.size:
            raise HypercallError(f"transfer: {size} bytes; domain {receiver} takes {accept.size}")
        self._remove(record)
        self._cancel(table, gref)
        table.account.charge_region(size)  # no more than what was just given back
        self._add(table, memory, size)
        return [Transferred(receiver, gref, memory, size, domid)]

    def usage(self, domid: int) -> GrantUsage:
        return self._table(domid).account.usage()

    def orphans(self, domid: int) -> int:
        """Bytes of the mappings that were revoked and that it has not unmapped."""
        return self._table(domid).account.orphans

    def overdrawn(self, domid: int) -> bool:
        """It holds more of those than it may: it must let go, or be ended. False if it is dead."""
        table = self._tables.get(domid)
        return table is not None and table.account.orphans > table.account.quota.orphans

    # --- for the upper half ---

    def _table(self, domid: int) -> Table[M]:
        table = self._tables.get(domid)
        if table is None:
            raise HypercallError(f"there is no domain {domid}")
        return table

    def _own(self, domid: int, memory: M, what: str) -> Memory[M]:
        record = self._table(domid).memory.get(memory)
        if record is None:
            raise HypercallError(f"{what}: {memory!r} is not memory of domain {domid}")
        return record

    def _add(self, table: Table[M], memory: M, size: int) -> None:
        record = Memory(memory, table.domid, size // self._page)
        table.memory[memory] = self._memory[memory] = record

    def _remove(self, record: Memory[M]) -> None:
        table = self._tables[record.owner]
        del self._memory[record.handle], table.memory[record.handle]
        table.account.return_region((record.pages - len(record.withdrawn)) * self._page)

    def _cancel(self, table: Table[M], gref: int) -> bool:
        """Take an `accept_transfer` back; False if the gref is not one."""
        accept = table.accepts.pop(gref, None)
        if accept is None:
            return False
        table.account.return_region(accept.size)
        table.account.grants -= 1
        return True

    def _no_grant(self, domid: int, granter: int, gref: int) -> BadGrant:
        """Does not tell one that is for somebody else from one that is not."""
        if granter in self._tables:
            return BadGrant(f"domain {granter} has no grant {gref} for domain {domid}")
        if 0 <= granter < self._next_domid:
            return BadGrant(f"domain {granter} has ended, and its grants with it")
        return BadGrant(f"there is no domain {granter}")

    def _refuse_granted(self, record: Memory[M], what: str) -> None:
        if record.grants:
            raise GrantInUse(f"{what}: {record.handle!r} is granted {len(record.grants)} times")

    def _refuse_withdrawn(self, record: Memory[M], span: Span, what: str) -> None:
        if record.withdrawn.overlaps(span):
            raise HypercallError(f"{what}: pages of {record.handle!r} were withdrawn: no one's now")
