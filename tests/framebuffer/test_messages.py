"""What viewers say, and what they may not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.framebuffer.damage import Rect
from examples.framebuffer.messages import (
    CUT_TEXT_LIMIT,
    ENCODINGS_LIMIT,
    ClientMessage,
    KeyEvent,
    Parser,
    PointerEvent,
    SetEncodings,
    SetPixelFormat,
    UpdateRequest,
)
from examples.framebuffer.pixels import NATIVE, PixelFormat
from tests.framebuffer.decoding import Format
from transport import RemoteProtocolError

STREAM = b"".join(
    [
        b"\0\0\0\0" + NATIVE.pack(),
        b"\2\0\0\3" + struct.pack(">3i", 16, -239, 0),
        b"\3\1" + struct.pack(">4H", 1, 2, 3, 4),
        b"\6\0\0\0" + struct.pack(">I", 5) + b"hello",
        b"\4\1\0\0" + struct.pack(">I", 0xFF0D),
        b"\6\0\0\0" + struct.pack(">I", 0),
        b"\5\3" + struct.pack(">2H", 640, 479),
        b"\2\0\0\0",
    ]
)
MESSAGES = [
    SetPixelFormat(NATIVE),
    SetEncodings((16, -239, 0)),
    UpdateRequest(True, Rect(1, 2, 3, 4)),
    KeyEvent(True, 0xFF0D),
    PointerEvent(3, 640, 479),
    SetEncodings(()),
]


@given(st.lists(st.integers(1, 30)))
def test_messages_come_out_however_their_bytes_arrive(cuts: list[int]) -> None:
    parser, rest = Parser(), STREAM
    got: list[ClientMessage] = []
    for cut in cuts:
        got += parser.receive(rest[:cut])
        rest = rest[cut:]
    got += parser.receive(rest)
    assert got == MESSAGES


@pytest.mark.parametrize(
    "said",
    [
        b"\1",
        b"\xff",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\2\0" + struct.pack(">H", ENCODINGS_LIMIT + 1),
        b"\2\0\xff\xff",
        b"\6\0\0\0" + struct.pack(">I", CUT_TEXT_LIMIT + 1),
        b"\6\0\0\0\xff\xff\xff\xff",
    ],
)
def test_what_is_no_message_or_too_long_is_an_error_at_once(said: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(Parser().receive(said))


def test_the_longest_text_is_skipped_and_not_kept() -> None:
    parser = Parser()
    assert not list(parser.receive(b"\6\0\0\0" + struct.pack(">I", CUT_TEXT_LIMIT)))
    for _ in range(CUT_TEXT_LIMIT // 4096):
        assert not list(parser.receive(bytes(4096)))
        assert len(parser._input) == 0
    assert list(parser.receive(b"\4\0\0\0\0\0\0A")) == [KeyEvent(False, 65)]


@pytest.mark.parametrize(
    "wanted",
    [
        Format(bits=24),
        Format(bits=64),
        Format(depth=0),
        Format(bits=16, depth=24, tops=(31, 63, 31), shifts=(11, 5, 0)),
        Format(shifts=(25, 8, 0)),
        Format(shifts=(255, 8, 0)),
        Format(shifts=(8, 8, 0)),
        Format(tops=(65535, 65535, 65535)),
        Format(bits=16, depth=16, tops=(63, 63, 31), shifts=(11, 5, 0)),
        Format(bits=32, depth=24, true=False),
    ],
)
def test_a_pixel_format_that_cannot_be_is_refused(wanted: Format) -> None:
    with pytest.raises(RemoteProtocolError):
        list(Parser().receive(b"\0\0\0\0" + wanted.pack()))


def test_a_pixel_format_survives_its_bytes() -> None:
    for wanted in (Format(16, 15, big=True, tops=(31, 31, 31), shifts=(10, 5, 0)), Format()):
        assert PixelFormat.parse(wanted.pack()).pack() == wanted.pack()
