"""The trace: one line for each event, the same in every process; and the replay file."""

from __future__ import annotations

import enum
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.errors import ActorDead
from actors.fd import Fd
from actors.message import Message
from actors.ref import Ref
from actors.signals import Exit, ExitReason
from actors.system import System
from actors.trace import EVENTS, VERSION, Event, Replay, Trace, describe
from tests.actors.parts import Recorder, Say


class Color(enum.IntEnum):
    RED = 3


class Word(enum.StrEnum):
    YES = "yes"


class Loud(str):
    """As a message with it arrives, it is a plain str."""

    __slots__ = ()

    def __str__(self) -> str:
        return self.upper()

    __repr__ = __str__


class Shade(enum.Enum):
    DARK = 1


class Order(Message):
    item: str
    count: int
    parts: list[Any]


class Nothing(Message):
    pass


class Plain:
    """Its repr is its address."""


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


VALUES: dict[str, tuple[Any, ...]] = {
    "starts": (),
    "receives": (Say("x"), "main"),
    "answers": (None, "main"),
    "tells": ("worker", Say("x")),
    "asks": ("worker", Say("x")),
    "timer": (Say("x"),),
    "ready": (1,),
    "ends": (ExitReason("normal"),),
    "fault": ("crash_before",),
    "preempted": (),
}

LINES = """\
     0    0.000 s  a           is to start
     1    0.500 s  a           receives Say('x') from main
     2    1.000 s  a           answers None to main
     3    1.500 s  a           tells worker Say('x')
     4    2.000 s  a           asks worker Say('x')
     5    2.500 s  a           is due for Say('x')
     6    3.000 s  a           finds what it watches ready: 1
     7    3.500 s  a           has ended: normal
     8    4.000 s  a           fault: crash_before
     9    4.500 s  a           is preempted"""


def test_every_event_has_its_line() -> None:
    trace = Trace()
    for step, (what, values) in enumerate(VALUES.items()):
        trace.step = step
        trace.add(step / 2, "a", what, *values)
    assert list(VALUES) == list(EVENTS)
    assert trace.text() == LINES
    assert trace.lines() == LINES.split("\n")
    assert len(trace) == len(EVENTS)


def test_an_event_keeps_what_it_was_made_of() -> None:
    trace = Trace()
    trace.step = 12
    trace.add(0.5, "worker", "receives", Say("x"), "main")
    assert trace.events == [Event(12, 0.5, "worker", "receives", ("Say('x')", "main"))]
    assert trace.events[0].line == "    12    0.500 s  worker      receives Say('x') from main"


def test_columns_that_are_too_narrow_lose_nothing() -> None:
    trace = Trace()
    trace.step = 12345678
    trace.add(123456.7891, "a-very-long-name", "preempted")
    assert trace.text() == "12345678  123456.789 s  a-very-long-name is preempted"


def test_an_empty_trace_is_empty() -> None:
    assert (Trace().text(), Trace().lines(), len(Trace())) == ("", [], 0)


@pytest.mark.parametrize("what", EVENTS)
@pytest.mark.parametrize("by", [-1, 1])
def test_the_number_of_values_is_checked(what: str, by: int) -> None:
    count = len(VALUES[what])
    if count + by < 0:
        return
    with pytest.raises(TypeError, match=f"'{what}' has {count} values, not {count + by}"):
        Trace().add(0.0, "a", what, *["x"] * (count + by))


def test_an_event_that_is_not_in_the_table_is_refused() -> None:
    with pytest.raises(KeyError, match="sleeps"):
        Trace().add(0.0, "a", "sleeps")


def test_braces_in_a_value_mean_nothing() -> None:
    trace = Trace()
    trace.add(0.0, "a", "tells", "{}", Say("{0} {1!r} {"))
    assert trace.lines()[0].endswith("tells {} Say('{0} {1!r} {')")


