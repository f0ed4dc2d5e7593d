"""What is wrong with a topology, before anything of it starts. Pure, but for the imports of
`resolve`, which are what starting it would do first.

Each rule is a function that gives the problems that it has found; `check` puts them together. A
name that is wrong is one problem, not one for each thing that follows from it.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from actors import Message, MessageError, encode
from hypervisor import HypervisorError, load, name_of
from transport import connect
from xenidc.errors import Problem, TopologyError
from xenidc.topology import Domain, Topology, Workload

PLACEMENTS = ("process", "thread", "simulated")
"""What a topology can be run in."""

_OWN_PLACEMENTS = ("process", "thread")
_RESTARTS = ("permanent", "transient", "temporary")
_STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")
_NAME = re.compile(r"[A-Za-z0-9_][-A-Za-z0-9_]{0,62}")
_LEAST_BUFFERS = 16 << 10


class _Arguments(Message):
    """What start arguments travel in, to see whether they can."""

    values: list[Any]


def check(topology: Topology, placement: str = "process") -> None:
    """Raises TopologyError if it cannot be run, in that placement."""
    problems = [problem for rule in _RULES for problem in rule(topology)]
    problems += _confined_threads(topology, placement)
    if not problems:  # else what has a wrong name would be looked for
        problems += resolve(topology)
    if problems:
        raise TopologyError(problems)


def _empty(topology: Topology) -> Iterator[Problem]:
    if not topology.domains:
        yield Problem(topology.place, f"topology {topology.name!r} has no domains")
    members = {domain.group for domain in topology.domains}
    for group in topology.groups:
        if group.name not in members:
            yield Problem(group.place, f"group {group.name!r} has no domains")


def _names(topology: Topology) -> Iterator[Problem]:
    spaces: tuple[list[tuple[str, Any]], ...] = (
        [
            *(("domain", each) for each in topology.domains),
            *(("group", each) for each in topology.groups),
        ],
        [("channel", each) for each in topology.channels],
        [("option", each) for each in topology.options],
    )
    for space in spaces:
        first: dict[str, Any] = {}
        for kind, each in sorted(space, key=lambda pair: pair[1].place):
            if not isinstance(each.name, str) or not _NAME.fullmatch(each.name):
                text = "letters, digits, '-' and '_', at most 63"
                yield Problem(each.place, f"the name of a {kind} is {text}, not {each.name!r:.80}")
            elif each.name in first:
                before = first[each.name].place.line
                text = f"there is a {each.name!r} already, from line {before}"
                yield Problem(each.place, f"{kind} {each.name!r}: {text}")
            first.setdefault(each.name, each)
    if not _NAME.fullmatch(topology.name):
        yield Problem(topology.place, f"a topology cannot be called {topology.name!r:.80}")


def _words(topology: Topology) -> Iterator[Problem]:
    for domain in topology.domains:
        what = f"domain {domain.name!r}"
        yield from _word(domain, what, "restart", domain.restart, _RESTARTS)
        if domain.placement is not None:
            yield from _word(domain, what, "placement", domain.placement, _OWN_PLACEMENTS)
    for group in topology.groups:
        what = f"group {group.name!r}"
        yield from _word(group, what, "strategy", group.strategy, _STRATEGIES)
        yield from _rate(group, what, group.intensity, group.period)
    options = topology.machine
    yield from _rate(topology, "the machine", options["intensity"], options["period"])
    for name in ("watchdog", "grace"):
        if not _is_number(options[name]) or options[name] <= 0:
            text = f"the machine: {name} is seconds, more than 0, not {options[name]!r}"
            yield Problem(topology.place, text)


def _rate(each: Any, what: str, intensity: Any, period: Any) -> Iterator[Problem]:
    if type(intensity) is not int or intensity < 0:
        yield Problem(each.place, f"{what}: intensity is a number, 0 or more, not {intensity!r}")
    if not _is_number(period) or period <= 0:
        yield Problem(each.place, f"{what}: period is seconds, more than 0, not {period!r}")


def _word(each: Any, what: str, field: str, word: Any, words: tuple[str, ...]) -> Iterator[Problem]:
    if word not in words:
        text = f"{what}: {field} is one of {', '.join(words)}, not {word!r:.80}"
        yield Problem(each.place, text + _meant(word, words))


def _arguments(topology: Topology) -> Iterator[Problem]:
    for domain in topology.domains:
        try:
            encode(_Arguments(list(domain.args)))
        except (MessageError, TypeError, ValueError) as error:
            yield Problem(domain.place, f"domain {domain.name!r}: its arguments: {error}")


def _needs(topology: Topology) -> Iterator[Problem]:
    known = {domain.name: domain for domain in topology.domains}
    complete = True
    for domain in topology.domains:
        for word, names in (("needs", domain.needs), ("uses", domain.uses)):
            for name in names:
                if name not in known:
                    complete = False
                    text = f"domain {domain.name!r} {word} {name!r}, which is no domain"
                    yield Problem(domain.place, text + _meant(name, known))
    if not complete:
        return
    if (cycle := _cycle({domain.name: domain.before for domain in known.values()})) is not None:
        text = "these domains need each other: " + " -> ".join([*cycle, cycle[0]])
        yield Problem(known[cycle[0]].place, text)
        return
    order = {name: at for at, name in enumerate(known)}
    for domain in topology.domains:
        for name in domain.before:
            if domain.group == known[name].group is not None and order[name] > order[domain.name]:
                text = f"needs {name!r}, which its group starts after it: declare that one first"
                yield Problem(domain.place, f"domain {domain.name!r} {text}")
    between: dict[str, list[str]] = {}
    for domain in topology.domains:
        unit, needs = _unit(domain), [_unit(known[name]) for name in domain.before]
        between.setdefault(unit, []).extend(need for need in needs if need != unit)
    if (cycle := _cycle(between)) is not None:
        text = "these groups need each other, and one has to be started first: "
        first = next(each for each in topology.domains if cycle[0] in (each.group, each.name))
        yield Problem(first.place, text + " -> ".join([*cycle, cycle[0]]))


def _channels(topology: Topology) -> Iterator[Problem]:
    served = {domain.name for domain in topology.domains}
    allowed = [
        name
        for name, parameter in inspect.signature(connect).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for channel in topology.channels:
        what = f"channel {channel.name!r}"
        if channel.to not in served:
            text = f"{what} goes to {channel.to!r}, which no domain serves"
            yield Problem(channel.place, text + _meant(channel.to, served))
        for option, value in channel.options.items():
            if option not in allowed:
                text = f"{what} has no option {option!r}; there are {', '.join(allowed)}"
                yield Problem(channel.place, text)
            elif (wrong := _wrong_size(option, value)) is not None:
                yield Problem(channel.place, f"{what}: {wrong}, not {value!r:.80}")


def _wrong_size(option: str, value: Any) -> str | None:
    if option in ("slots", "buffer_bytes"):
        least = 1 if option == "slots" else _LEAST_BUFFERS
        if type(value) is not int or value < least or value & (value - 1):
            return f"{option} is a power of two, {least} or more"
    elif option in ("timeout", "spin") and (not _is_number(value) or value < 0):
        return f"{option} is seconds, 0 or more"
    return None


def _uses(topology: Topology) -> Iterator[Problem]:
    known = {channel.name for channel in topology.channels}
    for workload in topology.workloads:
        for name in workload.channels:
            if name not in known:
                text = f"workload {workload.name!r} uses {name!r}, which is no channel"
                yield Problem(workload.place, text + _meant(name, known))


def _confined_threads(topology: Topology, placement: str) -> Iterator[Problem]:
    for domain in topology.domains:
        confined = not (domain.cpus is None and domain.harden is None)
        if confined and placement_of(domain, placement) == "thread":
            text = f"domain {domain.name!r} is placed on a thread, which cannot have cpus or harden"
            yield Problem(domain.place, text)


def placement_of(domain: Domain, placement: str) -> str:
    """Where that domain runs if the topology is run in ``placement``."""
    return placement if domain.placement is None or placement == "simulated" else domain.placement


def resolve(topology: Topology) -> Iterator[Problem]:
    """Import what it names."""
    for domain in topology.domains:
        what = f"domain {domain.name!r}"
        try:
            load(name_of(domain.program))
        except Exception as error:  # noqa: BLE001 - a module raises what it likes
            yield Problem(domain.place, f"{what}: {_program(domain.program)}: {_one_line(error)}")
            continue
    for workload in topology.workloads:
        try:
            inspect.signature(function_of(workload)).bind(*workload.channels)
        except Exception as error:  # noqa: BLE001 - as above
            text = f"workload {workload.name!r}: {_one_line(error)}"
            yield Problem(workload.place, text)


def function_of(workload: Workload) -> Callable[..., object]:
    """The function itself. Raises what the import does; TypeError: it is none."""
    function: Any = workload.function
    if isinstance(function, str):
        if ":" not in function:
            raise TypeError(f"{function!r} is not of the form package.module:function")
        module, _, name = function.partition(":")
        function = getattr(__import__(module, fromlist=["*"]), name)
    if not callable(function):
        raise TypeError(f"{function!r:.80} is no function")
    return function  # type: ignore[no-any-return]


def start_order(topology: Topology) -> list[list[Domain]]:
    """The domains in the order of their start: each list is a group, or one that is in none.

    As they were declared, but for what others need, which comes before them. Of a topology that has
    been checked.
    """
    units: dict[str, list[Domain]] = {}
    for domain in topology.domains:
        units.setdefault(_unit(domain), []).append(domain)
    unit_of = {domain.name: _unit(domain) for domain in topology.domains}
    ordered: dict[str, list[Domain]] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for need in [need for domain in units[name] for need in domain.before]:
                if unit_of[need] != name:
                    add(unit_of[need])
            ordered[name] = units[name]

    for name in units:
        add(name)
    return list(ordered.values())


def _unit(domain: Domain) -> str:
    """What is started at once."""
    return domain.group or domain.name


def _cycle(edges: Mapping[str, Iterable[str]]) -> list[str] | None:
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str] | None:
        if name in path:
            return path[path.index(name) :]
        if name not in done:
            path.append(name)
            for other in edges[name]:
                if (found := visit(other)) is not None:
                    return found
            path.pop()
            done.add(name)
        return None

    return next((found for name in edges if (found := visit(name)) is not None), None)


def _meant(word: Any, words: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(words), 1) if isinstance(word, str) else []
    return f"; did you mean {close[0]!r}?" if close else ""


def _program(program: type | str) -> str:
    return program if isinstance(program, str) else program.__qualname__


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    known = isinstance(error, (HypervisorError, ImportError, AttributeError, TypeError))
    return text if known and text else f"{type(error).__name__}: {text}"


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


_RULES: tuple[Callable[[Topology], Iterable[Problem]], ...] = (
    _empty,
    _names,
    _words,
    _arguments,
    _needs,
    _channels,
    _uses,
)
