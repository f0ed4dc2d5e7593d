"""The stream of choices: what is recorded replays identically, and any numbers can be replayed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.choices import Choices

SEEDS = st.integers(0, 1 << 64)
DRAWS = 1000

GOLDEN_PICKS = [1, 5, 5, 8, 1, 2, 6, 5, 7, 5]
GOLDEN_PLAIN = [7, 5, 0, 1, 4, 6, 2, 0, 9, 9]
GOLDEN_CHANCES = [bool(bit) for bit in [0, 1, 0, 0, 1, 0, 0, 0, 0, 1]]

Call = Callable[[Choices], object]


def pick(n: int, plain: float = 0.0) -> Call:
    return lambda choices: choices.pick(n, plain)


def chance(probability: float) -> Call:
    return lambda choices: choices.chance(probability)


def fraction(steps: int) -> Call:
    return lambda choices: choices.fraction(steps)


PROBABILITIES = st.floats(0, 1)
CALLS = st.lists(
    st.one_of(
        st.builds(pick, st.integers(1, 50), PROBABILITIES),
        st.builds(chance, PROBABILITIES),
        st.builds(fraction, st.integers(1, 20)),
    ),
    max_size=50,
)


@given(SEEDS, CALLS)
def test_a_recording_replays_identically(seed: int, calls: list[Call]) -> None:
    seeded = Choices.seeded(seed)
    results = [call(seeded) for call in calls]
    replayed = Choices.replayed(seeded.recorded)
    assert [call(replayed) for call in calls] == results
    assert replayed.recorded == seeded.recorded


@given(SEEDS, CALLS)
def test_the_same_seed_decides_the_same(seed: int, calls: list[Call]) -> None:
    one, other = Choices.seeded(seed), Choices.seeded(seed)
    assert [call(one) for call in calls] == [call(other) for call in calls]


@given(st.lists(st.integers()), CALLS)
def test_any_numbers_replay_and_what_they_record_replays_identically(
    values: list[int], calls: list[Call]
) -> None:
    first = Choices.replayed(values)
    results = [call(first) for call in calls]
    second = Choices.replayed(first.recorded)
    assert [call(second) for call in calls] == results


@given(CALLS)
def test_a_stream_that_is_used_up_decides_everything_plainly(calls: list[Call]) -> None:
    choices = Choices.replayed([])
    assert all(not call(choices) for call in calls)
    assert not any(choices.recorded)


@pytest.mark.parametrize(
    ("values", "call", "result", "recorded"),
    [
        ([2], pick(3), 2, [2]),
        ([3], pick(3), 2, [2]),  # too high: the highest
        ([-1], pick(3), 0, [0]),
        ([], pick(3), 0, [0]),
        ([2], pick(3, plain=1.0), 2, [2]),  # the preference is one of the seeded only
        ([1], chance(0.01), True, [1]),
        ([7], chance(0.01), True, [1]),
        ([-7], chance(0.01), False, [0]),
        ([0], chance(1.0), False, [0]),
        ([], chance(1.0), False, [0]),
        ([4], fraction(16), 0.25, [4]),
        ([16], fraction(16), 1.0, [16]),
        ([17], fraction(16), 1.0, [16]),
        ([0], fraction(16), 0.0, [0]),
    ],
)
def test_what_a_number_means(
    values: list[int], call: Call, result: object, recorded: list[int]
) -> None:
    choices = Choices.replayed(values)
    assert call(choices) == result
    assert choices.recorded == recorded


@pytest.mark.parametrize(
    ("call", "result"), [(pick(1), 0), (pick(1, plain=0.5), 0), (chance(0.0), False)]
)
def test_what_can_be_decided_in_one_way_only_is_no_choice(call: Call, result: object) -> None:
    seeded, untouched = Choices.seeded(5), Choices.seeded(5)
    assert call(seeded) == result
    assert seeded.recorded == []
    assert seeded.pick(1 << 40) == untouched.pick(1 << 40)
    replayed = Choices.replayed([3])
    assert call(replayed) == result
    assert replayed.pick(9) == 3


def test_what_is_certain_happens_and_can_be_shrunk_away() -> None:
    choices = Choices.seeded(1)
    assert all(choices.chance(1.0) for _ in range(DRAWS))
    assert choices.recorded == [1] * DRAWS


@given(SEEDS, st.integers(2, 9))
def test_picks_are_in_range(seed: int, n: int) -> None:
    choices = Choices.seeded(seed)
    picked = [choices.pick(n) for _ in range(DRAWS)]
    assert set(picked) == set(range(n))
    assert max(picked.count(value) for value in range(n)) < 2 * DRAWS / n + 50


@pytest.mark.parametrize("n", [2, 3, 10, (1 << 31) - 1, (1 << 53) - 1, 1 << 53])
def test_the_highest_draw_is_the_last_one_of_the_range(n: int) -> None:
    choices = Choices(lambda: 1 - 2**-53, ())
    assert choices.pick(n) == n - 1


@pytest.mark.parametrize(
    ("plain", "zeros"), [(0.0, 0.1), (0.5, 0.5 + 0.5 * 0.1), (0.9, 0.9 + 0.1 * 0.1), (1.0, 1.0)]
)
def test_plain_prefers_0_to_its_fair_share(plain: float, zeros: float) -> None:
    choices = Choices.seeded(3)
    picked = [choices.pick(10, plain) for _ in range(10 * DRAWS)]
    assert picked.count(0) / len(picked) == pytest.approx(zeros, abs=0.02)
    if plain < 1:
        assert set(picked) == set(range(10))


@pytest.mark.parametrize("probability", [0.05, 0.5, 0.95])
def test_chances_come_as_often_as_asked_for(probability: float) -> None:
    choices = Choices.seeded(3)
    happened = sum(choices.chance(probability) for _ in range(10 * DRAWS))
    assert happened / (10 * DRAWS) == pytest.approx(probability, abs=0.02)


def test_fractions_reach_both_ends_evenly() -> None:
    choices = Choices.seeded(1)
    assert {choices.fraction(4) for _ in range(DRAWS)} == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert len({choices.fraction() for _ in range(DRAWS)}) == 17


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (pick(0), "nothing to pick from: n is 0"),
        (pick(-1), "nothing to pick from: n is -1"),
        (fraction(0), "steps is 1 or more, not 0"),
        (lambda _: Choices.seeded(-1), "a seed is 0 or more, not -1"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Call, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call(Choices.seeded(0))


def test_the_numbers_of_a_seed_are_for_ever() -> None:
    """If this fails, no seed that somebody wrote down means what it meant."""
    choices = Choices.seeded(2026)
    assert [choices.pick(10) for _ in range(10)] == GOLDEN_PICKS
    assert [choices.pick(10, plain=0.5) for _ in range(10)] == GOLDEN_PLAIN
    assert [choices.chance(0.3) for _ in range(10)] == GOLDEN_CHANCES
    assert choices.recorded == [*GOLDEN_PICKS, *GOLDEN_PLAIN, *map(int, GOLDEN_CHANCES)]


def test_a_seed_means_the_same_whatever_hashes_are() -> None:
    code = (
        "from actors.choices import Choices as C; c = C.seeded(7); print([c.pick(99), c.pick(9)])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hashes in ("0", "1", "12345")
    }
    choices = Choices.seeded(7)
    assert printed == {f"{[choices.pick(99), choices.pick(9)]}\n"}
