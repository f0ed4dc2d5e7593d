"""What the tests of the USB/IP server share: servers to run, and a client of our own."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

from actors import System
from examples.block.disk import Disk
from examples.usb import chapter9 as c9
from examples.usb import usbip
from examples.usb.backend import UsbDevice
from examples.usb.host import Host
from examples.usb.plug import Plug, enumerate_device
from examples.usb.server import UsbServer
from examples.usb.usbip_session import Session
from examples.usb.usbredir_session import RedirSession
from examples.usb.world import Line
from hypervisor import Machine
from tests.usb.test_usbip import DEVLIST, req_import, submit, unlink
from transport import connect

ROOT = Path(__file__).parents[2]
_SERVING = re.compile(r"serving (\d+) devices on 127.0.0.1:(\d+)(, usbredir .*)?\n")
_DEVICE = re.compile(r"(1-\d+): (.*), back end (\d+)\n")


def need_usbip() -> str:
    """The usbip program; the test is skipped where it is not installed."""
    found = shutil.which("usbip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip("usbip is not installed: apt-get install usbip")
    return found


@dataclass
class Ended:
    """The end of a transfer, as a client is told."""

    status: int
    actual: int
    data: bytes
    packets: tuple[tuple[int, int, int, int], ...] = ()


class Client:
    """A USB/IP client that says exactly what a test wants it to, one connection."""

    def __init__(self, port: int, busid: str | None = None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(20)
        self.devid = 0
        self._numbers = 0
        self._directions: dict[int, bool] = {}
        if busid is not None:
            assert self.attach(busid) == usbip.ST_OK

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

    def is_closed(self) -> bool:
        """Wait for the server to close this connection; whatever it sends before is dropped."""
        with contextlib.suppress(ConnectionResetError):
            while self.socket.recv(1 << 16):
                pass
        return True

    # --- operations -------------------------------------------------------------------------------

    def devices(self) -> dict[str, list[tuple[int, int, int]]]:
        """Bus ids, and the classes of their interfaces."""
        self.socket.sendall(DEVLIST)
        version, code, status, count = struct.unpack(">HHII", self.receive(12))
        assert (version, code, status) == (0x0111, 5, 0)
        found = {}
        for _ in range(count):
            device = usbip.DEVICE.unpack(self.receive(usbip.DEVICE.size))
            interfaces = [usbip.INTERFACE.unpack(self.receive(4)) for _ in range(device[-1])]
            found[device[1].rstrip(b"\0").decode()] = interfaces
        assert self.is_closed()
        return found

    def attach(self, busid: str) -> int:
        """Import a device; the status of the answer."""
        self.socket.sendall(req_import(busid.encode()))
        version, code, status = usbip.OPERATION.unpack(self.receive(8))
        assert (version, code) == (0x0111, 3)
        if status == usbip.ST_OK:
            device = usbip.DEVICE.unpack(self.receive(usbip.DEVICE.size))
            assert device[1].rstrip(b"\0") == busid.encode()
            self.devid = device[2] << 16 | device[3]
        return int(status)

    # --- transfers --------------------------------------------------------------------------------

    def submit(
        self,
        endpoint: int,
        what: int | bytes,
        setup: bytes = bytes(8),
        packets: Sequence[int] = (),
    ) -> int:
        """Send a command; its number. Isochronous packets lie one behind the other."""
        self._numbers += 1
        starts = itertools.accumulate(packets, initial=0)
        spans = [
            usbip.PACKET.pack(at, size, 0, 0) for at, size in zip(starts, packets, strict=False)
        ]
        length, data = (what, b"") if isinstance(what, int) else (len(what), what)
        is_in = isinstance(what, int)
        self._directions[self._numbers] = is_in
        self.socket.sendall(
            submit(
                self._numbers,
                endpoint,
                length,
                data,
                is_in=is_in,
                setup=setup,
                devid=self.devid,
                packets=len(packets) or -1,
                tail=b"".join(spans),
            )
        )
        return self._numbers

    def unlink(self, target: int) -> int:
        self._numbers += 1
        self.socket.sendall(unlink(self._numbers, target, self.devid))
        return self._numbers

    def ret_of_unlink(self, target: int) -> int:
        """Unlink, and the status of that, which must be the next thing that comes."""
        number = self.unlink(target)
        answered, status = self.ret()
        assert answered == number
        assert isinstance(status, int)
        return status

    def ret(self) -> tuple[int, Ended | int]:
        """The next answer: the number it is to, and the end, or the status of an unlink."""
        head = self.receive(48)
        kind, number = struct.unpack_from(">II", head)
        if kind == usbip.RET_UNLINK:
            return number, struct.unpack_from(">20xi", head)[0]
        assert kind == usbip.RET_SUBMIT
        status, actual, _, packets = struct.unpack_from(">20xiiii", head)
        data = self.receive(actual) if self._directions.pop(number) else b""
        spans = self.receive(max(packets, 0) * usbip.PACKET.size)
        return number, Ended(status, actual, data, tuple(usbip.PACKET.iter_unpack(spans)))

    def transfer(self, endpoint: int, what: int | bytes, setup: bytes = bytes(8)) -> Ended:
        """Submit and wait for the end, which must be the next thing that comes."""
        number = self.submit(endpoint, what, setup)
        answered, end = self.ret()
        assert answered == number
        assert isinstance(end, Ended)
        return end

    def control(self, setup: c9.Setup, data: bytes = b"") -> Ended:
        return self.transfer(0, setup.length if setup.is_in else data, setup.pack())


@dataclass
class Here:
    """A server in this process, with the back ends on threads: quick to start."""

    machine: Machine
    port: int
    redir_port: int
    stop: int
    worlds: list[tuple[io.FileIO, int]]
    """For each line: what to write its input to, what to read its output from."""

    def client(self, busid: str | None = None) -> Client:
        return Client(self.port, busid)


@contextlib.contextmanager
def exporting_here(
    *devices: list[list[Any]], image: Path | None = None, driver: type[UsbDevice] = UsbDevice
) -> Iterator[Here]:
    """Export devices, a list of functions each; their keyboards and lines have pipes.

    The image is the disk "disk" of the block driver.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.setblocking(False)
        machine = stack.enter_context(Machine())
        if image is not None:
            machine.start("disk", Disk, str(image), placement="thread")
        plugs, worlds = [], []
        for number, functions in enumerate(devices, 1):
            arguments = ("thing", 0x1209, number, "0123456789AB", functions)
            machine.start(f"usb{number}", driver, *arguments, placement="thread")
            host = Host(stack.enter_context(connect(machine, f"usb{number}")))
            plug = Plug(host, enumerate_device(host, number))
            for place, function in enumerate(functions):
                if function[0] != "block":
                    read, write = os.pipe2(os.O_NONBLOCK)
                    out, said = os.pipe2(os.O_NONBLOCK)
                    for fd in (read, out, said):
                        stack.callback(os.close, fd)
                    source = stack.enter_context(open(write, "wb", buffering=0))
                    plug.lines.append(Line(place, read, said))
                    worlds.append((source, out))
            plugs.append(plug)
        stop, stopped = os.pipe2(os.O_NONBLOCK)
        stack.callback(os.close, stop)
        stack.callback(os.close, stopped)
        system = stack.enter_context(System("usbip"))
        redir = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        redir.setblocking(False)
        doors = [(listener, Session), (redir, RedirSession)]
        server = system.start(UsbServer, doors, plugs, stop)
        ports = listener.getsockname()[1], redir.getsockname()[1]
        yield Here(machine, *ports, stopped, worlds)
        os.write(stopped, b"x")
        assert system.wait(server, 30).reason.kind == "normal"


