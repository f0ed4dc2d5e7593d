"""The keyboard and the serial line: their requests, what comes in, what goes out."""

from __future__ import annotations

import string
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import chapter9 as c9
from examples.usb import keyboard, serial
from examples.usb import protocol as p
from examples.usb.device import Device
from examples.usb.keyboard import LEFT_SHIFT, Keyboard, key_of
from examples.usb.serial import CAPACITY, Serial
from tests.usb.parts import configured, control, read, write

NOTHING = bytes(8)


def typed(device: Device) -> list[bytes]:
    """Every report that the keyboard has."""
    reports = []
    while (report := read(device, 0x81, 8))[0] == p.OK:
        reports.append(report[1])
    return reports


def test_typing_presses_a_key_and_lets_it_go() -> None:
    device = configured(Keyboard())
    device.input(0, b"aA")
    assert typed(device) == [
        NOTHING,  # its state at first
        bytes((0, 0, 4, 0, 0, 0, 0, 0)),
        NOTHING,
        bytes((LEFT_SHIFT, 0, 4, 0, 0, 0, 0, 0)),
        NOTHING,
    ]


@pytest.mark.parametrize(
    ("character", "key"),
    [
        ("a", (0, 0x04)),
        ("z", (0, 0x1D)),
        ("Z", (LEFT_SHIFT, 0x1D)),
        ("1", (0, 0x1E)),
        ("0", (0, 0x27)),
        ("!", (LEFT_SHIFT, 0x1E)),
        (")", (LEFT_SHIFT, 0x27)),
        ("\n", (0, 0x28)),
        (" ", (0, 0x2C)),
        ("-", (0, 0x2D)),
        ("\\", (0, 0x31)),
        ("|", (LEFT_SHIFT, 0x31)),
        (";", (0, 0x33)),
        ("~", (LEFT_SHIFT, 0x35)),
        ("/", (0, 0x38)),
        ("?", (LEFT_SHIFT, 0x38)),
    ],
)
def test_characters_have_the_keys_of_the_us_layout(character: str, key: tuple[int, int]) -> None:
    assert key_of(character) == key


def test_every_printable_character_has_a_key_of_its_own() -> None:
    characters = set(string.printable) - set("\r\x0b\x0c")
    assert len({key_of(character) for character in characters}) == len(characters)


def test_a_text_that_cannot_be_typed_is_not_typed_in_part() -> None:
    device = configured(Keyboard())
    typed(device)
    with pytest.raises(ValueError, match="no key"):
        device.input(0, b"ab\xe9")
    assert typed(device) == []


def test_a_keyboard_that_was_reset_has_no_key_down() -> None:
    device = configured(Keyboard())
    typed(device)
    device.input(0, b"a")
    read(device, 0x81, 8)
    control(device, c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0))
    assert typed(device) == [NOTHING]


def test_requests_of_a_keyboard() -> None:
    device = configured(Keyboard())
    assert control(device, c9.Setup(0xA1, keyboard.GET_REPORT, 0x0100, 0, 8)) == (p.OK, NOTHING)
    assert control(device, c9.Setup(0xA1, keyboard.GET_REPORT, 0x0300, 0, 8))[0] == p.STALL
    assert control(device, c9.Setup(0x21, keyboard.SET_IDLE, 0x7D00, 0, 0)) == (p.OK, b"")
    assert control(device, c9.Setup(0xA1, keyboard.GET_IDLE, 0, 0, 1)) == (p.OK, b"\x7d")
    assert control(device, c9.Setup(0xA1, keyboard.GET_PROTOCOL, 0, 0, 1)) == (p.OK, b"\1")
    assert control(device, c9.Setup(0x21, keyboard.SET_PROTOCOL, 0, 0, 0)) == (p.OK, b"")
    assert control(device, c9.Setup(0xA1, keyboard.GET_PROTOCOL, 0, 0, 1)) == (p.OK, b"\0")
    assert control(device, c9.Setup(0x21, keyboard.SET_PROTOCOL, 2, 0, 0))[0] == p.STALL


def test_the_lights_are_output() -> None:
    device = configured(Keyboard())
    assert control(device, c9.Setup(0x21, keyboard.SET_REPORT, 0x0200, 0, 1), b"\2") == (p.OK, b"")
    assert device.take_output() == [(0, b"\2")]
    assert device.take_output() == []
    assert control(device, c9.Setup(0x21, keyboard.SET_REPORT, 0x0200, 0, 2), b"\2\2")[0] == p.STALL


