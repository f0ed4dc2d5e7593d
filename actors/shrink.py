"""A failing run made smaller: a deterministic, greedy search among the streams of choices near it.

Pure. It knows nothing of actors: ``fails`` runs a stream and says how much the failing run cost, or
None if it did not fail in the same way. What is looked for is the cheapest one that still fails.

Runs are compared by their cost first; if that is the same, fewer choices other than 0 are better,
then an earlier last one, then lower ones. Only what is strictly better is taken, so the search
goes one way and ends. Zeros at the end are left out: a stream that is used up goes on with them.

Passes, each over what the ones before have left, again and again until none finds anything:

1. cut the tail off (binary search; first of all everything);
2. delete blocks, so that what comes later comes earlier: half of all and smaller, down to one;
3. zero the choices that are not 0: blocks of them, half of all and smaller, down to one;
4. lower single choices: to half again and again, then by one;
5. only if those found nothing, since it takes many runs: let each choice that is not 0 follow upon
   any earlier place, the earliest first. What strikes early spares steps, and 2 hits the distance
   between two such choices by luck alone.

Each stream is run once at most. A recording is taken for what was run: it must replay identically,
as that of `Choices` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """A run that failed as it should. ``cost``: lower is better, always of the same length.

    ``recorded``: the choices that it was in fact made of, `Choices.recorded`.
    """

    cost: tuple[int, ...]
    recorded: Sequence[int]


@dataclass(frozen=True)
class Shrunk:
    """The best that was found. ``runs``: how many it took; ``finished``: within the budget."""

    values: list[int]
    cost: tuple[int, ...]
    runs: int
    finished: bool


def shrink(
    values: Sequence[int], fails: Callable[[list[int]], Outcome | None], budget: int = 500
) -> Shrunk | None:
    """The smallest failing stream within ``budget`` runs; None if ``values`` itself does not fail.

    That takes the first of the runs. Raises ValueError for a budget without any, and what ``fails``
    raises.
    """
    if budget < 1:
        raise ValueError(f"the budget is 1 run or more, not {budget}")
    first = fails(list(values))
    if first is None:
        return None
    search = _Search(values, first, fails, budget)
    finished = True
    try:
        while search.once():
            pass
    except _BudgetSpentError:
        finished = False
    return Shrunk(search.best, search.cost, search.runs, finished)


class _BudgetSpentError(Exception):
    """No run is left."""


class _Search:
    """``best`` is the best stream so far, without zeros at its end."""

    def __init__(
        self,
        values: Sequence[int],
        first: Outcome,
        fails: Callable[[list[int]], Outcome | None],
        budget: int,
    ) -> None:
        self._fails = fails
        self._budget = budget
        self.runs = 1
        self.best = _stripped(first.recorded)
        self.cost = first.cost
        self._tried = {tuple(_stripped(values)), tuple(self.best)}

    def once(self) -> bool:
        """All passes; whether any of them found something."""
        before = self.best
        for attempt in (self._cut, self._delete, self._zero, self._lower):
            attempt()
        if self.best == before:
            self._hasten()
        return self.best != before

    def _improves(self, candidate: list[int]) -> bool:
        """Run it, unless it was before, and keep it if it is better."""
        candidate = _stripped(candidate)
        key = tuple(candidate)
        if key in self._tried:
            return False
        if self.runs >= self._budget:
            raise _BudgetSpentError
        self._tried.add(key)
        self.runs += 1
        outcome = self._fails(candidate)
        if outcome is None:
            return False
        recorded = _stripped(outcome.recorded)
        self._tried.add(tuple(recorded))
        if _rank(outcome.cost, recorded) >= _rank(self.cost, self.best):
            return False
        self.best, self.cost = recorded, outcome.cost
        return True

    def _cut(self) -> None:
        if self._improves([]):
            return
        low, high = 1, len(self.best)
        while low < high:
            middle = (low + high) // 2
            if self._improves(self.best[:middle]):
                high = min(middle, len(self.best))
            else:
                low = middle + 1

    def _delete(self) -> None:
        for size in _halves(len(self.best)):
            end = len(self.best)
            while end > 0:
                start = max(0, end - size)
                self._improves(self.best[:start] + self.best[end:])
                end = min(start, len(self.best))

    def _zero(self) -> None:
        for size in _halves(len(_marks(self.best))):
            end = len(_marks(self.best))
            while end > 0:
                start = max(0, end - size)
                candidate = self.best.copy()
                for index in _marks(self.best)[start:end]:
                    candidate[index] = 0
                self._improves(candidate)
                end = min(start, len(_marks(self.best)))

    def _lower(self) -> None:
        index = len(self.best) - 1
        while index >= 0:
            while self._improves(self._with(index, lambda value: value // 2)):
                pass
            while self._improves(self._with(index, lambda value: value - 1)):
                pass
            index = min(index, len(self.best)) - 1

    def _hasten(self) -> None:
        count = 0
        while count < len(_marks(self.best)):
            mark = _marks(self.best)[count]
            for start in range(mark):
                if self._improves(self.best[:start] + self.best[mark:]):
                    break
            count += 1

    def _with(self, index: int, change: Callable[[int], int]) -> list[int]:
        """The best one with one choice changed; unchanged if that is 0, or gone."""
        candidate = self.best.copy()
        if index < len(candidate) and candidate[index] > 0:
            candidate[index] = change(candidate[index])
        return candidate


def _rank(cost: tuple[int, ...], values: list[int]) -> tuple[tuple[int, ...], int, int, list[int]]:
    return cost, len(_marks(values)), len(values), values


def _marks(values: list[int]) -> list[int]:
    """Where it is not 0."""
    return [index for index, value in enumerate(values) if value]


def _stripped(values: Iterable[int]) -> list[int]:
    kept = list(values)
    while kept and not kept[-1]:
        kept.pop()
    return kept


def _halves(size: int) -> Iterator[int]:
    """Half of ``size``, half of that, and so on down to 1."""
    size = max(1, size // 2)
    while size:
        yield size
        size //= 2
