"""How much is measured: what ``--rounds``, ``--seconds`` and ``--quick`` say, for every part."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Effort:
    """What a part gets.

    Attributes:
        rounds: how often each contestant is measured.
        seconds: of each measurement that runs for a time, such as fio's.
        share: of the usual counts and sizes; below 1 the figures say nothing, but that it runs.
    """

    rounds: int = 5
    seconds: float = 1.0
    share: float = 1.0

    def count(self, usual: int) -> int:
        """That share of a usual count, at least 1."""
        return max(1, round(usual * self.share))


QUICK = Effort(rounds=1, seconds=0.1, share=0.02)
"""To see that everything runs."""
