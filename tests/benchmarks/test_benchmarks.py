"""The benchmarks run: a contestant of each kind, and two parts; all of them in `make stress`.

No figure is looked at, but that there is one: times belong to a machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest

from benchmarks.__main__ import PARTS, main
from benchmarks.apart import apart, installed
from benchmarks.effort import QUICK, Effort
from benchmarks.report import Aim, aim_cells, interleave, within
from tests.sources import ROOT

TRIPS = 20
CONTESTANTS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "ours:round_trip": (("poll",), {}),
    "ours:in_flight": ((8,), {"polls": True}),
    "raw:eventfd": ((), {}),
    "raw:spin": ((), {"copies": True}),
    "raw:pipe": ((), {}),
    "raw:pipe_in_flight": ((), {}),
    "bulk:ours": ((1 << 16,), {}),
    "with_pykka:round_trip": ((), {}),
    "with_pykka:in_flight": ((), {}),
}
PEERS = {
    "with_iceoryx2:publish_subscribe": "iceoryx2",
    "with_iceoryx2:request_response": "iceoryx2",
    "with_iceoryx2:with_events": "iceoryx2",
    "with_iceoryx2:in_flight": "iceoryx2",
    "with_iceoryx2:request_response_in_flight": "iceoryx2",
    "with_xoscar:round_trip": "xoscar",
    "with_xoscar:in_flight": "xoscar",
    "with_zmq:round_trip": "zmq",
    "with_zmq:in_flight": "zmq",
}


def test_every_part_has_a_run() -> None:
    for module in PARTS.values():
        source = (ROOT / "benchmarks" / f"{module}.py").read_text()
        assert "\ndef run(effort: Effort) -> None:" in source, module


@pytest.mark.parametrize("name", CONTESTANTS)
def test_a_contestant_says_how_long_it_took(name: str) -> None:
    args, options = CONTESTANTS[name]
    with apart(f"benchmarks.{name}", *args, **options) as contestant:
        assert _are_times(contestant.ask(TRIPS))
        assert _are_times(contestant.ask(TRIPS)), "it is asked once in each round"


@pytest.mark.stress  # what iceoryx2 has in /dev/shm is open to nobody, and looks left behind
@pytest.mark.parametrize("name", PEERS)
def test_a_peer_says_how_long_it_took(name: str) -> None:
    if find_spec(PEERS[name]) is None:
        pytest.skip(f"{PEERS[name]} is not installed: pip install 'xenidc[bench]'")
    with apart(f"benchmarks.{name}") as peer:
        assert _are_times(peer.ask(2 * TRIPS))


def test_an_idle_channel_has_its_cost_on_both_sides() -> None:
    with apart("benchmarks.growing:channels", 3) as world:
        idle = world.ask("idle")
        assert idle["front descriptors"] > 0 < idle["back descriptors"]
        assert idle["shared bytes"] > 0
        for _round in range(2):
            assert _are_times(world.ask("round trip", TRIPS))
            assert _are_times(world.ask("in flight", TRIPS))


@pytest.mark.parametrize("way", ["copied", "stream"])
def test_a_request_of_any_size_is_read_in_full(way: str) -> None:
    with apart("benchmarks.growing:sizes", 1 << 16, way) as world:
        for size in (64, 1 << 16):
            assert _are_times(world.ask(size, 3))


def test_several_front_ends_are_busy_at_once() -> None:
    with apart("benchmarks.growing:front_ends", 2, 4) as world:
        assert all(count > 0 for count in world.ask(2, 0.05))


@pytest.mark.parametrize("part", ["pci", pytest.param("recovery", marks=pytest.mark.stress)])
def test_a_part_prints_its_tables(part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([part, "--quick"]) == 0
    printed = capsys.readouterr().out
    assert " p50 " in printed
    assert " met\n" in printed


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_everything_runs() -> None:
    command = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_part_that_does_not_exist_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["no-such-part"])
    assert ended.value.code == 2
    assert "there is no part 'no-such-part'" in capsys.readouterr().err


def test_a_peer_that_is_not_installed_is_named_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert not installed("no_such_peer")
    assert not installed("no_such_peer")
    assert capsys.readouterr().out.count("no_such_peer is not installed") == 1


def test_a_process_that_fails_is_an_error_at_once() -> None:
    with (
        pytest.raises(RuntimeError, match=r"the process of .* has ended"),
        apart("benchmarks.raw:nothing"),
    ):
        pytest.fail("it is not there")


def test_a_contestant_runs_where_it_is_put() -> None:
    here = min(os.sched_getaffinity(0))
    with apart("tests.benchmarks.placed:affinity", cpus=(here, here)) as process:
        assert process.ask() == [here]


@pytest.mark.parametrize(
    ("aim", "value", "met"),
    [
        (Aim.at_most(0.6, "a", "b"), 1.1, "yes"),  # of the quicker of the two
        (Aim.at_most(0.6, "a", "b"), 1.3, "no"),
        (Aim.at_least(1.5, "a"), 4.5, "yes"),
        (Aim.at_least(1.5, "a"), 4.4, "no"),
        (Aim.at_least(1.5, "gone"), 4.4, "not measured"),
        (Aim("< 6 us", 6), 6.1, "no"),
    ],
)
def test_an_aim_is_met_or_not_or_nobody_knows(aim: Aim, value: float, met: str) -> None:
    assert aim_cells((aim,), value, {"a": 3.0, "b": 2.0}) == (aim.text, met)


def test_who_has_no_aim_meets_none() -> None:
    assert aim_cells((), 1.0, {}) == ("-", "-")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5e-7, "0.250 us"),
        (4.71e-6, "4.71 us"),
        (99.96e-6, "100 us"),
        (1.5e-3, "1.50 ms"),
        (2.0, "2.00 s"),
        (0.0, "0.00 us"),
    ],
)
def test_a_time_has_three_digits(seconds: float, text: str) -> None:
    assert within(seconds) == text


def test_contestants_take_turns() -> None:
    turns: list[str] = []

    def contestant(name: str) -> Callable[[], int]:
        def measure() -> int:
            turns.append(name)
            return len(turns)

        return measure

    measured = interleave({name: contestant(name) for name in "ab"}, 2)
    assert turns == ["a", "b", "a", "b"]
    assert measured == {"a": [1, 3], "b": [2, 4]}


def test_a_quick_run_does_a_little_of_everything() -> None:
    assert QUICK.count(2000) == 40
    assert QUICK.count(3) == 1
    assert Effort().count(2000) == 2000


def _are_times(measured: float | list[float]) -> bool:
    return all(0 < time < 60 for time in ([measured] if isinstance(measured, float) else measured))