def test_what_its_receiver_does_to_a_message_later_is_not_seen() -> None:
    trace, parts = Trace(), [1, 2]
    trace.add(0.0, "a", "tells", "b", Order("bolt", 2, parts))
    parts.append(3)
    assert trace.lines()[0].endswith("tells b Order('bolt', 2, [1, 2])")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", r"two\nlines"),
        ("a\r\x1b[31m\x00\u2028", r"a\r\x1b[31m\x00\u2028"),
        ("<object at 0x7f00deadBEEF>", "<object>"),
        ("\udc80", r"\udc80"),
        ("größer", "größer"),
    ],
)
def test_one_event_is_one_line_wherever_its_text_comes_from(text: str, shown: str) -> None:
    trace = Trace()
    trace.add(0.0, text, "fault", text)
    trace.add(0.0, "a", "ends", ValueError(text))
    trace.add(0.0, "a", "ends", ExitReason("error", "ValueError", text))
    assert trace.lines()[0].endswith(f"  {shown:<11} fault: {shown}")
    assert trace.lines()[1].endswith(f"has ended: ValueError: {shown}")
    assert "\n" not in trace.lines()[2]
    assert "0x" not in trace.lines()[2]


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "None"),
        (True, "True"),
        (-7, "-7"),
        (0.1, "0.1"),
        (math.inf, "inf"),
        ("it's", '"it\'s"'),
        ("a\nb", r"'a\nb'"),
        ("<X at 0x7f12>", "'<X>'"),
        (b"\x00a", r"b'\x00a'"),
        ([], "[]"),
        ([1, [2, ()]], "[1, [2, ()]]"),
        ((1, "a"), "(1, 'a')"),
        ({"b": 1, "a": [None]}, "{'b': 1, 'a': [None]}"),  # in the order that it has
        (Color.RED, "3"),
        (Word.YES, "'yes'"),
        (Loud("yes"), "'yes'"),
        (Nothing(), "Nothing()"),
        (Say("x"), "Say('x')"),
        (Order("bolt", 2, [Say("y"), Color.RED]), "Order('bolt', 2, [Say('y'), 3])"),
        (ExitReason("shutdown"), "shutdown"),
        (ExitReason("error", "ValueError", "x", "a traceback"), "ValueError: x"),
        (ValueError("x"), "ValueError: x"),
        (ValueError(), "ValueError"),
        (ActorDead("b has ended"), "ActorDead: b has ended"),
        (Mute(), "Mute: (its text cannot be had: RuntimeError)"),
        (Plain(), "<Plain>"),
        (Shade.DARK, "<Shade>"),
        ({3, 1, 2}, "<set>"),
        (Plain, "<type>"),
        ([Plain(), {1: Plain}], "[<Plain>, {1: <type>}]"),
    ],
)
def test_a_value_is_shown_by_what_it_holds(value: object, shown: str) -> None:
    assert describe(value) == shown


def test_an_actor_is_shown_by_its_name_and_a_descriptor_by_nothing() -> None:
    with System() as system, open(os.devnull) as file:
        ref = system.start(Recorder, name="worker")
        fd = Fd(os.dup(file.fileno()))
        assert describe(Order("x", 1, [ref, fd])) == "Order('x', 1, [<worker>, <Fd>])"
        assert describe(system.named("door")) == "<door>"
        exit_report = Exit(ref, "worker", ExitReason("error", "KeyError", "1", "a traceback"))
        assert describe(exit_report) == "Exit(<worker>, 'worker', KeyError: 1)"
        fd.close()
        assert isinstance(ref, Ref)


@pytest.mark.parametrize(
    ("value", "limit", "shown"),
    [
        ("x" * 100, 10, "'xxxxxx..."),
        ("x" * 8, 10, "'xxxxxxxx'"),
        ("x" * 9, 10, "'xxxxxx..."),
        (list(range(1000)), 12, "[0, 1, 2,..."),
        ([1, 2, 3], 9, "[1, 2, 3]"),
        ([1, 2, 3], 8, "[1, 2..."),
        (Say("y" * 50), 12, "Say('yyyy..."),
        ({"k" * 50: 1}, 9, "{'kkkk..."),
        ({"k": "v" * 50}, 9, "{'k': ..."),
        (123456, 3, "..."),
        (b"z" * 50, 8, "b'zzz..."),
        (ValueError("w" * 50), 15, "ValueError: ..."),
    ],
)
def test_what_is_too_long_is_cut(value: object, limit: int, shown: str) -> None:
    assert describe(value, limit) == shown


def test_each_value_of_an_event_is_cut_by_itself() -> None:
    trace = Trace(limit=10)
    trace.add(0.0, "n" * 20, "receives", Say("x" * 20), "m" * 20)
    line = f"     0    0.000 s  {'n' * 7 + '...':<11} receives Say('xx... from mmmmmmm..."
    assert trace.text() == line


def test_a_text_that_fits_exactly_is_not_cut() -> None:
    trace = Trace(limit=10)
    trace.add(0.0, "a", "tells", "m" * 10, "n" * 11)
    assert trace.text().endswith("tells mmmmmmmmmm nnnnnnn...")


def test_a_limit_without_room_for_the_dots_is_refused() -> None:
    Trace(limit=3)
    with pytest.raises(ValueError, match="the limit is 3 characters or more, not 2"):
        Trace(limit=2)


