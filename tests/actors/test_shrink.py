"""The shrinker: small from large, never what does not fail, never more runs than allowed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.choices import Choices
from actors.shrink import Outcome, Shrunk, shrink

Predicate = Callable[[Sequence[int]], bool]


def failing(predicate: Predicate) -> Callable[[list[int]], Outcome | None]:
    """A run that fails if the predicate holds, and costs its choices."""

    def fails(values: list[int]) -> Outcome | None:
        return Outcome((len(values),), values) if predicate(values) else None

    return fails


def shrunk(values: Sequence[int], predicate: Predicate, budget: int = 500) -> list[int]:
    found = shrink(values, failing(predicate), budget)
    assert found is not None
    assert found.runs <= budget
    return found.values


def has_3_then_2(values: Sequence[int]) -> bool:
    return 3 in values and 2 in values[values.index(3) :]


def sums_to_5(values: Sequence[int]) -> bool:
    return sum(values) >= 5


def has_two_marks_six_apart(values: Sequence[int]) -> bool:
    return any(a and b for a, b in zip(values, values[6:], strict=False))


def has_a_9_at_an_even_place(values: Sequence[int]) -> bool:
    return 9 in values[::2]


def is_not_sorted(values: Sequence[int]) -> bool:
    return list(values) != sorted(values)


NOISE = [1, 0, 4, 2, 0, 0, 7, 1, 5, 0, 2, 2, 8, 0, 1, 0]


@pytest.mark.parametrize(
    ("values", "predicate", "least"),
    [
        ([*NOISE, 3, *NOISE, 2, *NOISE], has_3_then_2, [3, 2]),
        ([1] * 40, sums_to_5, [1] * 5),  # nothing is ever raised
        (NOISE * 4, sums_to_5, [1, 4]),  # nor two at once lowered
        ([*NOISE, 9, 0, 0, 0, 0, 0, 9, *NOISE], has_two_marks_six_apart, [1, 0, 0, 0, 0, 0, 1]),
        ([*NOISE, 9, *NOISE], has_a_9_at_an_even_place, [9]),
        ([4, 9, 8], has_a_9_at_an_even_place, None),
        ([*NOISE, 9, *NOISE], lambda values: len(values) >= 3, [0, 0, 1]),
        (NOISE, lambda _: True, []),
        ([0, 0, 0], lambda _: True, []),
        ([], lambda _: True, []),
        ([100, 41], lambda values: bool(values) and values[0] > 36, [37]),
        ([9, 9, 9], lambda values: len(values) == 3, [0, 0, 1]),
        (list(range(1, 60)), lambda values: 30 in values, [30]),
    ],
)
def test_the_least_is_found(
    values: list[int], predicate: Predicate, least: list[int] | None
) -> None:
    if least is None:
        assert shrink(values, failing(predicate)) is None
    else:
        assert shrunk(values, predicate) == least


def test_what_does_not_fail_is_told_apart_at_the_first_run() -> None:
    runs: list[list[int]] = []
    assert shrink([1, 2], runs.append) is None
    assert runs == [[1, 2]]


@pytest.mark.parametrize("budget", [0, -1])
def test_a_budget_without_a_run_is_refused(budget: int) -> None:
    with pytest.raises(ValueError, match=f"the budget is 1 run or more, not {budget}"):
        shrink([1], failing(sums_to_5), budget)


@pytest.mark.parametrize("budget", [1, 2, 3, 10, 20])
def test_the_budget_is_kept_and_used(budget: int) -> None:
    runs = 0

    def fails(values: list[int]) -> Outcome | None:
        nonlocal runs
        runs += 1
        return failing(has_3_then_2)(values)

    found = shrink([*NOISE, 3, *NOISE, 2], fails, budget)
    assert found is not None
    assert found.runs == runs == budget
    assert not found.finished
    assert has_3_then_2(found.values)


def test_a_search_that_ends_by_itself_says_so() -> None:
    found = shrink([5], failing(sums_to_5))
    assert found == Shrunk([5], (1,), found.runs if found else 0, finished=True)


def test_nothing_is_run_twice() -> None:
    seen: list[tuple[int, ...]] = []

    def fails(values: list[int]) -> Outcome | None:
        seen.append(tuple(values))
        return failing(has_two_marks_six_apart)(values)

    shrink(NOISE * 3, fails)
    assert len(seen) == len(set(seen))
    assert len(seen) > 20


def test_what_a_run_does_to_its_list_is_its_own_business() -> None:
    def fails(values: list[int]) -> Outcome | None:
        outcome = Outcome((0,), values.copy()) if has_3_then_2(values) else None
        values.clear()
        return outcome

    values = [0, 3, 0, 2, 5]
    found = shrink(values, fails)
    assert found is not None
    assert found.values == [3, 2]
    assert values == [0, 3, 0, 2, 5]


def test_an_error_of_the_run_itself_gets_out() -> None:
    def fails(values: list[int]) -> Outcome | None:
        if len(values) < 3:
            raise KeyError(len(values))
        return failing(sums_to_5)(values)

    with pytest.raises(KeyError):
        shrink([5, 5, 5, 5], fails)


# --- what is better -------------------------------------------------------------------------------


def test_cost_comes_before_everything_else() -> None:
    """A run that deviates more, but is shorter, is the better one to read."""

    def fails(values: list[int]) -> Outcome | None:
        if sum(values) >= 8:
            return Outcome((10,), values)
        return Outcome((20,), values) if values else None

    found = shrink([1] * 12, fails)
    assert found is not None
    assert (found.cost, found.values) == ((10,), [1] * 8)


def test_a_dearer_run_is_not_taken_however_plain_it_is() -> None:
    """Without any choice it fails too, after many more steps."""

    def fails(values: list[int]) -> Outcome | None:
        return Outcome((10 if values == [2, 1] else 100,), values)

    found = shrink([2, 1], fails)
    assert found is not None
    assert (found.cost, found.values) == ((10,), [2, 1])


def test_costs_are_compared_part_by_part() -> None:
    def fails(values: list[int]) -> Outcome | None:
        return Outcome((values.count(0), values.count(7), values.count(8)), values)

    found = shrink([0, 8, 7, 8, 0, 9], fails)
    assert found is not None
    assert found.cost == (0, 0, 0)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ([1, 1], [0, 0, 0, 9]),  # fewer that are not 0, however late and high
        ([0, 0, 1], [0, 9]),  # an earlier end, however high
        ([2, 1], [1, 9]),  # lower ones
    ],
)
def test_at_the_same_cost(worse: list[int], better: list[int]) -> None:
    """Whichever of the two is found first."""
    for first, then in ((worse, better), (better, worse)):
        runs = iter([first])

        def fails(
            _: list[int], runs: Iterator[list[int]] = runs, then: list[int] = then
        ) -> Outcome:
            return Outcome((1,), next(runs, then))

        found = shrink([7], fails)
        assert found is not None
        assert found.values == better


def test_what_a_run_recorded_is_what_it_was() -> None:
    """It may end before the choices do, and take one for less than it says."""

    def fails(values: list[int]) -> Outcome | None:
        choices = Choices.replayed(values)
        picked = [choices.pick(3) for _ in range(2)]
        return Outcome((1,), choices.recorded) if picked[0] == 2 else None

    found = shrink([9, 9, 9, 9], fails, budget=1)
    assert found is not None
    assert found.values == [2, 2]
    found = shrink([9, 9, 9, 9], fails)
    assert found is not None
    assert found.values == [2]


def test_a_stream_that_another_one_came_to_is_not_run() -> None:
    runs: list[list[int]] = []

    def fails(values: list[int]) -> Outcome | None:
        runs.append(values)
        recorded = {(5, 5): [5, 5], (5,): [0, 3]}.get(tuple(values))
        return None if recorded is None else Outcome((len(values),), recorded)

    found = shrink([5, 5], fails)
    assert found is not None
    assert found.values == [0, 3]
    assert [0, 3] not in runs


def test_zeros_at_the_end_are_left_out() -> None:
    found = shrink([5, 0, 0], failing(sums_to_5), budget=1)
    assert found is not None
    assert found.values == [5]


# --- the passes -----------------------------------------------------------------------------------


def test_a_long_tail_costs_few_runs() -> None:
    found = shrink([*range(1, 5), *[1] * 5000], failing(lambda values: values[:4] == [1, 2, 3, 4]))
    assert found is not None
    assert found.values == [1, 2, 3, 4]
    assert found.runs < 50


def test_a_long_start_costs_few_runs() -> None:
    """Deleting begins with half of everything."""
    found = shrink([*[1] * 5000, 9], failing(lambda values: 9 in values))
    assert found is not None
    assert found.values == [9]
    assert found.runs < 50


def test_needles_in_a_long_stream_cost_few_runs() -> None:
    """Deleting is enough for it; zeroing is not possible here."""
    values = [1] * 2000
    values[500], values[800], values[1900] = 7, 8, 9

    def holds(values: Sequence[int]) -> bool:
        return {7, 8, 9} <= set(values) and all(values)

    assert shrunk(values, holds, budget=120) == [7, 8, 9]


def test_many_marks_among_zeros_cost_few_runs() -> None:
    """Zeroing goes by blocks of what is not 0; nothing can be deleted here."""
    values = [1 << 40 if n % 5 == 0 else 0 for n in range(200)]
    values[150] = 9
    zeroed = 0

    def fails(values: list[int]) -> Outcome | None:
        nonlocal zeroed
        if len(values) <= 150 or values[150] != 9:
            return None
        zeroed += 1
        return Outcome((1,), values)

    found = shrink(values, fails, budget=2000)
    assert found is not None
    assert found.values == [0] * 150 + [9]
    assert zeroed < 30


def test_what_strikes_late_is_brought_forward_whatever_the_distance() -> None:
    """Every third step looks at its choice: 2, 4, 8 deleted ones would be at the wrong step."""

    def fails(values: list[int]) -> Outcome | None:
        hits = [n for n in range(0, len(values), 3) if values[n] == 7 and n % 5 == 3]
        return Outcome((hits[0],), values) if hits else None

    values = [0] * 100
    values[93] = 7
    found = shrink(values, fails)
    assert found is not None
    assert found.values == [0, 0, 0, 7]


@pytest.mark.parametrize(("first", "least"), [(1 << 60, 1 << 50), (1000, 601), (7, 7)])
def test_a_single_choice_is_lowered_by_halves_and_by_ones(first: int, least: int) -> None:
    assert shrunk([first], lambda values: bool(values) and values[0] >= least) == [least]


# --- a run made of choices ------------------------------------------------------------------------


def lost_update(values: list[int]) -> Outcome | None:
    """Three writers read a counter and write it back, two times each: which is next is a choice."""
    choices = Choices.replayed(values)
    left = dict.fromkeys("abc", 4)
    read = dict.fromkeys(left, 0)
    counter = written = steps = 0
    while left:
        name = list(left)[choices.pick(len(left), plain=0.5)]
        if left[name] % 2 == 0:
            read[name] = counter
        else:
            counter = read[name] + 1
            written += 1
        left[name] -= 1
        left = {name: count for name, count in left.items() if count}
        steps += 1
        if counter != written:
            return Outcome((steps, len(choices.recorded)), choices.recorded)
    return None


def test_a_race_is_shrunk_to_the_few_choices_that_make_it() -> None:
    """Two that read, before either writes: one choice makes it, another shows it soon."""
    shapes = set()
    for seed in range(100):
        seeded = Choices.seeded(seed)
        values = [seeded.pick(3, plain=0.5) for _ in range(12)]
        found = shrink(values, lost_update)
        if found is not None:
            shapes.add((found.cost[0], sum(value > 0 for value in found.values)))
            assert found.runs < 100
    assert shapes == {(6, 1), (4, 2)}


# --- properties -----------------------------------------------------------------------------------

VALUES = st.lists(st.integers(0, 12), max_size=60)
PREDICATES: st.SearchStrategy[Predicate] = st.sampled_from(
    [has_3_then_2, sums_to_5, has_two_marks_six_apart, has_a_9_at_an_even_place, is_not_sorted]
)


@given(VALUES, PREDICATES, st.integers(1, 300))
def test_the_result_fails_and_is_no_worse_and_keeps_the_budget(
    values: list[int], predicate: Predicate, budget: int
) -> None:
    runs: list[list[int]] = []

    def fails(candidate: list[int]) -> Outcome | None:
        runs.append(candidate.copy())
        return failing(predicate)(candidate)

    found = shrink(values, fails, budget)
    assert len(runs) <= budget
    if not predicate(values):
        assert found is None
        return
    assert found is not None
    assert found.runs == len(runs)
    kept = [*found.values, *[0] * (found.cost[0] - len(found.values))]
    assert predicate(kept)
    assert found.cost <= (len(values),)
    assert len(found.values) <= len(values)


@given(VALUES, PREDICATES)
def test_the_same_search_finds_the_same(values: list[int], predicate: Predicate) -> None:
    assert shrink(values, failing(predicate)) == shrink(values, failing(predicate))


@given(st.lists(st.integers(0, 12), max_size=30))
def test_with_runs_enough_the_least_is_found_wherever_it_is(noise: list[int]) -> None:
    assert shrunk([*noise, 3, *noise, 2, *noise], has_3_then_2, budget=10_000) == [3, 2]


@given(VALUES, PREDICATES)
def test_a_finished_search_ends_where_it_would_end_again(
    values: list[int], predicate: Predicate
) -> None:
    found = shrink(values, failing(predicate), budget=10_000)
    if found is not None and predicate(found.values):
        again = shrink(found.values, failing(predicate), budget=10_000)
        assert again is not None
        assert (again.values, found.finished) == (found.values, True)
