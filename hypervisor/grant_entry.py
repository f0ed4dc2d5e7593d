"""The entries of grant tables, and how they hang together: a tree for each grant of own memory.

Pure. A `Grant` of a domain's own memory is a root; one that grants on what another one gives is a
child of that. Every grant in a tree is of the root's memory. A `MapTrack` is one mapping (Xen's
word); it *pins* the grant that it was made from and everything above that: ``users`` of a grant
counts the mappings that pin it, its own and those from below.

Rules. A grant is mapped while ``users`` is not 0, and idle otherwise. A grant that is gone is in no
tree and in no table. A revoked mapping pins what was above the revoked grant, if anything was:
there it is still in the way. Once its pages are withdrawn it pins nothing: an orphan.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hypervisor.grant_effects import GrantState, Key, Rights
from hypervisor.grant_quota import Account
from hypervisor.page_spans import Span, SpanIndex, SpanSet

M = TypeVar("M", bound=Hashable)

FIRST_GREF = 8  # as in Xen, the first eight references are reserved for the toolstack


@dataclass(eq=False)
class Memory(Generic[M]):
    """Memory of ``owner``, ``pages`` whole pages of it.

    Attributes:
        grants: the spans of all roots, by gref.
        exposed: those of the roots that have been mapped, by whomever in their trees. Only their
            pages need to be withdrawn when they are revoked.
        withdrawn: the pages that are not the owner's any more.
    """

    handle: M
    owner: int
    pages: int
    grants: SpanIndex = field(default_factory=SpanIndex)
    exposed: SpanIndex = field(default_factory=SpanIndex)
    withdrawn: SpanSet = field(default_factory=SpanSet)


@dataclass(eq=False)
class MapTrack(Generic[M]):
    """One mapping by ``domid``; ``size``: the bytes of the pages that it shows."""

    domid: int
    handle: int
    size: int
    pinned: Grant[M] | None = None
    revoked: bool = False


@dataclass(eq=False)
class Accept:
    """A gref that ``giver`` may transfer up to ``size`` bytes to; they are charged already."""

    giver: int
    size: int


@dataclass(eq=False)
class Grant(Generic[M]):
    """One grant: ``length`` bytes from ``offset`` of ``memory``; ``pages``: those it touches."""

    owner: int
    gref: int
    grantee: int
    memory: Memory[M]
    offset: int
    length: int
    pages: Span
    rights: Rights
    parent: Grant[M] | None
    children: dict[Key, Grant[M]] = field(default_factory=dict)
    tracks: dict[Key, MapTrack[M]] = field(default_factory=dict)
    users: int = 0
    exposed: bool = False  # said of roots

    @property
    def key(self) -> Key:
        return self.owner, self.gref

    def upwards(self) -> Iterator[Grant[M]]:
        """This one and all above it."""
        at: Grant[M] | None = self
        while at is not None:
            yield at
            at = at.parent

    def subtree(self) -> Iterator[Grant[M]]:
        """This one and all below it; a grant comes before its children."""
        waiting = [self]
        while waiting:
            at = waiting.pop()
            yield at
            waiting.extend(at.children.values())

    def mapped_by(self) -> dict[int, int]:
        """How many mappings of each domain pin it."""
        count: dict[int, int] = {}
        for grant in self.subtree():
            for domid, _ in grant.tracks:
                count[domid] = count.get(domid, 0) + 1
        return count

    def state(self) -> GrantState[M]:
        return GrantState(
            self.gref,
            self.grantee,
            self.memory.handle,
            self.offset,
            self.length,
            self.rights,
            self.parent.key if self.parent is not None else None,
            tuple(sorted(self.children)),
            self.mapped_by(),
        )


class Table(Generic[M]):
    """All that one domain has: its grant table proper, its mappings, its memory, its account."""

    def __init__(self, domid: int, account: Account) -> None:
        self.domid = domid
        self.account = account
        self.grants: dict[int, Grant[M]] = {}
        self.accepts: dict[int, Accept] = {}
        self.tracks: dict[int, MapTrack[M]] = {}
        self.memory: dict[M, Memory[M]] = {}
        self._gref = FIRST_GREF
        self._handle = 1

    def new_gref(self) -> int:
        """A grant reference, charged; no number ever comes twice."""
        self.account.charge_grant()
        self._gref += 1
        return self._gref - 1

    def new_track(self, size: int) -> MapTrack[M]:
        """A mapping, charged; no handle ever comes twice."""
        self.account.charge_mapping()
        track: MapTrack[M] = MapTrack(self.domid, self._handle, size)
        self._handle += 1
        self.tracks[track.handle] = track
        return track
