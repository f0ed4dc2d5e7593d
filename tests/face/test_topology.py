"""Topologies: what is wrong with them is said before anything starts, and they run everywhere."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import System
from hypervisor import DomainStartError, Hardening
from tests.face.programs import Echo, counts, fails, three
from transport import FrontEnd
from xenidc import (
    PLACEMENTS,
    Topology,
    TopologyError,
    WorkloadFailed,
    check,
    load_topology,
    running,
)
from xenidc.check import start_order

ECHO = "tests.face.programs:Echo"


def small(name: str = "small", **options: Any) -> Topology:
    topology = Topology(name, **options)
    topology.domain("echo", Echo)
    topology.channel("echo", slots=8, buffer_bytes=1 << 14)
    return topology


def problems(topology: Topology, placement: str = "process") -> list[str]:
    with pytest.raises(TopologyError) as caught:
        check(topology, placement)
    return [problem.text for problem in caught.value.problems]


# --- what is wrong --------------------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[Topology], object], str]] = {
    "a duplicate domain": (
        lambda t: t.domain("echo", Echo),
        "there is a 'echo' already, from line",
    ),
    "a duplicate channel": (lambda t: t.channel("echo"), "channel 'echo': there is a 'echo'"),
    "a group called as a domain": (
        lambda t: t.group("echo").domain("x", Echo),
        "group 'echo': there is a 'echo' already",
    ),
    "an impossible name": (lambda t: t.domain("a/b", Echo), "the name of a domain is letters"),
    "an empty group": (lambda t: t.group("g"), "group 'g' has no domains"),
    "a misspelt restart": (
        lambda t: t.domain("x", Echo, restart="permanant"),
        "restart is one of permanent, transient, temporary, not 'permanant'; did you mean 'perman",
    ),
    "a misspelt placement": (
        lambda t: t.domain("x", Echo, placement="proces"),
        "placement is one of process, thread, not 'proces'; did you mean 'process'?",
    ),
    "a misspelt strategy": (
        lambda t: t.group("g", strategy="one_for_al").domain("x", Echo),
        "did you mean 'one_for_all'?",
    ),
    "an intensity below 0": (
        lambda t: t.group("g", intensity=-1).domain("x", Echo),
        "group 'g': intensity is a number, 0 or more, not -1",
    ),
    "a period of nothing": (
        lambda t: t.group("g", period=0).domain("x", Echo),
        "group 'g': period is seconds, more than 0, not 0",
    ),
    "an argument that no message can hold": (
        lambda t: t.domain("x", Echo, object()),
        "domain 'x': its arguments:",
    ),
    "a need that is nowhere": (
        lambda t: t.domain("x", Echo, needs="ecko"),
        "domain 'x' needs 'ecko', which is no domain; did you mean 'echo'?",
    ),
    "a use of what nobody serves": (
        lambda t: t.domain("x", Echo, uses="ecko"),
        "domain 'x' uses 'ecko', which is no domain; did you mean 'echo'?",
    ),
    "a domain that uses itself": (
        lambda t: t.domain("x", Echo, uses=["x"]),
        "these domains need each other: x -> x",
    ),
    "a domain that needs itself": (
        lambda t: t.domain("x", Echo, needs="x"),
        "these domains need each other: x -> x",
    ),
    "a channel to nobody": (
        lambda t: t.channel("left", to="ecko"),
        "channel 'left' goes to 'ecko', which no domain serves; did you mean 'echo'?",
    ),
    "slots that are no power of two": (
        lambda t: t.channel("left", to="echo", slots=12),
        "channel 'left': slots is a power of two, 1 or more, not 12",
    ),
    "an unknown option of a channel": (
        lambda t: t.channel("left", to="echo", slot=8),
        "channel 'left' has no option 'slot'; there are timeout, slots, buffer_bytes, spin",
    ),
    "a workload on no channel": (
        lambda t: t.workload(three, "ecko"),
        "workload 'three' uses 'ecko', which is no channel; did you mean 'echo'?",
    ),
    "a workload of another shape": (
        lambda t: t.workload(counts, "echo", "echo"),
        "workload 'counts': too many positional arguments",
    ),
    "a workload that cannot be found": (
        lambda t: t.workload("tests.face.programs:thre", "echo"),
        "workload 'thre': module 'tests.face.programs' has no attribute 'thre'",
    ),
    "a driver that cannot be found": (
        lambda t: t.domain("x", "tests.face.programs:Ecko"),
        "domain 'x': tests.face.programs:Ecko:",
    ),
    "a module that cannot be found": (
        lambda t: t.domain("x", "tests.face.nothing:Echo"),
        "No module named 'tests.face.nothing'",
    ),
    "something that is no driver": (
        lambda t: t.domain("x", "tests.face.programs:three"),
        "domain 'x': tests.face.programs:three:",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_whatever_is_wrong_is_one_error_with_its_line(what: str) -> None:
    wrong, text = WRONG[what]
    topology = small()
    wrong(topology)
    with pytest.raises(TopologyError) as caught:
        check(topology)
    (problem,) = caught.value.problems
    assert text in problem.text
    assert "\n" not in str(caught.value)
    assert problem.place.file == __file__
    assert problem.place.line >= wrong.__code__.co_firstlineno


def test_a_topology_without_domains_is_none() -> None:
    assert problems(Topology("x")) == ["topology 'x' has no domains"]


def test_a_machine_has_its_numbers_right() -> None:
    assert "intensity" in problems(small(intensity=-1))[0]
    assert "watchdog" in problems(small(watchdog=0))[0]
    assert "cannot be called" in problems(small("a b"))[0]


def test_a_thread_is_not_confined() -> None:
    topology = small()
    topology.domain("x", Echo, harden=Hardening(no_new_privs=True))
    check(topology)
    assert "on a thread" in problems(topology, "thread")[0]


def test_a_cycle_is_named_once() -> None:
    topology = Topology("x")
    topology.domain("a", Echo, needs="b")
    topology.domain("b", Echo, needs=["c"])
    topology.domain("c", Echo, needs="a")
    assert problems(topology) == ["these domains need each other: a -> b -> c -> a"]


def test_a_cycle_of_uses_and_needs_is_one() -> None:
    topology = Topology("x")
    topology.domain("a", Echo, uses="b")
    topology.domain("b", Echo, needs="a")
    assert problems(topology) == ["these domains need each other: a -> b -> a"]


def test_two_groups_that_need_each_other_cannot_be_started() -> None:
    topology = Topology("x")
    one, two = topology.group("one"), topology.group("two")
    one.domain("a", Echo)
    two.domain("b", Echo, needs="a")
    one.domain("c", Echo, needs="b")
    assert "one -> two -> one" in problems(topology)[0]


def test_a_group_starts_its_members_in_their_order() -> None:
    topology = Topology("x")
    group = topology.group("g")
    group.domain("a", Echo, needs="b")
    group.domain("b", Echo)
    assert "declare that one first" in problems(topology)[0]


def test_all_that_is_wrong_is_kept_in_the_order_of_the_lines() -> None:
    topology = small()
    topology.channel("x", to="nobody")
    topology.domain("echo", Echo)
    with pytest.raises(
        TopologyError, match=r"test_topology.py:\d+: channel 'x'.*\(and 1 more\)$"
    ) as e:
        check(topology)
    lines = [problem.place.line for problem in e.value.problems]
    assert lines == sorted(lines)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_what_is_needed_starts_first_or_there_is_a_cycle(edges: list[tuple[int, int]]) -> None:
    topology = Topology("x")
    for number in range(10):
        needs = {f"d{head}" for tail, head in edges if tail == number}
        topology.domain(f"d{number}", Echo, needs=sorted(needs))
    try:
        check(topology)
    except TopologyError as error:
        cycle = re.findall(r"d(\d)", error.problems[0].text)
        assert all(
            pair in edges for pair in zip(map(int, cycle), map(int, cycle[1:]), strict=False)
        )
    else:
        order = [domain.name for (domain,) in start_order(topology)]
        assert sorted(order) == [f"d{number}" for number in range(10)]
        for tail, head in edges:
            assert order.index(f"d{head}") < order.index(f"d{tail}")


# --- files ----------------------------------------------------------------------------------------

FILE = """\
from transport import BackEnd
from xenidc import Topology


