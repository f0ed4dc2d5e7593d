"""What the tests of the served disk share: a server to run, a killer, real clients, a raw one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest

from actors import Ref, System
from examples.block import nbd
from examples.block.disk import Disk
from examples.block.handshake import Export
from examples.block.server import Drain, NbdServer
from hypervisor import Machine, UnixListener
from tests.block.test_handshake import FLAGS, contexts, go, option, replies
from transport import connect

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "nbdinfo": "libnbd-bin",
    "nbdcopy": "libnbd-bin",
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "fio": "fio",
    "setpriv": "util-linux",
}
_SERVING = re.compile(r"serving .* \((\d+) bytes(, read-only)?\) on (.*), back end (\d+)\n")


def need(*programs: str) -> None:
    """Skip the test, naming the Debian package, where a program is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {PACKAGES[program]}")


def run(*command: str | os.PathLike[str], timeout: float = 50) -> str:
    """Run a program to its end; its output. It must succeed, whatever it says if not."""
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}"
    return result.stdout


def serve_command(image: Path, *options: str | os.PathLike[str]) -> list[str]:
    return [sys.executable, "-m", "examples.block", "serve", str(image), *map(str, options)]


def refused(image: Path, *options: str, prefix: Sequence[str] = ()) -> tuple[int, str]:
    """The exit code and the standard error of a server that cannot begin."""
    result = subprocess.run(
        [*prefix, *serve_command(image, *options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not result.stdout
    return result.returncode, result.stderr


def children(pid: int) -> list[int]:
    """The pids of the processes that any thread of ``pid`` has started."""
    found: list[int] = []
    for task in os.listdir(f"/proc/{pid}/task"):
        found += map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def freeze(pid: int) -> None:
    """SIGSTOP the process; returns when every thread of it has stopped, which takes a moment."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    while any(
        (tasks / task / "stat").read_text().rpartition(")")[2].split()[0] != "T"
        for task in os.listdir(tasks)
    ):
        os.sched_yield()


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    image: Path
    where: str
    size: int
    read_only: bool
    back_end: int
    errors: Path

    @property
    def uri(self) -> str:
        if self.where.startswith("/"):
            return f"nbd+unix:///?socket={self.where}"
        return f"nbd://{self.where}"

    def present_back_end(self) -> int | None:
        """The pid of the process that has the image open now; None while it restarts."""
        for child in children(self.process.pid):
            with contextlib.suppress(OSError):  # it has ended since
                for number in os.listdir(f"/proc/{child}/fd"):
                    if os.readlink(f"/proc/{child}/fd/{number}") == str(self.image):
                        return child
        return None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(30)

    def client(self, *, structured: bool = True, handshake: bool = True) -> Client:
        return Client(self.where, structured=structured, handshake=handshake)


@contextlib.contextmanager
def serving(
    image: Path, *options: str, prefix: Sequence[str] = (), tcp: bool = False
) -> Iterator[Served]:
    """Serve ``image``; afterwards the server must end in order, without a word and a socket."""
    path = image.parent / "nbd.sock"
    address = ["--tcp", "127.0.0.1:0"] if tcp else ["--socket", str(path)]
    errors = image.parent / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [*prefix, *serve_command(image, *address, *options)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = _SERVING.fullmatch(line)
            assert found, f"{line!r}; standard error: {errors.read_text()}"
            size, read_only, where, back_end = found.groups()
            served = Served(
                process, image, where, int(size), bool(read_only), int(back_end), errors
            )
            yield served
            if process.poll() is None:
                assert served.stop() == 0, errors.read_text()
                assert not path.exists()
        finally:
            process.kill()


@dataclass
class Here:
    """A server in this process, with the back end on a thread: quick to start."""

    system: System
    server: Ref
    where: str

    def client(self, *, structured: bool = True, handshake: bool = True) -> Client:
        return Client(self.where, structured=structured, handshake=handshake)

    def drain(self) -> str:
        """Let it end in order; the kind of its end."""
        self.server.tell(Drain())
        return self.system.wait(self.server, 30).reason.kind


@contextlib.contextmanager
def serving_here(image: Path) -> Iterator[Here]:
    """Serve ``image`` with 8 MiB of buffers, so 2 MiB for the largest request."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(UnixListener(image.parent / "nbd.sock"))
        machine = stack.enter_context(Machine())
        machine.start("disk", Disk, str(image), placement="thread")
        channel = stack.enter_context(connect(machine, "disk", buffer_bytes=8 << 20))
        export = Export("", image.stat().st_size, False, channel.buffer_limit)
        system = stack.enter_context(System("nbd"))
        server = system.start(NbdServer, listener.socket, channel, export, 8 << 20)
        yield Here(system, server, listener.path)


@dataclass
class Killer:
    """Kills the present back end every ``seconds`` until the end of the with block."""

    served: Served
    seconds: float = 0.2
    kills: int = 0
    _enough: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._run, name="killer")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._enough.wait(self.seconds):
            pid = self.served.present_back_end()
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    self.kills += 1


class Client:
    """A client that says exactly what a test wants it to, one connection."""

    def __init__(self, where: str, *, structured: bool = True, handshake: bool = True) -> None:
        if where.startswith("/"):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(where)
        else:
            host, port = where.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(20)
        self.structured = structured
        if handshake:
            self.receive(nbd.GREETING.size)
            self.socket.sendall(FLAGS)
            if structured:
                self.negotiate(nbd.OPT_STRUCTURED_REPLY)
                self.negotiate(nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation"))
            self.negotiate(nbd.OPT_GO, go())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def receive(self, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            piece = self.socket.recv(length - len(data))
            if not piece:
                raise EOFError(f"the server closed after {len(data)} of {length} bytes")
            data += piece
        return bytes(data)

    def negotiate(self, number: int, data: bytes = b"") -> None:
        """Send an option and receive its replies, up to the final one, which must be ACK."""
        self.socket.sendall(option(number, data))
        kind = 0
        while kind != nbd.REP_ACK:
            header = self.receive(nbd.OPTION_REPLY.size)
            length = nbd.OPTION_REPLY.unpack(header)[3]
            ((_, kind, _),) = replies(header + self.receive(length))
            assert not kind & 1 << 31, f"option {number} is refused: {kind:#x}"

    def send(
        self,
        command: int,
        offset: int = 0,
        length: int = 0,
        data: bytes = b"",
        *,
        flags: int = 0,
        cookie: int = 1,
    ) -> None:
        header = nbd.REQUEST.pack(
            nbd.REQUEST_MAGIC, flags, command, cookie, offset, length or len(data)
        )
        self.socket.sendall(header + data)

    def reply(self, length: int = 0) -> tuple[int, int, bytes]:
        """Receive one reply: cookie, error, data (``length`` bytes if it is a simple one)."""
        (magic,) = struct.unpack(">I", self.receive(4))
        if magic == nbd.SIMPLE_REPLY_MAGIC:
            error, cookie = struct.unpack(">IQ", self.receive(12))
            return cookie, error, b"" if error else self.receive(length)
        assert magic == nbd.STRUCTURED_REPLY_MAGIC
        flags, kind, cookie, size = struct.unpack(">HHQI", self.receive(16))
        assert flags == nbd.REPLY_FLAG_DONE
        data = self.receive(size)
        if kind == nbd.REPLY_ERROR:
            return cookie, struct.unpack_from(">I", data)[0], data[6:]
        skip = {nbd.REPLY_NONE: 0, nbd.REPLY_OFFSET_DATA: 8, nbd.REPLY_BLOCK_STATUS: 4}[kind]
        return cookie, 0, data[skip:]

    def ask(
        self, command: int, offset: int = 0, length: int = 0, data: bytes = b"", *, flags: int = 0
    ) -> tuple[int, bytes]:
        """One request and its reply: error and data."""
        self.send(command, offset, length, data, flags=flags)
        _, error, answer = self.reply(length if command == nbd.CMD_READ else 0)
        return error, answer

    def read(self, offset: int, length: int) -> bytes:
        error, data = self.ask(nbd.CMD_READ, offset, length)
        assert error == 0
        return data

    def is_closed(self) -> bool:
        """Wait for the server to close this connection; whatever it sends before is dropped."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            pass
        return True
