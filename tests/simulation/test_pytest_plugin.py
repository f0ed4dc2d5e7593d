"""The pytest plugin: what it runs, what it prints of a failure, and that what it prints is true."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ACTORS = """
import pytest
from actors import Actor, Message, System

class Put(Message):
    text: str

class Get(Message):
    pass

class Box(Actor):
    def __init__(self):
        super().__init__()
        self.texts = []

    def on_receive(self, message):
        match message:
            case Put(text):
                self.texts.append(text)
            case Get():
                return self.texts

class Mover(Actor):
    def __init__(self, box):
        super().__init__()
        self.box = box

    def on_receive(self, message):
        self.box.tell(message)
"""

RACE = f"""{ACTORS}
def first_come(system):
    box = system.start(Box, name="box")
    system.start(Mover, box, name="far").tell(Put("far"))
    box.tell(Put("near"))
    system.simulation.settle()
    return box.ask(Get())
"""

FAILING = f"""{RACE}
@pytest.mark.simulate(seeds=200, preemption=0.3)
def test_the_near_one_is_first(system):
    assert first_come(system)[0] == "near"
"""


@pytest.fixture(autouse=True)
def _without_what_takes_a_second_to_load(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")


def run(pytester: pytest.Pytester, text: str, *args: str) -> pytest.RunResult:
    pytester.makepyfile(test_it=text)
    return pytester.runpytest_inprocess(*args)


def printed(result: pytest.RunResult) -> str:
    return result.stdout.str()


def command(result: pytest.RunResult, what: str) -> list[str]:
    (line,) = re.findall(rf"^{what}: +pytest (.*)$", printed(result), re.MULTILINE)
    return shlex.split(line)


def trace(text: str) -> list[str]:
    """The lines of the trace that was printed."""
    return re.findall(r"^ *\d+ +\d+\.\d{3} s  .*$", text, re.MULTILINE)


# --- what is run ----------------------------------------------------------------------------------


def test_a_marked_test_runs_once_for_each_seed(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{RACE}
seen = []

@pytest.mark.simulate(seeds=30, first=5)
def test_orders(system):
    seen.append(tuple(first_come(system)))

def test_after_it():
    assert len(seen) == 30
    assert set(seen) == {{("near", "far"), ("far", "near")}}
""",
    )
    result.assert_outcomes(passed=2)


def test_a_hundred_seeds_unless_it_says_how_many(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{RACE}
seen = []

@pytest.mark.simulate
def test_orders(system):
    seen.append(system.simulation.choose(10**9))

def test_after_it():
    assert len(set(seen)) == 100
""",
    )
    result.assert_outcomes(passed=2)


def test_without_the_mark_the_system_is_a_real_one(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{ACTORS}
import threading

def test_threads(system):
    assert system.simulation is None
    box = system.start(Box)
    box.tell(Put("a"))
    assert box.ask(Get()) == ["a"]
    assert len(threading.enumerate()) == 2

def test_nothing_is_left():
    assert len(threading.enumerate()) == 1
""",
    )
    result.assert_outcomes(passed=2)


def test_a_test_file_without_actors_is_left_alone(pytester: pytest.Pytester) -> None:
    result = run(pytester, "def test_nothing(): pass")
    result.assert_outcomes(passed=1)


def test_fixtures_and_parameters_are_set_up_once_for_all_seeds(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{RACE}
made = []

@pytest.fixture
def made_once(tmp_path):
    made.append(tmp_path)
    yield tmp_path
    made.append("gone")

@pytest.fixture(autouse=True)
def around():
    yield

@pytest.mark.parametrize("text", ["a", "b"])
@pytest.mark.simulate(seeds=20)
def test_orders(made_once, text, system):
    box = system.start(Box)
    box.tell(Put(text))
    assert box.ask(Get()) == [text]
    assert made_once.exists()

def test_after_it():
    assert made[1::2] == ["gone"] * 2
    assert len(set(made[::2])) == 2
""",
    )
    result.assert_outcomes(passed=3)


def test_methods_of_classes_and_marks_of_classes_and_modules(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{RACE}
pytestmark = pytest.mark.simulate(seeds=7)

class TestBox:
    seen = []

    def setup_method(self):
        self.mine = []

    def test_orders(self, system):
        self.mine.append(system)
        self.seen.append(1)

    @pytest.mark.simulate(seeds=3)
    def test_the_nearest_mark_counts(self, system):
        assert not self.mine
        self.seen.append(1)

    @staticmethod
    def test_static(system):
        TestBox.seen.append(1)

    @classmethod
    def test_class(cls, system):
        cls.seen.append(1)
        assert len(cls.seen) <= 7 + 3 + 7 + 7
""",
    )
    result.assert_outcomes(passed=4)


