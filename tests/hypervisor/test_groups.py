"""Domains that are supervised together: what the failure of one takes along, and what it does not
to those who use them.
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors import System
from hypervisor import DomainSpec, DomainStartError, HypervisorError, Machine, name_of, run_script
from tests.simulation.guests import LIVES, Broken, Echo
from transport import connect

NAMES = ("a", "b", "c")


@contextmanager
def machine_with(strategy: str, *, seed: int = 0, **options: int) -> Iterator[Machine]:
    LIVES.clear()
    with Machine(system=System(simulation=seed), intensity=3) as machine:
        members = [DomainSpec(name, Echo) for name in NAMES]
        machine.group("g", members, strategy=strategy, intensity=options.pop("intensity", 5))
        yield machine


def restarts(machine: Machine) -> list[int]:
    return [machine.domain(name).restarts for name in NAMES]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("one_for_one", [0, 1, 0]), ("rest_for_one", [0, 1, 1]), ("one_for_all", [1, 1, 1])],
)
def test_a_failure_takes_along_what_the_strategy_says_and_no_channel_ends(
    strategy: str, expected: list[int]
) -> None:
    with machine_with(strategy) as machine:
        channels = [connect(machine, name, slots=8, buffer_bytes=1 << 14) for name in NAMES]
        machine.kill("b")
        assert [channel.call("x") for channel in channels] == ["x"] * 3
        assert restarts(machine) == expected
        assert [channel.statistics().epochs - 1 for channel in channels] == expected
        for channel in channels:
            channel.close()


def test_a_group_that_gives_up_is_started_again_and_its_channels_go_on() -> None:
    with machine_with("rest_for_one", intensity=1) as machine:
        channels = [connect(machine, name, slots=8, buffer_bytes=1 << 14) for name in "ab"]
        for _ in range(2):
            machine.kill("b")
            assert [channel.call("x") for channel in reversed(channels)] == ["x", "x"]
        assert restarts(machine) == [1, 2, 2]
        assert [channel.statistics().epochs for channel in channels] == [2, 3]
        for channel in channels:
            channel.close()


def test_a_member_can_be_rebooted_and_not_be_shut_down() -> None:
    with machine_with("rest_for_one") as machine:
        machine.reboot("b")
        assert restarts(machine) == [0, 1, 0]
        for end in (machine.shutdown, machine.destroy):
            with pytest.raises(HypervisorError, match="group 'g'"):
                end("b")


def test_a_group_of_which_one_cannot_start_leaves_none() -> None:
    with Machine(system=System(simulation=0)) as machine:
        with pytest.raises(DomainStartError, match="no image"):
            machine.group("g", [DomainSpec("a", Echo), DomainSpec("b", Broken)])
        assert machine.domains() == []
        machine.group("g", [DomainSpec("a", Echo)])


@pytest.mark.parametrize(
    ("group", "members"), [("a", ["x"]), ("h", ["a"]), ("h", ["x", "x"]), ("g", ["x"]), ("x", "x")]
)
def test_a_name_is_given_once(group: str, members: list[str]) -> None:
    with (
        machine_with("one_for_one") as machine,
        pytest.raises(HypervisorError),
    ):
        machine.group(group, [DomainSpec(name, Echo) for name in members])


def test_a_domain_cannot_have_the_name_of_a_group_or_of_its_member() -> None:
    with machine_with("one_for_one") as machine:
        for name in ("g", "a"):
            with pytest.raises(HypervisorError, match="already"):
                machine.start(name, Echo)


def test_a_group_has_members_and_a_strategy() -> None:
    with Machine(system=System(simulation=0)) as machine:
        with pytest.raises(ValueError, match="members"):
            machine.group("g", [])
        with pytest.raises(ValueError, match="strategies"):
            machine.group("g", [DomainSpec("a", Echo)], strategy="rest_for_two")


def test_a_real_group_ends_the_processes_that_come_after_a_failure() -> None:
    with Machine(spares=0) as machine:
        machine.group("g", [DomainSpec("a", Echo, placement="thread"), DomainSpec("b", Echo)])
        with connect(machine, "b") as channel:
            assert channel.call("x") == "x"
            before = machine.pid("b")
            gone = os.pidfd_open(before)
            machine.kill("a")
            select.select([gone], [], [])
            os.close(gone)
            assert machine.pid("b") != before
            assert channel.call("x") == "x"
        assert [machine.domain(name).restarts for name in "ab"] == [1, 1]


def test_a_class_of_a_script_is_found_by_its_path(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from tests.simulation.guests import Echo\nclass Mine(Echo): pass\n")
    mine = run_script(str(script))["Mine"]
    assert name_of(mine) == f"{script}:Mine"
    with Machine(spares=0) as machine:
        machine.start("mine", mine)
        with connect(machine, "mine") as channel:
            assert channel.call("x") == "x"
