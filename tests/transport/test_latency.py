"""The histogram of latencies: right to within a tenth, whatever is measured."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport import Latency
from transport.latency import Latencies

SECONDS = st.floats(1e-8, 1e5)


def measured(values: list[float]) -> Latency:
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    return latencies.value()


@given(st.lists(SECONDS, min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_right_to_within_a_tenth(values: list[float], part: float) -> None:
    found = measured(values).percentile(part)
    assert found is not None
    wanted = next(
        value
        for number, value in enumerate(sorted(values), 1)
        if number >= part * len(values) * (1 - 1e-12)
    )
    assert wanted * (1 - 1e-9) <= found <= wanted * 1.1


@given(st.lists(SECONDS), st.lists(SECONDS))
def test_the_difference_of_two_values_is_what_came_between(
    before: list[float], after: list[float]
) -> None:
    between = measured(before + after).since(measured(before))
    assert between.counts == measured(after).counts
    assert between.seconds == pytest.approx(sum(after), abs=1e-6 * (1 + sum(before)))


def test_of_nothing_there_is_no_percentile() -> None:
    assert measured([]).percentile(0.5) is None
    assert measured([]).count == 0


def test_what_takes_no_time_counts_too() -> None:
    assert measured([0.0, 0.0]).count == 2
