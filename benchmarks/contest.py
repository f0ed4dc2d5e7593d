"""Contestants side by side in one table: p50, p99, ratios, and what was aimed at.

Each is in a process of its own (apart.py), measured in turns with the others. Those whose package
is not installed are named and left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.apart import apart, installed
from benchmarks.effort import Effort
from benchmarks.report import Aim, aim_cells, interleave, median, progress, table, within


@dataclass(frozen=True)
class Contestant:
    """Who takes part.

    Attributes:
        factory, args, options: as for `apart`.
        needs: the package that must be installed.
        aims: what is aimed at, if it is one of ours.
    """

    factory: str
    args: tuple[Any, ...] = ()
    needs: str | None = None
    aims: tuple[Aim, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


def contest(
    title: str,
    contestants: Mapping[str, Contestant],
    effort: Effort,
    *,
    count: int,
    beside: Sequence[str] = (),
    cpus: tuple[int, int] | None = None,
) -> None:
    """Measure, and print each one's p50 and p99, and its p50 beside that of those named."""
    measured = measure(title, contestants, effort, count, cpus)
    p50 = {name: median([each[0] for each in rounds]) for name, rounds in measured.items()}
    p99 = {name: median([each[1] for each in rounds]) for name, rounds in measured.items()}
    shown = {name: [within(p50[name]), within(p99[name])] for name in p50}
    _print(title, ["p50", "p99"], shown, contestants, p50, beside)


def contest_of_rates(
    title: str,
    contestants: Mapping[str, Contestant],
    effort: Effort,
    *,
    count: int,
    beside: Sequence[str] = (),
    cpus: tuple[int, int] | None = None,
) -> None:
    """The same of those that return the seconds of one request: how many there are in a second."""
    measured = measure(title, contestants, effort, count, cpus)
    rates = {name: 1 / median(rounds) for name, rounds in measured.items()}
    shown = {name: [f"{rate / 1e3:.1f} k/s"] for name, rate in rates.items()}
    _print(title, ["requests"], shown, contestants, rates, beside)


def _print(
    title: str,
    head: list[str],
    shown: Mapping[str, list[str]],
    contestants: Mapping[str, Contestant],
    figures: Mapping[str, float],
    beside: Sequence[str],
) -> None:
    others = [name for name in beside if name in figures]
    rows = []
    for name, figure in figures.items():
        ratios = [f"{figure / figures[other]:.2f}" for other in others]
        rows.append(
            [name, *shown[name], *ratios, *aim_cells(contestants[name].aims, figure, figures)]
        )
    table(title, ("", *head, *(f"x {other}" for other in others), "aim", "met"), rows)


def measure(
    title: str,
    contestants: Mapping[str, Contestant],
    effort: Effort,
    count: int,
    cpus: tuple[int, int] | None,
) -> dict[str, list[Any]]:
    """What each that is installed returned, in each round."""
    with ExitStack() as stack:
        asks = {}
        for name, each in contestants.items():
            if each.needs is None or installed(each.needs):
                progress(f"{title}: starting {name}")
                process = stack.enter_context(
                    apart(each.factory, *each.args, cpus=cpus, **each.options)
                )
                asks[name] = partial(process.ask, count)
        progress(title)
        return interleave(asks, effort.rounds)


def two_cores(what: str) -> tuple[int, int] | None:
    """Two processors of ours; None: there is but one, which is said."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) > 1:
        return allowed[0], allowed[-1]
    print(f"{what}: two who look all the time need two processors, and there is one; left out")
    return None
