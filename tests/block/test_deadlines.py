"""What the server does about clients that take their time; its deadlines are short here."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.block import nbd, server
from tests.block.helpers import Client, Here, serving_here
from tests.block.test_server import ask_for, wait_for_reply

MiB = 1 << 20
LONG = 60.0  # seconds: not in this test


@pytest.fixture
def here(image: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Here]:
    """A server without deadlines, except those that a test shortens."""
    for name in ("HANDSHAKE_SECONDS", "STALL_SECONDS", "DRAIN_SECONDS"):
        monkeypatch.setattr(server, name, LONG)
    with serving_here(image) as here:
        yield here


def test_a_client_that_does_not_finish_its_handshake_is_closed(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HANDSHAKE_SECONDS", 0.1)
    with Client(here.where) as quick, Client(here.where, handshake=False) as silent:
        assert silent.is_closed()
        assert len(quick.read(0, 4096)) == 4096


def test_a_client_that_holds_everything_is_closed_when_others_wait(
    here: Here, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that do not read hold the buffers that a third needs, until the deadline."""
    monkeypatch.setattr(server, "STALL_SECONDS", 0.1)
    with Client(here.where) as one, Client(here.where) as two, Client(here.where) as other:
        for lazy in (one, two):
            ask_for(lazy, 30, 2 * MiB)
            wait_for_reply(lazy)
        assert other.read(0, 2 * MiB) == image.read_bytes()[: 2 * MiB]


def test_what_a_lost_client_held_is_there_for_the_others_at_once(here: Here, image: Path) -> None:
    with Client(here.where) as other:
        with Client(here.where) as one, Client(here.where) as two:
            for lazy in (one, two):
                ask_for(lazy, 30, 2 * MiB)
                wait_for_reply(lazy)
            other.send(nbd.CMD_READ, 0, 2 * MiB)
        assert other.reply()[2] == image.read_bytes()[: 2 * MiB]


def test_half_a_payload_does_not_hold_a_buffer_for_ever(
    here: Here, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STALL_SECONDS", 0.1)
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            client = stack.enter_context(Client(here.where))
            client.socket.sendall(
                nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, 1, 0, 2 * MiB) + b"x"
            )
        with Client(here.where) as other:
            assert other.read(0, MiB) == image.read_bytes()[:MiB]


def test_clients_that_do_not_read_do_not_hold_up_the_end_for_ever(
    here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.1)
    with Client(here.where) as client:
        ask_for(client, 100, MiB)
        wait_for_reply(client)
        assert here.drain() == "normal"


def test_draining_an_idle_server_ends_it(here: Here) -> None:
    with Client(here.where) as client:
        assert here.drain() == "normal"
        assert client.is_closed()


def test_one_client_too_many_waits_until_another_has_gone(here: Here) -> None:
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(Client(here.where, handshake=False))
            for _ in range(server.CLIENT_LIMIT)
        ]
        for client in clients:
            client.receive(nbd.GREETING.size)
        late = stack.enter_context(Client(here.where, handshake=False))
        late.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            late.receive(1)
        late.socket.settimeout(20)
        clients[0].socket.shutdown(socket.SHUT_RDWR)
        assert len(late.receive(nbd.GREETING.size)) == nbd.GREETING.size
