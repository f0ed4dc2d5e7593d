"""Who may do what with a node.

A node has a list of entries, as text ``n5 r7``: a letter and a domid. The first names the owner,
who may do everything, and its letter says what everybody may who is not listed: (n)othing, (r)ead,
(w)rite, (b)oth. The first further entry for a domain is the one that counts. Domain 0 may do
everything. A domain that has another as its target (a device model that serves it) may do what that
one may. An entry for `ANY_DOMAIN` is for everyone, as in xenstored with that feature.

A domid may be used again: the entries of a domain that has ended are taken out (`without`), and
what was before its end is not for the next one of that domid to see.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from hypervisor.store_errors import StoreError
from hypervisor.store_quota import UNLIMITED, Quota

READ, WRITE, OWNER = 1, 2, 4
ANY_DOMAIN = 0x7FF5  # DOMID_ANY of xen/include/public/xen.h

_LETTERS = "nrwb"  # by the bits of READ and WRITE
_ENTRY = re.compile(r"([nrwb])([0-9]{1,5})")


class Caller(NamedTuple):
    """Who speaks: a domain, and over which of its connections.

    Watches and transactions are a connection's own. Whoever makes one vouches for it.
    """

    domid: int
    connection: int = 0


class Subject(NamedTuple):
    """A domain as permissions and quotas see it."""

    domid: int
    target: int | None = None
    quota: Quota = UNLIMITED
    since: int = 0  # the revision at which the last one of its domid had ended

    def is_named(self, domid: int) -> bool:
        return domid in (self.domid, self.target, ANY_DOMAIN)


class Permission(NamedTuple):
    access: int
    domid: int


Perms = tuple[Permission, ...]


def rights(perms: Perms, subject: Subject) -> int:
    """What it may do, as bits."""
    if subject.domid == 0 or subject.is_named(perms[0].domid):
        return READ | WRITE | OWNER
    for entry in perms[1:]:
        if subject.is_named(entry.domid):
            return entry.access
    return perms[0].access


def may_read(perms: Perms, subject: Subject) -> bool:
    return bool(rights(perms, subject) & READ)


def inherited(perms: Perms, subject: Subject) -> Perms:
    """Of a new node below one with ``perms``. What a guest makes it owns."""
    if subject.domid == 0 or subject.domid == perms[0].domid:
        return perms
    return (Permission(perms[0].access, subject.domid), *perms[1:])


def without(perms: Perms, domid: int) -> Perms:
    """After the end of that domain. What it owned domain 0 owns."""
    owner = perms[0]
    if owner.domid == domid:
        owner = Permission(owner.access, 0)
    return (owner, *(entry for entry in perms[1:] if entry.domid != domid))


def parse(texts: Iterable[str]) -> Perms:
    """From ``n0``, ``r7``...

    Raises:
        StoreError: EINVAL: one of them is not like that, or there is none.
    """
    perms = []
    for text in texts:
        match = _ENTRY.fullmatch(text)
        if match is None or int(match[2]) > 0xFFFF:
            raise StoreError("EINVAL", f"{text[:20]!r} is not a permission")
        perms.append(Permission(_LETTERS.index(match[1]), int(match[2])))
    if not perms:
        raise StoreError("EINVAL", "permissions begin with the owner's")
    return tuple(perms)


def render(perms: Perms) -> list[str]:
    return [f"{_LETTERS[entry.access]}{entry.domid}" for entry in perms]
