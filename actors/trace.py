"""What happened in a simulated run, line by line, and the file that such a run is repeated from.

    step     time    actor       what
      12    0.500 s  worker      receives Say('x') from main

Rule: identical runs have identical texts, byte by byte, in any process. So a value is shown by what
it holds, never by its repr: no addresses, no order of a set, no wall-clock, no descriptor numbers,
no tracebacks. What has no content of its own is shown by its type; an address in somebody's text is
left out. One event is one line: line ends, and what cannot be printed, are escaped.

What happens is a table, `EVENTS`. The values of an event are rendered when it is added: a message
may hold a list that its receiver changes later. Long ones are cut.

Pure, but for `Replay.save` and `Replay.load`.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from actors.message import Message
from actors.ref import Ref
from actors.signals import ExitReason

EVENTS: dict[str, str] = {
    "starts": "is to start",
    "receives": "receives {} from {}",  # message, sender
    "answers": "answers {} to {}",  # value or exception, asker
    "tells": "tells {} {}",  # receiver, message
    "asks": "asks {} {}",  # receiver, message
    "timer": "is due for {}",  # message
    "ready": "finds what it watches ready: {}",  # number of the watch
    "ends": "has ended: {}",  # exception or ExitReason
    "fault": "fault: {}",  # kind
    "preempted": "is preempted",
}
"""Name of an event -> what its line says, with {} for each of its values, in their order."""

VERSION = 1
"""Of the replay file."""

_LIMIT = 120  # characters of one value
_CUT = "..."
_ARITY = {what: text.count("{}") for what, text in EVENTS.items()}
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Event(NamedTuple):
    """One line of a trace. ``time``: virtual seconds. ``values``: rendered, as `EVENTS` says."""

    step: int
    time: float
    actor: str
    what: str
    values: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        text = EVENTS[self.what].format(*self.values)
        return f"{self.step:>6}  {self.time:>7.3f} s  {self.actor:<11} {text}"


class Trace:
    """Append-only. ``limit``: of the characters of one value; what is longer ends in dots.

    ``step``: of the events to come; whoever runs the simulation counts it up.
    """

    def __init__(self, limit: int = _LIMIT) -> None:
        if limit < len(_CUT):
            raise ValueError(f"the limit is {len(_CUT)} characters or more, not {limit}")
        self.events: list[Event] = []
        self.step = 0
        self._limit = limit

    def __len__(self) -> int:
        return len(self.events)

    def add(self, time: float, actor: str, what: str, *values: object) -> None:
        """Append an event of `EVENTS`. A str is shown without quotes, all else as by `describe`.

        Raises KeyError if there is no such event, TypeError if it has another number of values.
        """
        if len(values) != _ARITY[what]:
            raise TypeError(f"{what!r} has {_ARITY[what]} values, not {len(values)}")
        limit = self._limit
        shown = tuple(
            _cut(_bare(value, limit), limit) if type(value) is str else describe(value, limit)
            for value in values
        )
        self.events.append(Event(self.step, time, _cut(_bare(actor, limit), limit), what, shown))

    def lines(self) -> list[str]:
        """One for each event."""
        return [event.line for event in self.events]

    def text(self) -> str:
        """All lines, without a line end after the last."""
        return "\n".join(self.lines())


def describe(value: object, limit: int = _LIMIT) -> str:
    """One line of at most ``limit`` characters that says what ``value`` holds.

    A message is Kind(field, field), an actor <name>, an exception "Type: text".
    """
    return _cut(_shown(value, limit), limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(_CUT)] + _CUT


def _bare(text: str, room: int) -> str:
    if " at 0x" in text:
        text = _ADDRESS.sub("", text)
    text = text[: room + 1]
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(char: str) -> str:
    return char if char.isprintable() else char.encode("unicode_escape").decode()


# All that render share one rule: they return the whole, or more than ``room`` characters of it.


def _shown(value: Any, room: int) -> str:
    kind = type(value)
    show = _show_of.get(kind)
    if show is None:
        found = (show for base, show in _SHOW if issubclass(kind, base))
        show = _show_of[kind] = next(found, _opaque)
    return show(value, room)


def _opaque(value: Any, _: int) -> str:
    return f"<{type(value).__name__}>"


def _message(value: Message, room: int) -> str:
    held = (getattr(value, name) for name, _ in value.__nodes__())
    return _joined(f"{type(value).__name__}(", held, ")", room)


def _text(value: str, room: int) -> str:
    text = str.__str__(value)  # of an enum, its value
    if " at 0x" in text:
        text = _ADDRESS.sub("", text)
    return repr(text[:room])


def _exception(value: BaseException, room: int) -> str:
    name = type(value).__name__
    try:
        text = _bare(str(value), room)
    except Exception as error:  # noqa: BLE001 - a __str__ that raises must not cost us the trace
        text = f"(its text cannot be had: {type(error).__name__})"
    return f"{name}: {text}" if text else name


def _pair(value: tuple[Any, Any], room: int) -> str:
    key = _shown(value[0], room)
    return f"{key}: {_shown(value[1], max(0, room - len(key)))}"


def _joined(
    start: str,
    values: Iterable[Any],
    end: str,
    room: int,
    show: Callable[[Any, int], str] = _shown,
) -> str:
    parts: list[str] = []
    used = len(start)
    for value in values:
        if used > room + 1:
            break
        parts.append(show(value, max(0, room - used)))
        used += len(parts[-1]) + 2
    return start + ", ".join(parts) + end


_Show = Callable[[Any, int], str]
_SHOW: tuple[tuple[type | tuple[type, ...], _Show], ...] = (
    (ExitReason, lambda value, room: _bare(str(value), room)),
    (Message, _message),
    (str, _text),
    ((bool, type(None)), lambda value, _: repr(value)),
    (int, lambda value, _: int.__repr__(value)),
    (float, lambda value, _: float.__repr__(value)),
    (bytes, lambda value, room: repr(value[:room])),
    (Ref, lambda value, room: f"<{_bare(value.name, room)}>"),
    (list, lambda value, room: _joined("[", value, "]", room)),
    (tuple, lambda value, room: _joined("(", value, ")", room)),
    (dict, lambda value, room: _joined("{", value.items(), "}", room, _pair)),
    (BaseException, _exception),
)
"""The first that fits; a subclass of int, str, ... (an enum) is shown as the plain value."""

_show_of: dict[type, _Show] = {}  # what was found there before


@dataclass(frozen=True)
class Replay:
    """A failed run, as a file to repeat it from and to read. Raises ValueError for what is neither.

    target: what ran: the id of a test, or "module:function".
    seed: from which the choices were drawn before they were shrunk.
    choices: `Choices.recorded`.
    options: of the run, its faults among them; what JSON has.
    error: why it failed.
    trace: `Trace.text`.
    """

    target: str
    seed: int
    choices: list[int]
    options: dict[str, Any]
    error: str
    trace: str

    def __post_init__(self) -> None:
        for name, (fits, what) in _PARTS.items():
            value = getattr(self, name)
            if not fits(value):
                raise ValueError(f"{name} is {what}, not {describe(value)}")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write JSON, with the trace on top, one line each. Raises OSError."""
        parts = {
            "version": VERSION,
            "target": self.target,
            "error": self.error,
            "trace": self.trace.split("\n"),
            "seed": self.seed,
            "options": self.options,
            "choices": self.choices,
        }
        lines = ",\n".join(f"  {_json(key)}: {_json_part(key, parts[key])}" for key in parts)
        # A lone surrogate becomes the escape that JSON has for it too.
        with open(path, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            file.write(f"{{\n{lines}\n}}\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Replay:
        """The counterpart. Raises OSError; ValueError if that is no replay file of this version."""
        try:
            with open(path, encoding="utf-8") as file:
                return cls._from_json(json.load(file))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{os.fspath(path)} is no replay file: {error}") from error

    @classmethod
    def _from_json(cls, parts: Any) -> Replay:
        if not isinstance(parts, dict):
            raise ValueError(f"it holds {describe(parts)}, and no object")  # noqa: TRY004
        version = parts.pop("version", None)
        if version != VERSION or type(version) is not int:
            raise ValueError(f"its version is {describe(version)}; only {VERSION} can be read")
        names = [field.name for field in fields(cls)]
        for name in names:
            if name not in parts:
                raise ValueError(f"{name} is missing")
        for name in parts:
            if name not in names:
                raise ValueError(f"nothing of it is called {describe(name)}")
        trace = parts["trace"]
        if not isinstance(trace, list) or not all(isinstance(line, str) for line in trace):
            raise ValueError(f"trace is a list of lines, not {describe(trace)}")
        return cls(**{**parts, "trace": "\n".join(trace)})


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _json_part(name: str, value: Any) -> str:
    if name != "trace":
        return _json(value)
    lines = ",\n".join(f"    {_json(line)}" for line in value)
    return f"[\n{lines}\n  ]"


def _is_json(value: Any) -> bool:
    """Whether it comes back from JSON as it was."""
    kind = type(value)
    if kind is list:
        return all(_is_json(item) for item in value)
    if kind is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return kind in (str, int, bool, type(None)) or (kind is float and math.isfinite(value))


_PARTS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "target": (lambda value: isinstance(value, str) and value != "", "a name"),
    "seed": (lambda value: type(value) is int and value >= 0, "a number, 0 or more"),
    "choices": (
        lambda value: (
            isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
        ),
        "a list of numbers, 0 or more",
    ),
    "options": (lambda value: isinstance(value, dict) and _is_json(value), "an object of JSON"),
    "error": (lambda value: isinstance(value, str), "a text"),
    "trace": (lambda value: isinstance(value, str), "a text"),
}
"""Part of a replay -> whether a value fits, and what fits in words."""
