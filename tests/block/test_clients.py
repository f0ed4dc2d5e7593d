"""Clients that we did not write, on a served disk: both placements, and under a killer.

Under the killer the back end gets SIGKILL every 200 ms; each client goes on until it has lived
through several, and must not notice: no error, every byte right.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.block.helpers import Killer, Served, need, run, serving

ENOUGH_KILLS = 4
SYSTEM_PYTHON = "/usr/bin/python3"

MANY_IN_FLIGHT = """
import random, sys, nbd
rng, block, rounds = random.Random(7), 4096, int(sys.argv[2])
client = nbd.NBD()
client.connect_uri(sys.argv[1])
blocks = client.get_size() // block

def settle(cookies):
    assert client.aio_in_flight() > 300, client.aio_in_flight()
    while client.aio_in_flight() > 0:
        client.poll(-1)
    for cookie in cookies:
        assert client.aio_command_completed(cookie)  # raises what the command ended in

for _ in range(rounds):
    wanted = {at: rng.randbytes(block) for at in rng.sample(range(blocks), 400)}
    sent = {at: nbd.Buffer.from_bytearray(bytearray(data)) for at, data in wanted.items()}
    settle([client.aio_pwrite(buffer, at * block) for at, buffer in sent.items()])
    client.flush()
    buffers = {at: nbd.Buffer(block) for at in wanted}
    settle([client.aio_pread(buffer, at * block) for at, buffer in buffers.items()])
    for at, buffer in buffers.items():
        assert bytes(buffer.to_bytearray()) == wanted[at], at
client.shutdown()
"""


@pytest.fixture(params=["thread", "process", "killed"])
def served(image: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Served, Killer | None]]:
    """A server, and the killer of its back end if it has one."""
    if request.param == "killed":
        with serving(image, "--intensity", "1000") as server, Killer(server) as killer:
            yield server, killer
    else:
        with serving(image, "--placement", request.param) as server:
            yield server, None


def enough(killer: Killer | None) -> bool:
    return killer is None or killer.kills >= ENOUGH_KILLS


def test_nbdcopy_both_ways(served: tuple[Served, Killer | None], tmp_path: Path) -> None:
    need("nbdcopy")
    server, killer = served
    copy, fresh = tmp_path / "copy.img", tmp_path / "fresh.img"
    seed = 0
    while True:
        run("nbdcopy", server.uri, copy)
        assert copy.read_bytes() == server.image.read_bytes()
        seed += 1
        fresh.write_bytes(random.Random(seed).randbytes(server.size))
        run("nbdcopy", "--flush", fresh, server.uri)
        assert fresh.read_bytes() == server.image.read_bytes()
        if enough(killer):
            return


def test_qemu_img_convert_and_compare(served: tuple[Served, Killer | None], tmp_path: Path) -> None:
    need("qemu-img")
    server, killer = served
    copy = tmp_path / "copy.qcow2"
    while True:
        run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", server.uri, copy)
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.uri, copy)
        run("qemu-img", "convert", "-n", "-f", "qcow2", "-O", "raw", copy, server.uri)
        run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", server.image, copy)
        if enough(killer):
            return


def test_qemu_io_writes_zeroes_discards_flushes_and_reads(
    served: tuple[Served, Killer | None],
) -> None:
    need("qemu-io")
    server, killer = served
    commands = [
        "write -P 5 1M 300k",
        "write -P 7 3M 64k",
        "write -z 3M 32k",
        "write -z -u 3104k 16k",
        "discard 1300k 4k",
        "write -f -P 9 5M 4k",
        "flush",
        "aio_write -P 11 6M 512k",
        "aio_write -P 12 7M 512",
        "aio_flush",
        "read -P 5 1M 276k",
        "read -P 0 3M 48k",
        "read -P 7 3120k 16k",
        "read -P 9 5M 4k",
        "read -P 11 6M 512k",
        "read -P 12 7M 512",
    ]
    while True:
        output = run(
            "qemu-io", "-f", "raw", "-t", "none", *(f"-c{text}" for text in commands), server.uri
        )
        assert "failed" not in output
        if enough(killer):
            return


def test_fio_verifies_what_it_wrote(served: tuple[Served, Killer | None], tmp_path: Path) -> None:
    need("fio")
    server, killer = served
    while True:
        output = run(
            "fio",
            "--name=verify",
            "--ioengine=nbd",
            f"--uri={server.uri}",
            "--rw=randrw",
            "--bsrange=512-128k",
            "--iodepth=32",
            "--size=16m",
            "--loops=3",
            "--fsync=64",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            f"--aux-path={tmp_path}",
        )
        assert "err= 0" in output
        if enough(killer):
            return


def test_400_requests_in_flight(served: tuple[Served, Killer | None]) -> None:
    probe = subprocess.run([SYSTEM_PYTHON, "-c", "import nbd"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("libnbd's Python binding is not installed: apt-get install python3-libnbd")
    server, killer = served
    while True:
        run(SYSTEM_PYTHON, "-c", MANY_IN_FLIGHT, server.uri, "3" if killer is None else "6")
        if enough(killer):
            return


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_nbdinfo_sees_what_is_offered(image: Path, tcp: bool) -> None:
    need("nbdinfo")
    with serving(image, "--export", "disk", tcp=tcp) as server:
        offered = run("nbdinfo", server.uri)
        listed = run("nbdinfo", "--list", server.uri)
        uri = server.uri.replace("///", "///disk") if not tcp else f"{server.uri}/disk"
        assert str(server.size) in run("nbdinfo", "--size", uri)
    for line in [
        "using structured packets",
        f"export-size: {server.size}",
        "base:allocation",
        "is_read_only: false",
        "can_cache: true",
        "can_df: true",
        "can_fast_zero: true",
        "can_flush: true",
        "can_fua: true",
        "can_multi_conn: true",
        "can_trim: true",
        "can_zero: true",
        "block_size_minimum: 1",
        "block_size_preferred: 4096",
    ]:
        assert line in offered
    assert 'export="disk"' in listed


def test_nbdinfo_maps_holes(tmp_path: Path) -> None:
    need("nbdinfo")
    image = tmp_path / "sparse.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
        file.seek(1 << 20)
        file.write(b"x" * (1 << 20))
    with serving(image) as server:
        lines = run("nbdinfo", "--map", server.uri).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["0", str(1 << 20), "3"],
        [str(1 << 20), str(1 << 20), "0"],
        [str(2 << 20), str(6 << 20), "3"],
    ]
