"""Spans of pages against plain sets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.page_spans import SpanIndex, SpanSet, span_of

SPANS = st.tuples(st.integers(0, 30), st.integers(1, 8)).map(lambda it: (it[0], it[0] + it[1]))


def pages(span: tuple[int, int]) -> set[int]:
    return set(range(*span))


def test_the_pages_that_bytes_touch() -> None:
    assert [span_of(*it, 16) for it in ((0, 1), (0, 16), (15, 2), (16, 16), (31, 18))] == [
        (0, 1),
        (0, 1),
        (0, 2),
        (1, 2),
        (1, 4),
    ]


@settings(max_examples=150)
@given(st.lists(SPANS, max_size=12), SPANS)
def test_a_span_set_is_a_set(added: list[tuple[int, int]], asked: tuple[int, int]) -> None:
    spans, model = SpanSet(), set[int]()
    for span in added:
        new = [page for it in spans.add(span) for page in range(*it)]
        assert new == sorted(pages(span) - model)
        model |= pages(span)
    assert len(spans) == len(model)
    assert spans.overlaps(asked) == bool(pages(asked) & model)
    kept = list(spans)
    assert [page for it in kept for page in range(*it)] == sorted(model)
    assert all(one[1] < two[0] for one, two in pairwise(kept))  # as few as can be


@settings(max_examples=200)
@given(st.lists(SPANS, max_size=12), st.lists(st.integers(0, 11)), SPANS)
def test_a_span_index_finds_what_a_search_finds(
    added: list[tuple[int, int]], removed: list[int], asked: tuple[int, int]
) -> None:
    index, model = SpanIndex(), dict(enumerate(added))
    for number, span in model.items():
        index.add(span, number)
    for number in removed:
        if number in model:
            index.remove(model.pop(number), number)
    assert len(index) == len(model)
    assert sorted(index.overlapping(asked)) == [
        number for number, span in model.items() if pages(span) & pages(asked)
    ]
    island = pages(asked)
    while more := {
        page for span in model.values() if pages(span) & island for page in pages(span) - island
    }:
        island |= more
    assert pages(index.island(asked)) == island
