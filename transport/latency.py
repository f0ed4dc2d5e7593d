"""How long requests take, in few numbers: a histogram whose buckets grow with what is measured.

Pure. There are eight buckets to each doubling, so what is read from it is right to within a tenth,
from nanoseconds to hours, and it has some dozens of entries. What is added is put into its bucket
later, many at once, which takes half the time: about 0.1 µs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import floor, log2

_PARTS = 8  # buckets to a doubling
_LEAST = 1e-9  # seconds; in a simulation something may take none
_MANY = 1024  # that are not in their buckets yet


class Latencies:
    """What is added to.

    Attributes:
        add: one more, in seconds. Who adds calls `tidy` from time to time.
    """

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._seconds = 0.0
        self._added: list[float] = []
        self.add = self._added.append

    def tidy(self) -> None:
        """Keep what was added from becoming too much."""
        if len(self._added) >= _MANY:
            self._sort()

    def value(self) -> Latency:
        """So far."""
        self._sort()
        counts = {2 ** ((at + 1) / _PARTS): self._counts[at] for at in sorted(self._counts)}
        return Latency(counts, self._seconds)

    def _sort(self) -> None:
        added = self._added
        self._counts.update([floor(log2(seconds or _LEAST) * _PARTS) for seconds in added])
        self._seconds += sum(added)
        added.clear()


@dataclass(frozen=True)
class Latency:
    """How long some requests took.

    Attributes:
        counts: upper bound of a bucket in seconds, not included -> how many are in it, ascending;
            empty buckets are left out.
        seconds: all of them together.
    """

    counts: Mapping[float, int]
    seconds: float

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts.values())

    def percentile(self, part: float) -> float | None:
        """Seconds within which that part of them (0 to 1) ended; None: there were none."""
        left = part * self.count
        for bound, count in self.counts.items():
            left -= count
            if left <= 0:
                return bound
        return None

    def since(self, before: Latency) -> Latency:
        """Only those that came after ``before``, an earlier value of the same channel."""
        counts = {
            bound: count - before.counts.get(bound, 0) for bound, count in self.counts.items()
        }
        left = {bound: count for bound, count in counts.items() if count}
        return Latency(left, self.seconds - before.seconds)
