"""What a domain may have of the store, and how many nodes it has.

A limit of 0 is none. Domain 0 has no limits. Numbers are those of xenstored; its counting is off by
one here and there (it refuses what would *reach* a limit), ours allows exactly as many as it says.

`Accounts` counts the nodes by their owners, and knows which nodes name a domain in their
permissions, so that the end of a domain costs what it left behind and not a walk of the store. The
accounts of a transaction lie above those of the store: what it would add, on what is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Quota:
    """The limits of one domain. 0: none."""

    nodes: int = 1000
    node_size: int = 2048
    watches: int = 128
    transactions: int = 10
    transaction_nodes: int = 1024
    permissions: int = 5


UNLIMITED = Quota(0, 0, 0, 0, 0, 0)


def exceeds(count: int, limit: int) -> bool:
    return 0 < limit < count


class Named(Protocol):
    """A permission entry, of which only the domain matters here; the first is the owner's."""

    @property
    def domid(self) -> int: ...


class Accounts:
    """How many nodes each domain owns, and where each is named."""

    def __init__(self, below: Accounts | None = None) -> None:
        self._below = below
        self._nodes: dict[int, int] = {}
        self._named: dict[int, set[str]] = {}

    def nodes(self, domid: int) -> int:
        """How many it owns."""
        below = self._below.nodes(domid) if self._below else 0
        return self._nodes.get(domid, 0) + below

    def named(self, domid: int) -> list[str]:
        """The paths of all nodes whose permissions name it, as the owner or otherwise; sorted.

        Not for domain 0, which does not end, nor in a transaction.
        """
        return sorted(self._named.get(domid, ()))

    def record(self, path: str, old: Iterable[Named] | None, new: Iterable[Named] | None) -> None:
        """The permissions at ``path`` were ``old`` and are ``new``; None where there is no node."""
        if old is not new:
            if old is not None:
                self._count(path, old, -1)
            if new is not None:
                self._count(path, new, 1)

    def _count(self, path: str, perms: Iterable[Named], step: int) -> None:
        owner = next(iter(perms)).domid
        self._nodes[owner] = self._nodes.get(owner, 0) + step
        if not self._nodes[owner]:
            del self._nodes[owner]
        if self._below is not None:
            return
        for entry in perms:
            if entry.domid == 0:
                continue
            if step > 0:
                self._named.setdefault(entry.domid, set()).add(path)
            elif paths := self._named.get(entry.domid):  # an entry may name the same domain twice
                paths.discard(path)
                if not paths:
                    del self._named[entry.domid]
