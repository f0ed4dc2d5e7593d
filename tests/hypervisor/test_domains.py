"""What the machine does to domains, and what it says of them: pause, reboot, end, reports.

Real processes throughout; who waits, waits for an answer or the end of a channel.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hypervisor import (
    DomainStartError,
    HypervisorError,
    Machine,
    NotAProcess,
    ShutdownReason,
    XenbusState,
)
from tests.hypervisor.domain_programs import Leaver, Starts, Subject
from transport import ChannelClosed, DeadlineExceeded, FrontEnd, connect

PATIENCE = 30.0
PLACEMENTS = ("thread", "process")
RESTARTS = ("permanent", "transient", "temporary")


@pytest.fixture
def machine() -> Iterator[Machine]:
    """Where no failure is forgiven, so that a restart that counted as one would end it."""
    with Machine(intensity=0, watchdog=0.1, spares=1) as machine:
        yield machine


def ask(domain: FrontEnd, *body: Any) -> Any:
    return domain.call(list(body), timeout=PATIENCE)


def ends(domain: FrontEnd, *body: Any) -> None:
    """Ask until the channel ends; what its domain has answered before counts."""

    def ask_on() -> None:
        while True:
            ask(domain, *body)

    with pytest.raises(ChannelClosed):
        ask_on()


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


# --- pause ----------------------------------------------------------------------------------------


def test_a_paused_domain_is_left_alone_by_the_watchdog_and_its_clients_wait(
    machine: Machine,
) -> None:
    machine.start("d", Subject)
    domain = connect(machine, "d")
    pid = ask(domain, "pid")
    machine.pause("d")
    machine.pause("d")
    assert machine.domain("d").state == "paused"
    with pytest.raises(DeadlineExceeded):  # several times the watchdog's patience
        domain.call(["pid"], timeout=1.0)
    machine.unpause("d")
    machine.unpause("d")
    assert ask(domain, "pid") == pid
    info = machine.domain("d")
    assert (info.state, info.restarts, info.crash) == ("running", 0, None)


def test_a_probe_that_was_under_way_does_not_end_a_domain_that_is_paused_then() -> None:
    with Machine(intensity=0, watchdog=1.0) as machine:
        machine.start("d", Subject)
        pid = machine.pid("d")
        machine.guest.connect("d", 1000)
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        machine.guest.complain(1000, 1, "silent", broken=False)
        machine.pause("d")
        with pytest.raises(DeadlineExceeded):  # the probe's deadline has passed then
            connect(machine, "d", timeout=1.5)
        machine.unpause("d")
        assert ask(connect(machine, "d"), "pid") == pid


def test_what_is_told_to_a_paused_domain_is_kept_for_it_beyond_what_its_socket_holds(
    machine: Machine,
) -> None:
    machine.start("d", Subject)
    domain = connect(machine, "d")
    pid = ask(domain, "pid")
    machine.pause("d")
    guest = machine.guest
    for channel in range(1000, 1400):
        guest.connect("d", channel)
        epoch = channel - 998  # they are given in order, and the first is taken
        guest.switch((0, channel), epoch, XenbusState.CLOSED)
    machine.unpause("d")
    assert ask(domain, "pid") == pid


def test_a_paused_domain_is_shut_down_in_order(machine: Machine, tmp_path: Path) -> None:
    stopped = tmp_path / "stopped"
    machine.start("d", Subject, str(stopped))
    machine.pause("d")
    machine.shutdown("d")
    assert stopped.exists()
    assert machine.domain("d").state == "shutdown"


def test_a_domain_on_a_thread_has_nothing_to_pause_confine_or_harden(machine: Machine) -> None:
    machine.start("d", Subject, placement="thread")
    calls: list[Callable[[str], object]] = [
        machine.pause,
        machine.unpause,
        machine.pid,
        machine.paired,
    ]
    for call in calls:
        with pytest.raises(NotAProcess, match="'thread': it has no process"):
            call("d")
    with pytest.raises(NotAProcess):
        machine.start("e", Subject, placement="thread", cpus=os.sched_getaffinity(0))
    info = machine.domain("d")
    assert (info.state, info.placement, info.pid, info.usage) == ("running", "thread", None, None)


# --- reboot ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("restart", RESTARTS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_reboot_ends_a_domain_in_order_and_its_channel_goes_on(
    machine: Machine, tmp_path: Path, placement: str, restart: str
) -> None:
    stopped = tmp_path / "stopped"
    machine.start("d", Subject, str(stopped), placement=placement, restart=restart)
    before = machine.domain("d")
    domain = connect(machine, "d")
    ask(domain, "pid")
    machine.reboot("d")
    machine.shutdown("d", ShutdownReason.REBOOT)
    assert stopped.exists()
    assert ask(domain, "pid") == (os.getpid() if placement == "thread" else machine.pid("d"))
    info = machine.domain("d")
    assert info.domid > before.domid
    assert info.shutdown is ShutdownReason.REBOOT
    assert (info.state, info.restarts, info.crash) == ("running", 2, None)


@pytest.mark.parametrize("restart", RESTARTS)
def test_a_domain_that_does_not_come_up_after_a_reboot_is_given_up(
    machine: Machine, tmp_path: Path, restart: str
) -> None:
    machine.start("d", Starts, str(tmp_path), 1, restart=restart)
    domain = connect(machine, "d")
    with pytest.raises(DomainStartError, match="exit code 7"):
        machine.reboot("d")
    ends(domain, "anybody?")
    crash = machine.domain("d").crash
    assert machine.domain("d").state == "crashed"
    assert crash is not None
    assert (crash.exit_code, crash.signal, crash.log) == (7, None, ["no more"])
    assert machine.domains() == []
    machine.start("d", Subject)
    assert machine.domain("d").crash is None


# --- the end --------------------------------------------------------------------------------------


def test_a_destroyed_domain_has_no_orderly_end_and_does_not_return(
    machine: Machine, tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    machine.start("d", Subject, str(stopped))
    domain = connect(machine, "d")
    pid = ask(domain, "pid")
    machine.destroy("d")
    assert gone(pid)
    assert not stopped.exists()
    ends(domain, "pid")
    info = machine.domain("d")
    assert (info.state, info.pid, info.usage) == ("destroyed", None, None)
    machine.start("d", Subject, str(stopped))
    machine.shutdown("d")
    assert stopped.exists()


def test_a_paused_domain_can_be_destroyed(machine: Machine) -> None:
    machine.start("d", Subject)
    pid = machine.pid("d")
    machine.pause("d")
    machine.destroy("d")
    assert gone(pid)


def test_a_domain_that_is_removed_between_two_incarnations_leaves_nobody_waiting(
    tmp_path: Path,
) -> None:
    with Machine(intensity=1000, period=1.0, spares=0) as machine:
        machine.start("d", Subject)
        domain = connect(machine, "d")
        machine.kill("d")
        machine.destroy("d")
        ends(domain, "pid")
        assert machine.domain("d").state == "destroyed"


def test_no_request_is_made_of_a_domain_that_is_not_there(machine: Machine) -> None:
    calls: list[Callable[[str], object]] = [
        machine.pause,
        machine.unpause,
        machine.reboot,
        machine.shutdown,
        machine.destroy,
        machine.kill,
        machine.pid,
        machine.domain,
        machine.log,
        machine.paired,
    ]
    for call in calls:
        with pytest.raises(HypervisorError, match="no domain 'd'"):
            call("d")
    with pytest.raises(ValueError, match="WATCHDOG"):
        machine.shutdown("d", ShutdownReason.WATCHDOG)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_transient_domain_that_ends_well_is_no_failure_and_its_name_is_free(
    machine: Machine, placement: str
) -> None:
    for _ in range(2):
        machine.start("d", Leaver, placement=placement, restart="transient")
        with pytest.raises(ChannelClosed):
            connect(machine, "d", timeout=PATIENCE)
        info = machine.domain("d")
        assert (info.state, info.crash, info.restarts) == ("shutdown", None, 0)
        assert machine.domains() == []


# --- what is known of it --------------------------------------------------------------------------


def test_the_figures_of_a_domain_are_those_of_its_process(machine: Machine) -> None:
    machine.start("d", Subject)
    machine.start("t", Subject, placement="thread")
    domain = connect(machine, "d")
    before = machine.domain("d").usage
    ask(domain, "compute", 3_000_000)
    info = machine.domain("d")
    after = info.usage
    assert info.pid == ask(domain, "pid")
    assert before is not None
    assert after is not None
    assert after.cpu_seconds > before.cpu_seconds
    assert after.pss is not None
    assert 0 < after.pss <= after.rss * 1.5
    assert after.rss > 1 << 20
    assert after.cpus == os.sched_getaffinity(0)
    assert [info.name for info in machine.domains()] == ["d", "t"]


def test_a_killed_process_is_reported_with_its_signal_and_that_is_kept() -> None:
    began = time.time()
    with Machine(intensity=10) as machine:
        machine.start("d", Subject)
        domain = connect(machine, "d")
        first = ask(domain, "pid")
        machine.kill("d")
        while ask(domain, "pid") == first:
            pass  # answered by the dying one
        machine.destroy("d")
        info = machine.domain("d")
        crash = info.crash
        assert crash is not None
        assert (info.restarts, crash.signal, crash.exit_code) == (1, "SIGKILL", None)
        assert crash.text == f"its process (pid {first}) ended: killed by SIGKILL"
        assert began <= crash.time <= time.time()


@pytest.mark.parametrize(
    ("request_", "signal_name", "code", "text"),
    [
        (("exit", 3, b"bye"), None, 3, "exit code 3"),
        (("exit", 0, b"bye"), None, 0, "exit code 0"),
        (("signal", 15), "SIGTERM", None, "killed by SIGTERM"),
        (("signal", 40), "signal 40", None, "killed by signal 40"),
        (("close hypercalls",), "SIGKILL", None, "closed its hypercall socket"),
    ],
)
def test_a_process_that_ends_by_itself_is_reported_as_it_did(
    machine: Machine, request_: tuple[Any, ...], signal_name: str | None, code: int, text: str
) -> None:
    machine.start("d", Subject, restart="temporary")
    ends(connect(machine, "d"), *request_)
    info = machine.domain("d")
    crash = info.crash
    assert crash is not None
    assert text in crash.text
    assert (crash.signal, crash.exit_code) == (signal_name, code)
    assert (info.state, info.shutdown) == ("crashed", ShutdownReason.CRASH)


def test_a_failure_of_a_thread_is_reported_without_a_process() -> None:
    with Machine(intensity=10) as machine:
        machine.start("d", Subject, placement="thread", restart="temporary")
        domain = connect(machine, "d")
        machine.shutdown("d", ShutdownReason.CRASH)
        ends(domain, "pid")
        crash = machine.domain("d").crash
        assert crash is not None
        assert (crash.error, crash.signal, crash.exit_code) == ("DomainKilled", None, None)


def test_the_records_of_domains_that_ended_are_bounded(machine: Machine) -> None:
    for number in range(70):
        machine.start(f"d{number}", Subject, placement="thread")
        machine.shutdown(f"d{number}")
    assert machine.domain("d69").state == "shutdown"
    with pytest.raises(HypervisorError):
        machine.domain("d5")