def test_faults_are_asked_for_by_kind_all_at_once_or_exactly(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{ACTORS}
from actors import FAULT_KINDS, Faults

@pytest.mark.simulate(seeds=3, faults=["drop", "delay"])
def test_kinds(system):
    assert set(system.simulation.plan.kinds) <= {{"drop", "delay"}}

@pytest.mark.simulate(seeds=30, faults="all")
def test_all(system):
    assert set(system.simulation.plan.kinds) <= set(FAULT_KINDS)
    seen.update(system.simulation.plan.kinds)

@pytest.mark.simulate(seeds=3, faults=Faults(kinds=(), script=[("drop", "box", 2)]))
def test_script(system):
    box = system.start(Box, name="box")
    for text in "abc":
        box.tell(Put(text))
    system.simulation.settle()
    assert box.ask(Get()) == ["a", "c"]

seen = set()

def test_after_it():
    assert seen == set(FAULT_KINDS)
""",
    )
    result.assert_outcomes(passed=4)


def test_a_test_may_skip_or_expect_to_fail(pytester: pytest.Pytester) -> None:
    result = run(
        pytester,
        f"""{ACTORS}
runs = []

@pytest.mark.simulate
def test_skips(system):
    runs.append(1)
    pytest.skip("not today")

@pytest.mark.simulate
def test_gives_up(system):
    runs.append(1)
    pytest.xfail("not yet")

@pytest.mark.xfail(strict=True, raises=ValueError)
@pytest.mark.simulate
def test_is_known_to_fail(system):
    raise ValueError

def test_after_it():
    assert len(runs) == 2
""",
    )
    result.assert_outcomes(passed=1, skipped=1, xfailed=2)


# --- what is printed ------------------------------------------------------------------------------


def test_a_failure_is_reported_with_all_that_is_needed(pytester: pytest.Pytester) -> None:
    result = run(pytester, FAILING)
    result.assert_outcomes(failed=1)
    text = printed(result)
    assert 'assert first_come(system)[0] == "near"' in text  # the test, and where it failed
    assert "assert 'far' == 'near'" in text
    assert "- Captured simulation call -" in text
    assert re.search(r"seed \d+: .+\nmade small in \d+ runs: \d+ steps, faults: none", text)
    assert re.search(r'^options: \{.*"preemption": 0\.3', text, re.MULTILINE)
    told = [line.split(" s  ", 1)[1] for line in trace(text)]
    far = told.index("box         receives Put('far') from far")
    near = told.index("box         receives Put('near') from the test")
    assert far < near


def test_of_our_own_functions_the_traceback_shows_none(pytester: pytest.Pytester) -> None:
    text = printed(run(pytester, FAILING))
    assert "pytest_plugin.py" not in text
    assert "explore.py" not in text


@pytest.mark.parametrize("what", ["this run again", "the seed again"])
def test_the_printed_command_repeats_the_failure(pytester: pytest.Pytester, what: str) -> None:
    first = run(pytester, FAILING)
    arguments = command(first, what)
    again = pytester.runpytest_subprocess(*arguments)
    again.assert_outcomes(failed=1)
    assert trace(printed(again)) == trace(printed(first))
    assert len(trace(printed(first))) > 5
    assert "assert 'far' == 'near'" in printed(again)


def test_the_printed_command_is_for_the_folder_that_one_is_in(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("some where")
    (folder / "test_it.py").write_text(FAILING)
    pytester.makeini("[pytest]")
    os.chdir(folder)
    first = pytester.runpytest_inprocess()
    again = subprocess.run(
        [sys.executable, "-m", "pytest", *command(first, "this run again")],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "1 failed" in again.stdout
    assert trace(again.stdout) == trace(printed(first))


def test_the_printed_command_selects_the_test_by_its_mark_if_that_was_asked_for(
    pytester: pytest.Pytester,
) -> None:
    pytester.makeini("[pytest]\naddopts = -m 'not long'\nmarkers = long: takes long")
    text = FAILING.replace("@pytest.mark.simulate", "@pytest.mark.long\n@pytest.mark.simulate")
    arguments = command(run(pytester, text, "-m", "long and not wide"), "this run again")
    assert arguments[:2] == ["-m", "long and not wide"]
    run(pytester, text, *arguments).assert_outcomes(failed=1)


def test_a_parameter_may_have_any_name(pytester: pytest.Pytester) -> None:
    text = f"""{RACE}
@pytest.mark.parametrize("name", ["it's [a] $HOME/../x::y", "z" * 300])
@pytest.mark.simulate(seeds=1)
def test_it(system, name):
    assert not name
"""
    result = run(pytester, text)
    result.assert_outcomes(failed=2)
    lines = re.findall(r"^this run again: +pytest (.*)$", printed(result), re.MULTILINE)
    for line in lines:
        again = pytester.runpytest_subprocess(*shlex.split(line))
        again.assert_outcomes(failed=1)
    assert len(lines) == 2


def test_without_a_cache_the_seed_is_enough(pytester: pytest.Pytester) -> None:
    first = run(pytester, FAILING, "-p", "no:cacheprovider")
    assert "this run again" not in printed(first)
    again = pytester.runpytest_subprocess(*command(first, "the seed again"))
    assert trace(printed(again)) == trace(printed(first))


def test_a_run_that_was_mended_passes_from_its_file(pytester: pytest.Pytester) -> None:
    arguments = command(run(pytester, FAILING), "this run again")
    again = run(pytester, FAILING.replace('== "near"', 'in ("near", "far")'), *arguments)
    again.assert_outcomes(passed=1)


def test_a_file_is_for_the_test_that_it_was_made_by(pytester: pytest.Pytester) -> None:
    text = f"""{FAILING}
@pytest.mark.simulate
def test_another(system):
    raise AssertionError

def test_without_any():
    pass
"""
    first = run(pytester, FAILING)
    (option,) = (each for each in command(first, "this run again") if "replay" in each)
    again = run(pytester, text, option, "-rs")
    again.assert_outcomes(failed=1, passed=1, skipped=1)
    assert "has recorded test_it.py::test_the_near_one_is_first" in printed(again)


def test_a_replay_leaves_its_file_as_it_is(pytester: pytest.Pytester) -> None:
    arguments = command(run(pytester, FAILING), "this run again")
    (file,) = Path(".pytest_cache").rglob("*.json")
    before = file.stat()
    run(pytester, FAILING, *arguments).assert_outcomes(failed=1)
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert list(Path(".pytest_cache").rglob("*.json")) == [file]


# --- options --------------------------------------------------------------------------------------

COUNTING = f"""{ACTORS}
import os

@pytest.mark.simulate(seeds=5, first=3)
def test_numbers(system):
    with open("numbers", "a") as file:
        file.write(f"{{system.simulation.choose(10**9)}}\\n")
"""


def numbers(pytester: pytest.Pytester, *args: str) -> list[str]:
    Path("numbers").write_text("")
    run(pytester, COUNTING, *args).assert_outcomes(passed=1)
    return Path("numbers").read_text().split()


def test_options_say_which_seeds_whatever_the_test_says(pytester: pytest.Pytester) -> None:
    usual = numbers(pytester)
    assert len(set(usual)) == 5
    assert numbers(pytester, "--simulate-seeds=9")[:5] == usual
    assert len(numbers(pytester, "--simulate-seeds=9")) == 9
    assert numbers(pytester, "--simulate-seed=4") == usual[1:2]
    assert len(numbers(pytester, "--simulate-seed=0")) == 1


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("--simulate-seeds=0", "argument --simulate-seeds: a number, 1 or more, and not '0'"),
        ("--simulate-seeds=x", "argument --simulate-seeds: a number, 1 or more, and not 'x'"),
        ("--simulate-seed=-1", "argument --simulate-seed: a number, 0 or more, and not '-1'"),
    ],
)
def test_options_that_make_no_sense(pytester: pytest.Pytester, option: str, text: str) -> None:
    result = run(pytester, COUNTING, option)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert text in result.stderr.str()


@pytest.mark.parametrize(
    ("content", "text"),
    [(None, "No such file"), ("{}", "no replay file"), ('{"version": 7}', "its version is 7")],
)
def test_a_file_that_is_no_recording(
    pytester: pytest.Pytester, content: str | None, text: str
) -> None:
    if content is not None:
        Path("run.json").write_text(content)
    result = run(pytester, COUNTING, "--simulate-replay=run.json")
    result.assert_outcomes(failed=1)
    assert re.search(f"--simulate-replay: .*{text}", printed(result))
    assert "Traceback" not in printed(result)


@pytest.mark.parametrize(
    ("mark", "text"),
    [
        ("seeds=0", "seeds is 1 or more"),
        ("seeds='many'", "seeds is 1 or more"),
        ("first=-1", "first 0 or more"),
        ("faults=['flood']", "a fault is one of"),
        ("faults=3", "kinds is a list"),
        ("faults='drop'", "kinds is a list"),
        ("preemption=2", "preemption is a probability"),
        ("max_steps=-1", "max_steps is a number"),
        ("colour='red'", "colour"),
        ("7", "simulate takes its settings by name"),
    ],
)
def test_a_mark_that_makes_no_sense(pytester: pytest.Pytester, mark: str, text: str) -> None:
    result = run(pytester, COUNTING.replace("seeds=5, first=3", mark))
    result.assert_outcomes(failed=1)
    assert text in printed(result)
    assert len(printed(result).splitlines()) < 15


@pytest.mark.parametrize(
    ("test", "text"),
    [
        ("def test_it(): pass", "takes the fixture `system`"),
        ("async def test_it(system): pass", "is no coroutine"),
        (
            "import unittest\n@mark\nclass TestIt(unittest.TestCase):\n  def test_it(self): pass",
            "takes the fixture `system`",
        ),
        (
            "@pytest.fixture\ndef box(system): return system.x\n@mark\ndef test_it(system, box): 1",
            "which fixtures cannot use",
        ),
    ],
)
def test_what_cannot_run_under_seeds_is_not_run_without(
    pytester: pytest.Pytester, test: str, text: str
) -> None:
    marked = test if "@mark" in test else f"@mark\n{test}"
    result = run(pytester, f"{ACTORS}\nmark = pytest.mark.simulate\n{marked}")
    outcomes = result.parseoutcomes()
    assert outcomes.get("failed", 0) + outcomes.get("errors", 0) == 1
    assert "passed" not in outcomes
    assert text in printed(result)


# --- together with others -------------------------------------------------------------------------

HANGING = f"""{ACTORS}
import time

class Busy(Box):
    def on_receive(self, message):
        time.sleep(4)

@pytest.mark.simulate
def test_hangs(system):
    system.start(Busy, name="busy").ask(Get(), timeout=60)
"""

ENDLESS = f"""{ACTORS}
class Clock(Box):
    def on_start(self):
        self.every(1.0, Get())

@pytest.mark.simulate(max_steps=10**9)
def test_goes_on_for_ever(system):
    system.start(Clock)
    system.simulation.advance(10**9)
"""


@pytest.mark.parametrize("text", [HANGING, ENDLESS])
def test_a_time_limit_ends_a_run(pytester: pytest.Pytester, text: str) -> None:
    pytester.makepyfile(test_it=f"{text}\ndef test_after_it(): pass")
    result = pytester.runpytest_subprocess("--timeout=1", "--timeout-method=signal", "-Werror")
    result.assert_outcomes(failed=1, passed=1)
    assert "Timeout (>1" in printed(result)
    assert "failed once and not again" not in printed(result)
    assert result.duration < 10


def test_nothing_of_it_warns(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_it=f"""{FAILING}
import asyncio

class Sleeper(Actor):
    async def on_receive(self, message):
        async with asyncio.timeout(5):
            await asyncio.sleep(60)

@pytest.mark.simulate(seeds=3, faults="all")
def test_coroutines(system):
    sleeper = system.start(Sleeper)
    sleeper.tell(Get())
    system.simulation.advance(2)
"""
    )
    result = pytester.runpytest_subprocess("-Werror", "--strict-markers", "--strict-config")
    result.assert_outcomes(failed=1, passed=1)


def test_the_mark_and_the_options_say_what_they_are_for(pytester: pytest.Pytester) -> None:
    assert "simulate(seeds=100" in printed(pytester.runpytest_inprocess("--markers"))
    text = printed(pytester.runpytest_inprocess("--help"))
    for option in ("--simulate-seeds=N", "--simulate-seed=SEED", "--simulate-replay=FILE"):
        assert option in text
