"""The buffer allocator against what must hold of any allocator."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport import BuffersExhausted, Pool

SIZE = 1 << 20


@given(
    st.lists(
        st.one_of(st.integers(min_value=0, max_value=SIZE), st.booleans()),
        max_size=200,
    )
)
def test_spans_never_overlap_and_everything_comes_back(steps: list[int | bool]) -> None:
    pool = Pool(SIZE)
    live: list[tuple[int, int]] = []
    for step in steps:
        if isinstance(step, bool):
            if live:
                pool.give(*live.pop(0 if step else -1))
            continue
        try:
            start = pool.take(step)
        except BuffersExhausted:
            assert pool.free_bytes() < SIZE
            continue
        span = pool.span_of(step)
        assert start % 4096 == 0
        assert start in range(SIZE - span + 1)
        for other, length in live:
            assert start + span <= other or other + pool.span_of(length) <= start
        live.append((start, step))
    assert pool.free_bytes() == SIZE - sum(pool.span_of(length) for _, length in live)
    for span_of_live in live:
        pool.give(*span_of_live)
    assert pool.take(SIZE) == 0


def test_freed_neighbours_make_room_for_something_large() -> None:
    pool = Pool(8 * 4096)
    starts = [pool.take(4096) for _ in range(8)]
    with pytest.raises(BuffersExhausted):
        pool.take(1)
    for start in starts:
        pool.give(start, 4096)
    assert pool.take(8 * 4096) == 0


def test_what_never_fits_is_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Pool(4096).take(4097)
    with pytest.raises(ValueError, match="power of two"):
        Pool(5000)