def test_an_address_is_left_out_before_anything_is_cut() -> None:
    """Or the length of an address, which differs, would say where."""
    short, long = (f"<X at 0x{'7' * digits}> and more text" for digits in (8, 12))
    for limit in range(3, 60):
        assert describe(short, limit) == describe(long, limit)
        assert describe(ValueError(short), limit) == describe(ValueError(long), limit)
        one, other = Trace(limit), Trace(limit)
        one.add(0.0, short, "fault", short)
        other.add(0.0, long, "fault", long)
        assert one.text() == other.text()


def test_what_will_be_cut_is_not_rendered_to_its_end() -> None:
    class Counting(Exception):
        shown = 0

        def __str__(self) -> str:
            Counting.shown += 1
            return "x"

    describe([Counting() for _ in range(100_000)], 60)
    assert 3 < Counting.shown < 10


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=9),
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.text(max_size=5), inner, max_size=5),
        st.lists(inner, max_size=3).map(tuple),
        st.lists(inner, max_size=3).map(lambda held: Order("x", 1, held)),
    ),
    max_leaves=20,
)


@given(NESTED, st.integers(3, 200))
def test_a_cut_text_is_the_start_of_the_whole(value: object, limit: int) -> None:
    whole, cut = describe(value, 1 << 20), describe(value, limit)
    assert cut == (whole if len(whole) <= limit else whole[: limit - 3] + "...")
    assert cut.isprintable()


@given(NESTED)
def test_a_value_that_python_can_show_is_shown_as_python_does(value: object) -> None:
    """But for tuples of one, and messages."""
    if "Order" not in (shown := describe(value, 1 << 20)) and ",)" not in repr(value):
        assert shown == repr(value)


SCRIPT = """
from actors.signals import ExitReason
from actors.trace import Trace
from tests.actors.parts import Say

class Plain:
    pass

trace = Trace()
for step in range(3):
    trace.step = step
    trace.add(step / 3, "a", "tells", "b", Say("x"))
    trace.add(step / 3, "a", "answers", [{"q", "r", "s"}, Plain(), {"k": Plain}], "b")
    trace.add(step / 3, "b", "ends", ValueError(Plain(), 1))
    try:
        raise KeyError(Plain())
    except KeyError as error:
        trace.add(step / 3, "b", "ends", ExitReason.of(error))
print(trace.text())
"""


def test_identical_runs_have_identical_texts_in_every_process() -> None:
    texts = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            cwd=Path(__file__).parents[2],
            check=True,
            capture_output=True,
        ).stdout
        for hashes in ("0", "1", "77")
    }
    assert len(texts) == 1
    (text,) = texts
    assert len(text.splitlines()) == 12
    assert not re.search(rb"0x[0-9a-f]", text)


# --- the replay file ------------------------------------------------------------------------------

REPLAY = Replay(
    target="tests.actors.test_x:test_y",
    seed=42,
    choices=[0, 1, 0, 2],
    options={"faults": {"rate": 0.05, "kinds": ["drop"]}, "max_steps": 100, "note": None},
    error="AssertionError: lost",
    trace=LINES,
)


def test_a_replay_comes_back_as_it_was(tmp_path: Path) -> None:
    REPLAY.save(tmp_path / "replay.json")
    assert Replay.load(tmp_path / "replay.json") == REPLAY
    assert Replay.load(str(tmp_path / "replay.json")) == REPLAY


def test_the_file_is_for_people_to_read(tmp_path: Path) -> None:
    Replay("a:b", 7, [0, 1], {"faults": {"rate": 0.5}}, "Error: größer", "line 1\nline 2").save(
        tmp_path / "replay.json"
    )
    assert (
        (tmp_path / "replay.json").read_bytes().decode()
        == """\
{
  "version": 1,
  "target": "a:b",
  "error": "Error: größer",
  "trace": [
    "line 1",
    "line 2"
  ],
  "seed": 7,
  "options": {"faults": {"rate": 0.5}},
  "choices": [0, 1]
}
"""
    )


