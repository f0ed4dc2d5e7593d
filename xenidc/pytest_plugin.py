"""The pytest plugin for tests of what machines survive: the fixtures `machine` and `chaos`.

    @pytest.mark.machine(intensity=100)
    def test_a_killed_disk_is_not_noticed(machine, chaos):
        machine.start("disk", Disk)
        with connect(machine, "disk") as disk:
            chaos.kill("disk")
            assert disk.call("read") == ...

Such a test runs twice: in a simulated machine, in virtual time, and in a real one with processes.
The mark says what the machine is made of, and ``placements=["simulated"]`` that it is to be only
the one or the other. Tests that are to run under many seeds use the fixture ``system`` and the mark
``simulate`` (actors/pytest_plugin.py), and make their machine in it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from actors import Faults, Scheduler, System
from hypervisor import DOMAIN_FAULTS, Machine

_MARK = "machine"
_PLACEMENTS = ("simulated", "real")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the mark means."""
    config.addinivalue_line(
        "markers",
        "machine(placements=['simulated', 'real'], seed=0, **options): what the fixture `machine` "
        "is; the options are those of hypervisor.Machine",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of our machine runs in each placement; one of a fixture of the same name does not."""
    if "machine_placement" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker(_MARK)
        placements = _PLACEMENTS if mark is None else mark.kwargs.get("placements", _PLACEMENTS)
        for placement in placements:
            if placement not in _PLACEMENTS:
                text = f"a machine is {' or '.join(_PLACEMENTS)}, not {placement!r}"
                raise pytest.UsageError(text)
        metafunc.parametrize("machine_placement", placements, indirect=True)


@pytest.fixture
def machine_placement(request: pytest.FixtureRequest) -> str:
    """What the fixture `machine` is in this run of the test: "simulated" or "real"."""
    placement: str = request.param
    return placement


@pytest.fixture
def machine(request: pytest.FixtureRequest, machine_placement: str) -> Iterator[Machine]:
    """A `hypervisor.Machine`, simulated or real, that is closed at the end of the test."""
    mark = request.node.get_closest_marker(_MARK)
    options: dict[str, Any] = {} if mark is None else dict(mark.kwargs)
    seed = options.pop("seed", 0)
    options.pop("placements", None)
    options = {"intensity": 100, "spares": 0, **options}
    system = None
    if machine_placement == "simulated":
        system = System(simulation=Scheduler(seed, Faults(kinds=()), preemption=0))
    with Machine(system=system, **options) as made:
        yield made


@pytest.fixture
def chaos(machine: Machine) -> Chaos:
    """What can be done to the domains of `machine`."""
    return Chaos(machine)


class Chaos:
    """Everything that can go wrong with a domain, in a simulated machine and in a real one alike.

    Each of them raises HypervisorError if there is no such domain.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def kill(self, domain: str) -> None:
        """SIGKILL, now."""
        self._machine.kill(domain)

    def hang(self, domain: str) -> None:
        """SIGSTOP: now, or in a simulation at the next thing that the domain does."""
        simulation = self._machine.system.simulation
        if simulation is None:
            pid = self._machine.pid(domain)
            os.kill(pid, signal.SIGSTOP)
            # Its threads stop one by one: until the last has, it may still answer.
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        else:
            self.at("hang_domain", domain)

    def revoke(self, device: str) -> None:
        """Take back all that the front ends of that device have granted."""
        self._machine.revoke(device)

    def at(self, fault: str, domain: str, n: int = 1) -> None:
        """That fault, at its ``n``-th opportunity from now: exact, so only in a simulation.

        Args:
            fault: one of `hypervisor.DOMAIN_FAULTS`; "machine" is who makes the machine.

        Raises:
            ValueError: there is no such fault, or the machine is a real one.
        """
        simulation = self._machine.system.simulation
        if simulation is None:
            raise ValueError("only a simulated machine can be hit at an exact point")
        if fault not in DOMAIN_FAULTS:
            raise ValueError(f"a fault is one of {', '.join(DOMAIN_FAULTS)}, not {fault!r}")
        simulation.replace_faults(Faults(kinds=(), script=[(fault, domain, n)]))
