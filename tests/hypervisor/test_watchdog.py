"""When a domain that does not answer is hung: the pure verdict, and real processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor import Machine, ShutdownReason
from hypervisor.watchdog import ENOUGH, MOST_PERIODS, Signs, judge
from tests.hypervisor.domain_programs import Subject
from transport import FrontEnd, connect

PATIENCE = 50.0
PERIOD = 0.5
LONG = int(ENOUGH * PERIOD * 1e9)  # nanoseconds
IDLE = Signs(frozenset("S"), 1000, 50, 2)


@pytest.mark.parametrize(
    ("changes", "periods", "hung", "why"),
    [
        ({}, 1, True, "blocked"),
        ({"states": frozenset("D")}, 1, True, "blocked"),
        ({"states": frozenset()}, 1, True, "stopped"),
        ({"states": frozenset("T")}, 1, True, "stopped"),
        ({"states": frozenset("t"), "ran": 9999}, 1, True, "stopped"),
        ({"states": frozenset("TZ"), "delayed": 9999}, 1, True, "stopped"),
        ({"states": frozenset("T"), "spoke": True}, 1, False, "not read"),
        ({"states": frozenset("TS"), "ran": 1001}, 1, False, "ran"),
        ({"states": frozenset("RS")}, 1, False, "can run"),
        ({"ran": 1001}, 1, False, "ran"),
        ({"ran": 10}, 1, False, "ran"),  # a thread has ended, and its figures went with it
        ({"delayed": 51}, 1, False, "waited"),
        ({"faults": 3}, 1, False, "paged"),
        ({"states": frozenset("R")}, MOST_PERIODS - 1, False, "can run"),
        ({"states": frozenset("R")}, MOST_PERIODS, True, "too long"),
        ({"spoke": True}, MOST_PERIODS, True, "too long"),
        ({"states": frozenset("R"), "ran": 1000 + LONG}, 1, True, "long enough"),
        ({"states": frozenset("R"), "ran": 999 + LONG}, 1, False, "can run"),
        ({"ran": 1000 + LONG, "spoke": True}, 1, False, "not read"),
    ],
)
def test_the_verdict(changes: dict[str, Any], periods: int, hung: bool, why: str) -> None:
    verdict = judge(IDLE, IDLE, IDLE._replace(**changes), periods, PERIOD)
    assert verdict.hung is hung
    assert why in verdict.why


def test_what_it_ran_before_the_last_look_counts_too() -> None:
    was = IDLE._replace(ran=900 + LONG)
    now = IDLE._replace(ran=1000 + LONG)
    assert judge(IDLE, was, now, 20, PERIOD).hung
    assert judge(was, was, was, 20, PERIOD).why.startswith("all its threads are blocked")


signs = st.builds(
    Signs,
    st.frozensets(st.sampled_from("RSDTtZX")),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 3),
)


@given(signs, signs, signs, st.integers(1, MOST_PERIODS * 2))
def test_no_domain_outlives_the_bound_and_none_is_hung_that_can_run(
    asked: Signs, was: Signs, now: Signs, periods: int
) -> None:
    verdict = judge(asked, was, now, periods, PERIOD)
    if periods >= MOST_PERIODS:
        assert verdict.hung
    elif "R" in now.states:
        assert not verdict.hung


def ask(domain: FrontEnd, *body: Any) -> Any:
    return domain.call(list(body), timeout=PATIENCE)


def test_a_process_that_somebody_else_stopped_is_hung_and_replaced() -> None:
    with Machine(watchdog=0.2) as machine:
        machine.start("d", Subject)
        domain = connect(machine, "d")
        first = ask(domain, "pid")
        os.kill(first, signal.SIGSTOP)
        os.waitid(os.P_PID, first, os.WSTOPPED | os.WNOWAIT)
        assert ask(domain, "pid") != first
        info = machine.domain("d")
        assert (info.restarts, info.shutdown) == (1, ShutdownReason.WATCHDOG)
        assert info.crash is not None
        assert info.crash.error == "DomainHung"
        assert info.crash.text == (
            "hung: no sign of life within 0.2 s of being asked: it is stopped, and not by us"
        )


def test_a_process_that_computes_in_one_long_call_is_not_hung_within_the_bound() -> None:
    with Machine(watchdog=0.3) as machine:
        machine.start("d", Subject)
        domain = connect(machine, "d")
        first = ask(domain, "pid")
        assert ask(domain, "compute", 40_000_000) == sum(range(40_000_000))
        assert ask(domain, "pid") == first


def test_a_process_that_computes_for_ever_in_one_call_is_replaced(tmp_path: Path) -> None:
    with Machine(watchdog=0.1) as machine:
        machine.start("d", Subject)
        domain = connect(machine, "d")
        assert ask(domain, "hang once", str(tmp_path / "flag")) == "the second"
        crash = machine.domain("d").crash
        assert crash is not None
        assert "it had the processor for long enough" in crash.text


def test_a_process_that_gets_no_processor_is_not_hung() -> None:
    """It has the lowest priority there is, beside a busy one on the same processor."""
    cpu = min(os.sched_getaffinity(0))
    with Machine(watchdog=0.2) as machine:
        machine.start("d", Subject, cpus={cpu})
        domain = connect(machine, "d")
        first = ask(domain, "pid")
        for task in os.listdir(f"/proc/{first}/task"):
            os.sched_setscheduler(int(task), os.SCHED_IDLE, os.sched_param(0))
        with busy(cpu):
            for _ in range(3):
                assert ask(domain, "pid") == first


@contextmanager
def busy(cpu: int) -> Iterator[None]:
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "while :; do :; done"], {})
    try:
        os.sched_setaffinity(pid, {cpu})
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
