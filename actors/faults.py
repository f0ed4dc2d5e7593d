"""What may go wrong in a simulated run, and when it does: pure, all randomness is `Choices`.

`Faults` is what a test asks for, the same for each seed. `FaultPlan` is one run of it: the
scheduler asks it at every opportunity whether the fault strikes, and does what it means:

    kind          opportunity                what happens
    crash_before  actor takes a message      raises InjectedCrash; its handler has not seen it
    crash_after   actor has handled it       raises InjectedCrash; nobody gets the answer
    fail_start    actor is to start          InjectedCrash instead of its on_start
    delay         actor is told something    it arrives up to `max_delay` virtual seconds later
    drop          actor is told something    it does not arrive: a dead letter ("fault")
    duplicate     actor is told something    it arrives twice
    slow          actors can run             time moves to the next timer first: the machine is slow
    stop_clock    time moves to a timer      it moves up to `max_delay` further: all stood still

Rules: an opportunity belongs to the actor in the table (of a tell: to the receiver), and to "clock"
if it is the clock's, which no `targets` restrict. An opportunity that cannot become a fault takes
nothing from the stream of choices. The `script` is exact: it needs no luck, no target and no kind
that was chosen, and does not count for `limit`; but `stop` ends it too.

The kinds of the table are those of this package. Who builds on it `declare`s his own, and asks the
scheduler for them at his own opportunities; what they are is then his to say.

An entry of `injected` is an entry of a script: what struck in a run by chance can be asked for in
a test, as long as nothing else of the run changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal, NamedTuple, get_args

from actors.choices import Choices

FaultKind = Literal[
    "crash_before", "crash_after", "fail_start", "delay", "drop", "duplicate", "slow", "stop_clock"
]
FAULT_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)

_declared: set[str] = set()  # by others, at import


def declare(*kinds: str) -> None:
    """Other layers' kinds, from now on as good as those here. Idempotent."""
    _declared.update(kinds)


def known_kinds() -> tuple[str, ...]:
    """All, in an order that does not depend on who declared his first."""
    return (*FAULT_KINDS, *sorted(_declared.difference(FAULT_KINDS)))


CLOCK = "clock"
"""The name that stands for the clock where another fault has that of an actor."""

_OF_CLOCK = frozenset({"slow", "stop_clock"})


class InjectedCrash(BaseException):
    """The crash of an actor that a simulation wanted.

    No ActorError: an asker must get it as it would get any error of the actor's own. And no
    Exception: an actor that survives a failing ask (``fails_on_ask``) does not survive a crash.
    """


class Injected(NamedTuple):
    """``n``: at which opportunity of that kind for that actor, from 1."""

    kind: str
    actor: str
    n: int


