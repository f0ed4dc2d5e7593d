"""Programs that are wrong, each in its own way (folder wrong/): the search finds what is wrong,
makes it small, tells it so that it can be read, and repeats it from a file. The same programs
corrected run clean.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import pytest

from actors import Deadlock, Failure, RemoteActorError, explore, replay

WRONG: dict[str, tuple[type[Exception], list[str]]] = {
    "lost_update": (
        AssertionError,
        [
            "account receives Read() from alice",
            "account receives Read() from bob",
            "account receives Write(10) from alice",
            "account receives Write(10) from bob",
        ],
    ),
    "early_answer": (
        AssertionError,
        [
            "store receives Put('a') from the test",
            "store fault: crash_after",
            "store has ended: InjectedCrash: it was to crash after it handled Put",
            "disk receives Keys() from the test",
        ],
    ),
    "restart_storm": (
        AssertionError,
        [
            "worker receives Begin() from the test",
            "worker has ended: InjectedCrash: it was to crash after it handled Begin",
            "worker is to start",
            "worker has ended: RuntimeError: somebody else works there",
            "top has ended: RestartIntensityExceeded: child 'worker' had to be restarted more than",
        ],
    ),
    "stale_reference": (
        RemoteActorError,
        [
            "client asks server Serve()",
            "server fault: crash_before",
            "server has ended: InjectedCrash: it was to crash before it handled Serve",
            "server is to start",
            "client asks server Serve()",
        ],
    ),
    "deadlock": (
        Deadlock,
        ["baker asks grocer Buy('milk')", "grocer asks baker Buy('bread')"],
    ),
    "double_execution": (
        AssertionError,
        [
            "client asks bank Pay(10, None)",
            "clock fault: slow",
            "client asks bank Pay(10, None)",
            "bank receives Pay(10, None) from client",
            "bank receives Pay(10, None) from client",
        ],
    ),
    "late_timer": (
        AssertionError,
        [
            "session receives Use() from the test",
            "session receives Use() from the test",
            "session is due for Expire()",
            "session receives IsOpen() from the test",
        ],
    ),
    "reordering": (
        AssertionError,
        [
            "uploader tells thumbnailer Put('cat', None)",
            "uploader tells visitor Look('cat')",
            "gallery receives Show('cat') from visitor",
            "gallery receives Put('cat', None) from thumbnailer",
        ],
    ),
}
"""Module -> what it fails with, and lines of the trace, in their order, that say why."""


def program(name: str) -> Any:
    return importlib.import_module(f"tests.simulation.wrong.{name}")


@functools.cache
def found(name: str) -> Failure:
    failure = explore(program(name).test, 1000, program(name).OPTIONS)
    assert failure is not None, "1,000 seeds have not found it"
    return failure


@pytest.mark.parametrize("name", WRONG)
def test_it_is_found_and_made_small(name: str) -> None:
    error, _ = WRONG[name]
    failure = found(name)
    assert type(failure.error) is error
    assert failure.steps < 15
    assert len(failure.faults) <= 1


@pytest.mark.parametrize("name", WRONG)
def test_its_trace_tells_what_is_wrong(name: str) -> None:
    _, expected = WRONG[name]
    told = iter(found(name).replay.trace.splitlines())
    for line in expected:
        assert any(line in " ".join(one.split()) for one in told), line


@pytest.mark.parametrize("name", WRONG)
def test_it_is_repeated_from_a_file(name: str, tmp_path: Path) -> None:
    failure = found(name)
    failure.replay.save(tmp_path / "run.json")
    again = replay(tmp_path / "run.json")
    assert again is not None
    assert again.replay == failure.replay  # the choices, the error and the trace
    assert (again.steps, again.faults) == (failure.steps, failure.faults)
    assert str(again.error) == str(failure.error)


@pytest.mark.parametrize("name", WRONG)
def test_corrected_it_runs_clean(name: str) -> None:
    assert explore(program(name).corrected, 300, program(name).OPTIONS) is None


def test_no_wrong_program_is_left_out() -> None:
    files = {file.stem for file in (Path(__file__).parent / "wrong").glob("*.py")}
    assert files == set(WRONG)
