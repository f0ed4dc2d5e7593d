"""A model of the grant tables that is simple, and slow.

Flat lists, and everything is worked out anew each time: pages are sets of numbers, a tree is a
parent in each row, "mapped" is a search, and news of last mappings is the difference between before
and after. It shares the values of `grant_effects` with what it is compared to, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from hypervisor.grant_effects import (
    Effect,
    Forget,
    GrantGone,
    LastMappingGone,
    Overdrawn,
    Revoked,
    Rights,
    StillReachable,
    Withdraw,
)
from hypervisor.grant_quota import GrantQuota, GrantUsage

PAGE = 16
Key = tuple[int, int]

QUOTA = GrantQuota(memory=8 * PAGE, grants=8, mappings=7, orphans=3 * PAGE, regions=3)


@dataclass
class Row:
    """A grant, or (``rights`` None) an accepted transfer."""

    grantee: int
    memory: str
    offset: int
    length: int
    rights: Rights | None
    parent: Key | None = None
    touched: bool = False

    @property
    def pages(self) -> set[int]:
        return {byte // PAGE for byte in range(self.offset, self.offset + self.length)}


@dataclass
class Held:
    """A mapping."""

    row: Key | None
    pages: int
    revoked: bool = False


@dataclass
class Own:
    owner: int
    pages: int
    gone: set[int] = field(default_factory=set)


@dataclass
class Model:
    alive: set[int] = field(default_factory=set)
    memory: dict[str, Own] = field(default_factory=dict)
    rows: dict[Key, Row] = field(default_factory=dict)
    held: dict[Key, Held] = field(default_factory=dict)

    # looking

    def line(self, key: Key | None) -> Iterator[Key]:
        while key is not None:
            yield key
            key = self.rows[key].parent

    def mapped(self) -> set[Key]:
        return {key for held in self.held.values() for key in self.line(held.row)}

    def orphans(self, domid: int) -> int:
        mine = (held for (holder, _), held in self.held.items() if holder == domid)
        return sum(held.pages * PAGE for held in mine if held.revoked)

    def usage(self, domid: int) -> GrantUsage:
        rows = {key: row for key, row in self.rows.items() if key[0] == domid}
        mine = [own for own in self.memory.values() if own.owner == domid]
        asked = [row.length for row in rows.values() if row.rights is None]
        return GrantUsage(
            memory=sum(own.pages - len(own.gone) for own in mine) * PAGE + sum(asked),
            grants=len(rows),
            mapped=len(self.mapped() & set(rows)),
            mappings=sum(1 for holder, _ in self.held if holder == domid),
            orphans=self.orphans(domid),
            regions=len(mine) + len(asked),
        )

    def granted(self, domid: int, key: Key) -> Row | None:
        row = self.rows.get(key)
        return row if row is not None and row.grantee == domid and row.rights is not None else None

    def granted_memory(self, name: str) -> bool:
        return any(row.rights is not None and row.memory == name for row in self.rows.values())

    # changing

    def changing(self, change: Callable[[], Iterable[Effect[str]]]) -> list[Any]:
        """Do it; what it says, and what the difference between before and after says."""
        mapped, over = self.mapped(), {it for it in self.alive if self.orphans(it) > QUOTA.orphans}
        effects = list(change())
        still = self.mapped()
        effects += [LastMappingGone(*key) for key in mapped if key not in still]
        effects += [
            Overdrawn(domid, QUOTA.orphans)
            for domid in self.alive - over
            if self.orphans(domid) > QUOTA.orphans
        ]
        return [it for it in effects if isinstance(it, Withdraw | Forget) or it.domid in self.alive]

    def cut(self, top: Key) -> Iterator[Effect[str]]:
        gone = {key for key in self.rows if top in self.line(key)}
        above = self.rows[top].parent
        for key in gone:
            row, owner = self.rows[key], self.memory[self.rows[key].memory].owner
            handles = []
            for (_, handle), held in self.held.items():
                if held.row == key:
                    if not held.revoked:
                        handles.append(handle)
                    held.row, held.revoked = above, True
            yield GrantGone(*key)
            yield Revoked(row.grantee, *key, tuple(handles))
            if handles and above is not None:
                yield StillReachable(owner, row.memory, row.offset, row.length, row.grantee)
        for key in gone:
            del self.rows[key]

    def roots(self, name: str) -> dict[Key, Row]:
        return {
            key: row
            for key, row in self.rows.items()
            if row.memory == name and row.parent is None and row.rights is not None
        }

    def withdraw(self, name: str, wanted: set[int]) -> Iterator[Effect[str]]:
        own = self.memory[name]
        while more := {
            page
            for row in self.roots(name).values()
            if row.touched and row.pages & wanted
            for page in row.pages - wanted
        }:
            wanted = wanted | more
        for page in wanted - own.gone:
            yield Withdraw(own.owner, name, page * PAGE, PAGE)
        own.gone |= wanted
        for key, row in self.roots(name).items():
            if row.pages & wanted:
                yield from self.cut(key)
        if len(own.gone) == own.pages:
            del self.memory[name]
            yield Forget(own.owner, name)

    def die(self, domid: int) -> Iterator[Effect[str]]:
        self.held = {key: held for key, held in self.held.items() if key[0] != domid}
        for name, own in list(self.memory.items()):
            if own.owner == domid:
                yield from self.withdraw(name, set(range(own.pages)))
        while mine := [key for key in self.rows if key[0] == domid]:
            if self.rows[mine[0]].rights is None:
                del self.rows[mine[0]]
            else:
                yield from self.cut(mine[0])
        self.alive.discard(domid)


def plain(effects: list[Any]) -> list[str]:
    """In no order, page by page, without the order of handles."""
    flat: list[Any] = []
    for it in effects:
        if isinstance(it, Withdraw):
            flat += [
                replace(it, offset=it.offset + at, length=PAGE) for at in range(0, it.length, PAGE)
            ]
        elif isinstance(it, Revoked):
            flat.append(replace(it, handles=tuple(sorted(it.handles))))
        else:
            flat.append(it)
    return sorted(map(repr, flat))
