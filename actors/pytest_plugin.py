"""The pytest plugin: tests that run under many seeds, and say how to run the failing one again.

    @pytest.mark.simulate(seeds=200, faults=["crash_before"])
    def test_nothing_is_lost(system):
        ...

The test function is called once for each seed, each time with a fresh simulated `System` as its
``system``; its other fixtures are set up once for all, so they should hold nothing that a run
changes, and cannot use ``system`` themselves. The first seed that fails is made small, and what is
reported is the small run: its error with the traceback, its trace, and the command that repeats it.
Without the mark ``system`` is a real one, stopped at the end of the test.

Installed with the package; pytest finds it by itself, which costs each session the import of the
package, a tenth of a second (`-p no:xenidc` spares it).
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import os
import re
import shlex
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from actors.explore import Failure, Options, explore, replay
from actors.faults import Faults
from actors.system import System
from actors.trace import Replay

_MARK = "simulate"
_SEEDS = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options on the command line."""
    group = parser.getgroup("simulate", "simulated actors (xenidc)")
    group.addoption(
        "--simulate-seeds",
        type=lambda text: _count(text, 1),
        metavar="N",
        help="run N seeds, whatever the tests say",
    )
    group.addoption(
        "--simulate-seed",
        type=lambda text: _count(text, 0),
        metavar="SEED",
        help="run only this seed",
    )
    group.addoption(
        "--simulate-replay", type=Path, metavar="FILE", help="run only what this file recorded"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Say what the mark means."""
    config.addinivalue_line(
        "markers",
        "simulate(seeds=100, first=0, faults=(), preemption=0.1, max_steps=100000): run the test "
        "once for each seed, with a simulated system; faults: kinds of faults, 'all', or a Faults",
    )


class _NotYet:
    """What fixtures get for the system of a simulated test."""

    def __getattr__(self, name: str) -> NoReturn:
        pytest.fail(
            "in a test that is marked simulate each run has a system of its own, which fixtures "
            "cannot use: they are set up once, before the first run",
            pytrace=False,
        )


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[System | _NotYet]:
    """A system of actors. In a test that is marked ``simulate`` each seed gets its own."""
    if request.node.get_closest_marker(_MARK) is not None:
        yield _NotYet()  # pytest_pyfunc_call puts the system of each run in its place
        return
    with System(request.node.name) as real:
        yield real


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse what could not run under seeds, instead of running it once without."""
    if item.get_closest_marker(_MARK) is None:
        return
    if "system" not in getattr(item, "fixturenames", ()):
        pytest.fail("a test that is marked simulate takes the fixture `system`", pytrace=False)
    if inspect.iscoroutinefunction(getattr(item, "obj", None)):
        pytest.fail("a test that is marked simulate is no coroutine", pytrace=False)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a marked test once for each seed."""
    __tracebackhide__ = True
    mark = pyfuncitem.get_closest_marker(_MARK)
    if mark is None:
        return None
    failure = _run(pyfuncitem, *_settings(mark))
    if failure is not None:
        raise failure.error
    return True


def _run(item: pytest.Function, seeds: range, options: Options) -> Failure | None:
    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}  # noqa: SLF001
    outcomes: list[BaseException] = []  # of a test that neither passes nor fails

    def test(system: System) -> None:
        __tracebackhide__ = True
        try:
            item.obj(**{**arguments, "system": system})
        except (pytest.skip.Exception, pytest.xfail.Exception, pytest.exit.Exception) as outcome:
            outcomes.append(outcome)

    path = item.config.getoption("--simulate-replay")
    if path is not None:
        failure = _replay(item, path, test)
    else:
        if (only := item.config.getoption("--simulate-seed")) is not None:
            seeds = range(only, only + 1)
        elif (count := item.config.getoption("--simulate-seeds")) is not None:
            seeds = range(seeds.start, seeds.start + count)
        wanted = itertools.takewhile(lambda _: not outcomes, seeds)
        failure = explore(test, wanted, options, target=item.nodeid)
    if outcomes:
        raise outcomes[0]
    if failure is not None:
        _report(item, failure, path)
    return failure


def _replay(item: pytest.Function, path: Path, test: Callable[[System], None]) -> Failure | None:
    try:
        target = Replay.load(path).target
        if target == item.nodeid:
            return replay(path, test)
    except (OSError, ValueError) as error:
        text = f"--simulate-replay: {error}"
    else:
        pytest.skip(f"{path} has recorded {target}")
    pytest.fail(text, pytrace=False)


def _settings(mark: pytest.Mark) -> tuple[range, Options]:
    given: dict[str, Any] = dict(mark.kwargs)
    if mark.args:
        pytest.fail("simulate takes its settings by name", pytrace=False)
    seeds, first = given.pop("seeds", _SEEDS), given.pop("first", 0)
    faults = given.pop("faults", ())
    try:
        if type(seeds) is not int or seeds < 1 or type(first) is not int or first < 0:
            raise ValueError(f"seeds is 1 or more, and first 0 or more, not {seeds!r}, {first!r}")
        if faults == "all":
            faults = Faults()
        elif not isinstance(faults, Faults):
            faults = Faults(kinds=faults)
        return range(first, first + seeds), Options(faults, **given)
    except (TypeError, ValueError) as error:
        text = f"simulate: {error}"
    pytest.fail(text, pytrace=False)


def _report(item: pytest.Function, failure: Failure, replayed: Path | None) -> None:
    """Keep the run in a file, and add what it was to what pytest prints of the failure."""
    record, config = failure.replay, item.config
    lines = [str(failure), f"options: {json.dumps(record.options)}"]
    here = config.invocation_params.dir
    file, _, rest = item.nodeid.partition("::")
    marks = [arg for arg in config.invocation_params.args if arg.startswith("-m")]
    which = ["-m", config.getoption("markexpr")] if marks else []
    node = f"{os.path.relpath(config.rootpath / file, here)}::{rest}"
    command = shlex.join(["pytest", *which, node])
    cache = getattr(config, "cache", None)
    if replayed is None and cache is not None:
        name = re.sub(r"\W+", "_", item.nodeid)[-100:]
        digest = zlib.crc32(item.nodeid.encode("utf-8", "backslashreplace"))
        replayed = cache.mkdir("simulate") / f"{name}-{digest:08x}-{record.seed}.json"
        record.save(replayed)
    if replayed is not None:
        shown = shlex.quote(os.path.relpath(here / replayed, here))
        lines.append(f"this run again:  {command} --simulate-replay={shown}")
    lines.append(f"the seed again:  {command} --simulate-seed={record.seed}")
    item.add_report_section("call", "simulation", "\n".join(lines))


def _count(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"a number, {least} or more, and not {text!r}")
    return int(text)
