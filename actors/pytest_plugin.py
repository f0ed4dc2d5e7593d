"""The pytest plugin: tests that run under many seeds, and say how to run the failing one again.

    @pytest.mark.simulate(seeds=200, faults=["crash_before"])
    def test_nothing_is_lost(system):
        ...

The test function is called once for each seed, each time with a fresh simulated `System` as its
``system``; its other fixtures are set up once for all, so they should hold nothing that a run
changes. The first seed that fails is made small, and what is reported is the small run: its error
with the traceback, its trace, and the command that repeats it. Without the mark ``system`` is a
real one, stopped at the end of the test.

Installed with the package; pytest finds it by itself. It imports the rest of the package only when
a test needs it, so that other people's tests do not pay for it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from actors.explore import Failure, Options
    from actors.system import System

_MARK = "simulate"
_SEEDS = 100


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options on the command line."""
    group = parser.getgroup("simulate", "simulated actors (xenidc)")
    group.addoption(
        "--simulate-seeds", type=_count, metavar="N", help="run N seeds, whatever the tests say"
    )
    group.addoption("--simulate-seed", type=_count, metavar="SEED", help="run only this seed")
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


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Iterator[System | None]:
    """A system of actors. In a test that is marked ``simulate`` each seed gets its own."""
    if request.node.get_closest_marker(_MARK) is not None:
        yield None  # pytest_pyfunc_call puts the system of each run in its place
        return
    from actors.system import System  # noqa: PLC0415 - see above

    with System(request.node.name) as real:
        yield real


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a marked test once for each seed."""
    mark = pyfuncitem.get_closest_marker(_MARK)
    if mark is None:
        return None
    if "system" not in pyfuncitem.fixturenames:
        pytest.fail("a test that is marked simulate takes the fixture `system`", pytrace=False)
    failure = _run(pyfuncitem, *_settings(mark))
    if failure is not None:
        _report(pyfuncitem, failure)
        raise failure.error
    return True


def _run(item: pytest.Function, seeds: range, options: Options) -> Failure | None:
    from actors.explore import explore, replay  # noqa: PLC0415 - see above

    arguments = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}  # noqa: SLF001

    def test(system: System) -> None:
        item.obj(**{**arguments, "system": system})

    recorded = item.config.getoption("--simulate-replay")
    if recorded is not None:
        try:
            return replay(recorded, test)
        except (OSError, ValueError) as error:
            pytest.fail(f"--simulate-replay: {error}", pytrace=False)
    if (only := item.config.getoption("--simulate-seed")) is not None:
        seeds = range(only, only + 1)
    elif (count := item.config.getoption("--simulate-seeds")) is not None:
        seeds = range(seeds.start, seeds.start + count)
    return explore(test, seeds, options, target=item.nodeid)


def _settings(mark: pytest.Mark) -> tuple[range, Options]:
    from actors.explore import Options  # noqa: PLC0415 - see above
    from actors.faults import Faults  # noqa: PLC0415

    given: dict[str, Any] = dict(mark.kwargs)
    if mark.args:
        pytest.fail("simulate takes its settings by name", pytrace=False)
    seeds, first = given.pop("seeds", _SEEDS), given.pop("first", 0)
    faults = given.pop("faults", ())
    try:
        if faults == "all":
            faults = Faults()
        elif not isinstance(faults, Faults):
            faults = Faults(kinds=faults)
        return range(first, first + seeds), Options(faults, **given)
    except (TypeError, ValueError) as error:
        pytest.fail(f"simulate: {error}", pytrace=False)


def _report(item: pytest.Function, failure: Failure) -> None:
    """Keep the run in a file, and add what it was to what pytest prints of the failure."""
    node = shlex.quote(item.nodeid)
    text = str(failure)
    cache = getattr(item.config, "cache", None)
    if cache is not None:
        name = re.sub(r"\W+", "_", item.nodeid)
        path = cache.mkdir("simulate") / f"{name}-{failure.replay.seed}.json"
        failure.replay.save(path)
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        text += f"\nthis run again:  pytest {node} --simulate-replay={shlex.quote(str(shown))}"
    text += f"\nthe seed again:  pytest {node} --simulate-seed={failure.replay.seed}"
    item.add_report_section("call", "simulation", text)


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError
    return number
