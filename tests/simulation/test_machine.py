"""Machines under the scheduler: the same domains, channels and drivers, with everything going wrong
that can, in virtual time.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import Choices, Faults, Options, Scheduler, System, explore, replay
from actors.explore import attempt
from actors.faults import FaultPlan
from examples.block import plan
from examples.block.disk import Disk
from examples.block.load import Load
from examples.block.oracle import Oracle
from hypervisor import DOMAIN_FAULTS, DomainStartError, HypervisorError, Machine, MachineFailed
from tests.simulation import machine_load
from tests.simulation.guests import LIVES, Broken, Echo, Hoarder, Locker
from transport import DeadlineExceeded, FrontEnd, connect

POINTS = [
    pytest.param(n, marks=() if n % 3 == 1 else pytest.mark.stress, id=str(n)) for n in range(1, 40)
]
"""When a fault strikes: at that opportunity; `make test` takes a third of them."""

# --- whatever goes wrong --------------------------------------------------------------------------


@pytest.mark.simulate(seeds=100, faults=machine_load.FAULTS)
def test_whatever_happens_every_request_ends_once_and_nothing_is_lost(system: System) -> None:
    machine_load.test(system)


@pytest.mark.stress
@pytest.mark.timeout(1800)
@pytest.mark.simulate(seeds=10_000, faults=machine_load.FAULTS)
def test_nothing_is_lost_in_ten_thousand_runs(system: System) -> None:
    machine_load.test(system)


@pytest.mark.parametrize("kind", DOMAIN_FAULTS)
def test_nothing_is_lost_under_one_kind_of_fault(kind: str) -> None:
    struck = 0
    for seed in range(15):
        options = Options(Faults([kind], rate=0.05, limit=5))
        scheduler, error = attempt(machine_load.test, Choices.seeded(seed), options)
        assert error is None, scheduler.trace.text()
        struck += len(scheduler.plan.injected)
    assert struck


def test_a_disk_that_acknowledges_before_it_stores_is_found_and_repeated_from_a_file(
    tmp_path: Path,
) -> None:
    options = Options(Faults(["crash_domain"], rate=0.02, limit=1))
    failure = explore(machine_load.wrong, 200, options, shrinking=60)
    assert failure is not None
    assert "what was written is lost" in str(failure.error)
    assert [kind for kind, _, _ in failure.faults] == ["crash_domain"]
    failure.replay.save(tmp_path / "run.json")
    again = replay(tmp_path / "run.json")
    assert again is not None
    assert again.replay == failure.replay


def test_runs_are_the_same_in_every_process() -> None:
    def runs(hash_seed: int) -> list[Any]:
        output = subprocess.run(
            [sys.executable, "-m", "tests.simulation.machine_load"],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        return [json.loads(line) for line in output.splitlines()]

    first = runs(1)
    assert runs(2) == first
    assert [machine_load.outcome(seed) for seed in range(3)] == first[:3]
    told = "\n".join(line for trace, _, _ in first for line in trace)
    assert "fault: crash_domain" in told
    assert "fault: hang_domain" in told


@pytest.mark.simulate(seeds=20, faults=Faults(DOMAIN_FAULTS, rate=0.002))
def test_the_real_disk_keeps_its_promises_unchanged(system: System, tmp_path: Path) -> None:
    size = 128 << 10
    image = tmp_path / "disk.img"
    contents = b"".join(plan.contents(1, size))
    image.write_bytes(contents)
    with Machine(system=system, intensity=1000) as machine:
        machine_load.start(machine, Disk, str(image))
        with connect(machine, "disk", slots=32, buffer_bytes=1 << 20) as channel:
            load = Load(channel, Oracle(contents))
            load.run(
                plan.steps(1, size),
                [(20, plan.KILL)],
                lambda _: machine.kill("disk"),
                seconds=0,
                progress=lambda _: None,
            )
            load.verify(lambda _: None)
            assert not load.stuck
            assert (load.oracle.lost, load.oracle.wrong, load.oracle.failed) == (0, 0, 0)
            assert len(load.recoveries) == 1
    assert image.read_bytes() == load.oracle.contents


# --- one thing that goes wrong --------------------------------------------------------------------


@contextlib.contextmanager
def machine_of(*script: tuple[str, str, int], **options: Any) -> Iterator[Machine]:
    """A simulated machine in which just that goes wrong."""
    LIVES.clear()
    Hoarder.kept.clear()
    faults = Faults(kinds=(), script=script, max_delay=options.pop("max_delay", 1.0))
    system = System(simulation=Scheduler(0, faults, preemption=0))
    with Machine(system=system, intensity=1000, **options) as machine:
        yield machine


def simulation_of(machine: Machine) -> Scheduler:
    assert machine.system.simulation is not None
    return machine.system.simulation


def strike_next(machine: Machine, kind: str, name: str) -> None:
    """At its next opportunity."""
    simulation = simulation_of(machine)
    faults = Faults(kinds=(), script=[(kind, name, 1)])
    simulation.plan = FaultPlan(faults, simulation.choices)


def struck(machine: Machine) -> list[str]:
    return [kind for kind, _, _ in simulation_of(machine).plan.injected]


def channel_to(machine: Machine) -> FrontEnd:
    return connect(machine, "echo", slots=8, buffer_bytes=1 << 14)


@pytest.mark.parametrize("placement", ["process", "thread", "simulated"])
def test_every_placement_is_simulated_in_a_simulated_machine(placement: str) -> None:
    with machine_of() as machine:
        machine.start("echo", Echo, placement=placement)
        with channel_to(machine) as channel:
            assert channel.call("a") == "a"
        with pytest.raises(HypervisorError, match="no process"):
            machine.pid("echo")
        machine.shutdown("echo")
        assert LIVES == ["start", "serve a", "stop"]


def test_a_real_machine_has_no_simulated_domain() -> None:
    with Machine(spares=0) as machine, pytest.raises(ValueError, match="placement is"):
        machine.start("echo", Echo, placement="simulated")


def test_a_simulated_machine_has_no_store_socket(tmp_path: Path) -> None:
    with (
        System(simulation=0) as system,
        pytest.raises(HypervisorError, match="no store socket"),
    ):
        Machine(system=system, store_socket=tmp_path / "socket")


def test_a_program_that_cannot_start_says_why() -> None:
    with machine_of() as machine:
        with pytest.raises(DomainStartError, match="no image"):
            machine.start("echo", Broken)
        machine.start("echo", Echo)


def test_nobody_to_connect_to_costs_virtual_time_only() -> None:
    with machine_of() as machine:
        with pytest.raises(DeadlineExceeded):
            channel_to(machine)
        assert machine.system.now() == 10.0


@pytest.mark.parametrize("n", POINTS)
def test_a_crash_at_any_point_goes_unnoticed_by_who_calls(n: int) -> None:
    with machine_of(("crash_domain", "echo", n)) as machine:
        try:
            machine.start("echo", Echo)
        except DomainStartError as error:
            assert error.error == "DomainDied"  # noqa: PT017 - at other points it starts
            machine.start("echo", Echo)
        with channel_to(machine) as channel:
            assert [channel.call(body) for body in "abc"] == ["a", "b", "c"]
            assert channel.statistics().requests == 3
        assert "stop" not in LIVES


def test_a_request_that_was_served_but_not_answered_is_served_again() -> None:
    twice = 0
    for n in range(1, 60):
        with machine_of(("crash_domain", "echo", n)) as machine:
            with contextlib.suppress(DomainStartError):
                machine.start("echo", Echo)
                with channel_to(machine) as channel:
                    assert channel.call("a") == "a"
            twice += LIVES.count("serve a") == 2
    assert twice == 1  # after the driver has served it, and before its answer is in the ring


def test_a_killed_domain_is_restarted_and_its_channel_goes_on() -> None:
    with machine_of() as machine:
        machine.start("echo", Echo)
        with channel_to(machine) as channel:
            assert channel.call("a") == "a"
            machine.kill("echo")
            assert channel.call("b") == "b"
            assert channel.statistics().epochs == 2
        assert LIVES == ["start", "serve a", "start", "serve b"]


def test_a_dead_domain_sees_none_of_the_memory_that_it_had_mapped() -> None:
    with machine_of() as machine:
        machine.start("echo", Hoarder)
        with channel_to(machine) as channel, channel.buffer(4) as buffer:
            buffer.view[:] = b"mine"
            channel.call("a", buffer)
            assert Hoarder.sees() == ["mine"]
            machine.kill("echo")
            assert Hoarder.sees() == ["revoked"]
            assert bytes(buffer.view) == b"mine"


def test_a_successor_starts_when_the_descriptors_of_the_dead_are_closed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.touch()
    with machine_of() as machine:
        machine.start("echo", Locker, str(path))
        with channel_to(machine) as channel:
            for body in "abc":
                assert channel.call(body) == body
                machine.kill("echo")
        machine.shutdown("echo")
    assert LIVES.count("start") == 4


def test_a_machine_whose_domain_crashes_too_often_gives_up() -> None:
    system = System(simulation=0)
    with Machine(system=system, intensity=1, period=5.0) as machine:
        machine.start("echo", Echo)
        machine.kill("echo")
        machine.kill("echo")
        assert machine.wait().reason.error == "RestartIntensityExceeded"
        with pytest.raises(MachineFailed):
            machine.start("other", Echo)


def test_a_hang_is_found_by_the_watchdog_of_who_waits() -> None:
    with machine_of(watchdog=2.0) as machine:
        machine.start("echo", Echo)
        with channel_to(machine) as channel:
            assert channel.call("a") == "a"
            strike_next(machine, "hang_domain", "echo")
            before = machine.system.now()
            assert channel.call("b") == "b"
            assert 4.0 <= machine.system.now() - before <= 8.0  # two deadlines, or a tick more
        assert struck(machine) == ["hang_domain"]
        assert "DomainHung" in simulation_of(machine).trace.text()


@pytest.mark.parametrize("n", POINTS)
def test_a_hang_at_any_point_is_got_over(n: int) -> None:
    with machine_of(("hang_domain", "echo", n)) as machine:
        try:
            machine.start("echo", Echo)
        except DomainStartError as error:
            assert error.error == "DomainDied"  # noqa: PT017 - at other points it starts
            assert machine.system.now() == 20.0
            machine.start("echo", Echo)
        with channel_to(machine) as channel:
            assert [channel.call(body) for body in "abc"] == ["a", "b", "c"]


def test_a_domain_that_hangs_is_killed_at_the_end_of_its_grace() -> None:
    with machine_of(grace=3.0) as machine:
        machine.start("echo", Echo)
        strike_next(machine, "hang_domain", "echo")
        machine.shutdown("echo")
        assert machine.system.now() == 3.0
    assert LIVES == ["start"]


def test_a_slow_start_takes_virtual_time() -> None:
    times = set()
    for seed in range(10):
        faults = Faults(kinds=(), script=[("slow_start", "echo", 1)], max_delay=16.0)
        system = System(simulation=Scheduler(seed, faults))
        with Machine(system=system) as machine:
            machine.start("echo", Echo)
            times.add(machine.system.now())
    assert len(times) > 3
    assert all(0 <= time <= 16 for time in times)


@pytest.mark.parametrize("sender", ["machine", "echo"])
def test_a_lost_signal_costs_one_watchdog(sender: str) -> None:
    recovered = 0
    for n in range(1, 6):
        with machine_of(("lose_signal", sender, n), watchdog=2.0) as machine:
            machine.start("echo", Echo)
            with channel_to(machine) as channel:
                assert [channel.call(body) for body in "abc"] == ["a", "b", "c"]
                recovered += bool(struck(machine)) and machine.system.now() >= 2.0
                assert machine.system.now() <= 6.0
                assert channel.statistics().epochs == 1
    assert recovered


def test_a_signal_that_is_late_is_waited_for() -> None:
    for n in range(1, 6):
        with machine_of(("delay_signal", "machine", n), max_delay=0.5) as machine:
            machine.start("echo", Echo)
            with channel_to(machine) as channel:
                assert [channel.call(body) for body in "abc"] == ["a", "b", "c"]
                assert machine.system.now() <= 0.5


def test_a_late_signal_of_a_channel_that_was_closed_wakes_nobody() -> None:
    with machine_of(("delay_signal", "machine", 1), max_delay=0.5) as machine:
        machine.start("echo", Echo)
        channel = channel_to(machine)
        channel.submit("a")
        channel.push()
        channel.close()
        simulation_of(machine).settle()


@pytest.mark.parametrize("n", range(1, 12))
def test_a_channel_whose_grants_are_revoked_is_established_anew(n: int) -> None:
    with machine_of(("revoke", "machine", n)) as machine:
        machine.start("echo", Echo)
        with channel_to(machine) as channel:
            assert [channel.call(body) for body in "abc"] == ["a", "b", "c"]
        assert LIVES.count("start") == 1


def test_a_test_that_fails_ends_its_machine_in_peace() -> None:
    def test(system: System) -> None:
        with Machine(system=system) as machine:
            machine.start("echo", Echo)
            raise ValueError("wrong")

    options = Options(Faults(["hang_domain"], rate=0.9, limit=50))
    for seed in range(10):
        _, error = attempt(test, Choices.seeded(seed), options)
        assert type(error) in (ValueError, DomainStartError)
