"""A USB disk by three ways: a channel alone, USB/IP on this machine, and Linux in a guest.

The disk's image is on tmpfs; the disk and the USB device are processes. All ways do the same, one
SCSI command at a time: 120 KiB, which is what Linux's driver asks for, or 4 KiB. A command is three
transfers: itself, its data, its status. Then back ends are killed, and the guest reads on: how long
the next read takes. The guest is QEMU's software emulation, without which nothing of it is
measured; what is missing for it is said.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, Self

from actors import System
from benchmarks.effort import Effort
from benchmarks.report import interleave, median, percentile, progress, table
from examples.block.disk import Disk
from examples.usb import mass_storage as ms
from examples.usb import protocol as p
from examples.usb import scsi, usbip
from examples.usb.backend import UsbDevice
from examples.usb.chapter9 import BULK, IN
from examples.usb.controller import Giveback
from examples.usb.host import Host
from examples.usb.plug import Plug, enumerate_device
from examples.usb.server import UsbServer
from examples.usb.urb import Urb
from examples.usb.usbip_session import Session
from hypervisor import Machine
from tests.guest.machine import HOST, Linux
from tests.guest.packages import Missing
from transport import connect

IMAGE: Final = 32 << 20
LARGE: Final = 120 << 10
SMALL: Final = 4 << 10
LARGE_COUNT: Final = 100
SMALL_COUNT: Final = 200
KILLS: Final = 30
DATA_IN, DATA_OUT = 0x81, 0x01

_WAYS = ("channel alone", "USB/IP, here", "USB/IP, in a guest")
_ROWS = {
    "read, 120 KiB each": (scsi.READ_10, LARGE, LARGE_COUNT),
    "write, 120 KiB each": (scsi.WRITE_10, LARGE, LARGE_COUNT),
    "read, 4 KiB each": (scsi.READ_10, SMALL, SMALL_COUNT),
}


def run(effort: Effort) -> None:
    """Measure and print."""
    progress("usb")
    contestants: dict[str, Callable[[], float]] = {}
    recoveries: dict[str, list[float]] = {}
    missing = ""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        drivers: dict[str, _Driver] = {}
        alone, here, there = (stack.enter_context(_disk(directory, way)) for way in "123")
        drivers[_WAYS[0]] = _Scsi(_Alone(alone.host))
        port = stack.enter_context(_served(here.host))
        drivers[_WAYS[1]] = _Scsi(stack.enter_context(_Client(port)))
        port = stack.enter_context(_served(there.host))
        guest = None
        try:
            if effort.share < 1:
                raise Missing("it takes minutes to start, which is not for --quick")
            guest = stack.enter_context(Linux(directory))
        except Missing as error:
            missing = str(error)
        else:
            guest.run(f"usbip --tcp-port {port} attach -r {HOST} -b 1-1")
            guest.run("await '[ -b /dev/sda ]'")
            drivers[_WAYS[2]] = _Guest(guest)
        for (row, what), (way, driver) in itertools.product(_ROWS.items(), drivers.items()):
            contestants[f"{row} {way}"] = _timed(driver, *what, effort)
        measured = interleave(contestants, effort.rounds)
        if guest is not None:
            progress("usb, killing")
            recoveries = {
                "no kill": _recoveries(guest, lambda: None),
                "the USB device's back end": _recoveries(guest, lambda: there.kill("usb")),
                "the disk's back end": _recoveries(guest, lambda: there.kill("disk")),
            }
    rows = []
    for row, (_, size, _) in _ROWS.items():
        seconds = [median(measured[f"{row} {way}"]) for way in drivers]
        rows.append([row, *(_shown(size, each) for each in seconds)])
    table("a USB disk, one command at a time", ("", *drivers), rows)
    if missing:
        print(f"\nno guest, so nothing of it is measured: {missing}")
    for_guest = [
        (name, *(f"{percentile(seconds, share) * 1e3:.0f} ms" for share in (0.5, 0.9, 1.0)))
        for name, seconds in recoveries.items()
    ]
    if for_guest:
        head = ("", "p50", "p90", "max")
        table(f"SIGKILL to the end of the guest's next read, {KILLS} each", head, for_guest)


def _shown(size: int, seconds: float) -> str:
    if size == SMALL:
        return f"{seconds * 1e6:.0f} us"
    return f"{size / seconds / 1e6:.1f} MB/s"


# --- the devices ----------------------------------------------------------------------------------


@dataclass
class _Disk:
    machine: Machine
    host: Host

    def kill(self, name: str) -> None:
        self.machine.kill(name)


@contextlib.contextmanager
def _disk(directory: Path, name: str) -> Iterator[_Disk]:
    """A disk of a USB device, each a process, and its port."""
    image = directory / f"{name}.img"
    image.write_bytes(os.urandom(IMAGE))
    with Machine(intensity=10 * KILLS, period=60.0) as machine:
        machine.start("disk", Disk, str(image), False)
        machine.start("usb", UsbDevice, name, 0x1209, 1, "0123456789AB", [["block", "disk"]])
        with connect(machine, "usb") as channel:
            yield _Disk(machine, Host(channel))


@contextlib.contextmanager
def _served(host: Host) -> Iterator[int]:
    """Export the device by USB/IP; the port."""
    plug = Plug(host, enumerate_device(host, 1))
    with socket.create_server(("127.0.0.1", 0)) as listener, System("usbip") as system:
        listener.setblocking(False)
        stop, stopped = os.pipe()
        server = system.start(UsbServer, [(listener, Session)], [plug], stop)
        try:
            yield listener.getsockname()[1]
        finally:
            os.close(stopped)
            system.wait(server)
            os.close(stop)


# --- who uses them --------------------------------------------------------------------------------


class _Driver(Protocol):
    def transfers(self, operation: int, size: int, count: int) -> None:
        """So many commands of so many bytes, from the disk's beginning on."""


