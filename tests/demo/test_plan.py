"""The plan of a demo run: repeatable, inside the disk, and varied as it says."""

from __future__ import annotations

from itertools import islice

import pytest

from examples.block import plan
from examples.block.oracle import FLUSH, READ, WRITE

SIZE = 8 << 20


def test_the_same_seed_gives_the_same_choices() -> None:
    assert list(islice(plan.steps(5, SIZE), 300)) == list(islice(plan.steps(5, SIZE), 300))
    assert plan.faults(5, 20, 600) == plan.faults(5, 20, 600)
    assert list(plan.contents(5, SIZE)) == list(plan.contents(5, SIZE))


def test_another_seed_gives_others() -> None:
    assert list(islice(plan.steps(5, SIZE), 9)) != list(islice(plan.steps(6, SIZE), 9))
    assert plan.faults(5, 20, 600) != plan.faults(6, 20, 600)
    assert next(plan.contents(5, SIZE)) != next(plan.contents(6, SIZE))


@pytest.mark.parametrize("size", [plan.LARGEST, SIZE, SIZE + plan.SMALLEST])
def test_requests_lie_inside_the_disk_and_have_the_sizes_that_were_promised(size: int) -> None:
    for step in islice(plan.steps(1, size), 2000):
        request = step.request
        if request.kind == FLUSH:
            assert request.length == 0
        else:
            assert plan.SMALLEST <= request.length <= plan.LARGEST
            assert 0 <= request.offset <= size - request.length


def test_there_is_some_of_everything() -> None:
    steps = list(islice(plan.steps(1, SIZE), 4000))
    assert {step.request.kind for step in steps} == {READ, WRITE, FLUSH}
    lengths = [step.request.length for step in steps if step.request.length]
    assert min(lengths) == plan.SMALLEST
    assert max(lengths) > plan.LARGEST * 0.9
    assert any(step.fua for step in steps)
    assert not any(step.fua for step in steps if step.request.kind != WRITE)


@pytest.mark.parametrize("kills", [0, 1, 20])
def test_one_hang_comes_among_the_kills(kills: int) -> None:
    kinds = [kind for _, kind in plan.faults(3, kills, 600)]
    assert sorted(kinds) == [plan.HANG] + [plan.KILL] * kills


def test_the_contents_have_the_size_asked_for() -> None:
    size = plan.LARGEST + plan.SMALLEST
    assert len(b"".join(plan.contents(0, size))) == size
