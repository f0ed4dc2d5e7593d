"""The children of a node: a map from name to node that is never changed, only replaced.

Replacing one entry shares all that it does not touch, so it costs about the same for three children
and for a hundred thousand: up to `_LEAF` entries are one dict, copied; more are spread by the hash
of the name over `_SLOTS` tables of the same kind. Names are listed sorted, so how they are spread
(Python salts the hash, no guest can aim at it) is nobody's business. The list is what a client
gets, nul-terminated names in one string; it is made when it is asked for, and kept as long as the
names are the same, whatever happens to the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")

_LEAF = 32
_BITS = 5
_SLOTS = 1 << _BITS

_Table = Any  # dict[str, _T], or a tuple of _SLOTS such tables


class Children(Generic[_T]):
    """A persistent map."""

    __slots__ = ("_packed", "_size", "_table")

    def __init__(self, table: _Table = None, size: int = 0, packed: bytes | None = b"") -> None:
        self._table: _Table = {} if table is None else table
        self._size = size
        self._packed = packed

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[tuple[str, _T]]:
        """All of them, sorted by their names."""
        return iter(sorted(_entries(self._table), key=lambda entry: entry[0]))

    def get(self, name: str) -> _T | None:
        table = self._table
        if type(table) is tuple:
            bits = hash(name)
            while type(table) is tuple:
                table = table[bits & (_SLOTS - 1)]
                bits >>= _BITS
        found: _T | None = table.get(name)
        return found

    def put(self, name: str, child: _T) -> Children[_T]:
        """With this child, in the place of one of the same name."""
        table, added = _put(self._table, name, child, 0)
        return Children(table, self._size + added, None if added else self._packed)

    def drop(self, name: str) -> Children[_T]:
        """Without this child, which is there."""
        size = self._size - 1
        if not size:
            return Children()
        table = _drop(self._table, name, 0)
        if size <= _LEAF // 2 and type(table) is tuple:
            table = dict(_entries(table))
        return Children(table, size, None)

    def packed(self) -> bytes:
        """The names, sorted, each with a nul behind it."""
        if self._packed is None:
            names = sorted(name for name, _ in _entries(self._table))
            self._packed = "".join(f"{name}\0" for name in names).encode("ascii")
        return self._packed


def _slot(name: str, shift: int) -> int:
    return (hash(name) >> shift) & (_SLOTS - 1)


def _put(table: _Table, name: str, child: Any, shift: int) -> tuple[_Table, bool]:
    if type(table) is tuple:
        slot = _slot(name, shift)
        inner, added = _put(table[slot], name, child, shift + _BITS)
        return (*table[:slot], inner, *table[slot + 1 :]), added
    added = name not in table
    table = {**table, name: child}
    if len(table) > _LEAF:
        slots: list[dict[str, Any]] = [{} for _ in range(_SLOTS)]
        for key, value in table.items():
            slots[_slot(key, shift)][key] = value
        return tuple(slots), added
    return table, added


def _drop(table: _Table, name: str, shift: int) -> _Table:
    slot = _slot(name, shift)
    if type(table) is tuple:
        return (*table[:slot], _drop(table[slot], name, shift + _BITS), *table[slot + 1 :])
    table = dict(table)
    del table[name]
    return table


def _entries(table: _Table) -> Iterator[tuple[str, Any]]:
    if type(table) is tuple:
        for inner in table:
            yield from _entries(inner)
    else:
        yield from table.items()
