"""The nodes of a version of the store, which never change, and how the next version is made.

A version is its root node. Making the next one replaces the nodes from the root to what changes,
and shares the rest: a snapshot is a reference, and a change costs the depth of its path. Whether
something happened in a subtree is one comparison of its ``latest``.

Every change has a revision, a number that only grows, and each touches one node: what is created
with its parents is a change for each, the parents first, and what is removed with all below it
also, the root of it last. So the changes in order, up to any of them, give a whole tree.

`Edit` makes many changes for the price of walking to each from the one before: it holds the nodes
on the way to where it is open, and closes each when it leaves it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hypervisor.store_children import Children
from hypervisor.store_paths import is_below, join, names, names_below
from hypervisor.store_permissions import Perms


class Content(NamedTuple):
    """What of a node is its own."""

    value: bytes
    perms: Perms


class Node(NamedTuple):
    """Compare nodes with ``is``: equality would compare everything below them."""

    content: Content
    revision: int  # when it was created, or its value or permissions were last set
    listing: int  # when the names of its children last changed
    latest: int  # when anything at it or below it last changed
    children: Children[Node]

    @property
    def generation(self) -> int:
        """Two equal ones: the same value, permissions and names of children (DIRECTORY_PART)."""
        return max(self.revision, self.listing)


_NONE: Children[Node] = Children()


def new_root(perms: Perms, revision: int) -> Node:
    return Node(Content(b"", perms), revision, revision, revision, _NONE)


def find(root: Node, path: str) -> Node | None:
    """The node at ``path``, or None."""
    node: Node | None = root
    for name in names(path):
        if node is None:
            break
        node = node.children.get(name)
    return node


def nearest(root: Node, path: str) -> tuple[str, Node]:
    """Of the nodes on the way to ``path``, where none is, the deepest."""
    at, node = "/", root
    for name in names(path):
        child = node.children.get(name)
        if child is None:
            break
        at, node = join(at, name), child
    return at, node


def walk(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """``node``, which is at ``path``, and all below it: a parent before its children."""
    pending = [(path, node)]
    while pending:
        path, node = pending.pop()
        yield path, node
        pending += [(join(path, name), child) for name, child in reversed(list(node.children))]


def walk_up(path: str, node: Node) -> Iterator[tuple[str, Node]]:
    """As `walk`, but a parent after its children."""
    pending = [(path, node, False)]
    while pending:
        path, node, listed = pending.pop()
        if listed or not len(node.children):
            yield path, node
        else:
            pending.append((path, node, True))
            pending += [
                (join(path, name), child, False) for name, child in reversed(list(node.children))
            ]


class _Open:
    """A node on the way to where an `Edit` is; without content there is none, or no more."""

    __slots__ = ("children", "content", "latest", "listing", "name", "node", "path", "revision")

    def __init__(self, path: str, name: str, node: Node | None) -> None:
        self.path = path
        self.name = name
        self.node = node
        self.content: Content | None = None
        self.revision = self.listing = self.latest = 0
        self.children = _NONE
        if node is not None:
            self.content, self.revision, self.listing, self.latest, self.children = node

    def closed(self) -> Node:
        assert self.content is not None
        return Node(self.content, self.revision, self.listing, self.latest, self.children)


class Edit:
    """Changes to a version; `finish` gives the next one."""

    def __init__(self, root: Node) -> None:
        self._way = [_Open("/", "", root)]

    def set(self, path: str, content: Content | None, revision: int) -> Content | None:
        """Change one node, or create it below one that is there, or (None) remove it, when all
        below it is gone. Returns what was there before.
        """
        self._go(path)
        at = self._way[-1]
        old = at.content
        if content is None:
            assert len(self._way) > 1, "the root stays"
            assert old is not None, f"{path} is not there"
            assert not len(at.children), f"{path} has children"
        elif old is None:
            assert self._way[-2].content is not None, f"{path} has no parent"
            at.children = _NONE
            at.listing = revision
        at.content = content
        at.revision = at.latest = revision
        return old

    def finish(self) -> Node:
        while len(self._way) > 1:
            self._close()
        return self._way[0].closed()

    def _go(self, path: str) -> None:
        while not is_below(path, self._way[-1].path):
            self._close()
        at = self._way[-1]
        for name in names_below(path, at.path):
            at = _Open(join(at.path, name), name, at.children.get(name))
            self._way.append(at)

    def _close(self) -> None:
        """Leave the deepest one: what is above it gets it as it is now."""
        at = self._way.pop()
        above = self._way[-1]
        if at.content is None:
            if at.node is None:
                return  # only looked at
            above.children = above.children.drop(at.name)
            above.listing = at.latest
        elif at.node is None or at.latest != at.node.latest:
            above.children = above.children.put(at.name, at.closed())
            if at.node is None:
                above.listing = at.revision
        above.latest = max(above.latest, at.latest)
