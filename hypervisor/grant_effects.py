"""What the grant tables answer, and what they want done: plain values.

An `Effect` is either work on memory for whoever can do it (`Withdraw`, `Forget`), or news for the
domain ``domid`` (all others). They are performed in the order in which they are listed. Nothing is
ever for a dead domain, except work on the memory that it left.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from typing import Generic, TypeVar

M = TypeVar("M")

Key = tuple[int, int]
"""(granter, gref)"""


@dataclass(frozen=True)
class Rights:
    """What a grantee may do; less and less on the way down a tree of grants.

    Attributes:
        readonly: not write.
        copy_only: not map; the hypervisor copies, and hands no memory out.
        sub_page: the range need not be whole pages. Since a mapping shows whole pages, this
            implies ``copy_only``, as in Xen.
        may_regrant: grant it on to others. Xen: the grantee's grant may be named in a transitive
            one.
    """

    readonly: bool = False
    copy_only: bool = False
    sub_page: bool = False
    may_regrant: bool = False

    @property
    def mappable(self) -> bool:
        """It may be mapped, not only copied."""
        return not (self.copy_only or self.sub_page)

    def within(self, other: Rights) -> bool:
        """Nothing here that ``other`` does not give."""
        return (
            (self.readonly or not other.readonly)
            and (other.mappable or not self.mappable)
            and (other.may_regrant or not self.may_regrant)
        )

    @property
    def flags(self) -> int:
        """As a number: a bit for each of the attributes, in their order."""
        return sum(1 << bit for bit, given in enumerate(astuple(self)) if given)

    @classmethod
    def of(cls, flags: int) -> Rights:
        """Out of `flags`; bits that mean nothing are ignored."""
        return cls(*(bool(flags >> bit & 1) for bit in range(len(fields(cls)))))


# --- answers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mapped(Generic[M]):
    """What to map: ``length`` bytes from ``offset`` of ``memory``. ``handle`` is for unmapping."""

    handle: int
    memory: M
    offset: int
    length: int
    readonly: bool


@dataclass(frozen=True)
class OwnMemory(Generic[M]):
    """One side of a copy: the caller's memory."""

    memory: M
    offset: int


@dataclass(frozen=True)
class GrantRef:
    """One side of a copy: what ``granter`` granted to the caller; ``offset`` is within that."""

    granter: int
    gref: int
    offset: int = 0


@dataclass(frozen=True)
class Copy(Generic[M]):
    """What to copy. Where both are the same memory the ranges may overlap."""

    source: M
    source_offset: int
    dest: M
    dest_offset: int
    length: int


@dataclass(frozen=True)
class GrantState(Generic[M]):
    """One grant, as its granter may see it.

    Attributes:
        offset: within ``memory``, also if it was granted on.
        parent: the grant that this grants on.
        children: those that grant this on.
        mapped_by: how often each domain maps it: the grantee, and whoever has it from there.
    """

    gref: int
    grantee: int
    memory: M
    offset: int
    length: int
    rights: Rights
    parent: Key | None
    children: tuple[Key, ...]
    mapped_by: dict[int, int]


# --- effects --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Withdraw(Generic[M]):
    """Exchange these pages of ``memory``, which domain ``domid`` owns, under the owner's own view.

    Whole pages. Whoever maps the old ones is cut off. Grants of them are over, and never can be
    granted again: what lies under the owner's view now is other memory. If the owner is dead only
    the old pages are to be freed.
    """

    domid: int
    memory: M
    offset: int
    length: int


@dataclass(frozen=True)
class Forget(Generic[M]):
    """The tables know ``memory`` of domain ``domid`` no more; nothing of it can be mapped."""

    domid: int
    memory: M


@dataclass(frozen=True)
class Revoked:
    """Tell the grantee: the grant is over. ``handles``: its mappings, which it must unmap."""

    domid: int
    granter: int
    gref: int
    handles: tuple[int, ...]


@dataclass(frozen=True)
class GrantGone:
    """Tell the granter: your grant was revoked, by yourself, or with what it shared or granted on.

    Always after the `LastMappingGone` of the same grant, if there is one.
    """

    domid: int
    gref: int


@dataclass(frozen=True)
class LastMappingGone:
    """Tell the granter: nobody maps this any more, neither the grantee nor who has it from there.

    Once for each time that a grant stops being mapped: by unmapping, by death or by revocation.
    """

    domid: int
    gref: int


@dataclass(frozen=True)
class StillReachable(Generic[M]):
    """Tell the memory's owner: ``holder`` has a grant of this no more, but still maps it.

    A domain that granted on revoked that, or died. It does not own the pages, so it cannot have
    them exchanged; their owner can (`Grants.revoke`, `Grants.revoke_pages`). Until the holder
    unmaps, its mapping counts for the grants that this one was made from.
    """

    domid: int
    memory: M
    offset: int
    length: int
    holder: int


@dataclass(frozen=True)
class Overdrawn:
    """This domain holds more revoked memory than the ``limit`` bytes that it may.

    Said once when the limit is passed. It must be ended unless it lets go: the actor asks it for a
    sign of life first, because those who revoke may be the malicious ones, and then looks at
    `Grants.overdrawn` again.
    """

    domid: int
    limit: int


@dataclass(frozen=True)
class Transferred(Generic[M]):
    """Tell the receiver: ``memory`` is yours; ``gref`` was your `Grants.accept_transfer`."""

    domid: int
    gref: int
    memory: M
    size: int
    giver: int


Effect = (
    Withdraw[M]
    | Forget[M]
    | Revoked
    | GrantGone
    | LastMappingGone
    | StillReachable[M]
    | Overdrawn
    | Transferred[M]
)