@dataclass(frozen=True)
class Faults:
    """What may go wrong in a run.

    Args:
        kinds: those that may strike by chance, in any order; `FAULT_KINDS` unless given, or of
            those that another layer has declared.
        rate: the probability at each opportunity.
        limit: how many may strike by chance in one run.
        max_delay: of the kinds "delay" and "stop_clock", in virtual seconds.
        targets: names of actors, or patterns of fnmatch; none: every actor that has a supervisor.
        swarm: each run has only some of the kinds, at least one, chosen by its seed. Runs differ
            more, so that what one kind hides from another is found.
        script: (kind, name or pattern, n): strikes at the n-th opportunity of that kind for each
            actor of that name. For these alone, say ``kinds=()``.

    Raises:
        ValueError: something is not as said here.
    """

    kinds: Iterable[str] = FAULT_KINDS
    rate: float = 0.05
    limit: int = 3
    max_delay: float = 1.0
    targets: Iterable[str] = ()
    swarm: bool = True
    script: Iterable[tuple[str, str, int]] = ()

    def __post_init__(self) -> None:
        kinds = _items("kinds", self.kinds)
        for kind in kinds:
            _check_kind(kind)
        targets = _items("targets", self.targets)
        for target in targets:
            _check_pattern(target)
        if not _is_number(self.rate) or not 0 <= self.rate <= 1:
            raise ValueError(f"rate is a probability, from 0 to 1, not {self.rate!r}")
        if type(self.limit) is not int or self.limit < 0:
            raise ValueError(f"limit is a number of faults, 0 or more, not {self.limit!r}")
        if not _is_number(self.max_delay) or not 0 <= self.max_delay < math.inf:
            raise ValueError(f"max_delay is in seconds, 0 or more, not {self.max_delay!r}")
        if type(self.swarm) is not bool:
            raise ValueError(f"swarm is True or False, not {self.swarm!r}")
        script = tuple(_entry(entry) for entry in _items("script", self.script))
        object.__setattr__(self, "kinds", tuple(kind for kind in known_kinds() if kind in kinds))
        object.__setattr__(self, "targets", targets)
        object.__setattr__(self, "script", script)

    def to_json(self) -> dict[str, Any]:
        """All of it, in what JSON has."""
        return {
            "kinds": list(self.kinds),
            "rate": self.rate,
            "limit": self.limit,
            "max_delay": self.max_delay,
            "targets": list(self.targets),
            "swarm": self.swarm,
            "script": [list(entry) for entry in self.script],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Faults:
        """The counterpart; what is left out is as usual. Raises ValueError."""
        if not isinstance(values, Mapping):
            raise ValueError(f"faults are an object, not {values!r:.80}")  # noqa: TRY004
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ValueError(f"faults have {', '.join(known)}; no {name!r:.80}")
        return cls(**values)


class FaultPlan:
    """The faults of one run. Which kinds it has is its first choices."""

    def __init__(self, faults: Faults, choices: Choices) -> None:
        self._choices = choices
        self._rate = faults.rate
        self._max_delay = faults.max_delay
        self._left = faults.limit
        self._targets = tuple(faults.targets)
        self._script = tuple(faults.script)
        self._scripted = frozenset(kind for kind, _, _ in self._script)
        self._chosen = frozenset[str]()
        if faults.rate > 0 and faults.limit > 0:
            self._chosen = frozenset(_choose(tuple(faults.kinds), choices, swarm=faults.swarm))
        self._live = self._chosen | self._scripted  # the kinds that can still strike
        self._points: dict[tuple[str, str], _Point] = {}
        self.injected: list[Injected] = []

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that may strike by chance in this run."""
        return tuple(kind for kind in known_kinds() if kind in self._chosen)

    def strikes(self, kind: str, actor_name: str, supervised: bool = True) -> bool:
        """Whether this opportunity is a fault. ``supervised``: whether the actor is restarted."""
        if kind not in self._live:
            return False
        point = self._points.get((kind, actor_name))
        if point is None:
            point = self._points[kind, actor_name] = self._point(kind, actor_name)
        point.count += 1
        if point.count not in point.script:
            target = supervised if point.target is None else point.target
            if not target or self._left == 0 or not self._choices.chance(self._rate):
                return False
            self._left -= 1
            if self._left == 0:
                self._live = self._scripted
        self.injected.append(Injected(kind, actor_name, point.count))
        return True

    def delay(self) -> float:
        """By how many virtual seconds a "delay" or a "stop_clock" delays: a choice."""
        return self._max_delay * self._choices.fraction()

    def stop(self) -> None:
        """No more faults in this run: now it must come to a good end."""
        self._live = frozenset()

    def _point(self, kind: str, actor_name: str) -> _Point:
        script = frozenset(
            n
            for scripted, pattern, n in self._script
            if scripted == kind and _matches(actor_name, pattern)
        )
        target: bool | None = None
        if kind not in self._chosen:
            target = False
        elif kind in _OF_CLOCK:
            target = True
        elif self._targets:
            target = any(_matches(actor_name, pattern) for pattern in self._targets)
        return _Point(script, target)


class _Point:
    """One kind of fault and one actor. ``target``: None: if it is supervised."""

    __slots__ = ("count", "script", "target")

    def __init__(self, script: frozenset[int], target: bool | None) -> None:
        self.script = script
        self.target = target
        self.count = 0


def _choose(kinds: tuple[str, ...], choices: Choices, *, swarm: bool) -> list[str]:
    if not swarm or not kinds:
        return list(kinds)
    sure = kinds[choices.pick(len(kinds))]
    return [sure, *(kind for kind in kinds if kind != sure and choices.chance(0.5))]


def _matches(name: str, pattern: str) -> bool:
    """Equal is enough: a name may hold what would be a pattern."""
    return name == pattern or fnmatchcase(name, pattern)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _items(what: str, value: Any) -> tuple[Any, ...]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{what} is a list, not {value!r:.80}")  # noqa: TRY004
    return tuple(value)


def _check_kind(kind: Any) -> None:
    if kind not in known_kinds():
        raise ValueError(f"a fault is one of {', '.join(known_kinds())}, not {kind!r:.80}")


def _check_pattern(pattern: Any) -> None:
    if not isinstance(pattern, str) or not pattern:
        raise ValueError(f"a target is the name of an actor or a pattern, not {pattern!r:.80}")


def _entry(entry: Any) -> tuple[str, str, int]:
    if not isinstance(entry, (list, tuple)) or len(entry) != 3:
        raise ValueError(f"an entry of the script is (kind, name or pattern, n), not {entry!r:.80}")
    kind, pattern, n = entry
    _check_kind(kind)
    _check_pattern(pattern)
    if type(n) is not int or n < 1:
        raise ValueError(f"the n of an entry of the script counts from 1, and is not {n!r:.80}")
    return kind, pattern, n
