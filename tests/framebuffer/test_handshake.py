"""The way in: versions, security types, passwords."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.framebuffer.des import vnc_response
from examples.framebuffer.handshake import CLOSE, GREETING, READY, Handshake
from transport import RemoteProtocolError

CHALLENGE = bytes(range(16))
PASSWORD = b"secret"
GOOD = vnc_response(PASSWORD, CHALLENGE)
OK = bytes(4)
FAILED = b"\0\0\0\1"


def test_the_greeting_is_the_newest_version() -> None:
    assert GREETING == b"RFB 003.008\n"


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"RFB 003.003\n", b"\0\0\0\1"),
        (b"RFB 003.005\n", b"\0\0\0\1"),
        (b"RFB 003.007\n\1", b"\1\1"),
        (b"RFB 003.008\n\1", b"\1\1" + OK),
        (b"RFB 003.889\n\1", b"\1\1" + OK),
        (b"RFB 004.001\n\1", b"\1\1" + OK),
    ],
)
def test_everybody_gets_in_where_there_is_no_password(said: bytes, answer: bytes) -> None:
    handshake = Handshake(None, CHALLENGE)
    assert handshake.receive(said) == answer
    assert handshake.receive(b"\1the first message") == b""
    assert handshake.outcome == READY
    assert handshake.leftover == b"the first message"


@pytest.mark.parametrize(
    ("version", "offer"), [(b"3", b"\0\0\0\2"), (b"7", b"\1\2"), (b"8", b"\1\2")]
)
def test_who_knows_the_password_gets_in(version: bytes, offer: bytes) -> None:
    handshake = Handshake(PASSWORD, CHALLENGE)
    choice = b"" if version == b"3" else b"\2"
    assert handshake.receive(b"RFB 003.00" + version + b"\n" + choice) == offer + CHALLENGE
    assert handshake.receive(GOOD) == OK
    assert handshake.receive(b"\0") == b""
    assert handshake.outcome == READY


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        (b"3", FAILED),
        (b"7", FAILED),
        (b"8", FAILED + b"\0\0\0\x0ewrong password"),
    ],
)
@pytest.mark.parametrize("response", [bytes(16), GOOD[:15] + b"\0", vnc_response(b"", CHALLENGE)])
def test_who_does_not_is_told_and_closed(version: bytes, answer: bytes, response: bytes) -> None:
    handshake = Handshake(PASSWORD, CHALLENGE)
    handshake.receive(b"RFB 003.00" + version + b"\n" + (b"" if version == b"3" else b"\2"))
    assert handshake.receive(response) == answer
    assert handshake.outcome == CLOSE
    assert handshake.why == "wrong password"
    assert handshake.receive(b"\1") == b""
    assert handshake.outcome == CLOSE


@pytest.mark.parametrize(
    ("password", "said"),
    [
        (None, b"GET / HTTP/1.1\r\n"),
        (None, b"RFB 003.00x\n"),
        (None, b"RFB 003.008\r"),
        (None, b"RFB 002.009\n"),
        (None, b"RFB 003.002\n"),
        (None, b"RFB 003.008\n\2"),
        (None, b"RFB 003.008\n\0"),
        (PASSWORD, b"RFB 003.008\n\1"),
        (PASSWORD, b"RFB 003.007\n\x10"),
    ],
)
def test_what_is_no_handshake_ends_it(password: bytes | None, said: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Handshake(password, CHALLENGE).receive(said)


@given(st.lists(st.integers(1, 20)))
def test_it_does_not_matter_how_the_bytes_arrive(cuts: list[int]) -> None:
    said = b"RFB 003.008\n\2" + GOOD + b"\1rest"
    whole, parts = Handshake(PASSWORD, CHALLENGE), Handshake(PASSWORD, CHALLENGE)
    answer, got = whole.receive(said), b""
    for cut in cuts:
        got += parts.receive(said[:cut])
        said = said[cut:]
    got += parts.receive(said)
    assert got == answer
    assert parts.outcome == READY
    assert whole.leftover == b"rest"
