"""From viewers' keyboards and mice to one keyboard and one mouse."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from examples.framebuffer import protocol as p
from examples.framebuffer.damage import Rect
from examples.framebuffer.input import Held
from examples.framebuffer.keymap import KEYCODES
from examples.framebuffer.messages import KeyEvent, PointerEvent
from examples.framebuffer.surface import packed_mode
from transport import RemoteProtocolError

MODE = packed_mode(640, 480)


def heard(held: Held, viewer: int, *said: KeyEvent | PointerEvent) -> list[p.InEvent]:
    return list(held.events(viewer, said, MODE))


@pytest.mark.parametrize(
    ("keysym", "code"),
    [
        (ord("a"), 30),
        (ord("A"), 30),
        (ord("1"), 2),
        (ord("0"), 11),
        (ord("+"), 13),
        (ord("?"), 53),
        (ord("~"), 41),
        (ord("\\"), 43),
        (ord(" "), 57),
        (0xFF0D, 28),
        (0xFFBE, 59),
        (0xFFC9, 88),
    ],
)
def test_a_keysym_is_a_place_on_the_keyboard(keysym: int, code: int) -> None:
    assert heard(Held(), 1, KeyEvent(True, keysym)) == [p.Key(True, code)]


def test_every_printable_character_has_a_place() -> None:
    assert {chr(n) for n in range(32, 127)} - {chr(n) for n in KEYCODES if n < 127} == set()


def test_a_key_without_a_place_is_nothing() -> None:
    assert heard(Held(), 1, KeyEvent(True, 0xFE50)) == []


def test_buttons_are_keys_and_the_wheel_is_a_step() -> None:
    held = Held()
    assert heard(held, 1, PointerEvent(1, 5, 6)) == [p.Position(5, 6), p.Key(True, p.BTN_LEFT)]
    assert heard(held, 1, PointerEvent(5, 5, 6)) == [p.Position(5, 6), p.Key(True, p.BTN_RIGHT)]
    assert heard(held, 1, PointerEvent(4 + 8, 5, 6)) == [
        p.Position(5, 6, 1),
        p.Key(False, p.BTN_LEFT),
    ]
    assert heard(held, 1, PointerEvent(16, 700, 500)) == [
        p.Position(639, 479, -1),
        p.Key(False, p.BTN_RIGHT),
    ]


def test_what_two_hold_down_is_up_when_both_let_go() -> None:
    held = Held()
    assert heard(held, 1, KeyEvent(True, 97)) == [p.Key(True, 30)]
    assert heard(held, 2, KeyEvent(True, 97)) == []
    assert heard(held, 1, KeyEvent(False, 97)) == []
    assert heard(held, 2, KeyEvent(False, 97)) == [p.Key(False, 30)]


def test_who_disconnects_lets_go_of_everything() -> None:
    held = Held()
    heard(held, 1, KeyEvent(True, 97), PointerEvent(1, 0, 0))
    heard(held, 2, KeyEvent(True, 98))
    assert list(held.gone(1)) == [p.Key(False, 30), p.Key(False, p.BTN_LEFT)]
    assert list(held.gone(1)) == []
    assert list(held.gone(3)) == []


def test_a_key_that_repeats_is_pressed_again_and_one_that_is_up_stays_up() -> None:
    held = Held()
    assert heard(held, 1, KeyEvent(True, 97), KeyEvent(True, 97)) == [p.Key(True, 30)] * 2
    assert heard(held, 1, KeyEvent(False, 97), KeyEvent(False, 97)) == [p.Key(False, 30)]


EVENTS: Iterable[p.InEvent] = [
    p.Key(True, 0x110),
    p.Key(False, 30),
    p.Position(639, 479, -1),
    p.RefreshPeriod(20),
]


@pytest.mark.parametrize("event", EVENTS, ids=str)
def test_an_event_survives_its_forty_bytes(event: p.InEvent) -> None:
    assert len(event.pack()) == p.EVENT_BYTES
    assert p.in_event(event.pack()) == event


@pytest.mark.parametrize(
    "event",
    [
        p.Update(Rect(1, 2, 3, 4)),
        p.Resize(640, 480, 2560, 32, 4096),
        p.Copy(Rect(1, 2, 3, 4), 5, 6, 1 << 40),
    ],
    ids=str,
)
def test_so_does_one_in_the_other_direction(event: p.OutEvent) -> None:
    assert len(event.pack()) == p.EVENT_BYTES
    assert p.out_event(event.pack()) == event


def test_what_is_no_event_is_an_error() -> None:
    for kind in (0, 5, 255):
        with pytest.raises(RemoteProtocolError):
            p.in_event(bytes([kind]) * p.EVENT_BYTES)
        with pytest.raises(RemoteProtocolError):
            p.out_event(bytes([kind]) * p.EVENT_BYTES)
