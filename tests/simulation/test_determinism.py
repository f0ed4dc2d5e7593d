"""A run is its choices: nothing else in the process, nor which process it is, matters."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from actors import FAULT_KINDS, Choices
from actors.explore import attempt
from tests.simulation import topology


def runs_of_another_process(hash_seed: int) -> list[list[Any]]:
    output = subprocess.run(
        [sys.executable, "-m", "tests.simulation.topology"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    return [json.loads(line) for line in output.splitlines()]


def test_runs_are_the_same_in_every_process() -> None:
    first, second = runs_of_another_process(1), runs_of_another_process(2)
    for one, other in zip(first, second, strict=True):
        assert one == other
    assert len(first) == 50
    told = "\n".join(line for *_, trace in first for line in trace)
    assert all(f"fault: {kind}" in told for kind in FAULT_KINDS)


def test_what_ran_before_makes_no_difference() -> None:
    garbage: list[Any] = []

    def run(seed: int) -> tuple[str, list[int]]:
        scheduler, _ = attempt(topology.test, Choices.seeded(seed), topology.OPTIONS)
        garbage.append([garbage, bytearray(seed * 999)])
        return scheduler.trace.text(), scheduler.choices.recorded

    first = [run(seed) for seed in range(20)]
    garbage.clear()
    gc.collect()
    assert [run(seed) for seed in reversed(range(20))] == first[::-1]


def test_a_recording_is_replayed_to_the_letter() -> None:
    for seed in range(20):
        first, error = attempt(topology.test, Choices.seeded(seed), topology.OPTIONS)
        recorded = first.choices.recorded
        second, again = attempt(topology.test, Choices.replayed(recorded), topology.OPTIONS)
        assert second.choices.recorded == recorded
        assert second.trace.text() == first.trace.text()
        assert (type(again), str(again)) == (type(error), str(error))
