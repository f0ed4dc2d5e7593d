"""Everything that can be wrong with what the server is given: one clear error, nothing lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from examples.block import nbd
from tests.block.helpers import Client, freeze, need, refused, serving, serving_here
from tests.block.test_handshake import FLAGS, go, option

# Without these, root is refused what everybody is refused.
UNPRIVILEGED = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


def one_line(result: tuple[int, str], code: int, *words: str) -> None:
    assert result[0] == code, result
    assert result[1].count("\n") == 1, result[1]
    for word in words:
        assert word in result[1]


# --- the image ------------------------------------------------------------------------------------


def test_a_missing_image(tmp_path: Path) -> None:
    missing = tmp_path / "missing.img"
    one_line(refused(missing, "--socket", "s"), 2, f"image {missing} does not exist")


def test_a_directory(tmp_path: Path) -> None:
    result = refused(tmp_path, "--socket", str(tmp_path / "s"))
    one_line(result, 2, f"image {tmp_path} is a directory")
    assert not list(tmp_path.iterdir())


def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    result = refused(tmp_path / "pipe", "--socket", str(tmp_path / "s"))
    one_line(result, 2, "neither a file nor a block device")


@pytest.mark.parametrize(("size", "words"), [(0, "is empty"), (1000, "1000 bytes, not a multiple")])
def test_an_image_of_an_impossible_size(tmp_path: Path, size: int, words: str) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(size))
    one_line(refused(image, "--socket", str(tmp_path / "s"), "--placement", "thread"), 2, words)
    one_line(refused(image, "--socket", str(tmp_path / "s")), 2, words)


def test_an_unreadable_image(image: Path) -> None:
    need("setpriv")
    image.chmod(0)
    result = refused(image, "--socket", str(image.parent / "s"), prefix=UNPRIVILEGED)
    one_line(result, 2, "cannot be opened: Permission denied")


def test_a_read_only_image_is_exported_read_only(image: Path) -> None:
    need("setpriv")
    image.chmod(0o444)
    with serving(image, prefix=UNPRIVILEGED) as served, served.client() as client:
        assert served.read_only
        assert client.ask(nbd.CMD_WRITE, data=b"x" * 512)[0] == nbd.EPERM
        assert client.ask(nbd.CMD_TRIM, 0, 512)[0] == nbd.EPERM
        assert client.ask(nbd.CMD_FLUSH)[0] == 0
        assert client.read(0, 512) == image.read_bytes()[:512]


def test_a_writable_image_is_exported_read_only_when_asked(image: Path) -> None:
    before = image.read_bytes()
    with serving(image, "--read-only") as served, served.client() as client:
        assert served.read_only
        assert client.ask(nbd.CMD_WRITE, data=b"x" * 512)[0] == nbd.EPERM
        assert client.ask(nbd.CMD_WRITE_ZEROES, 0, 512)[0] == nbd.EPERM
    assert image.read_bytes() == before


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_an_image_that_is_truncated_while_it_is_served(image: Path, placement: str) -> None:
    with serving(image, "--placement", placement) as served, served.client() as client:
        os.truncate(image, 1 << 20)
        assert client.ask(nbd.CMD_READ, 1 << 20, 4096)[0] == nbd.EIO
        assert client.ask(nbd.CMD_READ, (1 << 20) - 512, 1024)[0] == nbd.EIO
        assert client.read(0, 4096) == image.read_bytes()[:4096]
        assert client.ask(nbd.CMD_WRITE, 2 << 20, data=b"x" * 4096)[0] == 0
        assert client.read(2 << 20, 4096) == b"x" * 4096


def test_a_full_disk_while_it_is_served(tmp_path: Path) -> None:
    """The image is sparse, on a file system of its own that is smaller than it."""
    mount = tmp_path / "mount"
    mount.mkdir()
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "--propagation", "private"]
    script = f"mount -t tmpfs -o size=2m none {mount} && truncate -s 8m {mount}/i && exec $@"
    prefix = [*unshare, "sh", "-c", script.replace("$@", '"$@"'), "sh"]
    probe = [*prefix, "true"]
    if shutil.which("unshare") is None or subprocess.run(probe, check=False).returncode:
        pytest.skip("no file system of its own can be mounted here")
    # The socket is put beside the image's own path, which is why a link stands for it there.
    link = tmp_path / "disk.img"
    link.symlink_to(mount / "i")
    with serving(link, prefix=prefix) as served, served.client() as client:
        errors = [client.ask(nbd.CMD_WRITE, at << 20, data=b"x" * (1 << 20))[0] for at in range(4)]
        assert errors[0] == 0
        assert errors[-1] == nbd.ENOSPC
        assert client.read(0, 4096) == b"x" * 4096


# --- where it listens -----------------------------------------------------------------------------


def test_a_socket_of_a_live_server(image: Path) -> None:
    with serving(image) as served, served.client() as client:
        one_line(refused(image, "--socket", served.where), 2, "live server", served.where)
        assert client.read(0, 512) == image.read_bytes()[:512]


def test_a_socket_of_a_dead_server_is_taken_over(image: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(image.parent / "nbd.sock"))
    with serving(image) as served, served.client() as client:
        assert client.read(0, 512) == image.read_bytes()[:512]


def test_a_file_where_the_socket_should_be(image: Path) -> None:
    before = image.read_bytes()
    one_line(refused(image, "--socket", str(image)), 2, "is not a socket")
    assert image.read_bytes() == before


def test_a_port_that_is_in_use(image: Path) -> None:
    with serving(image, tcp=True) as served:
        one_line(refused(image, "--tcp", served.where), 2, "Address already in use")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--socket", "s", "--tcp", "127.0.0.1:1"],
        ["--tcp", "nowhere"],
        ["--tcp", "127.0.0.1:70000"],
        ["--socket", "s", "--placement", "moon"],
        ["--socket", "s", "--buffers", "none"],
        ["--socket", "/nowhere/at/all"],
    ],
)
def test_a_wrong_command_line(image: Path, options: list[str]) -> None:
    one_line(refused(image, *options), 2)


# --- what clients send ----------------------------------------------------------------------------


@pytest.mark.parametrize("structured", [False, True], ids=["simple", "structured"])
def test_requests_that_are_not_valid_are_answered_and_the_client_goes_on(
    image: Path, structured: bool
) -> None:
    size = image.stat().st_size
    with serving_here(image) as served, served.client(structured=structured) as client:
        assert client.ask(nbd.CMD_READ, size, 512)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_READ, size - 1, 2)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_READ, 2**64 - 512, 512)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_WRITE, size - 512, data=b"x" * 1024)[0] == nbd.ENOSPC
        assert client.ask(nbd.CMD_WRITE_ZEROES, size, 512)[0] == nbd.ENOSPC
        assert client.ask(nbd.CMD_TRIM, size, 512)[0] == nbd.EINVAL
        assert client.ask(99)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_READ, 0, 512, flags=1 << 9)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_WRITE, 0, data=b"x" * 512, flags=1 << 9)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_BLOCK_STATUS, 0, 0)[0] == nbd.EINVAL
        if structured:
            assert client.ask(nbd.CMD_BLOCK_STATUS, 0, 512)[0] == 0
        else:
            assert client.ask(nbd.CMD_BLOCK_STATUS, 0, 512)[0] == nbd.EINVAL
        assert client.read(0, 512) == image.read_bytes()[:512]


def test_requests_that_are_too_large_are_answered_and_the_client_goes_on(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    with image.open("wb") as file:
        file.truncate(8 << 20)
    large = 3 << 20
    with serving_here(image) as served, served.client() as client:
        assert client.ask(nbd.CMD_READ, 0, large)[0] == nbd.EINVAL
        assert client.ask(nbd.CMD_READ, 0, large, flags=nbd.CMD_FLAG_DF)[0] == nbd.EOVERFLOW
        assert client.ask(nbd.CMD_WRITE, 0, data=bytes(large))[0] == nbd.EINVAL
        assert client.read(0, 512) == bytes(512)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        struct.pack(">I", 0xFFFFFFFF),
        FLAGS + b"\0" * 64,
        FLAGS + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_LIST, 0xFFFFFFFF),
        FLAGS + option(nbd.OPT_EXPORT_NAME, b"no such export"),
        FLAGS + option(nbd.OPT_GO, go()) + b"\0" * 28,
        FLAGS + option(nbd.OPT_GO, go()) + os.urandom(1 << 20),
    ],
    ids=["http", "flags", "option", "endless", "export", "request", "noise"],
)
def test_garbage_closes_the_client_that_sent_it_and_nobody_else(
    image: Path, garbage: bytes
) -> None:
    with serving_here(image) as served, served.client() as other:
        with served.client(handshake=False) as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.socket.sendall(garbage)
            assert client.is_closed()
        assert other.read(0, 512) == image.read_bytes()[:512]


@pytest.mark.parametrize("cut", [1, 27, 28, 29, 28 + 100_000])
def test_half_a_request_changes_nothing(image: Path, cut: int) -> None:
    before = image.read_bytes()
    with serving_here(image) as served, served.client() as other:
        with served.client() as client:
            request = nbd.REQUEST.pack(nbd.REQUEST_MAGIC, 0, nbd.CMD_WRITE, 7, 0, 200_000)
            client.socket.sendall((request + b"x" * 200_000)[:cut])
            client.socket.shutdown(socket.SHUT_WR)
            assert client.is_closed()
        assert other.read(0, 200_000) == before[:200_000]
    assert image.read_bytes() == before


def test_a_client_that_drops_its_connection_leaves_no_trace(image: Path) -> None:
    with serving_here(image) as served, served.client() as other:
        for _ in range(20):
            with served.client() as client:
                for cookie in range(100):
                    client.send(nbd.CMD_READ, cookie * 4096, 65536, cookie=cookie)
        assert other.read(0, 1 << 20) == image.read_bytes()[: 1 << 20]


def test_a_client_that_resets_its_connection_leaves_no_trace(image: Path) -> None:
    with serving(image, tcp=True) as served, served.client() as other:
        for _ in range(20):
            with served.client() as client:
                linger = struct.pack("ii", 1, 0)  # close with a reset
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                for cookie in range(50):
                    client.send(nbd.CMD_READ, cookie * 4096, 65536, cookie=cookie)
        assert other.read(0, 1 << 20) == image.read_bytes()[: 1 << 20]


# --- a back end that cannot start any more --------------------------------------------------------


def test_the_server_ends_when_its_back_end_cannot_be_started_again(image: Path) -> None:
    with serving(image, "--intensity", "2") as served, served.client() as client:
        image.unlink()
        os.kill(served.back_end, signal.SIGKILL)
        assert served.process.wait(30) == 1
        assert client.is_closed()
        *before, last = served.errors.read_text().splitlines()
        assert "is gone" in last
        assert "does not exist" in last
        assert all(line.startswith("examples.block: ") for line in before)  # and no traceback
        assert not Path(served.where).exists()


def test_what_waits_for_a_back_end_that_is_given_up_is_told(image: Path) -> None:
    with serving(image, "--intensity", "0") as served:
        client = Client(served.where)
        with client:
            freeze(served.back_end)
            client.send(nbd.CMD_READ, 0, 512)
            os.kill(served.back_end, signal.SIGKILL)
            assert client.reply()[1] == nbd.ESHUTDOWN
            assert client.is_closed()
        assert served.process.wait(30) == 1