def test_the_report_under_way_is_told_also_by_request() -> None:
    device = configured(Keyboard())
    device.input(0, b"a")
    read(device, 0x81, 8)
    _, down = read(device, 0x81, 8)
    assert down[2] == 4
    assert control(device, c9.Setup(0xA1, keyboard.GET_REPORT, 0x0100, 0, 8)) == (p.OK, down)


# --- serial ---------------------------------------------------------------------------------------

NOTIFICATION, IN, OUT = 0x81, 0x82, 0x01


def state(device: Device) -> int | None:
    """The newest SERIAL_STATE."""
    status, data = read(device, NOTIFICATION, 16)
    if status == p.NAK:
        return None
    assert struct.unpack("<BBHHH", data[:8]) == (0xA1, serial.SERIAL_STATE, 0, 0, 2)
    return int.from_bytes(data[8:], "little")


def test_a_loopback_gives_back_what_it_gets() -> None:
    device = configured(Serial(loopback=True))
    assert read(device, IN, 512) == (p.NAK, b"")
    assert write(device, OUT, b"hello") == (p.OK, 5)
    assert device.take_ready() == (IN,)
    assert read(device, IN, 512) == (p.OK, b"hello")
    assert device.take_output() == []


def test_a_read_ends_with_what_there_is_also_on_a_packets_end() -> None:
    device = configured(Serial(loopback=True))
    write(device, OUT, bytes(1024))
    assert read(device, IN, 4096) == (p.OK, bytes(1024))


def test_a_loopback_that_is_full_makes_the_host_wait_and_says_when_it_may_go_on() -> None:
    device = configured(Serial(loopback=True))
    data = bytes(range(256)) * (CAPACITY // 256)
    assert write(device, OUT, data + b"more") == (p.NAK, CAPACITY)
    assert device.take_ready() == ()
    assert read(device, IN, CAPACITY) == (p.OK, data)
    assert device.take_ready() == (OUT,)
    assert write(device, OUT, b"more") == (p.OK, 4)


def test_a_line_to_the_world_has_input_and_output() -> None:
    device = configured(Serial())
    assert state(device) == serial.CARRIER | serial.DATA_SET_READY
    assert state(device) is None
    device.input(0, b"in")
    assert read(device, IN, 64) == (p.OK, b"in")
    assert write(device, OUT, b"out") == (p.OK, 3)
    assert device.take_output() == [(0, b"out")]


def test_a_line_that_comes_too_fast_loses_the_newest_and_says_so() -> None:
    device = configured(Serial())
    device.input(0, b"a" * CAPACITY)
    device.input(0, b"b")
    assert state(device) == serial.CARRIER | serial.DATA_SET_READY | serial.OVERRUN
    assert read(device, IN, CAPACITY) == (p.OK, b"a" * CAPACITY)


def test_the_line_coding_is_kept_until_a_reset() -> None:
    device = configured(Serial())
    get = c9.Setup(0xA1, serial.GET_LINE_CODING, 0, 0, 7)
    first = struct.pack("<IBBB", 9600, 0, 0, 8)
    other = struct.pack("<IBBB", 115200, 0, 0, 8)
    assert control(device, get) == (p.OK, first)
    assert control(device, c9.Setup(0x21, serial.SET_LINE_CODING, 0, 0, 7), other) == (p.OK, b"")
    assert control(device, get) == (p.OK, other)
    assert control(device, c9.Setup(0x21, serial.SET_LINE_CODING, 0, 0, 3), b"abc")[0] == p.STALL
    assert control(device, c9.Setup(0x21, serial.SET_CONTROL_LINE_STATE, 3, 0, 0)) == (p.OK, b"")
    assert control(device, c9.Setup(0x21, serial.SEND_BREAK, 100, 0, 0)) == (p.OK, b"")
    assert control(device, c9.Setup(0x21, 0x77, 0, 0, 0))[0] == p.STALL
    control(device, c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0))
    assert control(device, get) == (p.OK, first)


@given(st.lists(st.binary(min_size=1, max_size=1500), max_size=20), st.integers(1, 4))
def test_a_loopback_keeps_every_byte_in_order(pieces: list[bytes], packets: int) -> None:
    device = configured(Serial(loopback=True))
    for piece in pieces:
        assert write(device, OUT, piece) == (p.OK, len(piece))
    got = b""
    while (found := read(device, IN, 512 * packets))[0] != p.NAK:
        got += found[1]
    assert got == b"".join(pieces)
