"""Configuration space as a table of registers: who may change which bit, and how it is accessed."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.pci.errors import InvalidOffset
from examples.pci.space import ConfigSpace, Register

SIZE = 256
ACCESSES = [(offset, size) for size in (1, 2, 4) for offset in range(0, SIZE, size)]


@dataclass
class Model:
    """The same, bit by bit: a dictionary of what may change, and what it is."""

    kinds: dict[int, str] = field(default_factory=dict)
    bits: list[int] = field(default_factory=lambda: [0] * SIZE * 8)

    @classmethod
    def of(cls, registers: list[Register]) -> Model:
        model = cls()
        for register in registers:
            for bit in range(register.width * 8):
                at = register.offset * 8 + bit
                model.bits[at] = register.reset >> bit & 1
                if register.writable >> bit & 1:
                    model.kinds[at] = "writable"
                elif register.clears >> bit & 1:
                    model.kinds[at] = "clears"
        return model

    def read(self, offset: int, size: int) -> int:
        return sum(self.bits[offset * 8 + bit] << bit for bit in range(size * 8))

    def write(self, offset: int, size: int, value: int) -> None:
        for bit in range(size * 8):
            at = offset * 8 + bit
            match self.kinds.get(at), value >> bit & 1:
                case "writable", new:
                    self.bits[at] = new
                case "clears", 1:
                    self.bits[at] = 0


@st.composite
def tables(draw: st.DrawFn) -> list[Register]:
    registers, at = [], 0
    while at < SIZE:
        at += draw(st.integers(0, 24))
        width = draw(st.integers(1, min(4, SIZE - at))) if at < SIZE else 0
        if width:
            value = st.integers(0, (1 << 8 * width) - 1)
            writable = draw(value)
            registers.append(Register(at, width, draw(value), writable, draw(value) & ~writable))
            at += width
    return registers


writes = st.lists(st.tuples(st.sampled_from(ACCESSES), st.integers(0, 0xFFFFFFFF)), max_size=40)


@given(tables(), writes)
def test_any_sequence_of_writes_equals_the_model_bit_by_bit(
    table: list[Register], program: list[tuple[tuple[int, int], int]]
) -> None:
    space, model = ConfigSpace(SIZE, table), Model.of(table)
    for (offset, size), value in program:
        space.write(offset, size, value)
        model.write(offset, size, value)
    assert [space.read(*access) for access in ACCESSES] == [model.read(*a) for a in ACCESSES]
    space.reset()
    fresh = Model.of(table)
    assert [space.read(offset, 1) for offset in range(SIZE)] == [
        fresh.read(offset, 1) for offset in range(SIZE)
    ]


@given(tables(), writes)
def test_a_read_only_bit_never_changes_and_a_cleared_one_stays_clear(
    table: list[Register], program: list[tuple[tuple[int, int], int]]
) -> None:
    space = ConfigSpace(SIZE, table)
    for (offset, size), value in program:
        before = space.read(offset, size)
        space.write(offset, size, value)
        changed = before ^ space.read(offset, size)
        for register in table:
            for byte in range(register.width):
                place = register.offset + byte - offset
                if 0 <= place < size:
                    part = changed >> 8 * place & 0xFF
                    assert not part & ~((register.writable | register.clears) >> 8 * byte)
                    assert not part & (register.clears >> 8 * byte) & ~(value >> 8 * place)
                    now = space.read(register.offset + byte, 1)
                    assert not part & (register.clears >> 8 * byte) & now


@pytest.mark.parametrize(
    ("offset", "size", "words"),
    [
        (0, 0, "1, 2 or 4 bytes, not 0"),
        (0, 3, "1, 2 or 4 bytes, not 3"),
        (0, 8, "1, 2 or 4 bytes, not 8"),
        (1, 2, "not aligned"),
        (2, 4, "not aligned"),
        (-4, 4, "outside"),
        (4096, 1, "outside"),
    ],
)
def test_an_impossible_access_is_refused_and_changes_nothing(
    offset: int, size: int, words: str
) -> None:
    space = ConfigSpace(SIZE, [Register(0, 4, 5, 0xFFFFFFFF)])
    with pytest.raises(InvalidOffset, match=words):
        space.read(offset, size)
    with pytest.raises(InvalidOffset, match=words):
        space.write(offset, size, 7)
    assert space.read(0, 4) == 5


@pytest.mark.parametrize("size", [1, 2, 4])
def test_what_is_behind_the_end_reads_all_ones_and_takes_no_write(size: int) -> None:
    space = ConfigSpace(SIZE, [])
    space.write(0x100, size, 0)
    assert space.read(0x100, size) == (1 << 8 * size) - 1
    assert space.read(0xFC, size) == 0


@pytest.mark.parametrize(
    "table",
    [
        [Register(0, 4), Register(3, 1)],
        [Register(254, 4)],
        [Register(-1, 1)],
        [Register(0, 1, 0x100)],
        [Register(0, 1, 0, 0x100)],
        [Register(0, 1, -1)],
        [Register(0, 1, 0, 3, 1)],
    ],
)
def test_a_table_that_contradicts_itself_is_refused(table: list[Register]) -> None:
    with pytest.raises(ValueError):
        ConfigSpace(SIZE, table)
