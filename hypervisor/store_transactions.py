"""Transactions: each works on a version of its own, and is done to the store at its end or not.

Isolation: a transaction reads the store as it was at its start, with its own changes on top. It can
be committed if nothing that it has looked at has changed since: a value, permissions, that a node
is (or is not) there, the names of a node's children where it has listed them, anything below what
it has removed. So the committed ones might as well have run one after the other, at the moments of
their commits. Otherwise it is EAGAIN, and the client starts it again. What is written counts as
looked at. Two that create different nodes below the same parent do not disturb each other.

A commit makes one change for each node that it leaves different, in the order in which the nodes
were first written, created or (last) removed. One that was created and removed again is none.

The numbers of transactions are a connection's own, so nobody can name, or learn of, another's. One
that fails to commit is over all the same. An open one keeps old nodes in memory: at most as many as
the store had at its start.

Corner cases: an operation that is refused leaves a transaction as it was, but what it has looked at
for that counts. The quota of nodes is checked again at the commit, for what others have used up
since.
"""

from __future__ import annotations

from collections.abc import Callable

from hypervisor.store_errors import StoreError
from hypervisor.store_nodes import Node, find
from hypervisor.store_permissions import Caller, Subject
from hypervisor.store_quota import exceeds
from hypervisor.store_tree import Change, Facet, Planned, Tree

_LAST = 0xFFFFFFFF


class Transaction:
    """One that is open. `tree` is its version; read from it, and change it by `change`."""

    def __init__(self, head: Tree) -> None:
        self._base = head.root
        self._written: dict[str, Planned] = {}
        self.tree = head.fork()

    def change(self, operation: Callable[[Tree], list[Change]]) -> None:
        for change in operation(self.tree):
            before = self._written.get(change.path)
            tells = max(change.tells, before.tells) if before else change.tells
            if before and (change.old is None or change.new is None):
                del self._written[change.path]  # it goes to the end: after, or before, its parent
            self._written[change.path] = Planned(change.path, change.new, tells)

    def conflict(self, head: Node) -> str | None:
        """A path at which the store is no longer as this has seen it; None if there is none."""
        if head is self._base:
            return None
        for path, facet in (self.tree.accessed or {}).items():
            if _differs(find(self._base, path), find(head, path), facet):
                return path
        return None

    def planned(self) -> list[Planned]:
        """What its commit changes, in order."""
        return [
            plan
            for plan in self._written.values()
            if plan.content is not None or find(self._base, plan.path) is not None
        ]


def _differs(then: Node | None, now: Node | None, facet: Facet) -> bool:
    if then is now:
        return False
    if then is None or now is None:
        return True
    return (
        then.revision != now.revision
        or (Facet.LISTING in facet and then.listing != now.listing)
        or (Facet.SUBTREE in facet and then.latest != now.latest)
    )


class Transactions:
    """All open ones, by the connection and their number."""

    def __init__(self) -> None:
        self._open: dict[Caller, dict[int, Transaction]] = {}
        self._counts: dict[int, int] = {}
        self._next: dict[Caller, int] = {}

    def count(self, domid: int) -> int:
        return self._counts.get(domid, 0)

    def start(self, caller: Caller, subject: Subject, head: Tree) -> int:
        """The number of a new one; never 0, and none that is open.

        Raises:
            StoreError: ENOSPC: the domain has as many as it may have.
        """
        count = self.count(caller.domid) + 1
        if exceeds(count, subject.quota.transactions):
            raise StoreError("ENOSPC", f"domain {caller.domid} would have {count} transactions")
        mine = self._open.setdefault(caller, {})
        number = self._next.get(caller, 1)
        while number in mine:
            number = number % _LAST + 1
        self._next[caller] = number % _LAST + 1
        self._counts[caller.domid] = count
        mine[number] = Transaction(head)
        return number

    def get(self, caller: Caller, number: int) -> Transaction:
        """Raises: StoreError: ENOENT: this connection has no such one."""
        found = self._open.get(caller, {}).get(number)
        if found is None:
            raise StoreError("ENOENT", f"domain {caller.domid} has no transaction {number} there")
        return found

    def end(self, caller: Caller, number: int) -> Transaction:
        """It is open no more. Raises as `get`."""
        found = self.get(caller, number)
        del self._open[caller][number]
        self._uncount(caller, 1)
        return found

    def commit(self, caller: Caller, subject: Subject, number: int, head: Tree) -> list[Change]:
        """End it, and do its changes to ``head``.

        Raises:
            StoreError: EAGAIN: it has seen what is no longer so. ENOSPC: too many nodes by now.
                ENOENT: as `get`.
        """
        transaction = self.end(caller, number)
        path = transaction.conflict(head.root)
        if path is not None:
            raise StoreError("EAGAIN", f"{path} has changed since transaction {number} began")
        planned = transaction.planned()
        count = transaction.tree.accounts.nodes(caller.domid)
        if count > head.accounts.nodes(caller.domid) and exceeds(count, subject.quota.nodes):
            raise StoreError("ENOSPC", f"domain {caller.domid} would have {count} nodes")
        return head.apply(planned, caller.domid)

    def drop(self, caller: Caller) -> None:
        """Abort all of a connection."""
        self._uncount(caller, len(self._open.pop(caller, ())))

    def forget(self, caller: Caller) -> None:
        """The connection is gone."""
        self.drop(caller)
        self._next.pop(caller, None)

    def end_domain(self, domid: int) -> None:
        for caller in [caller for caller in self._next if caller.domid == domid]:
            self.forget(caller)

    def _uncount(self, caller: Caller, number: int) -> None:
        left = self._counts.get(caller.domid, 0) - number
        if left > 0:
            self._counts[caller.domid] = left
        else:
            self._counts.pop(caller.domid, None)
