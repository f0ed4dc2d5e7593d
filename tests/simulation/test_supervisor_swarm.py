"""The real supervisor under everything at once: swarm.py has what happens, and what must hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actors import StartFailed, Supervisor, System, explore
from actors.cell import Cell
from actors.effects import Answer
from actors.supervision import Supervision
from tests.simulation import swarm


@pytest.mark.simulate(seeds=150, faults=swarm.FAULTS)
def test_whatever_happens_all_runs_in_the_end_that_ought_to(system: System) -> None:
    swarm.test(system)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.simulate(seeds=10_000, faults=swarm.FAULTS)
def test_whatever_happens_in_ten_thousand_runs(system: System) -> None:
    swarm.test(system)


def stops_in_the_order_of_the_starts(_: Any) -> Callable[..., Any]:
    return lambda self: [[self._refs[key].cell] for key in self._core.order() if key in self._refs]


def answers_no_one_who_waits_for_an_end(_: Any) -> Callable[..., Any]:
    def settle(self: Supervision, child: Any, reason: Any) -> None:
        if not child.wanted:
            child.phase = "down"
            if not child.kept:
                self._children.pop(child.key)
            self._effects += [
                Answer(ticket, StartFailed(child.key, reason)) for ticket in child.starters
            ]

    return settle


def forgets_those_that_wait_for_their_backoff(_: Any) -> Callable[..., Any]:
    return lambda *_: []


def starts_a_group_from_its_end(original: Any) -> Callable[..., Any]:
    def regroup(self: Supervision, failed: Any) -> None:
        original(self, failed)
        self._starts.reverse()

    return regroup


def reports_twice(original: Any) -> Callable[..., Any]:
    def report(self: Cell, reason: Any, **options: Any) -> bool:
        watchers = self._watchers
        reported: bool = original(self, reason, **options)
        for watcher, monitor in (watchers or ()) if reported else ():
            self._down(watcher, monitor)
        return reported

    return report


@pytest.mark.parametrize(
    ("owner", "method", "bug"),
    [
        (Supervisor, "stop_order", stops_in_the_order_of_the_starts),
        (Supervision, "_settle", answers_no_one_who_waits_for_an_end),
        (Supervision, "due", forgets_those_that_wait_for_their_backoff),
        (Supervision, "_regroup", starts_a_group_from_its_end),
        (Cell, "report", reports_twice),
    ],
)
def test_a_bug_would_be_found(
    owner: type, method: str, bug: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, method, bug(getattr(owner, method)))
    failure = explore(swarm.test, 1000, swarm.OPTIONS, shrinking=0)
    assert failure is not None
    assert type(failure.error) is AssertionError
