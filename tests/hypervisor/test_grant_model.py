"""Every operation of the grant tables against the model, in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from hypervisor.errors import BadGrant, GrantInUse, HypercallError, QuotaExceeded
from hypervisor.grant_effects import (
    Copy,
    Effect,
    GrantRef,
    GrantState,
    Mapped,
    OwnMemory,
    Rights,
    Transferred,
)
from hypervisor.grants import Grants
from tests.hypervisor.grant_model import PAGE, QUOTA, Held, Key, Model, Own, Row, plain

T = TypeVar("T")
Faults = set[type[HypercallError]]

ON = Rights(may_regrant=True)
RO = Rights(readonly=True)
RO_ON = Rights(readonly=True, may_regrant=True)
COPY = Rights(copy_only=True)
SUB = Rights(sub_page=True)

NUMBERS = st.integers(0, 1 << 10)
WRONG = st.sampled_from([False] * 9 + [True])
"""Now and then the caller, the name or the range is not the right one."""
FLAGS = st.sampled_from(
    [ON, ON, ON, RO_ON, replace(SUB, may_regrant=True), Rights(), RO, COPY, SUB]
)


class AgainstTheModel(RuleBasedStateMachine):
    """Numbers are taken modulo what there is: a call names something unless it is ``wrong``."""

    def __init__(self) -> None:
        super().__init__()
        self.grants: Grants[str] = Grants(page=PAGE)
        self.model = Model()
        self.numbers = 0
        self.names = 0
        self.grefs: set[Key] = set()
        self.handles: set[Key] = set()

    def pick(self, number: int, things: Iterable[T]) -> T:
        known = sorted(things, key=repr)
        return known[number % len(known)]

    def domain(self, number: int) -> int:
        return self.pick(number, self.model.alive)

    def key(self, number: int, *, wrong: bool, mappable: bool = False) -> Key:
        """A live grant, or if wrong one that is gone, one that never was, or a transfer."""
        if wrong:
            return self.pick(number, [*self.grefs, (self.domain(number), 7)])
        live = {key: row for key, row in self.model.rows.items() if row.rights is not None}
        if mappable:
            live = {key: row for key, row in live.items() if row.rights and row.rights.mappable}
        return self.pick(number, live or [(self.domain(number), 7)])

    def caller(self, number: int, rightful: int | None, *, wrong: bool) -> int:
        """The one who may, or if wrong anybody."""
        if rightful in self.model.alive and not wrong:
            return int(rightful or 0)
        return self.domain(number)

    def call(self, faults: Faults, call: Callable[[], T]) -> T | None:
        """Refused, for one of the reasons, or done if there are none."""
        if not faults:
            return call()
        with pytest.raises(HypercallError) as caught:
            call()
        assert type(caught.value) in faults
        return None

    def quota(self, domid: int, **more: int) -> Faults:
        usage = self.model.usage(domid)
        over = any(getattr(usage, name) + it > getattr(QUOTA, name) for name, it in more.items())
        return {QuotaExceeded} if over else set()

    def new_gref(self, domid: int, gref: int | None, row: Row) -> None:
        if gref is not None:
            assert (domid, gref) not in self.grefs
            self.grefs.add((domid, gref))
            self.model.rows[domid, gref] = row

    def changed(self, said: list[Effect[str]] | None, change: Iterable[Effect[str]]) -> None:
        expected = self.model.changing(lambda: change)
        assert said is not None
        assert plain(said) == plain(expected)

    # --- rules ---

    @initialize(more=st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, FLAGS), min_size=6, max_size=9))
    def a_beginning(self, more: list[tuple[int, int, int, Rights]]) -> None:
        """Three domains that have granted, granted on and mapped something."""
        for _ in range(3):
            self.add_domain()
        for domid in sorted(self.model.alive):
            self.populate(domid, 4)
        for at, (who, to, what, rights) in enumerate(more):
            size = 1 + who % 3
            if at % 3 < 2:
                self.grant_access(0, to, what, who, size, 4, rights if at else ON, wrong=False)
            else:
                self.grant_transitive(
                    0, to, what, who, size, 4, rights, wrong=False, wrong_key=False
                )
            self.map_grant_ref(1, what, None, wrong=False)

    @precondition(lambda self: len(self.model.alive) < 4)
    @rule()
    def add_domain(self) -> None:
        self.grants.add_domain(self.numbers, QUOTA)
        self.model.alive.add(self.numbers)
        self.numbers += 1

    @precondition(lambda self: len(self.model.memory) < 4)
    @rule(who=NUMBERS, count=st.integers(1, 5))
    def populate(self, who: int, count: int) -> None:
        domid, name = self.domain(who), f"m{self.names}"
        self.names += 1
        faults = self.quota(domid, memory=count * PAGE, regions=1)
        self.call(faults, lambda: self.grants.populate(domid, name, count * PAGE))
        if not faults:
            self.model.memory[name] = Own(domid, count)

    @precondition(lambda self: self.model.memory)
    @rule(who=NUMBERS, what=NUMBERS, wrong=WRONG)
    def release(self, who: int, what: int, wrong: bool) -> None:
        name = self.pick(what, self.model.memory)
        own = self.model.memory[name]
        domid = self.caller(who, own.owner, wrong=wrong)
        faults: Faults = set()
        if domid != own.owner:
            faults.add(HypercallError)
        elif self.model.granted_memory(name):
            faults.add(GrantInUse)
        self.call(faults, lambda: self.grants.release(domid, name))
        if not faults:
            del self.model.memory[name]

    def range_in(
        self, at: int, size: int, whole: int, odd: int, rights: Rights, *, wrong: bool
    ) -> tuple[int, int]:
        """Pages within ``whole`` bytes, a bit less for a sub-page grant; anything if wrong."""
        if not wrong:
            at = at % max(1, whole // PAGE)
            size = min(size, max(1, whole // PAGE - at))
        at, size = at * PAGE, size * PAGE
        if rights.sub_page or (wrong and odd < 3):
            at, size = at + odd % 4, size - odd
        return at, size

    @precondition(lambda self: self.model.memory)
    @rule(
        who=NUMBERS, to=NUMBERS, what=NUMBERS, at=st.integers(0, 4), size=st.integers(1, 3),
        odd=st.integers(4, 9), rights=FLAGS, wrong=WRONG,
    )  # fmt: skip
    def grant_access(
        self,
        who: int,
        to: int,
        what: int,
        at: int,
        size: int,
        odd: int,
        rights: Rights,
        wrong: bool,
    ) -> None:
        name = self.pick(what, self.model.memory)
        own = self.model.memory[name]
        domid, grantee = self.caller(who, own.owner, wrong=wrong), self.domain(to)
        at, size = self.range_in(at, size, own.pages * PAGE, odd, rights, wrong=wrong)
        row = Row(grantee, name, at, size, rights)
        faults = self.quota(domid, grants=1)
        if domid != own.owner or at + size > own.pages * PAGE or row.pages & own.gone:
            faults.add(HypercallError)
        if not rights.sub_page and (at % PAGE or size % PAGE):
            faults.add(HypercallError)
        gref = self.call(
            faults, lambda: self.grants.grant_access(domid, grantee, name, at, size, rights)
        )
        self.new_gref(domid, gref, row)

    @precondition(lambda self: self.model.rows)
    @rule(
        who=NUMBERS, to=NUMBERS, what=NUMBERS, at=st.integers(0, 2), size=st.integers(1, 3),
        odd=st.integers(4, 9), rights=FLAGS, wrong=WRONG, wrong_key=WRONG,
    )  # fmt: skip
    def grant_transitive(
        self, who: int, to: int, what: int, at: int, size: int, odd: int, rights: Rights,
        wrong: bool, wrong_key: bool,
    ) -> None:  # fmt: skip
        key, grantee = self.key(what, wrong=wrong_key), self.domain(to)
        above = self.model.rows.get(key)
        domid = self.caller(who, above.grantee if above is not None else None, wrong=wrong)
        parent = self.model.granted(domid, key)
        whole = parent.length if parent is not None else PAGE
        at, size = self.range_in(at, size, whole, odd, rights, wrong=wrong)
        faults = self.quota(domid, grants=1)
        if parent is None or parent.rights is None:
            faults = {BadGrant}
        else:
            base, has = parent.offset + at, parent.rights
            if (
                not has.may_regrant
                or (has.readonly and not rights.readonly)
                or ((has.copy_only or has.sub_page) and not (rights.copy_only or rights.sub_page))
                or at + size > parent.length
                or (not rights.sub_page and (base % PAGE or size % PAGE))
            ):
                faults.add(HypercallError)
        gref = self.call(
            faults,
            lambda: self.grants.grant_transitive(domid, grantee, *key, at, size, rights),
        )
        if parent is not None:
            row = Row(grantee, parent.memory, parent.offset + at, size, rights, key)
            self.new_gref(domid, gref, row)

    @precondition(lambda self: self.model.rows)
    @rule(who=NUMBERS, what=NUMBERS, readonly=st.sampled_from([None, True, False]), wrong=WRONG)
    def map_grant_ref(self, who: int, what: int, readonly: bool | None, wrong: bool) -> None:
        key = self.key(what, wrong=wrong, mappable=bool(who % 4))
        row = self.model.rows.get(key)
        domid = self.caller(who, row.grantee if row is not None else None, wrong=wrong)
        row = self.model.granted(domid, key)
        faults = self.quota(domid, mappings=1, orphans=0)
        if row is None or row.rights is None:
            faults = {BadGrant}
        elif not row.rights.mappable or (row.rights.readonly and readonly is False):
            faults.add(HypercallError)
        mapped = self.call(
            faults, lambda: self.grants.map_grant_ref(domid, *key, readonly=readonly)
        )
        if mapped is not None:
            assert row is not None
            assert row.rights is not None
            assert (domid, mapped.handle) not in self.handles
            self.handles.add((domid, mapped.handle))
            only = row.rights.readonly if readonly is None else readonly
            assert mapped == Mapped(mapped.handle, row.memory, row.offset, row.length, only)
            assert not row.pages & self.model.memory[row.memory].gone
            self.model.held[domid, mapped.handle] = Held(key, len(row.pages))
            self.model.rows[list(self.model.line(key))[-1]].touched = True

    @rule(who=NUMBERS, what=NUMBERS, wrong=WRONG)
    def unmap_grant_ref(self, who: int, what: int, wrong: bool) -> None:
        if self.model.held and not wrong:
            domid, handle = self.pick(what, self.model.held)
        else:
            domid, handle = self.domain(who), what % 9
        if (domid, handle) not in self.model.held:
            self.call({BadGrant}, lambda: self.grants.unmap_grant_ref(domid, handle))
            return

        def change() -> Iterator[Effect[str]]:
            del self.model.held[domid, handle]
            yield from ()

        self.changed(self.grants.unmap_grant_ref(domid, handle), change())

    @precondition(lambda self: self.model.rows)
    @rule(who=NUMBERS, what=NUMBERS, wrong=WRONG)
    def end_access(self, who: int, what: int, wrong: bool) -> None:
        key = self.pick(what, self.model.rows)
        domid = self.caller(who, key[0], wrong=wrong)
        own = (domid, key[1])
        faults: Faults = set()
        if own not in self.model.rows:
            faults.add(BadGrant)
        elif own in self.model.mapped() or any(it.parent == own for it in self.model.rows.values()):
            faults.add(GrantInUse)
        self.call(faults, lambda: self.grants.end_access(*own))
        if not faults:
            del self.model.rows[own]

    @precondition(lambda self: self.model.rows)
    @rule(what=NUMBERS, wrong=WRONG)
    def revoke(self, what: int, wrong: bool) -> None:
        key = self.pick(what, self.model.rows)
        if wrong:
            key = self.domain(what), what % 11
        row = self.model.rows.get(key)

        def change() -> Iterator[Effect[str]]:
            if row is not None and row.rights is None:
                del self.model.rows[key]
            elif row is not None and row.touched:
                yield from self.model.withdraw(row.memory, row.pages)
            elif row is not None:
                yield from self.model.cut(key)

        self.changed(self.grants.revoke(*key), change())

    @precondition(lambda self: self.model.memory)
    @rule(who=NUMBERS, what=NUMBERS, at=NUMBERS, size=st.integers(1, PAGE + 2), wrong=WRONG)
    def revoke_pages(self, who: int, what: int, at: int, size: int, wrong: bool) -> None:
        name = self.pick(what, self.model.memory)
        own = self.model.memory[name]
        domid = self.caller(who, own.owner, wrong=wrong)
        at = at % (own.pages * PAGE)
        if domid != own.owner or at + size > own.pages * PAGE:
            self.call({HypercallError}, lambda: self.grants.revoke_pages(domid, name, at, size))
            return
        wanted = {byte // PAGE for byte in range(at, at + size)}
        said = self.grants.revoke_pages(domid, name, at, size)
        self.changed(said, self.model.withdraw(name, wanted))

    @rule(who=NUMBERS, giver=NUMBERS, size=st.integers(1, 3 * PAGE))
    def accept_transfer(self, who: int, giver: int, size: int) -> None:
        domid, giver = self.domain(who), self.domain(giver)
        faults = self.quota(domid, grants=1, memory=size, regions=1)
        gref = self.call(faults, lambda: self.grants.accept_transfer(domid, giver, size))
        self.new_gref(domid, gref, Row(giver, "", 0, size, None))

    @precondition(
        lambda self: self.model.memory and any(not row.rights for row in self.model.rows.values())
    )
    @rule(what=NUMBERS, who=NUMBERS, to=NUMBERS, wrong=WRONG)
    def transfer(self, what: int, who: int, to: int, wrong: bool) -> None:
        accepts = [key for key, row in self.model.rows.items() if row.rights is None]
        receiver, gref = self.pick(to, self.model.rows if wrong else accepts)
        accept = self.model.rows[receiver, gref]
        mine = [name for name, own in self.model.memory.items() if own.owner == accept.grantee]
        free = [name for name in mine if not self.model.granted_memory(name)]
        name = self.pick(what, free or mine or self.model.memory)
        own = self.model.memory[name]
        domid = self.caller(who, own.owner, wrong=wrong)
        faults: Faults = set()
        if domid != own.owner or own.gone:
            faults.add(HypercallError)
        if self.model.granted_memory(name):
            faults.add(GrantInUse)
        if accept.rights is not None or accept.grantee != domid:
            faults.add(BadGrant)
        elif accept.length < own.pages * PAGE:
            faults.add(HypercallError)
        said = self.call(faults, lambda: self.grants.transfer(domid, name, receiver, gref))
        if not faults:
            assert said == [Transferred(receiver, gref, name, own.pages * PAGE, domid)]
            del self.model.rows[receiver, gref]
            self.model.memory[name] = Own(receiver, own.pages)

    @precondition(lambda self: self.model.memory)
    @rule(who=NUMBERS, one=NUMBERS, two=NUMBERS, at=st.integers(0, 20), size=st.integers(1, 20))
    def copy(self, who: int, one: int, two: int, at: int, size: int) -> None:
        faults: Faults = set()
        domid = self.domain(who)
        sides: list[OwnMemory[str] | GrantRef] = []
        places: list[tuple[str, int]] = []
        for write, number in ((False, one), (True, two)):
            mine = [name for name, own in self.model.memory.items() if own.owner == domid]
            if number % 2:
                name = self.pick(number // 2, mine or self.model.memory)
                own = self.model.memory[name]
                sides.append(OwnMemory(name, at))
                places.append((name, at))
                touched = {byte // PAGE for byte in range(at, at + size)}
                if own.owner != domid or at + size > own.pages * PAGE or touched & own.gone:
                    faults.add(HypercallError)
                continue
            to_me = [key for key in self.model.rows if self.model.granted(domid, key)]
            key = self.pick(number // 2, to_me or [(domid, 7), *self.model.rows])
            row = self.model.granted(domid, key)
            sides.append(GrantRef(*key, at))
            if row is None or row.rights is None:
                faults.add(BadGrant)
                continue
            places.append((row.memory, row.offset + at))
            if at + size > row.length or (write and row.rights.readonly):
                faults.add(HypercallError)
        said = self.call(faults, lambda: self.grants.copy(domid, sides[0], sides[1], size))
        if not faults:
            assert said == Copy(*places[0], *places[1], size)

    @precondition(lambda self: len(self.model.alive) > 3)
    @rule(who=NUMBERS)
    def domain_died(self, who: int) -> None:
        domid = self.domain(who)
        self.changed(self.grants.domain_died(domid), self.model.die(domid))

    # --- what always holds ---

    @invariant()
    def accounts_agree(self) -> None:
        for domid in self.model.alive:
            usage = self.grants.usage(domid)
            assert usage == self.model.usage(domid)
            assert usage.grants == usage.mapped + usage.idle
            assert self.grants.orphans(domid) == usage.orphans
            assert self.grants.overdrawn(domid) == (usage.orphans > QUOTA.orphans)

    @invariant()
    def every_grant_is_where_it_belongs(self) -> None:
        model = self.model
        listed = {(it, gref) for it in model.alive for gref in self.grants.grants_of(it)}
        rows = {key: row for key, row in model.rows.items() if row.rights is not None}
        assert listed == set(rows)
        for key, row in rows.items():
            state = self.grants.query(*key)
            count: dict[int, int] = {}
            for (holder, _), held in model.held.items():
                if key in model.line(held.row):
                    count[holder] = count.get(holder, 0) + 1
            assert row.rights is not None
            children = tuple(sorted(it for it, child in rows.items() if child.parent == key))
            assert state == GrantState(
                key[1],
                row.grantee,
                row.memory,
                row.offset,
                row.length,
                row.rights,
                row.parent,
                children,
                count,
            )
            if row.parent is not None:  # no orphan node, and nothing grows on the way down
                above = rows[row.parent]
                assert above.grantee == key[0]
                assert above.memory == row.memory
                assert above.offset <= row.offset
                assert row.offset + row.length <= above.offset + above.length
            assert not row.pages & model.memory[row.memory].gone

    def teardown(self) -> None:
        for domid in sorted(self.model.alive):
            self.changed(self.grants.domain_died(domid), self.model.die(domid))
        assert not self.model.rows
        assert not self.model.memory
        assert not self.model.held
        assert self.grants._tables == {}
        assert self.grants._memory == {}


TestAgainstTheModel = AgainstTheModel.TestCase
TestAgainstTheModel.settings = settings(
    max_examples=150,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