class _Pipe(Protocol):
    def transfer(self, endpoint: int, what: int | bytes) -> bytes:
        """Move bytes by one bulk transfer; what was read."""


def _timed(
    driver: _Driver, operation: int, size: int, usual: int, effort: Effort
) -> Callable[[], float]:
    """Seconds of one command."""
    count = effort.count(usual)

    def measure() -> float:
        began = time.perf_counter()
        driver.transfers(operation, size, count)
        return (time.perf_counter() - began) / count

    return measure


class _Alone:
    """A host controller's port, driven here."""

    def __init__(self, host: Host) -> None:
        enumerate_device(host, 1)
        self._host = host
        self._numbers = itertools.count()
        self._poller = select.poll()
        self._poller.register(host.fileno(), select.POLLIN)

    def transfer(self, endpoint: int, what: int | bytes) -> bytes:
        length, data = (what, b"") if isinstance(what, int) else (len(what), what)
        self._host.submit(Urb(next(self._numbers), endpoint, BULK, length, data))
        events = self._host.events()
        while True:
            for event in events:
                if isinstance(event, Giveback):
                    assert event.urb.status == p.OK
                    return event.urb.received
            self._poller.poll()
            events = self._host.reap()


class _Client:
    """A USB/IP client that has the device 1-1."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb", 1 << 20)
        self._numbers = itertools.count(1)
        head = usbip.OPERATION.pack(usbip.VERSION, usbip.OP_REQ_IMPORT, 0)
        self._socket.sendall(head + usbip.BUSID.pack(b"1-1"))
        self._file.read(usbip.OPERATION.size)
        device = usbip.DEVICE.unpack(self._file.read(usbip.DEVICE.size))
        self._devid = device[2] << 16 | device[3]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def transfer(self, endpoint: int, what: int | bytes) -> bytes:
        length, data = (what, b"") if isinstance(what, int) else (len(what), what)
        basic = (usbip.CMD_SUBMIT, next(self._numbers), self._devid, endpoint >> 7, endpoint & 15)
        command = usbip.BASIC.pack(*basic) + struct.pack(">Iiiii8x", 0, length, 0, 0, 0)
        self._socket.sendall(command + data)
        status, actual = struct.unpack_from(">20xii", self._file.read(usbip.HEADER))
        assert status == p.OK
        return self._file.read(actual) if endpoint & IN else b""


class _Scsi:
    """The disk's driver, at a pipe."""

    def __init__(self, pipe: _Pipe) -> None:
        self._transfer = pipe.transfer

    def transfers(self, operation: int, size: int, count: int) -> None:
        reads = operation == scsi.READ_10
        blocks, data = size // scsi.BLOCK, bytes(size)
        for lba in range(0, count * blocks, blocks):
            cdb = struct.pack(">BBIBHB", operation, 0, lba, 0, blocks, 0)
            flags = IN if reads else 0
            head = ms.CBW.pack(ms.CBW_SIGNATURE, 1, size, flags, 0, len(cdb), cdb)
            self._transfer(DATA_OUT, head)
            self._transfer(DATA_IN if reads else DATA_OUT, size if reads else data)
            assert ms.CSW.unpack(self._transfer(DATA_IN, 13))[3] == ms.PASSED


class _Guest:
    """Linux's driver, past its cache."""

    def __init__(self, guest: Linux) -> None:
        self._guest = guest

    def transfers(self, operation: int, size: int, count: int) -> None:
        if operation == scsi.READ_10:
            files = "if=/dev/sda iflag=direct of=/dev/null"
        else:
            files = "if=/dev/zero of=/dev/sda oflag=direct"
        self._guest.run(f"dd {files} bs={size} count={count} 2>/dev/null")


def _recoveries(guest: Linux, kill: Callable[[], None]) -> list[float]:
    """Seconds from each ``kill`` to the end of the guest's next read."""
    seconds = []
    driver = _Guest(guest)
    for _ in range(KILLS):
        driver.transfers(scsi.READ_10, SMALL, SMALL_COUNT // 10)
        began = time.perf_counter()
        kill()
        driver.transfers(scsi.READ_10, SMALL, 1)
        seconds.append(time.perf_counter() - began)
    return seconds
