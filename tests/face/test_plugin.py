"""The fixtures `machine` and `chaos` themselves; what they are for is in test_cookbook.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from actors import Actor, Message, System
from hypervisor import DomainChanged, Machine
from tests.face.programs import Echo
from tests.sources import ROOT
from transport import connect
from xenidc.pytest_plugin import Chaos

HEAD = """\
import pytest

from tests.face.programs import Echo
from xenidc.pytest_plugin import Chaos
"""


def outcome(tmp_path: Path, text: str) -> str:
    script = tmp_path / "test_it.py"
    script.write_text(HEAD + text)
    plugins = ["-p", "no:xenidc-machines", "-p", "xenidc.pytest_plugin"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugins, "--strict-markers", str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    ).stdout


def test_a_test_of_a_machine_runs_simulated_and_real_unless_its_mark_says_which(
    tmp_path: Path,
) -> None:
    text = outcome(
        tmp_path,
        """
def test_both(machine, chaos):
    assert isinstance(chaos, Chaos)

@pytest.mark.machine(placements=["simulated"], watchdog=7.0)
def test_one(machine):
    assert machine.system.simulation is not None
    assert machine.watchdog == 7.0

@pytest.mark.machine(placements=["real"])
def test_other(machine):
    assert machine.system.simulation is None
""",
    )
    assert "4 passed" in text


def test_a_machine_that_the_tests_make_themselves_is_their_own_affair(tmp_path: Path) -> None:
    text = outcome(
        tmp_path,
        """
@pytest.fixture
def machine():
    return "mine"

def test_once(machine):
    assert machine == "mine"
""",
    )
    assert "1 passed" in text


def test_a_machine_is_simulated_or_real_and_nothing_else(tmp_path: Path) -> None:
    text = outcome(
        tmp_path, "\n@pytest.mark.machine(placements=['moon'])\ndef test_it(machine): pass\n"
    )
    assert "a machine is simulated or real, not 'moon'" in text


def test_an_exact_point_is_there_in_a_simulation_alone() -> None:
    with Machine(spares=0) as real, pytest.raises(ValueError, match="only a simulated"):
        Chaos(real).at("crash_domain", "echo")
    with Machine(system=System(simulation=0)) as machine:
        with pytest.raises(ValueError, match="a fault is one of crash_domain"):
            Chaos(machine).at("crash", "echo")
        machine.start("echo", Echo)
        Chaos(machine).at("crash_domain", "echo", 2)
        with connect(machine, "echo", slots=8, buffer_bytes=1 << 14) as channel:
            assert channel.call("x") == "x"
        assert machine.domain("echo").restarts == 1


class Hearer(Actor):
    """Keeps what it is told."""

    def __init__(self, told: list[tuple[str, str]]) -> None:
        super().__init__()
        self.told = told

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, DomainChanged)
        self.told.append((message.name, message.state))


def test_who_hears_of_the_domains_is_told_of_each_change() -> None:
    told: list[tuple[str, str]] = []
    with Machine(system=System(simulation=0)) as machine:
        assert machine.system.simulation is not None
        machine.hear_domains(machine.system.start(Hearer, told))
        machine.start("echo", Echo)
        machine.shutdown("echo")
        machine.system.simulation.settle()
        machine.hear_domains(None)
        machine.start("other", Echo)
    states = ["starting", "running", "dying", "shutdown"]
    assert told == [("echo", state) for state in states]
