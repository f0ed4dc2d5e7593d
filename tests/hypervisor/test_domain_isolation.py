"""What a process domain has, what it may say, and what it may do less than others; seen from both
sides.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]
import pytest

from actors import Message, encode
from hypervisor import BadCpus, DomainStartError, Hardening, Machine, ShutdownReason, errors
from hypervisor import hypercalls as hc
from tests.hypervisor.domain_programs import (
    Flooder,
    LiarAtBirth,
    LiarAtDeath,
    Subject,
    descriptors,
)
from transport import ChannelClosed, FrontEnd, RemoteError, connect

PATIENCE = 30.0
CPU = min(os.sched_getaffinity(0))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(intensity=10, spares=1) as machine:
        yield machine


def ask(domain: FrontEnd, *body: Any) -> Any:
    answer = domain.call(list(body), timeout=PATIENCE)
    return list(answer) if isinstance(answer, tuple) else answer


def ends(domain: FrontEnd, *body: Any) -> None:
    """The request that ends the channel."""
    with pytest.raises(ChannelClosed):
        ask(domain, *body)


# --- what it has ----------------------------------------------------------------------------------


def test_a_domain_has_no_descriptor_that_it_was_not_given(machine: Machine) -> None:
    with ExitStack() as stack:
        careless = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, careless)
        os.set_inheritable(careless, True)
        machine.start("d", Subject)
        has_what_it_was_given(descriptors(machine.pid("d")))
        machine.reboot("d")  # into a spare
        outside = descriptors(machine.pid("d"))
        has_what_it_was_given(outside)
    inside = ask(connect(machine, "d"), "descriptors")
    assert {number: inside[number] for number in range(4)} == {
        number: outside[number] for number in range(4)
    }


def has_what_it_was_given(found: dict[int, str]) -> None:
    kinds = {number: target.partition(":")[0] for number, target in found.items()}
    given = {0: "/dev/null", 1: "pipe", 2: "pipe", 3: "socket"}
    assert {number: kinds.pop(number) for number in given} == given
    # An epoll and an eventfd of each actor that watches something: its door, and its back end.
    assert set(kinds.values()) <= {"anon_inode"}


def test_the_environment_of_a_domain_is_what_an_interpreter_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XENIDC_SECRET", "secret")
    monkeypatch.setenv("LC_XENIDC", "kept")
    with Machine(spares=0) as machine:
        machine.start("d", Subject)
        environment = ask(connect(machine, "d"), "environment")
    assert "XENIDC_SECRET" not in environment
    assert environment["LC_XENIDC"] == "kept"
    assert environment["PATH"] == os.environ["PATH"]


def test_a_domain_reads_nothing_from_its_standard_input() -> None:
    with ExitStack() as stack:
        kept = os.dup(0)
        stack.callback(os.close, kept)
        ours, theirs = os.pipe()
        os.dup2(ours, 0)
        stack.callback(os.dup2, kept, 0)
        os.close(ours)
        os.write(theirs, b"for the machine alone")
        os.close(theirs)
        machine = stack.enter_context(Machine(spares=0))
        machine.start("d", Subject)
        assert ask(connect(machine, "d"), "stdin") == b""


# --- what it may say ------------------------------------------------------------------------------


def reference(kind: str, *fields: Any) -> bytes:
    """A message that names an actor, as no domain can know one."""
    return bytes(msgpack.packb([kind, *fields, msgpack.ExtType(2, bytes(16))]))


FOUL: dict[str, tuple[bytes, int, int]] = {
    "garbage": (b"\xc1", 1, 0),
    "garbage with descriptors": (b"\xc1", 1, 3),
    "more descriptors than a frame has": (b"\xc1", 1, 200),
    "no message": (msgpack.packb({"a": 1}), 1, 0),
    "an unknown kind": (msgpack.packb(["os.system", "true"]), 1, 0),
    "nested too deep": (b"\x91", 5000, 0),
    "too large": (b"\x00", 1 << 21, 0),
    "too large, with descriptors": (b"\x00", 1 << 21, 5),
    "another's destruction": (encode(hc.DestroyDomain(0, "x", False, False)).payload, 1, 0),
    "a hypercall of domain 0": (encode(hc.Hypercall(0, hc.ResetPorts())).payload, 1, 2),
    "a withdrawal": (encode(hc.Withdraw("d", "because")).payload, 1, 0),
    "a new domain": (reference(hc.CreateDomain.__kind__, "evil"), 1, 0),
    "an answer": (encode(hc.Answer(1, 1, None)).payload, 1, 0),
    "a state": (encode(hc.PeerState("d", 0, 1, 0, 1, 6, None, 1)).payload, 1, 0),
    "a birth": (encode(hc.Boot("d", 0, "x:Y", [], None, None)).payload, 1, 0),
    "a probe": (encode(hc.Probe("because")).payload, 1, 0),
    "a death sentence": (encode(hc.Kill("because")).payload, 1, 0),
    "a ping": (encode(hc.Ping(1)).payload, 1, 0),
    "a call of nothing": (msgpack.packb([hc.Call.__kind__, 1, None]), 1, 0),
    "a descriptor that is not there": (
        msgpack.packb([hc.Call.__kind__, 1, msgpack.ExtType(3, b"\x09")]),
        *(1, 3),
    ),
}
"""A payload, how often it is repeated in the one packet, and how many descriptors go with it."""


@pytest.mark.parametrize("frame", FOUL.values(), ids=FOUL.keys())
def test_a_frame_that_no_domain_may_send_ends_its_domain_alone(
    machine: Machine, frame: tuple[bytes, int, int]
) -> None:
    machine.start("good", Subject, placement="thread")
    machine.start("bad", Subject, restart="temporary")
    good, bad = connect(machine, "good"), connect(machine, "bad")
    ends(bad, "raw", *frame)
    info = machine.domain("bad")
    assert (info.refused, info.shutdown) == (1, ShutdownReason.CRASH)
    assert info.crash is not None
    assert info.crash.signal == "SIGKILL"
    assert ask(good, "pid") == os.getpid()
    assert [info.refused for info in machine.domains()] == [0]


@pytest.mark.parametrize("count", [0, 3])
def test_an_empty_packet_is_the_end_of_the_hypercall_socket(machine: Machine, count: int) -> None:
    machine.start("bad", Subject, restart="temporary")
    ends(connect(machine, "bad"), "raw", b"", 1, count)
    crash = machine.domain("bad").crash
    assert crash is not None
    assert crash.text == "it closed its hypercall socket"


REFUSED: dict[str, Message] = {
    "in the name of domain 0": hc.Hypercall(0, hc.ResetPorts()),
    "no hypercall": hc.Kill("because"),
    "a call in a call": hc.Call(1, hc.ResetPorts()),
    "of a port of domain 0": hc.PortStatus(0, 1),
    "another's grant": hc.MapGrantRef(0, 0, None),
    "another's channel": hc.Switch(0, 77, 1, 6, None, []),
    "another's back end": hc.Complain(77, 1, True, "because"),
    "another's device": hc.Advertise("good"),
    "never": hc.SetTimer(float("nan")),
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=REFUSED.keys())
def test_a_hypercall_that_is_refused_is_counted_and_the_domain_goes_on(
    machine: Machine, call: Message
) -> None:
    machine.start("good", Subject)
    machine.start("bad", Subject)
    good, bad = connect(machine, "good"), connect(machine, "bad")
    pids = [ask(domain, "pid") for domain in (good, bad)]
    with pytest.raises(RemoteError) as refused:
        ask(bad, "hypercall", encode(call).payload)
    assert issubclass(getattr(errors, refused.value.error), errors.HypercallError)
    assert machine.domain("bad").refused == 1
    assert machine.domain("good").refused == 0
    assert [ask(domain, "pid") for domain in (good, bad)] == pids


def test_a_domain_that_lies_while_it_starts_does_not_start(machine: Machine) -> None:
    with pytest.raises(DomainStartError, match="bad frame"):
        machine.start("d", LiarAtBirth)
    assert machine.domain("d").refused == 1


def test_a_domain_that_lies_at_its_end_has_ended(machine: Machine) -> None:
    machine.start("d", LiarAtDeath)
    pid = machine.pid("d")
    machine.shutdown("d")
    assert machine.domain("d").refused == 1
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- its log --------------------------------------------------------------------------------------


def test_what_a_domain_prints_is_in_its_log_with_its_name(
    machine: Machine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "xenidc.domain")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    machine.start("d", Subject, restart="temporary")
    domain = connect(machine, "d")
    ask(domain, "print", "grüße\x1b[31m")
    ends(domain, "exit", 0, b"unfinished")
    said = [
        (record.levelname, record.getMessage())
        for record in caplog.records
        if record.name == "xenidc.domain.d"
    ]
    assert sorted(said) == [
        ("INFO", "grüße\\x1b[31m"),
        ("WARNING", "grüße\\x1b[31m"),
        ("WARNING", "unfinished"),
    ]
    assert sorted(machine.log("d")) == sorted(text for _, text in said)
    crash = machine.domain("d").crash
    assert crash is not None
    assert crash.log[-1] == "unfinished"


def test_the_last_lines_are_kept_and_the_crash_report_has_those_of_its_incarnation(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "xenidc.domain")
    machine.start("d", Subject, restart="temporary")
    domain = connect(machine, "d")
    for number in range(300):
        ask(domain, "write", 1, b"%d\n" % number)
    machine.reboot("d")
    ends(domain, "exit", 1, b"one\ntwo\n")
    assert machine.log("d") == [*map(str, range(102, 300)), "one", "two"]
    crash = machine.domain("d").crash
    assert crash is not None
    assert crash.log == ["one", "two"]


def test_a_domain_that_floods_its_log_waits_for_the_machine_and_nobody_for_it(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "xenidc.domain")
    machine.start("good", Subject)
    machine.start("loud", Subject)
    good, loud = connect(machine, "good"), connect(machine, "loud")
    loud.submit(["flood", 2, b"z" * 500, 20_000], token="flood")  # 10 MB in one line
    loud.push()
    for _ in range(100):
        ask(good, "pid")
    assert ask(loud, "pid") == machine.pid("loud")
    lines = machine.log("loud")
    assert len(lines) == 200
    assert set(map(len, lines)) == {1024}
    assert machine.domain("loud").restarts == 0


def test_a_domain_may_write_much_while_it_starts_and_while_it_ends(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "xenidc.domain")
    machine.start("d", Flooder)
    machine.shutdown("d")
    assert machine.log("d")[-1] == "the end"
    assert machine.domain("d").state == "shutdown"


# --- processors -----------------------------------------------------------------------------------


def test_a_domain_runs_on_the_processors_that_it_was_given_also_after_a_restart(
    machine: Machine,
) -> None:
    machine.start("d", Subject, cpus=[CPU, CPU])
    domain = connect(machine, "d")
    first = ask(domain, "pid")
    assert ask(domain, "affinities") == [CPU]
    machine.kill("d")
    while ask(domain, "pid") == first:
        pass  # answered by the dying one
    assert ask(domain, "affinities") == [CPU]
    usage = machine.domain("d").usage
    assert usage is not None
    assert usage.cpus == {CPU}


@pytest.mark.parametrize("cpus", [set(), {100_000}, {CPU, -1}])
def test_processors_that_are_not_there_are_refused(machine: Machine, cpus: set[int]) -> None:
    with pytest.raises(BadCpus):
        machine.start("d", Subject, cpus=cpus)
    assert machine.domains() == []


def test_a_caller_is_paired_with_a_domain_for_a_while(machine: Machine) -> None:
    machine.start("d", Subject, cpus={CPU})
    domain = connect(machine, "d")
    before = os.sched_getaffinity(0)
    with machine.paired("d"):
        assert os.sched_getaffinity(0) == {CPU}
        assert ask(domain, "affinities") == [CPU]
    assert os.sched_getaffinity(0) == before


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one processor only")
def test_nobody_is_paired_with_a_domain_that_may_run_anywhere(machine: Machine) -> None:
    machine.start("d", Subject)
    with pytest.raises(BadCpus, match="one processor alone"):
        machine.paired("d")


# --- hardening ------------------------------------------------------------------------------------


def test_a_hardened_domain_gets_no_new_privileges_in_any_of_its_threads(machine: Machine) -> None:
    machine.start("plain", Subject)
    machine.start("hard", Subject, harden=Hardening(no_new_privs=True))
    assert ask(connect(machine, "plain"), "status", "NoNewPrivs") == "0"
    assert ask(connect(machine, "hard"), "status", "NoNewPrivs") == "1"


def test_a_hardened_domain_has_its_limits_also_when_a_spare_becomes_it(machine: Machine) -> None:
    machine.start("d", Subject, harden=Hardening(rlimits={"NOFILE": 64, "CORE": 0}))
    domain = connect(machine, "d")
    first = ask(domain, "pid")
    machine.kill("d")
    while ask(domain, "pid") == first:
        pass  # answered by the dying one
    assert ask(domain, "limit", "RLIMIT_NOFILE") == [64, 64]
    assert ask(domain, "limit", "RLIMIT_CORE") == [0, 0]


def test_a_closed_network_has_a_loopback_alone(machine: Machine) -> None:
    harden = Hardening(no_new_privs=True, closed_network=True)
    try:
        machine.start("d", Subject, harden=harden)
    except DomainStartError as error:  # never weaker: a kernel that refuses is a typed error
        assert error.error == "HardeningFailed"  # noqa: PT017
        pytest.skip(str(error))
    domain = connect(machine, "d")
    assert ask(domain, "interfaces") == ["lo"]
    assert ask(domain, "ids") == [os.getuid(), os.getgid()]
    assert ask(domain, "status", "NoNewPrivs") == "1"


def test_a_limit_that_cannot_be_set_keeps_the_domain_from_starting(machine: Machine) -> None:
    too_many = Hardening(rlimits={"NOFILE": 1 << 40})  # above fs.nr_open, for anybody
    with pytest.raises(DomainStartError, match="NOFILE cannot be") as error:
        machine.start("d", Subject, harden=too_many)
    assert error.value.error == "HardeningFailed"
    assert machine.domains() == []


@pytest.mark.parametrize("rlimits", [{"NOTHING": 1}, {"NOFILE": -1}])
def test_a_limit_that_makes_no_sense_is_refused(rlimits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="limit"):
        Hardening(rlimits=rlimits)
