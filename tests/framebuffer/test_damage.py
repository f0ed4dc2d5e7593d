"""Rectangles, and sets of pixels made of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from examples.framebuffer.damage import LIMIT, Damage, Rect

SIDE = 24
RECTS = st.builds(
    Rect, st.integers(0, 20), st.integers(0, 20), st.integers(0, 12), st.integers(0, 12)
)


def mask(rects: Damage | list[Rect]) -> npt.NDArray[np.int64]:
    """How often each pixel is in the rectangles."""
    pixels = np.zeros((64, 64), dtype=np.int64)
    for rect in rects:
        pixels[rect.y : max(rect.bottom, 0), rect.x : max(rect.right, 0)] += not rect.empty
    return pixels


@given(st.lists(st.tuples(st.booleans(), RECTS), max_size=20))
def test_it_is_the_set_of_its_pixels(steps: list[tuple[bool, Rect]]) -> None:
    damage, exact, bounded = Damage(), np.zeros((64, 64), dtype=bool), False
    for adding, rect in steps:
        if adding:
            damage.add(rect)
        else:
            damage.discard(rect)
        exact[rect.y : rect.bottom, rect.x : rect.right] = adding
        got = mask(damage)
        assert got.max() <= 1, "its rectangles overlap"
        assert not (exact & (got == 0)).any(), "it lacks a pixel"
        bounded = bounded or len(damage) == 1  # a cover may have taken the place of many
        if not bounded:
            assert np.array_equal(got == 1, exact)


@given(RECTS, RECTS)
def test_two_rectangles_are_exact(one: Rect, other: Rect) -> None:
    damage = Damage([one])
    damage.discard(other)
    expected = (mask([one]) == 1) & (mask([other]) == 0)
    assert np.array_equal(mask(damage) == 1, expected)
    assert np.array_equal(mask(Damage([one])) == 1, mask([one]) == 1)
    damage.add(other)
    assert np.array_equal(mask(damage) == 1, (mask([one]) + mask([other])) > 0)


@given(RECTS, RECTS)
def test_what_two_have_in_common(one: Rect, other: Rect) -> None:
    both = (mask([one]) == 1) & (mask([other]) == 1)
    assert np.array_equal(mask([one.clipped(other)]) == 1, both)
    assert one.clipped(other).empty or bool(both.any())


def test_many_small_ones_become_their_cover() -> None:
    damage = Damage(Rect(2 * n, 3 * n, 1, 1) for n in range(LIMIT))
    assert len(damage) == LIMIT
    damage.add(Rect(500, 5, 10, 10))
    assert list(damage) == [Rect(0, 0, 510, 3 * LIMIT - 2)]


def test_the_same_again_is_nothing_new() -> None:
    damage = Damage([Rect(0, 0, 10, 10)])
    damage.add(Rect(2, 2, 3, 3))
    assert list(damage) == [Rect(0, 0, 10, 10)]
    damage.clear()
    assert not list(damage)


def test_a_part_of_it() -> None:
    damage = Damage([Rect(0, 0, 10, 10), Rect(20, 0, 5, 5)])
    assert damage.clipped(Rect(8, 8, 20, 20)) == [Rect(8, 8, 2, 2)]
    assert damage.clipped(Rect(10, 0, 30, 2)) == [Rect(20, 0, 5, 2)]
