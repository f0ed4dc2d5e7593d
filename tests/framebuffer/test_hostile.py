"""Viewers and drawers that do not behave lose their own connection, and nobody else's."""

from __future__ import annotations

import logging
import select
import struct
import threading
from typing import Any

import pytest

from examples.framebuffer import display
from examples.framebuffer.drawer import Drawer, Screen
from tests.framebuffer.helpers import HEIGHT, WIDTH, Painter, drawn, shown

HELLO = b"RFB 003.008\n\1\1"


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"RFB 003.008\n\5",
        HELLO + b"\xff",
        HELLO + b"\2\0\xff\xff",
        HELLO + b"\6\0\0\0\xff\xff\xff\xff",
        HELLO + b"\0\0\0\0" + bytes(16),
        HELLO + b"\3\0" + struct.pack(">4H", 0, 0, 0, 10),
        HELLO + b"\3\0" + struct.pack(">4H", 10, 10, WIDTH, HEIGHT),
        HELLO + b"\3\1" + struct.pack(">4H", 65535, 65535, 65535, 65535),
    ],
    ids=str,
)
def test_what_is_not_the_protocol_closes_its_connection_alone(said: bytes) -> None:
    with shown() as screen, screen.viewer() as viewer:
        with screen.viewer(handshake=False) as hostile:
            hostile.send(said)
            assert hostile.closed()
        viewer.press("1")
        viewer.until(drawn("1"))


def test_a_viewer_that_does_not_finish_its_handshake_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with shown() as screen, screen.viewer() as viewer:
        monkeypatch.setattr(display, "HANDSHAKE_SECONDS", 0.1)
        with screen.viewer(handshake=False) as silent:
            assert silent.closed()
        viewer.until(drawn())


def test_a_viewer_that_never_reads_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "STALL_SECONDS", 0.2)
    size = (1500, 1000)  # more than all the buffers between us hold
    with (
        shown(size=size) as screen,
        screen.viewer(receive_buffer=4096) as lazy,
        screen.viewer() as viewer,
    ):
        lazy.ask(incremental=False)
        viewer.until(drawn("", *size))
        wait_for_hang_up(lazy.socket.fileno())
        viewer.ask(incremental=False)
        viewer.update()


def wait_for_hang_up(fd: int) -> None:
    """Return when the other side has closed, although there is much to read."""
    poller = select.poll()
    poller.register(fd, 0)  # POLLHUP and POLLERR alone
    poller.poll()


def test_asking_for_formats_without_end_costs_no_memory() -> None:
    """A colour map is long; who asks for a thousand gets one."""
    form = struct.pack(">BBBBHHHBBB3x", 8, 8, 0, 0, 0, 0, 0, 0, 0, 0)
    with shown() as screen, screen.viewer() as hostile, screen.viewer() as viewer:
        hostile.send((b"\0\0\0\0" + form) * 1000)
        viewer.press("1")
        viewer.until(drawn("1"))


def test_keys_that_do_not_exist_are_passed_over() -> None:
    with shown() as screen, screen.viewer() as viewer:
        for keysym in (0, 0xFFFFFFFF, 0x01000041, 0xFE50):
            viewer.send(struct.pack(">BBxxI", 4, 1, keysym))
        viewer.press("1")
        viewer.until(drawn("1"))


class Liar(Drawer):
    """Puts one word of its header right, after the mode has been set."""

    def on_start(self, screen: Screen, word: int, value: int) -> None:
        screen.set_mode(64, 48)
        words: Any = screen.surface._words
        words[word] = value


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0, 0),
        (2, 0),
        (2, 1 << 40),
        (3, 16385),
        (3, 5000),
        (4, 4),
        (4, 258),
        (4, 1 << 63),
        (5, 24),
        (6, 0),
        (6, 4098),
        (6, 1 << 20),
    ],
)
def test_a_surface_that_is_none_is_refused(word: int, value: int) -> None:
    refused = threading.Event()

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "is refused" in record.getMessage():
                refused.set()

    ear = Ear()
    logging.getLogger("examples.framebuffer").addHandler(ear)
    try:
        with shown(drawing=False) as screen, screen.viewer() as viewer:
            screen.machine.start("liar", Liar, word, value, placement="thread", restart="temporary")
            refused.wait()
            screen.machine.start("painter", Painter, WIDTH, HEIGHT, 32, placement="thread")
            viewer.until(drawn())
    finally:
        logging.getLogger("examples.framebuffer").removeHandler(ear)
