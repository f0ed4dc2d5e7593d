"""The domains that the store talks to.

A domain is introduced, perhaps shut down (and resumed, when it was only suspended), and released.
Domain 0 is there from the beginning, and stays. Who is not introduced has no say. A domain may have
a target, for which it works: see store_permissions.py. Its limits are those that were the default
when it was introduced, until it is given others.

Of their coming and going tell the special watches (store_watches.py). Those names are no nodes, but
they have permissions as nodes have: who may read one is told. At first nobody but domain 0 hears of
an introduction, and everybody of a release, as with xenstored.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from hypervisor.store_errors import StoreError
from hypervisor.store_permissions import (
    ANY_DOMAIN,
    OWNER,
    READ,
    Permission,
    Perms,
    Subject,
    may_read,
    rights,
    without,
)
from hypervisor.store_quota import UNLIMITED, Quota, exceeds

FIRST_RESERVED = 0x7FF0  # DOMID_FIRST_RESERVED of xen/include/public/xen.h
INTRODUCE, RELEASE = "@introduceDomain", "@releaseDomain"
QUOTAS = {field.name.replace("_", "-"): field.name for field in fields(Quota)}


@dataclass
class _Domain:
    subject: Subject
    shut_down: bool = False


class Domains:
    def __init__(self, quota: Quota) -> None:
        self._default = quota
        self._domains = {0: _Domain(Subject(0, None, UNLIMITED))}
        self._ended: dict[int, int] = {}  # by domid, of those that were: up to which revision

    def subject(self, domid: int) -> Subject:
        """Raises: StoreError: EACCES: it is not introduced."""
        domain = self._domains.get(domid)
        if domain is None:
            raise StoreError("EACCES", f"domain {domid} is not introduced")
        return domain.subject

    def is_introduced(self, domid: int) -> bool:
        return domid in self._domains

    def introduce(self, domid: int) -> bool:
        """It is there from now on. Whether it is new.

        Raises:
            StoreError: EINVAL: no domain can have that domid, or it is 0.
        """
        if not 0 < domid < FIRST_RESERVED:
            raise StoreError("EINVAL", f"{domid} is no domain to introduce")
        if domid in self._domains:
            return False
        since = self._ended.get(domid, 0)
        self._domains[domid] = _Domain(Subject(domid, None, self._default, since))
        return True

    def release(self, domid: int) -> None:
        """Raises: StoreError: EINVAL: that is 0. ENOENT: it is not introduced."""
        self._guest(domid)
        del self._domains[domid]
        for other in self._domains.values():
            if other.subject.target == domid:
                other.subject = other.subject._replace(target=None)

    def has_ended(self, domid: int, revision: int) -> None:
        """What was up to ``revision`` is not for the next one of that domid."""
        self._ended[domid] = revision

    def shut_down(self, domid: int) -> bool:
        """Whether that is news. Raises as `release`."""
        domain = self._guest(domid)
        news, domain.shut_down = not domain.shut_down, True
        return news

    def resume(self, domid: int) -> None:
        """It may shut down again. Raises as `release`."""
        self._guest(domid).shut_down = False

    def set_target(self, domid: int, target: int) -> None:
        """Raises: as `release`, and ENOENT if the target is not introduced."""
        domain = self._guest(domid)
        if target not in self._domains:
            raise StoreError("ENOENT", f"domain {target} is not introduced")
        since = max(domain.subject.since, self._domains[target].subject.since)
        domain.subject = domain.subject._replace(target=target, since=since)

    def quota(self, domid: int | None) -> Quota:
        """Of that domain, or the default. Raises: StoreError: ENOENT."""
        return self._default if domid is None else self._known(domid).subject.quota

    def set_quota(self, domid: int | None, name: str, limit: int) -> None:
        """Raises: StoreError: EINVAL: there is no such quota, or no such limit. ENOENT."""
        if name not in QUOTAS or limit < 0:
            raise StoreError("EINVAL", f"there is no quota {name!r} of {limit}")
        quota = replace(self.quota(domid), **{QUOTAS[name]: limit})
        if domid is None:
            self._default = quota
        else:
            domain = self._known(domid)
            domain.subject = domain.subject._replace(quota=quota)

    def _known(self, domid: int) -> _Domain:
        domain = self._domains.get(domid)
        if domain is None:
            raise StoreError("ENOENT", f"domain {domid} is not introduced")
        return domain

    def _guest(self, domid: int) -> _Domain:
        if domid == 0:
            raise StoreError("EINVAL", "not with domain 0")
        return self._known(domid)


class Specials:
    """The permissions of the special names."""

    def __init__(self) -> None:
        nobody = Permission(0, 0)
        self._perms: dict[str, Perms] = {
            INTRODUCE: (nobody,),
            RELEASE: (nobody, Permission(READ, ANY_DOMAIN)),
        }

    def may_hear(self, name: str, subject: Subject) -> bool:
        return may_read(self._perms[name], subject)

    def get(self, name: str, subject: Subject, need: int = READ) -> Perms:
        """Raises: StoreError: ENOENT: there is no such name. EACCES."""
        perms = self._perms.get(name)
        if perms is None:
            raise StoreError("ENOENT", f"there is no {name}")
        if rights(perms, subject) & need != need:
            raise StoreError("EACCES", f"domain {subject.domid} may not do that with {name}")
        return perms

    def set(self, name: str, subject: Subject, perms: Perms) -> None:
        """As `Tree.set_perms`. Raises: StoreError: ENOENT, EACCES, ENOSPC, EPERM."""
        owner = self.get(name, subject, OWNER)[0].domid
        if exceeds(len(perms), subject.quota.permissions):
            raise StoreError("ENOSPC", f"set_perms: {len(perms)} entries are too many for {name}")
        if subject.domid != 0 and perms[0].domid != owner:
            raise StoreError("EPERM", f"set_perms: domain {subject.domid} cannot give {name} away")
        self._perms[name] = perms

    def end_domain(self, domid: int) -> None:
        for name, perms in self._perms.items():
            self._perms[name] = without(perms, domid)
