"""The store's operations on one version of the tree, with permissions, quotas and errors.

Pure, as all of the store. A `Tree` is the store itself, or the private one of a transaction
(`fork`), which costs nothing: the nodes never change. Paths are canonical here.

Rules (docs/misc/xenstore.txt, and what xenstored does where that is silent):
- What a caller has no right to is EACCES. So is what is not there, unless the caller has the right
  that the operation needs at the nearest node above: then it is ENOENT.
- To create needs the right to write at the nearest node above; to remove needs it at the node, not
  above. Parents that are missing are created with it, empty. A new node has the permissions of
  its parent, but whoever makes it owns it, unless that is domain 0.
- `mkdir` of what exists is fine and changes nothing. `rm` of what does not is fine if its parent
  exists, else ENOENT. The root cannot be removed (EINVAL).
- Only the owner sets permissions, and only domain 0 the owner (EPERM).
- Every operation has all of its effects or none.

Each returns its changes, in order. A change says whom it tells (`Tells`): watches on the path of a
`write`, `mkdir`, `set_perms` or `rm`, and on all above it; for what goes with the parent that is
removed, only watches on just that; for a parent made on the way nobody, since the event of the node
below it reaches the same.

A transaction must know later what it has looked at: `accessed`, by path, the `Facet` of it.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import NamedTuple

from hypervisor.store_errors import StoreError
from hypervisor.store_nodes import Content, Edit, Node, find, nearest, walk_up
from hypervisor.store_paths import parent, prefixes, step
from hypervisor.store_permissions import (
    OWNER,
    READ,
    WRITE,
    Perms,
    Subject,
    inherited,
    rights,
)
from hypervisor.store_quota import Accounts, exceeds


class Tells(IntEnum):
    NOBODY = 0
    EXACT = 1
    SUBTREE = 2


class Change(NamedTuple):
    """``old`` or ``new`` is None where there is no node. ``domid``: whose doing it was."""

    revision: int
    path: str
    old: Content | None
    new: Content | None
    domid: int
    tells: Tells


class Planned(NamedTuple):
    """A change without its revision."""

    path: str
    content: Content | None
    tells: Tells


class Facet(IntFlag):
    """What of a node a result depends on."""

    NODE = 1  # whether it is there, its value, its permissions
    LISTING = 2  # the names of its children
    SUBTREE = 4  # all at it and below


class Listing(NamedTuple):
    """``packed``: the names of the children, sorted, each with a nul behind it."""

    generation: int
    packed: bytes


class Tree:
    """One version, and the way to the next."""

    def __init__(
        self,
        root: Node,
        revision: int,
        accounts: Accounts,
        accessed: dict[str, Facet] | None = None,
    ) -> None:
        self.root = root
        self.revision = revision  # of the last change
        self.accounts = accounts
        self.accessed = accessed

    def fork(self) -> Tree:
        """The same, to be changed without changing this one. Its revisions are its own."""
        return Tree(self.root, self.revision, Accounts(self.accounts), {})

    # --- reading ----------------------------------------------------------------------------------

    def read(self, subject: Subject, path: str) -> bytes:
        return self._get(subject, path, READ).content.value

    def listing(self, subject: Subject, path: str) -> Listing:
        node = self._get(subject, path, READ, Facet.NODE | Facet.LISTING)
        return Listing(node.generation, node.children.packed())

    def get_perms(self, subject: Subject, path: str) -> Perms:
        return self._get(subject, path, READ).content.perms

    # --- changing ---------------------------------------------------------------------------------

    def write(self, subject: Subject, path: str, value: bytes) -> list[Change]:
        node = self._reach(subject, path, WRITE)
        if exceeds(len(value), subject.quota.node_size):
            raise StoreError("ENOSPC", f"write: {len(value)} bytes are too many for {path}")
        if node is None:
            return self._create(subject, path, value)
        content = Content(value, node.content.perms)
        return self.apply([Planned(path, content, Tells.SUBTREE)], subject.domid)

    def mkdir(self, subject: Subject, path: str) -> list[Change]:
        node = self._reach(subject, path, WRITE)
        return self._create(subject, path, b"") if node is None else []

    def rm(self, subject: Subject, path: str) -> list[Change]:
        node = self._reach(subject, path, WRITE)
        if path == "/":
            raise StoreError("EINVAL", "rm: the root cannot be removed")
        if node is None:
            if find(self.root, parent(path)) is None:
                raise StoreError("ENOENT", f"rm: there is no {parent(path)}")
            return []
        self._note(subject, path, Facet.SUBTREE)
        planned = [
            Planned(at, None, Tells.SUBTREE if at == path else Tells.EXACT)
            for at, _ in walk_up(path, node)
        ]
        self._note_all(subject, planned)
        return self.apply(planned, subject.domid)

    def set_perms(self, subject: Subject, path: str, perms: Perms) -> list[Change]:
        if exceeds(len(perms), subject.quota.permissions):
            raise StoreError("ENOSPC", f"set_perms: {len(perms)} entries are too many for {path}")
        node = self._get(subject, path, WRITE | OWNER)
        if subject.domid != 0 and perms[0].domid != node.content.perms[0].domid:
            raise StoreError("EPERM", f"set_perms: domain {subject.domid} cannot give {path} away")
        content = Content(node.content.value, perms)
        return self.apply([Planned(path, content, Tells.SUBTREE)], subject.domid)

    def apply(self, planned: list[Planned], domid: int) -> list[Change]:
        """Whatever it is: no questions asked."""
        edit = Edit(self.root)
        changes = []
        for path, content, tells in planned:
            self.revision += 1
            old = edit.set(path, content, self.revision)
            changes.append(Change(self.revision, path, old, content, domid, tells))
        self.root = edit.finish()
        for _, path, old, new, _, _ in changes:
            self.accounts.record(path, old and old.perms, new and new.perms)
        return changes

    # --- how it is done ---------------------------------------------------------------------------

    def _get(self, subject: Subject, path: str, need: int, facet: Facet = Facet.NODE) -> Node:
        node = self._reach(subject, path, need, facet)
        if node is None:
            raise StoreError("ENOENT", f"there is no {path}")
        return node

    def _reach(
        self, subject: Subject, path: str, need: int, facet: Facet = Facet.NODE
    ) -> Node | None:
        """The node, with the rights that are needed; None: it is not there, and they may know."""
        node = find(self.root, path)
        self._note(subject, path, facet)
        if node is None:
            above, decides = nearest(self.root, path)
            self._note(subject, above, Facet.NODE)
            self._note(subject, step(path, above), Facet.NODE)  # if it were there, it would decide
            if rights(decides.content.perms, subject) & need:
                return None
        elif rights(node.content.perms, subject) & need == need:
            return node
        raise StoreError("EACCES", f"domain {subject.domid} may not do that with {path}")

    def _create(self, subject: Subject, path: str, value: bytes) -> list[Change]:
        above, node = nearest(self.root, path)
        perms = inherited(node.content.perms, subject)
        missing = [at for at in prefixes(path) if len(at) > len(above)]
        count = self.accounts.nodes(subject.domid) + len(missing)
        if exceeds(count, subject.quota.nodes):
            raise StoreError("ENOSPC", f"domain {subject.domid} would have {count} nodes")
        planned = [Planned(at, Content(b"", perms), Tells.NOBODY) for at in missing[:-1]]
        planned.append(Planned(path, Content(value, perms), Tells.SUBTREE))
        self._note_all(subject, planned)
        return self.apply(planned, subject.domid)

    def _note(self, subject: Subject, path: str, facet: Facet) -> None:
        if self.accessed is None:
            return
        if path not in self.accessed:
            self._limit(subject, len(self.accessed) + 1)
        self.accessed[path] = self.accessed.get(path, facet) | facet

    def _note_all(self, subject: Subject, planned: list[Planned]) -> None:
        if self.accessed is None:
            return
        more = sum(path not in self.accessed for path, _, _ in planned)
        self._limit(subject, len(self.accessed) + more)
        for path, _, _ in planned:
            self._note(subject, path, Facet.NODE)

    @staticmethod
    def _limit(subject: Subject, count: int) -> None:
        if exceeds(count, subject.quota.transaction_nodes):
            raise StoreError("ENOSPC", f"domain {subject.domid}: a transaction of {count} nodes")