@dataclass
class Served:
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    port: int
    devices: dict[str, tuple[str, int]]
    """Bus id -> what it is, and its back end's pid."""
    errors: Path

    def client(self, busid: str | None = None) -> Client:
        return Client(self.port, busid)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def serve_command(*options: str) -> list[str]:
    return [sys.executable, "-m", "examples.usb", "serve", *options]


@contextlib.contextmanager
def exporting(directory: Path, *options: str) -> Iterator[Served]:
    """Export by the command line; afterwards the server must end in order."""
    errors = directory / "stderr"
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            serve_command(*options, "--tcp", "127.0.0.1:0"),
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        ) as process,
    ):
        try:
            assert process.stdout is not None
            devices = {}
            while found := _DEVICE.fullmatch(line := process.stdout.readline()):
                devices[found[1]] = found[2], int(found[3])
            serving = _SERVING.fullmatch(line)
            assert serving, f"{line!r}; standard error: {errors.read_text()}"
            assert int(serving[1]) == len(devices)
            served = Served(process, int(serving[2]), devices, errors)
            yield served
            if process.poll() is None:
                assert served.stop() == 0, errors.read_text()
        finally:
            process.kill()


def refused(*options: str) -> tuple[int, str]:
    """The exit code and the standard error of a server that cannot begin."""
    result = subprocess.run(
        serve_command(*options),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not result.stdout
    return result.returncode, result.stderr
