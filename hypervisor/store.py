"""The store: the tree, its transactions, its watches and its log, behind one object.

Pure: no threads, sockets, clocks. Whoever has it calls one method at a time, delivers the effects
that the method returns, in their order, and vouches for the `Caller`. An error (`StoreError`) means
that nothing has happened, except that a transaction that could not be committed is over.

Effects: an `Event` goes to that connection as XS_WATCH_EVENT, after the answer to the operation if
the connection is the caller's own. It says "look again", so one may be left out while an equal one
still waits to be sent. A `Wake` is for who follows the log: it is to call `since` with the revision
that it has got to. That one may be left out, too, while an equal one waits.

Rules:
- An operation outside transactions tells at once; one in a transaction tells at its commit. What a
  transaction tells is in the order of its changes.
- A domain hears only of what it may read: the node as it was, as it is, or else its parent.
  In the log it sees what it may read and nothing else: for it, a node that it may not read is not
  there, so one that becomes readable appears as if it had been created.
- A domain that is introduced owns its home. When it is released its connections' watches and
  transactions end, its nodes stay but belong to domain 0 from then on (or are removed with
  all below them), and no permission names it any more.
- The special names are no nodes: only watches, and their permissions, and those not in a
  transaction.

Corner cases: to introduce a domain again only resets its connections. ``revision``, where
the store begins to count, must be later than any that a follower may still have from an earlier
store: then it is told `Compacted`, and not nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from hypervisor.store_domains import INTRODUCE, RELEASE, Domains, Specials
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Followers, Log, Seen, Wake, may_see, seen, upto, values
from hypervisor.store_nodes import Content, Node, find, nearest, new_root
from hypervisor.store_paths import canonical, home, is_special, parent
from hypervisor.store_permissions import (
    Caller,
    Permission,
    Perms,
    Subject,
    may_read,
    without,
)
from hypervisor.store_quota import Accounts, Quota
from hypervisor.store_transactions import Transactions
from hypervisor.store_tree import Change, Listing, Planned, Tells, Tree
from hypervisor.store_watches import TOKEN_MAX, Event, Watches

Effect = Event | Wake


class Changes(NamedTuple):
    """``changes``, and the revision to go on from, which may be later than the last of them."""

    revision: int
    changes: list[Seen]


class Snapshot(NamedTuple):
    """What a reader may read at a revision; a parent before its children."""

    revision: int
    values: dict[str, bytes]


class Store:
    """See above. ``tx`` is the number of a transaction of the caller, 0 for none."""

    def __init__(
        self,
        quota: Quota | None = None,
        *,
        revision: int = 0,
        log_changes: int = 1 << 14,
        log_bytes: int = 1 << 22,
    ) -> None:
        perms = (Permission(0, 0),)
        accounts = Accounts()
        accounts.record("/", None, perms)
        self._head = Tree(new_root(perms, revision), revision, accounts)
        self._log = Log(revision, log_changes, log_bytes)
        self._transactions = Transactions()
        self._watches = Watches()
        self._followers = Followers()
        self._specials = Specials()
        self.domains = Domains(quota or Quota())

    @property
    def revision(self) -> int:
        """Of the last change."""
        return self._head.revision

    # --- reading ----------------------------------------------------------------------------------

    def read(self, caller: Caller, path: str, tx: int = 0) -> bytes:
        tree, subject, path = self._at(caller, path, tx)
        return tree.read(subject, path)

    def directory(self, caller: Caller, path: str, tx: int = 0) -> list[str]:
        """The names of the children, sorted."""
        return self.listing(caller, path, tx).packed.decode("ascii").split("\0")[:-1]

    def listing(self, caller: Caller, path: str, tx: int = 0) -> Listing:
        tree, subject, path = self._at(caller, path, tx)
        return tree.listing(subject, path)

    def get_perms(self, caller: Caller, path: str, tx: int = 0) -> Perms:
        if is_special(path):
            return self._specials.get(*self._special(caller, path, tx))
        tree, subject, path = self._at(caller, path, tx)
        return tree.get_perms(subject, path)

    # --- changing ---------------------------------------------------------------------------------

    def write(self, caller: Caller, path: str, value: bytes, tx: int = 0) -> list[Effect]:
        _, subject, path = self._at(caller, path, tx)
        return self._change(caller, tx, lambda tree: tree.write(subject, path, value))

    def mkdir(self, caller: Caller, path: str, tx: int = 0) -> list[Effect]:
        _, subject, path = self._at(caller, path, tx)
        return self._change(caller, tx, lambda tree: tree.mkdir(subject, path))

    def rm(self, caller: Caller, path: str, tx: int = 0) -> list[Effect]:
        _, subject, path = self._at(caller, path, tx)
        return self._change(caller, tx, lambda tree: tree.rm(subject, path))

    def set_perms(self, caller: Caller, path: str, perms: Perms, tx: int = 0) -> list[Effect]:
        if is_special(path):
            if tx:
                raise StoreError("EINVAL", f"set_perms: {path} is not for transactions")
            self._specials.set(*self._special(caller, path, tx), perms)
            return []
        _, subject, path = self._at(caller, path, tx)
        return self._change(caller, tx, lambda tree: tree.set_perms(subject, path, perms))

    # --- transactions -----------------------------------------------------------------------------

    def transaction_start(self, caller: Caller, tx: int = 0) -> int:
        subject = self.domains.subject(caller.domid)
        if tx:
            self._transactions.get(caller, tx)
            raise StoreError("EBUSY", "a transaction cannot be in a transaction")
        return self._transactions.start(caller, subject, self._head)

    def transaction_end(self, caller: Caller, tx: int, *, commit: bool) -> list[Effect]:
        """However it ends, it is over.

        Raises:
            StoreError: EAGAIN: what it has seen has changed: start again. ENOENT, ENOSPC.
        """
        subject = self.domains.subject(caller.domid)
        if not commit:
            self._transactions.end(caller, tx)
            return []
        before = self._head.root
        return self._told(before, self._transactions.commit(caller, subject, tx, self._head))

    def check_transaction(self, caller: Caller, tx: int) -> None:
        """Raises: StoreError: ENOENT: the caller has no such one."""
        if tx:
            self._transactions.get(caller, tx)

    # --- watches, and the log ---------------------------------------------------------------------

    def watch(
        self, caller: Caller, path: str, token: bytes, depth: int | None = None
    ) -> list[Effect]:
        subject = self.domains.subject(caller.domid)
        return [self._watches.add(caller, subject, path, token, depth)]

    def unwatch(self, caller: Caller, path: str, token: bytes) -> None:
        self._watches.remove(caller, path, token)

    def reset_watches(self, caller: Caller) -> None:
        """All watches and transactions of that connection, and what it follows, are gone."""
        self._watches.drop(caller)
        self._followers.drop(caller)
        self._transactions.drop(caller)

    def follow(self, caller: Caller, path: str, token: bytes) -> None:
        """From now on be woken for what is at and below ``path``. Call `since` after this.

        Raises:
            StoreError: EINVAL, EEXIST, ENOSPC; E2BIG: the token, as for watches.
        """
        _, subject, path = self._at(caller, path, 0)
        if len(token) > TOKEN_MAX:
            raise StoreError("E2BIG", f"follow: a token of {len(token)} bytes")
        self._followers.add(caller, subject, path, token)

    def unfollow(self, caller: Caller, token: bytes) -> None:
        self._followers.remove(caller, token)

    def since(
        self, caller: Caller, path: str, revision: int, most_bytes: int | None = None
    ) -> Changes:
        """Everything that has happened at and below ``path`` after ``revision``, in order.

        Or the first of it that is not longer than ``most_bytes`` in its paths and values, or a
        single change; then the revision to go on from is not yet the store's.

        Raises:
            Compacted: the log does not reach back so far, or the revision is of another store, or
                of another domain of that domid.
        """
        _, subject, path = self._at(caller, path, 0)
        now = self.revision
        top = find(self._head.root, path) or nearest(self._head.root, path)[1]
        quiet = top.latest <= revision <= now
        if revision < subject.since or not (quiet or self._log.covers(revision)):
            raise Compacted(path, now, values(self._head.root, path, subject))
        found = [] if quiet else self._log.since(path, revision)
        first = found if most_bytes is None else upto(found, most_bytes)
        reached = now if len(first) == len(found) else first[-1].revision
        return Changes(reached, seen(first, subject))

    def snapshot(self, caller: Caller, path: str) -> Snapshot:
        """Where a follower can begin; empty if there is nothing that it may read."""
        _, subject, path = self._at(caller, path, 0)
        return Snapshot(self.revision, values(self._head.root, path, subject))

    # --- connections and domains ------------------------------------------------------------------

    def disconnect(self, caller: Caller) -> None:
        """That connection is gone."""
        self._watches.drop(caller)
        self._followers.drop(caller)
        self._transactions.forget(caller)

    def introduce(self, domid: int) -> list[Effect]:
        """Raises: StoreError: EINVAL."""
        if not self.domains.introduce(domid):
            self._end_connections(domid)
            return []
        return [*self._make_home(domid), *self._tell_special(INTRODUCE, domid)]

    def release(self, domid: int, *, remove_nodes: bool = False) -> list[Effect]:
        """Raises: StoreError: ENOENT: it is not introduced. EINVAL: domain 0."""
        self.domains.release(domid)
        self._end_connections(domid)
        effects: list[Effect] = []
        for path in self._head.accounts.named(domid):
            node = find(self._head.root, path)
            if node is not None:  # it has not gone with one above it
                effects += self._disown(path, node, domid, remove=remove_nodes)
        self._specials.end_domain(domid)
        self.domains.has_ended(domid, self.revision)
        return effects + self._tell_special(RELEASE, domid)

    def shut_down(self, domid: int) -> list[Effect]:
        """It has shut down, or crashed; it is not released yet. Raises as `release`."""
        return self._tell_special(RELEASE, domid) if self.domains.shut_down(domid) else []

    # --- how it is done ---------------------------------------------------------------------------

    def _at(self, caller: Caller, path: str, tx: int) -> tuple[Tree, Subject, str]:
        subject = self.domains.subject(caller.domid)
        tree = self._transactions.get(caller, tx).tree if tx else self._head
        return tree, subject, canonical(path, caller.domid)

    def _change(
        self, caller: Caller, tx: int, operation: Callable[[Tree], list[Change]]
    ) -> list[Effect]:
        if tx:
            self._transactions.get(caller, tx).change(operation)
            return []
        before = self._head.root
        return self._told(before, operation(self._head))

    def _told(self, before: Node, changes: list[Change]) -> list[Effect]:
        effects: list[Effect] = []
        for change in changes:
            self._log.append(change)
        for change in changes:
            if change.tells:
                may_know = partial(self._may_know, before, change)
                exact = change.tells == Tells.EXACT
                effects += self._watches.fire(change.path, may_know, exact=exact)
        return [*effects, *self._followers.woken(changes, self._may_see)]

    def _may_know(self, before: Node, change: Change, domid: int) -> bool:
        if self._may_see(domid, change):
            return True
        above = parent(change.path)
        node = find(self._head.root, above) or find(before, above)
        return node is not None and may_read(node.content.perms, self.domains.subject(domid))

    def _may_see(self, domid: int, change: Change) -> bool:
        return may_see(change, self.domains.subject(domid))

    def _special(self, caller: Caller, name: str, tx: int) -> tuple[str, Subject]:
        subject = self.domains.subject(caller.domid)
        self.check_transaction(caller, tx)
        return canonical(name, caller.domid, special=True), subject

    def _tell_special(self, name: str, domid: int, *, plain: bool = True) -> list[Effect]:
        def may_know(listener: int) -> bool:
            return self._specials.may_hear(name, self.domains.subject(listener))

        return [*self._watches.fire_special(name, domid, may_know, plain=plain)]

    def _make_home(self, domid: int) -> list[Effect]:
        at = home(domid)
        if find(self._head.root, at) is not None:
            return []
        effects = self.mkdir(Caller(0), parent(at))
        content = Content(b"", (Permission(0, domid),))
        made = partial(Tree.apply, planned=[Planned(at, content, Tells.SUBTREE)], domid=0)
        return effects + self._change(Caller(0), 0, made)

    def _end_connections(self, domid: int) -> None:
        self._watches.end_domain(domid)
        self._followers.end_domain(domid)
        self._transactions.end_domain(domid)

    def _disown(self, path: str, node: Node, domid: int, *, remove: bool) -> list[Effect]:
        value, perms = node.content
        if remove and perms[0].domid == domid and path != "/":
            return self.rm(Caller(0), path)
        content = Content(value, without(perms, domid))
        freed = partial(Tree.apply, planned=[Planned(path, content, Tells.SUBTREE)], domid=0)
        return self._change(Caller(0), 0, freed)
