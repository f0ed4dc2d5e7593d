"""The hypervisor's half of grants with real memfds, in any order, against what must be true.

No actor: the handlers are called as the hypervisor's actor calls them. The owner's half of a
revocation is reduced to the hole in the old pages. The rules of the tables have a model of their
own (test_grant_model.py); here it is what a descriptor shows, and which descriptors there are.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from actors import Fd, Message
from hypervisor import HypercallError, QuotaExceeded
from hypervisor import hypercalls as hc
from hypervisor.grant_quota import GrantQuota
from hypervisor.granting import Granting
from hypervisor.memory import F_SEAL_FUTURE_WRITE, PAGE, SEALS, punch_hole

NUMBERS = st.integers(0, 1 << 10)
QUOTA = GrantQuota(memory=16 * PAGE, grants=8, mappings=8, orphans=64 * PAGE, regions=4)
READONLY, MAY_REGRANT = 1, 8


@dataclass
class Owned:
    """Memory, as its owner knows it: ``shows`` is the first byte of each page."""

    owner: int
    fd: int
    view: mmap.mmap
    readonly: bool
    shows: list[int]
    gone: set[int] = field(default_factory=set)


@dataclass
class Mapped:
    """A mapping; ``left`` is what its pages show for ever, once it was revoked and withdrawn."""

    memory: int
    first: int
    view: mmap.mmap
    left: dict[int, int] = field(default_factory=dict)
    revoked: bool = False

    @property
    def pages(self) -> range:
        return range(self.first, self.first + len(self.view) // PAGE)


class RealMemory(RuleBasedStateMachine):
    """Numbers are taken modulo what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[int, Message]] = []
        self.granting = Granting(lambda domid, news: self.told.append((domid, news)), self.over)
        self.handlers = self.granting.handlers()
        self.alive: set[int] = set()
        self.domids = 0
        self.memory: dict[int, Owned] = {}
        self.grefs: dict[tuple[int, int], int] = {}
        self.mapped: dict[tuple[int, int], Mapped] = {}
        self.bytes = 0
        self.before = set(memfds())

    def over(self, domid: int, limit: int) -> None:
        raise AssertionError(f"domain {domid} cannot have more than {limit}")

    def teardown(self) -> None:
        for domid in sorted(self.alive):
            self.dies(domid)
        assert not self.granting._memory
        assert not self.granting._numbers
        assert not self.memory
        for mapped in self.mapped.values():
            mapped.view.close()
        assert set(memfds()) == self.before

    def call(self, domid: int, call: Message) -> Any:
        return self.handlers[type(call)](domid, call)

    def pick(self, number: int, things: Any) -> Any:
        known = sorted(things)
        return known[number % len(known)]

    def dies(self, domid: int) -> None:
        self.granting.domain_died(domid)
        self.alive.remove(domid)
        for key in [key for key in self.mapped if key[0] == domid]:
            self.mapped.pop(key).view.close()
        for number in [it for it, owned in self.memory.items() if owned.owner == domid]:
            self.withdrawn(number, range(len(self.memory[number].shows)))
        for key in [key for key in self.grefs if key[0] == domid]:
            del self.grefs[key]
        self.hear()

    def withdrawn(self, number: int, pages: range) -> None:
        """These pages are nobody's: from now on their mappings show what they show now."""
        owned = self.memory[number]
        for mapped in self.mapped.values():
            for page in set(mapped.pages) & set(pages) if mapped.memory == number else ():
                mapped.left.setdefault(page, owned.shows[page] if owned.readonly else 0)
        owned.gone |= set(pages)
        if len(owned.gone) == len(owned.shows):
            self.close(number)

    def close(self, number: int) -> None:
        owned = self.memory.pop(number)
        owned.view.close()
        os.close(owned.fd)

    def hear(self) -> None:
        for domid, news in self.told:
            assert domid in self.alive
            match news:
                case hc.MappingRevoked(handles=handles):
                    assert handles  # who maps nothing is not told
                    for handle in handles:
                        assert not self.mapped[domid, handle].revoked
                        self.mapped[domid, handle].revoked = True
                case hc.GrantGone(gref):
                    del self.grefs[domid, gref]
        self.told.clear()

    # --- rules ---

    @initialize()
    def a_beginning(self) -> None:
        for _ in range(3):
            self.add_domain()
        self.populate(0, 4, readonly=False)
        self.populate(1, 3, readonly=True)
        for what, to in ((0, 1), (1, 2), (1, 0)):
            self.grant(what, to, at=0, size=2, more=True)
        for what in range(3):
            self.grant_on(what, to=what)
            self.map(what)

    @precondition(lambda self: len(self.alive) < 4)
    @rule()
    def add_domain(self) -> None:
        self.granting.domain_created(self.domids, QUOTA)
        self.alive.add(self.domids)
        self.domids += 1

    @rule(who=NUMBERS, pages=st.integers(1, 4), readonly=st.booleans())
    def populate(self, who: int, pages: int, readonly: bool) -> None:
        """Every page begins with another byte than zero."""
        domid = self.pick(who, self.alive)
        fd = os.memfd_create("owned", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, pages * PAGE)
        view = mmap.mmap(fd, pages * PAGE)
        shows = [number % 255 + 1 for number in range(self.bytes, self.bytes + pages)]
        view[::PAGE] = bytes(shows)
        self.bytes += pages
        seals = SEALS | (F_SEAL_FUTURE_WRITE if readonly else 0)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        try:
            number = self.call(domid, hc.PopulateMemory(Fd(os.dup(fd)), pages * PAGE))
        except QuotaExceeded:
            view.close()
            os.close(fd)
            return
        self.memory[number] = Owned(domid, fd, view, readonly, shows)

    @precondition(lambda self: self.memory)
    @rule(what=NUMBERS, to=NUMBERS, at=NUMBERS, size=st.integers(1, 3), more=st.booleans())
    def grant(self, what: int, to: int, at: int, size: int, more: bool) -> None:
        number = self.pick(what, self.memory)
        owned = self.memory[number]
        at %= len(owned.shows)
        size = min(size, len(owned.shows) - at)
        rights = (READONLY if owned.readonly else 0) | (MAY_REGRANT if more else 0)
        call = hc.GrantAccess(self.pick(to, self.alive), number, at * PAGE, size * PAGE, rights)
        try:
            gref = self.call(owned.owner, call)
        except HypercallError as error:
            full = isinstance(error, QuotaExceeded)
            assert full or owned.gone & set(range(at, at + size))
        else:
            assert not owned.gone & set(range(at, at + size))
            self.grefs[owned.owner, gref] = number

    @precondition(lambda self: self.grefs)
    @rule(what=NUMBERS, to=NUMBERS)
    def grant_on(self, what: int, to: int) -> None:
        granter, gref = self.pick(what, self.grefs)
        about = self.call(granter, hc.QueryGrant(gref))
        call = hc.GrantTransitive(self.pick(to, self.alive), granter, gref, 0, PAGE, about.rights)
        with suppress(HypercallError):
            node = self.call(about.grantee, call)
            self.grefs[about.grantee, node] = self.grefs[granter, gref]

    @precondition(lambda self: self.grefs)
    @rule(what=NUMBERS)
    def map(self, what: int) -> None:
        granter, gref = self.pick(what, self.grefs)
        grantee = self.call(granter, hc.QueryGrant(gref)).grantee
        with suppress(HypercallError):
            said = self.call(grantee, hc.MapGrantRef(granter, gref, None))
            prot = mmap.PROT_READ if said.readonly else mmap.PROT_READ | mmap.PROT_WRITE
            view = mmap.mmap(said.memory.fileno(), said.length, prot=prot, offset=said.offset)
            number = self.grefs[granter, gref]
            self.mapped[grantee, said.handle] = Mapped(number, said.offset // PAGE, view)

    @precondition(lambda self: self.mapped)
    @rule(what=NUMBERS)
    def unmap(self, what: int) -> None:
        domid, handle = key = self.pick(what, self.mapped)
        self.call(domid, hc.UnmapGrantRef(handle))
        self.mapped.pop(key).view.close()
        self.hear()

    @precondition(lambda self: self.memory)
    @rule(what=NUMBERS, at=NUMBERS)
    def owner_writes(self, what: int, at: int) -> None:
        owned = self.memory[self.pick(what, self.memory)]
        page = at % len(owned.shows)
        if page not in owned.gone:
            self.bytes = self.bytes % 255 + 1
            owned.view[page * PAGE] = owned.shows[page] = self.bytes

    @precondition(lambda self: self.mapped)
    @rule(what=NUMBERS, at=NUMBERS)
    def grantee_writes(self, what: int, at: int) -> None:
        mapped = self.mapped[self.pick(what, self.mapped)]
        page = mapped.pages[at % len(mapped.pages)]
        owned = self.memory.get(mapped.memory)
        if owned is not None and not owned.readonly and page not in mapped.left:
            self.bytes = self.bytes % 255 + 1
            mapped.view[(page - mapped.first) * PAGE] = owned.shows[page] = self.bytes

    @precondition(lambda self: self.memory)
    @rule(one=NUMBERS, other=NUMBERS, at=NUMBERS, to=NUMBERS)
    def copy(self, one: int, other: int, at: int, to: int) -> None:
        source, dest = self.pick(one, self.memory), self.pick(other, self.memory)
        here, there = self.memory[source], self.memory[dest]
        at, to = at % len(here.shows), to % len(there.shows)
        call = hc.GrantCopy(hc.OwnSide(source, at * PAGE), hc.OwnSide(dest, to * PAGE), PAGE)
        fine = (
            here.owner == there.owner
            and not there.readonly
            and at not in here.gone
            and to not in there.gone
        )
        try:
            self.call(here.owner, call)
        except HypercallError:
            assert not fine
        else:
            assert fine
            there.shows[to] = here.shows[at]

    @precondition(lambda self: self.memory)
    @rule(what=NUMBERS, to=NUMBERS)
    def transfer(self, what: int, to: int) -> None:
        number, receiver = self.pick(what, self.memory), self.pick(to, self.alive)
        owned = self.memory[number]
        size = len(owned.shows) * PAGE
        try:
            gref = self.call(receiver, hc.AcceptTransfer(owned.owner, size))
        except QuotaExceeded:
            return
        try:
            self.call(owned.owner, hc.Transfer(number, receiver, gref))
        except HypercallError:
            assert owned.gone or any(of == number for of in self.grefs.values())
            self.call(receiver, hc.EndAccess(gref))
            return
        ((told, news),) = self.told
        assert isinstance(news, hc.Transferred)
        assert (told, news.number, news.size) == (receiver, number, size)
        self.told.clear()
        zeros = owned.shows if owned.readonly else [0] * len(owned.shows)
        assert list(owned.view[::PAGE]) == zeros
        self.close(number)
        fd = os.dup(news.memory.fileno())
        view = mmap.mmap(fd, size)
        self.memory[number] = Owned(receiver, fd, view, readonly=False, shows=owned.shows)

    @precondition(lambda self: self.grefs)
    @rule(what=NUMBERS)
    def end_access(self, what: int) -> None:
        domid, gref = key = self.pick(what, self.grefs)
        with suppress(HypercallError):
            self.call(domid, hc.EndAccess(gref))
            del self.grefs[key]

    @precondition(lambda self: self.grefs)
    @rule(what=NUMBERS)
    def revoke(self, what: int) -> None:
        domid, gref = self.pick(what, self.grefs)
        self.exchange(self.call(domid, hc.Revoke(gref)))
        assert (domid, gref) not in self.grefs

    @precondition(lambda self: self.memory)
    @rule(what=NUMBERS, at=NUMBERS)
    def revoke_page(self, what: int, at: int) -> None:
        number = self.pick(what, self.memory)
        owned = self.memory[number]
        page = at % len(owned.shows)
        self.exchange(self.call(owned.owner, hc.RevokePages(number, page * PAGE, PAGE)))

    @precondition(lambda self: self.memory)
    @rule(what=NUMBERS)
    def release(self, what: int) -> None:
        number = self.pick(what, self.memory)
        with suppress(HypercallError):
            self.call(self.memory[number].owner, hc.ReleaseMemory(number))
            for mapped in self.mapped.values():
                assert mapped.memory != number or set(mapped.pages) <= set(mapped.left)
            self.close(number)

    @precondition(lambda self: len(self.alive) > 1)
    @rule(who=NUMBERS)
    def domain_dies(self, who: int) -> None:
        self.dies(self.pick(who, self.alive))

    def exchange(self, answer: hc.Withdrawn) -> None:
        """The owner's half, as `Region.renew` does it."""
        for number, offset, length in answer.spans:
            owned = self.memory[number]
            if not owned.readonly:
                punch_hole(owned.fd, offset, length)
            self.withdrawn(number, range(offset // PAGE, (offset + length) // PAGE))
        self.hear()

    # --- what must be true ---

    @invariant()
    def a_mapping_shows_what_its_owner_has_until_the_pages_are_withdrawn(self) -> None:
        for mapped in self.mapped.values():
            for page in mapped.pages:
                shown = mapped.view[(page - mapped.first) * PAGE]
                if page in mapped.left:
                    assert shown == mapped.left[page]
                    assert mapped.revoked
                else:
                    assert shown == self.memory[mapped.memory].shows[page]

    @invariant()
    def there_is_one_descriptor_for_all_memory_that_is_known(self) -> None:
        assert set(self.granting._memory) == set(self.memory)
        assert len(self.granting._numbers) == len(self.memory)
        held = set(memfds()) - self.before
        assert len(held) == len(self.memory) * 3 + len(self.mapped)  # a mapping has its own

    @invariant()
    def the_usage_is_right(self) -> None:
        for domid in self.alive:
            usage = self.call(domid, hc.QueryUsage(domid))
            mine = [owned for owned in self.memory.values() if owned.owner == domid]
            grants = [key for key in self.grefs if key[0] == domid]
            used = [self.call(domid, hc.QueryGrant(gref)).mapped_by for _, gref in grants]
            holds = [mapped for key, mapped in self.mapped.items() if key[0] == domid]
            assert usage == hc.UsageIs(
                memory=sum(len(owned.shows) - len(owned.gone) for owned in mine) * PAGE,
                grants=len(grants),
                mapped=sum(1 for by in used if by),
                mappings=len(holds),
                orphans=sum(len(mapped.view) for mapped in holds if mapped.revoked),
                regions=len(mine),
            )


def memfds() -> Iterator[int]:
    """The descriptors of memfds in this process."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):
            if "memfd:" in os.readlink(f"/proc/self/fd/{name}"):
                yield int(name)


TestRealMemory = RealMemory.TestCase
TestRealMemory.settings = settings(max_examples=60, stateful_step_count=30)