class Own(BackEnd):
    idempotent = True

    def on_request(self, request):
        return request.body


def work(channel):
    for body in range(rounds):
        assert channel.call(body) == body


topology = Topology("own")
rounds = topology.option("rounds", 3, "how many requests")
loud = topology.option("loud", False)
topology.domain("own", Own)
topology.channel("own", slots=8, buffer_bytes=1 << 14)
topology.workload(work, "own")
"""


def test_a_file_with_its_own_driver_runs_in_every_placement(tmp_path: Path) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE)
    for placement in PLACEMENTS:
        topology = load_topology(path, {"rounds": "5", "loud": "yes"})
        with running(topology, placement, spares=0) as live:
            live.work()
            assert live.channels["own"].statistics().requests == 5


def test_a_file_and_its_domains_find_the_modules_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    driver, rest = FILE.split("\n\n\ndef work", 1)
    (tmp_path / "beside_it.py").write_text(driver)
    path = tmp_path / "own.py"
    path.write_text(f"from xenidc import Topology\nfrom beside_it import Own\n\ndef work{rest}")
    with running(load_topology(path), "process", spares=0) as live:
        live.work()
        assert live.channels["own"].statistics().requests == 3


@pytest.mark.parametrize(
    ("old", "new", "values", "text"),
    [
        ("", "", {"round": "5"}, ":17: there is no option 'round'; there are: rounds, loud"),
        ("", "", {"rounds": "x"}, ":18: option 'rounds' is of type int, and 'x' is not"),
        ("", "", {"loud": "x"}, ":19: option 'loud' is of type bool"),
        ('"own", Own', '"own", Own, retsart="x"', {}, ":20: TypeError: .*retsart"),
        ('to="x"', "", {}, None),
        ("topology.domain", "topology domain", {}, ":20: SyntaxError"),
        ("BackEnd\n", "BackEn\n", {}, ":1: ImportError"),
        ("topology = ", "other = topology = ", {}, None),
        ("topology = ", "more = Topology('x')\ntopology = ", {}, ": it makes 2 topologies"),
        ("topology = ", "def f(): return ", {}, ":18: NameError"),
        (FILE, "x = 1\n", {}, "own.py: it makes no topology"),
    ],
)
def test_a_file_that_is_wrong_is_one_line(
    tmp_path: Path, old: str, new: str, values: dict[str, str], text: str | None
) -> None:
    path = tmp_path / "own.py"
    path.write_text(FILE.replace(old, new) if old else FILE)
    if text is None:
        check(load_topology(path, values))
        return
    with pytest.raises(TopologyError, match=text) as caught:
        load_topology(path, values)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match="No such file"):
        load_topology(tmp_path / "nothing.py")


# --- running --------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_domains_groups_and_workloads_run(placement: str) -> None:
    topology = small()
    topology.domain("first", ECHO, needs="late", placement="thread")
    topology.domain("late", ECHO, placement="thread")
    group = topology.group("g", strategy="one_for_all")
    group.domain("a", Echo, placement="thread")
    group.domain("b", Echo, placement="thread", needs="a")
    topology.channel("b", slots=8, buffer_bytes=1 << 14)
    topology.workload(three, "echo", "b")
    topology.workload("tests.face.programs:three", "b")
    with running(topology, placement, spares=0) as live:
        live.work()
        live.work()
        names = [info.name for info in live.machine.domains()]
        assert names == ["echo", "late", "first", "a", "b"]
        assert live.channels["b"].statistics().requests == 12


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_driver_uses_the_device_of_another_domain_which_starts_first(placement: str) -> None:
    topology = Topology("x")
    topology.domain("near", "tests.transport.drivers:Relay", "far", uses="far", placement="thread")
    topology.domain("far", Echo, placement="thread")
    topology.channel("near", slots=8, buffer_bytes=1 << 14)
    topology.workload(three, "near")
    with running(topology, placement, spares=0) as live:
        live.work()
        assert [info.name for info in live.machine.domains()] == ["far", "near"]


def test_the_first_workload_that_fails_is_the_error_and_the_others_end_before() -> None:
    done = []

    def other(channel: FrontEnd) -> None:
        three(channel)
        done.append(channel)

    topology = small()
    topology.workload(fails)
    topology.workload(other, "echo")
    with running(topology, "simulated") as live:
        with pytest.raises(WorkloadFailed, match="workload 'fails': ValueError: two and two are f"):
            live.work()
        assert len(done) == 1


def test_what_cannot_start_leaves_nothing() -> None:
    topology = small()
    topology.domain("broken", "tests.simulation.guests:Broken")
    with pytest.raises(DomainStartError, match="no image"), running(topology, "simulated"):
        pass


def test_a_wrong_topology_starts_nothing() -> None:
    def started(_machine: object) -> None:
        raise AssertionError("it has started")

    with pytest.raises(TopologyError), running(Topology("x"), started=started):
        pass


def test_it_runs_in_a_system_that_is_given() -> None:
    with System(simulation=3) as system, running(small(), system=system) as live:
        three(live.channels["echo"])
        assert live.machine.system is system