def test_saving_again_replaces_the_file(tmp_path: Path) -> None:
    Replay("a:b", 1, [0] * 1000, {}, "", "").save(tmp_path / "replay.json")
    REPLAY.save(tmp_path / "replay.json")
    assert Replay.load(tmp_path / "replay.json") == REPLAY


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(
    target=st.text(min_size=1),
    seed=st.integers(0),
    choices=st.lists(st.integers(0)),
    options=st.dictionaries(st.text(), JSON, max_size=4),
    error=st.text(),
    trace=st.text(),
)
def test_whatever_is_in_a_replay_comes_back(
    tmp_path_factory: pytest.TempPathFactory, **parts: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "any-replay.json"
    replay = Replay(**parts)
    replay.save(path)
    assert Replay.load(path) == replay


def test_a_text_that_is_no_unicode_comes_back_too(tmp_path: Path) -> None:
    replay = Replay("a:b", 1, [], {}, "x\udc80", "\udcff\n\u2028")
    replay.save(tmp_path / "replay.json")
    assert Replay.load(tmp_path / "replay.json") == replay


@pytest.mark.parametrize(
    ("part", "value", "text"),
    [
        ("target", "", "target is a name, not ''"),
        ("target", None, "target is a name, not None"),
        ("seed", -1, "seed is a number, 0 or more, not -1"),
        ("seed", True, "seed is a number"),
        ("seed", 1.0, "seed is a number"),
        ("choices", "12", "choices is a list of numbers, 0 or more, not '12'"),
        ("choices", [1, -1], "choices is a list"),
        ("choices", [True], "choices is a list"),
        ("choices", [1.0], "choices is a list"),
        ("choices", {}, "choices is a list"),
        ("options", [1], r"options is an object of JSON, not \[1\]"),
        ("error", 1, "error is a text, not 1"),
    ],
)
def test_a_part_that_is_not_what_it_should_be_is_refused(
    part: str, value: Any, text: str, tmp_path: Path
) -> None:
    parts = {**vars(REPLAY), part: value}
    with pytest.raises(ValueError, match=text):
        Replay(**parts)
    with pytest.raises(ValueError, match=f"replay.json is no replay file: {text}"):
        load({"version": VERSION, **parts, "trace": []}, tmp_path)


@pytest.mark.parametrize(
    "options", [{1: 2}, {"a": (1,)}, {"a": {2: 3}}, {"a": math.nan}, {"a": [math.inf]}, {"a": {1}}]
)
def test_options_that_json_would_change_are_refused(options: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match="options is an object of JSON"):
        Replay("a:b", 1, [], options, "", "")


def test_a_trace_is_a_text() -> None:
    with pytest.raises(ValueError, match="trace is a text, not"):
        Replay("a:b", 1, [], {}, "", ["a line"])  # type: ignore[arg-type]


GOOD = {"version": VERSION, **vars(REPLAY), "trace": []}


def load(parts: object, folder: Path) -> Replay:
    """What comes of a file with that in it: bytes as they are, anything else as JSON."""
    path = folder / "replay.json"
    path.write_bytes(parts if isinstance(parts, bytes) else json.dumps(parts).encode())
    return Replay.load(path)


@pytest.mark.parametrize("key", ["target", "seed", "choices", "options", "error", "trace"])
def test_a_missing_part_is_named(key: str, tmp_path: Path) -> None:
    load(GOOD, tmp_path)
    with pytest.raises(ValueError, match=f"is no replay file: {key} is missing"):
        load({name: value for name, value in GOOD.items() if name != key}, tmp_path)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({**GOOD, "version": 2}, "its version is 2; only 1 can be read"),
        ({**GOOD, "version": True}, "its version is True; only 1"),
        ({**GOOD, "version": 1.0}, "its version is 1.0; only 1"),
        ({**GOOD, "version": "1"}, "its version is '1'; only 1"),
        ({}, "its version is None; only 1"),
        ({**GOOD, "speed": 1}, "nothing of it is called 'speed'"),
        ({**GOOD, "trace": "a\nb"}, r"trace is a list of lines, not 'a\\nb'"),
        ({**GOOD, "trace": [1]}, r"trace is a list of lines, not \[1\]"),
        ({**GOOD, "options": {"a": math.nan}}, "options is an object of JSON"),
        ([], r"it holds \[\], and no object"),
        (None, "it holds None, and no object"),
        (b"", "Expecting value"),
        (b'{"version": 1, ', "Expecting property name"),
        (b"\xff\xfe", "'utf-8' codec"),
        (b"[" * 100_000, "recursion"),
        (b'{"version": ' + b"1" * 5000 + b"}", "Exceeds the limit"),
    ],
)
def test_what_is_no_replay_file_is_told_apart(parts: object, text: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"replay.json is no replay file: .*{text}"):
        load(parts, tmp_path)


def test_a_file_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Replay.load(tmp_path / "replay.json")
    with pytest.raises(FileNotFoundError):
        REPLAY.save(tmp_path / "nowhere" / "replay.json")
