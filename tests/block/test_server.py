"""The server's manners: many clients, many requests, back-pressure, and its end."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
from pathlib import Path

import pytest

from examples.block import nbd
from tests.block.helpers import Client, Served, children, freeze, serving, serving_here

MiB = 1 << 20


@pytest.fixture(params=[True, False], ids=["structured", "simple"])
def structured(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_every_command_of_a_client(image: Path, structured: bool) -> None:
    with serving_here(image) as served, served.client(structured=structured) as client:
        expected = bytearray(image.read_bytes())
        assert client.read(0, MiB) == expected[:MiB]
        assert client.read(12345, 6789) == expected[12345 : 12345 + 6789]  # unaligned is allowed
        for length, flags in [(1, 0), (512, nbd.CMD_FLAG_FUA), (100_000, 0), (2 * MiB - 100, 0)]:
            data = random.Random(length).randbytes(length)
            assert client.ask(nbd.CMD_WRITE, 777, data=data, flags=flags) == (0, b"")
            expected[777 : 777 + length] = data
            assert client.read(700, length + 100) == expected[700 : 800 + length]
        for flags in (
            0,
            nbd.CMD_FLAG_NO_HOLE,
            nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA,
        ):
            at = 4 * MiB + flags * 100_000
            assert client.ask(nbd.CMD_WRITE_ZEROES, at, 70_001, flags=flags)[0] == 0
            assert client.read(at, 70_001) == bytes(70_001)
        assert client.ask(nbd.CMD_TRIM, 5 * MiB, MiB, flags=nbd.CMD_FLAG_FUA) == (0, b"")
        assert client.ask(nbd.CMD_CACHE, 0, MiB) == (0, b"")
        assert client.ask(nbd.CMD_FLUSH) == (0, b"")
        for command in (nbd.CMD_READ, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES, nbd.CMD_CACHE):
            assert client.ask(command, 0, 0) == (0, b"")  # no bytes are no problem
        client.send(nbd.CMD_DISC)
        assert client.is_closed()
    assert image.read_bytes()[: 4 * MiB] == expected[: 4 * MiB]


def test_one_extent_is_one_extent_when_asked(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(MiB)
        file.seek(MiB // 2)
        file.write(b"x" * 4096)
    hole = nbd_extent(MiB // 2, 3)
    rest = nbd_extent(4096, 0) + nbd_extent(MiB // 2 - 4096, 3)
    with serving_here(image) as served, served.client() as client:
        assert client.ask(nbd.CMD_BLOCK_STATUS, 0, MiB) == (0, hole + rest)
        one = client.ask(nbd.CMD_BLOCK_STATUS, 0, MiB, flags=nbd.CMD_FLAG_REQ_ONE)
        assert one == (0, hole)
        assert client.ask(nbd.CMD_BLOCK_STATUS, MiB // 2 + 1, 1) == (0, nbd_extent(1, 0))


def nbd_extent(length: int, status: int) -> bytes:
    return length.to_bytes(4, "big") + status.to_bytes(4, "big")


def test_more_extents_than_fit_are_told_in_part(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        for at in range(1000):
            file.seek(at * 8192)
            file.write(b"x" * 4096)
        file.truncate(8192 * 1000)
    with serving_here(image) as served, served.client() as client:
        error, extents = client.ask(nbd.CMD_BLOCK_STATUS, 0, 8192 * 1000)
        assert error == 0
        assert extents == (nbd_extent(4096, 0) + nbd_extent(4096, 3)) * 256


def test_a_quick_request_overtakes_a_slow_one(image: Path) -> None:
    """Answers come in the order in which they are ready, each to the cookie of its request."""
    data = image.read_bytes()
    with serving_here(image) as served, served.client() as client:
        cookies = random.Random(3).sample(range(1 << 60), 300)
        wanted = {}
        for number, cookie in enumerate(cookies):
            wanted[cookie] = number * 16384
            client.send(nbd.CMD_READ, wanted[cookie], 4096, cookie=cookie)
            if number % 50 == 0:
                client.send(nbd.CMD_FLUSH, cookie=cookie + 1)
                wanted[cookie + 1] = -1
        while wanted:
            cookie, error, got = client.reply()
            offset = wanted.pop(cookie)
            assert error == 0
            assert got == (data[offset : offset + 4096] if offset >= 0 else b"")


def test_a_back_end_that_hangs_is_replaced_and_the_client_does_not_notice(image: Path) -> None:
    with serving(image) as served, served.client() as client:
        freeze(served.back_end)
        assert client.read(0, 4096) == image.read_bytes()[:4096]
        assert served.present_back_end() != served.back_end


def test_two_clients_see_each_others_writes(image: Path) -> None:
    with serving_here(image) as served, served.client() as one, served.client() as two:
        for number in range(50):
            data = bytes([number]) * 4096
            writer, reader = (one, two) if number % 2 else (two, one)
            assert writer.ask(nbd.CMD_WRITE, 8192, data=data)[0] == 0
            assert reader.read(8192, 4096) == data


def ask_for(client: Client, count: int, length: int) -> None:
    requests = [
        nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_READ, cookie, 0, length)
        for cookie in range(count)
    ]
    client.socket.sendall(b"".join(requests))  # small messages each take room in the socket


def test_a_client_that_does_not_read_does_not_stop_the_others(image: Path) -> None:
    data = image.read_bytes()
    with (
        serving(image, "--buffers", "8") as served,
        served.client() as lazy,
        served.client() as other,
    ):
        ask_for(lazy, 400, MiB)
        for number in range(50):
            assert other.read(number * 4096, MiB) == data[number * 4096 :][:MiB]
        cookies = set()
        for _ in range(400):  # and gets everything once it does
            cookie, error, got = lazy.reply()
            cookies.add(cookie)
            assert (error, got) == (0, data[:MiB])
        assert cookies == set(range(400))


def test_a_write_larger_than_every_socket_buffer_arrives_whole(image: Path) -> None:
    data = random.Random(9).randbytes(2 * MiB)
    with serving_here(image) as served, served.client() as client:
        for _ in range(3):
            assert client.ask(nbd.CMD_WRITE, 1, data=data)[0] == 0
    assert image.read_bytes()[1 : 1 + len(data)] == data


# --- the end --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("placement", ["thread", "process"])
def test_a_signal_ends_it_in_order(image: Path, number: int, placement: str) -> None:
    with serving(image, "--placement", placement) as served, served.client() as client:
        assert client.ask(nbd.CMD_WRITE, 0, data=b"x" * 4096)[0] == 0
        assert served.stop(number) == 0
        assert client.is_closed()
        assert not Path(served.where).exists()
        assert served.errors.read_text() == ""
    assert image.read_bytes()[:4096] == b"x" * 4096


def test_ctrl_c_at_the_terminal_reaches_every_process_and_still_ends_it_in_order(
    image: Path,
) -> None:
    with serving(image) as served, served.client() as client:
        assert client.ask(nbd.CMD_WRITE, 0, data=b"x" * 4096)[0] == 0
        os.killpg(served.process.pid, signal.SIGINT)
        assert served.process.wait(30) == 0
        assert served.errors.read_text() == ""


def test_what_is_in_flight_is_answered_before_it_ends(image: Path) -> None:
    with serving(image) as served, served.client() as client:
        pid = served.back_end
        freeze(pid)
        client.send(nbd.CMD_WRITE, 0, data=b"y" * 4096)
        wait_for_input(served, client)
        served.process.send_signal(signal.SIGTERM)
        os.kill(pid, signal.SIGCONT)
        assert client.reply()[1] == 0
        assert client.is_closed()
        assert served.process.wait(30) == 0
    assert image.read_bytes()[:4096] == b"y" * 4096


def wait_for_input(served: Served, client: Client) -> None:
    """Wait until the server has taken in what the client sent: what it sends next is refused."""
    client.send(99, cookie=99)
    assert client.reply()[:2] == (99, nbd.EINVAL)


def wait_for_reply(client: Client) -> None:
    assert select.select([client.socket], [], [], 20)[0]


def test_a_second_signal_does_not_wait_for_clients(image: Path) -> None:
    with serving(image, "--buffers", "8") as served, served.client() as client:
        ask_for(client, 100, MiB)
        wait_for_reply(client)
        served.process.send_signal(signal.SIGTERM)
        while can_connect(served.where):  # until it has taken the first
            pass
        assert served.stop() == 0


def can_connect(where: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(where) == 0


def test_sigkill_leaves_no_process_and_no_socket(image: Path) -> None:
    """And so no memory: what is granted has no name, and lives as long as a process that has it."""
    with serving(image) as served, served.client() as client:
        assert client.read(0, 512) == image.read_bytes()[:512]
        others = {pid: os.pidfd_open(pid) for pid in children(served.process.pid)}
        assert served.back_end in others
        served.process.kill()
        served.process.wait(30)
        for pid, descriptor in others.items():
            ended = select.select([descriptor], [], [], 10)[0]
            os.close(descriptor)
            assert ended, f"process {pid} is left"
        assert not Path(served.where).exists()
