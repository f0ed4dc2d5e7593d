"""What the benchmarks share: medians of interleaved rounds, and tables of ratios.

Rounds are interleaved (every contestant once, then every contestant again), so that what the
machine does meanwhile hits all of them alike; the median of the rounds is what counts.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self, TypeVar

K = TypeVar("K")
T = TypeVar("T")


def interleave(contestants: Mapping[K, Callable[[], T]], rounds: int) -> dict[K, list[T]]:
    """Measure each contestant once per round; returns its measurements."""
    measured: dict[K, list[T]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, measure in contestants.items():
            measured[name].append(measure())
    return measured


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not exceeded by ``share`` of them (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, math.ceil(len(ordered) * share) - 1))]


def within(seconds: float) -> str:
    """A time with three digits, in us, ms or s."""
    unit, name = next(
        ((unit, name) for unit, name in ((1e-6, "us"), (1e-3, "ms")) if seconds < 999.5 * unit),
        (1.0, "s"),
    )
    return f"{seconds / unit:#.3g}".rstrip(".") + f" {name}"


@dataclass(frozen=True)
class Aim:
    """A bound: absolute, or so many times the figure of the best of some others.

    Attributes:
        text: how the table says it.
        bound: the figure, or the factor.
        others: whose figures it is a factor of; none: it is absolute.
        more: the figure is to be at least that, not at most.
    """

    text: str
    bound: float
    others: tuple[str, ...] = ()
    more: bool = False

    @classmethod
    def at_most(cls, factor: float, *others: str) -> Self:
        """``factor`` times the least of theirs."""
        return cls(f"<= {factor:g} x {others[0]}", factor, others)

    @classmethod
    def at_least(cls, factor: float, *others: str) -> Self:
        """``factor`` times the most of theirs."""
        return cls(f">= {factor:g} x {others[0]}", factor, others, more=True)

    def met(self, value: float, figures: Mapping[str, float]) -> bool | None:
        """Whether it is; None: none of the others was measured."""
        bound = self.bound
        if self.others:
            theirs = [figures[name] for name in self.others if name in figures]
            if not theirs:
                return None
            bound *= max(theirs) if self.more else min(theirs)
        return value >= bound if self.more else value <= bound


_SAID = {True: "yes", False: "no", None: "not measured"}


def aim_cells(aims: Sequence[Aim], value: float, figures: Mapping[str, float]) -> tuple[str, str]:
    """What is aimed at, and whether it was reached, for the two last columns of a table."""
    if not aims:
        return "-", "-"
    met = [_SAID[aim.met(value, figures)] for aim in aims]
    return ", ".join(aim.text for aim in aims), ", ".join(met)


def progress(text: str) -> None:
    """Say on a terminal what is being measured; quiet otherwise."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    progress("")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    print(f"\n{title}")
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells))
    sys.stdout.flush()
