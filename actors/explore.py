"""Search for a failing run: many seeds, the first failure made small, and a file to repeat it from.

A test is a function that is given a simulated `System` and raises if something is wrong; the same
function runs for each seed, so all that it needs it must make by itself. Two failures are the same
if they are of the same type: only such a run counts while the first one is made smaller.

Nothing is printed. What actors log of their failures is left out while runs are tried: it is in
the trace of the one that counts.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from actors.baton import Baton
from actors.choices import Choices
from actors.errors import ActorError, StopTimeout
from actors.faults import Faults, Injected
from actors.scheduler import NO_FAULTS, Scheduler
from actors.shrink import Outcome, shrink
from actors.system import System
from actors.trace import Replay

Test = Callable[[System], object]


@dataclass(frozen=True)
class Options:
    """What a run depends on beside its seed.

    Attributes:
        faults: what may go wrong.
        preemption: the probability that a tell or an ask lets others go first.
        max_steps: after so many a run is given up, with `NotSettled`.
    """

    faults: Faults = NO_FAULTS
    preemption: float = 0.1
    max_steps: int = 100_000

    def __post_init__(self) -> None:
        if not isinstance(self.faults, Faults):
            raise ValueError(f"faults is a Faults, not {self.faults!r:.80}")  # noqa: TRY004
        if type(self.preemption) not in (int, float) or not 0 <= self.preemption <= 1:
            raise ValueError(f"preemption is a probability, from 0 to 1, not {self.preemption!r}")
        if type(self.max_steps) is not int or self.max_steps < 1:
            raise ValueError(f"max_steps is a number, 1 or more, not {self.max_steps!r}")

    def scheduler(self, choices: Choices, baton: Baton | None = None) -> Scheduler:
        """For one run."""
        return Scheduler(choices, self.faults, self.preemption, self.max_steps, baton)

    def to_json(self) -> dict[str, Any]:
        """All of it, in what JSON has."""
        return {
            "faults": self.faults.to_json(),
            "preemption": self.preemption,
            "max_steps": self.max_steps,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Options:
        """The counterpart. Raises ValueError."""
        try:
            return cls(**{**values, "faults": Faults.from_json(values.get("faults", {}))})
        except TypeError as error:
            raise ValueError(f"no options of a simulation: {error}") from None


@dataclass(frozen=True)
class Failure:
    """The smallest failing run that was found, from the first seed that failed.

    Attributes:
        error: what it raised.
        steps: of actors, until it failed.
        faults: that struck.
        replay: the run itself, to be saved.
        runs: how many it took to make it small.
    """

    error: BaseException
    steps: int
    faults: list[Injected]
    replay: Replay
    runs: int

    def __str__(self) -> str:
        seed, error = self.replay.seed, self.replay.error
        struck = ", ".join(f"{kind} of {actor} ({n})" for kind, actor, n in self.faults) or "none"
        broke = error.partition("\n")[0]  # the whole of it is behind the trace, which may be long
        return (
            f"seed {seed}: {broke}\n"
            f"made small in {self.runs} runs: {self.steps} steps, faults: {struck}\n"
            f"{self.replay.trace}\n{error}"
        )


def explore(
    test: Test,
    seeds: Iterable[int] | int = 100,
    options: Options = Options(),
    *,
    target: str | None = None,
    shrinking: int = 500,
) -> Failure | None:
    """Run ``test`` with each seed (an int: that many, from 0), up to the first failure.

    ``target``: how the replay file calls the test, "module:function" unless given. ``shrinking``:
    how many runs may be spent on making the failure smaller; 0 for none. Returns None if no seed
    fails.
    """
    with _one_processor(), contextlib.closing(Baton()) as baton:

        def run(choices: Choices) -> tuple[Scheduler, BaseException | None]:
            return attempt(test, choices, options, baton)

        for seed in range(seeds) if isinstance(seeds, int) else seeds:
            scheduler, raised = run(Choices.seeded(seed))
            if raised is not None:
                name = target or f"{test.__module__}:{getattr(test, '__qualname__', 'test')}"
                return _small(run, seed, scheduler, raised, options, name, shrinking)
    return None


def replay(path: str | os.PathLike[str], test: Test | None = None) -> Failure | None:
    """Run what a file describes, once; None if it does not fail any more.

    ``test``: unless given it is imported by the name in the file. Raises OSError, ValueError.
    """
    record = Replay.load(path)
    if test is None:
        module, _, name = record.target.partition(":")
        try:
            test = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"{record.target} cannot be imported: {error}") from error
    assert test is not None
    options = Options.from_json(record.options)  # its faults may be those that the test declares
    scheduler, raised = attempt(test, Choices.replayed(record.choices), options)
    if raised is None:
        return None
    return _failure(record.seed, scheduler, raised, options, record.target, 0)


def attempt(
    test: Test, choices: Choices, options: Options, baton: Baton | None = None
) -> tuple[Scheduler, BaseException | None]:
    """One run, and what it raised; what a signal raised meanwhile is raised here."""
    scheduler = options.scheduler(choices, baton)
    with _undisturbed():
        system = System("simulated", simulation=scheduler)
        try:
            test(system)
            system.stop()
        except BaseException as error:  # pytest.fail, too, raises what is no Exception
            scheduler.conclude()
            with contextlib.suppress(StopTimeout):  # it is the first error that counts
                system.stop()
            if scheduler.baton.recalls or isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            return scheduler, error
    return scheduler, None


def _small(
    run: Callable[[Choices], tuple[Scheduler, BaseException | None]],
    seed: int,
    scheduler: Scheduler,
    error: BaseException,
    options: Options,
    target: str,
    budget: int,
) -> Failure:
    def fails(values: list[int]) -> Outcome | None:
        tried, raised = run(Choices.replayed(values))
        if type(raised) is not type(error):
            return None
        return Outcome((tried.steps, len(tried.plan.injected)), tried.choices.recorded)

    if budget <= 0:
        return _failure(seed, scheduler, error, options, target, 0)
    shrunk = shrink(scheduler.choices.recorded, fails, budget)
    if shrunk is not None:
        scheduler, again = run(Choices.replayed(shrunk.values))
        if type(again) is type(error):
            return _failure(seed, scheduler, again, options, target, shrunk.runs)
    text = f"{type(error).__name__}: {error}"
    raise ActorError(
        f"seed {seed} failed once and not again, with {text}. Either the test depends on something "
        f"outside of the simulation, or it was interrupted"
    ) from error


def _failure(
    seed: int,
    scheduler: Scheduler,
    error: BaseException,
    options: Options,
    target: str,
    runs: int,
) -> Failure:
    text = f"{type(error).__name__}: {error}"
    record = Replay(
        target,
        seed,
        scheduler.choices.recorded,
        options.to_json(),
        text,
        scheduler.trace.text(),
    )
    return Failure(error, scheduler.steps, scheduler.plan.injected, record, runs)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """No log; no garbage collection, since what it finds when depends on what ran before."""
    logger = logging.getLogger("actors")
    before, logger.disabled = logger.disabled, True
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        logger.disabled = before


@contextlib.contextmanager
def _one_processor() -> Iterator[None]:
    """Stay on the one that this runs on: threads that work one at a time hand over faster there."""
    before = os.sched_getaffinity(0)
    with open("/proc/thread-self/stat", "rb") as file:
        processor = int(file.read().rpartition(b")")[2].split()[36])
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
