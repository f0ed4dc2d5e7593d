"""A device at the other end of a real channel, on a thread and in a process that is killed."""

from __future__ import annotations

import itertools
import os
import random
import select
import signal
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from examples.block.disk import Disk
from examples.usb import chapter9 as c9
from examples.usb import mass_storage as ms
from examples.usb import protocol as p
from examples.usb import scsi
from examples.usb.backend import UsbDevice
from examples.usb.controller import Connected, Disconnected, Effect, Giveback, Output
from examples.usb.host import Host
from examples.usb.urb import Urb
from hypervisor import DomainStartError, Machine
from transport import connect

BLOCKS = 2048


class Port:
    """A host in the test's own thread."""

    def __init__(self, machine: Machine, host: Host) -> None:
        self.machine = machine
        self.host = host
        self.events: list[Effect] = []
        self._ids = itertools.count()
        host.attach()
        self.until(Connected)

    def until(self, kind: type[Effect], urb: Urb | None = None) -> Any:
        """Wait for an event of that kind, or for the end of that URB."""
        poller = select.poll()
        poller.register(self.host.fileno(), select.POLLIN)
        self.events += self.host.events()
        while True:
            for event in self.events:
                if isinstance(event, kind) and (urb is None or getattr(event, "urb", 0) is urb):
                    self.events.remove(event)
                    return event
            poller.poll()
            self.events += self.host.reap()

    def transfer(self, endpoint: int, what: int | bytes, setup: bytes = b"") -> Urb:
        length, data = (what, b"") if isinstance(what, int) else (len(what), what)
        kind = self.host.controller.kind(endpoint)
        assert kind is not None
        urb = Urb(next(self._ids), endpoint, kind, length, data, setup)
        self.host.submit(urb)
        self.until(Giveback, urb)
        return urb

    def control(self, setup: c9.Setup, data: bytes = b"") -> Urb:
        return self.transfer(0, setup.length if setup.is_in else data, setup.pack())


AnyPort = TypeVar("AnyPort", bound=Port)


class Storage(Port):
    """A driver of mass storage: it recovers from errors as Linux's does, and tries again."""

    recoveries = 0

    def command(self, cdb: bytes, what: int | bytes = 0) -> bytes:
        for _ in range(20):
            answer = self.attempt(cdb, what)
            if answer is not None:
                return answer
            self.recoveries += 1
            self.control(c9.Setup(0x21, ms.RESET, 0, 0, 0))
            for endpoint in (0x81, 0x01):
                self.clear(endpoint)
        raise AssertionError("the device does not recover")

    def attempt(self, cdb: bytes, what: int | bytes) -> bytes | None:
        length = what if isinstance(what, int) else len(what)
        to_host = 0x80 if isinstance(what, int) else 0
        head = ms.CBW.pack(ms.CBW_SIGNATURE, 7, length, to_host, 0, len(cdb), cdb)
        data = b""
        if self.transfer(0x01, head).status != p.OK:
            return None
        if length:
            urb = self.transfer(0x81 if to_host else 0x01, what)
            data = urb.received
            if urb.status == p.STALL:
                self.clear(urb.endpoint)
            elif urb.status != p.OK:
                return None
        status = self.transfer(0x81, 13)
        if status.status != p.OK:
            return None
        assert ms.CSW.unpack(status.received)[3] == ms.PASSED
        return data

    def clear(self, endpoint: int) -> None:
        self.control(c9.Setup(c9.ENDPOINT, c9.CLEAR_FEATURE, c9.ENDPOINT_HALT, endpoint, 0))

    def read(self, lba: int, blocks: int) -> bytes:
        return self.command(
            struct.pack(">BBIBHB", scsi.READ_10, 0, lba, 0, blocks, 0), blocks * scsi.BLOCK
        )

    def write(self, lba: int, data: bytes) -> None:
        blocks = len(data) // scsi.BLOCK
        self.command(struct.pack(">BBIBHB", scsi.WRITE_10, 0, lba, 0, blocks, 0), data)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(BLOCKS * scsi.BLOCK))
    return path


@contextmanager
def plugged(
    kind: type[AnyPort], placement: str, *functions: list[Any], image: Path | None = None
) -> Iterator[AnyPort]:
    """A device of these functions; the image is the disk "disk" of the block driver."""
    with Machine(intensity=1000, period=1) as machine:
        if image is not None:
            machine.start("disk", Disk, str(image), placement=placement)
        arguments = ("thing", 0x1209, 1, "0123456789AB", list(functions))
        machine.start("usb", UsbDevice, *arguments, placement=placement)
        with connect(machine, "usb") as channel:
            yield kind(machine, Host(channel))


@pytest.fixture(params=["thread", "process"])
def placement(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_disk_is_read_and_written(image: Path, placement: str) -> None:
    with plugged(Storage, placement, ["block", "disk"], image=image) as storage:
        assert storage.read(0, 128) == image.read_bytes()[: 128 * scsi.BLOCK]
        data = random.Random(2).randbytes(2000 * scsi.BLOCK)
        storage.write(16, data)
        assert storage.read(16, 2000) == data
        storage.command(bytes((scsi.SYNCHRONIZE_CACHE_10, *bytes(9))))
        unmap = struct.pack(">HHIQII", 22, 16, 0, 0, 16, 0)
        storage.command(bytes((scsi.UNMAP, *bytes(6), 0, 24, 0)), unmap)
        assert storage.recoveries == 0
    after = image.read_bytes()
    assert after[16 * scsi.BLOCK :][: len(data)] == data


def test_a_keyboard_types_and_shows_its_lights(placement: str) -> None:
    with plugged(Port, placement, ["keyboard"]) as port:
        port.host.input(0, b"hi")
        assert [port.transfer(0x81, 8).received[2] for _ in range(5)] == [0, 0x0B, 0, 0x0C, 0]
        port.control(c9.Setup(0x21, 9, 0x0200, 0, 1), b"\2")
        assert port.until(Output) == Output(0, b"\2")


def test_a_composite_device_does_all_at_once(image: Path) -> None:
    functions = (["block", "disk"], ["keyboard"], ["serial", True])
    with plugged(Storage, "thread", *functions, image=image) as port:
        assert port.transfer(0x02, b"hello").status == p.OK
        assert port.transfer(0x84, 64).received == b"hello"
        assert port.transfer(0x82, 8).received == bytes(8)
        assert port.read(3, 1) == image.read_bytes()[3 * scsi.BLOCK : 4 * scsi.BLOCK]


def test_a_disk_whose_back_end_is_killed_all_the_time_is_right_in_the_end(image: Path) -> None:
    rng = random.Random(3)
    expected = bytearray(image.read_bytes())
    with plugged(Storage, "process", ["block", "disk"], image=image) as storage:
        for number in range(60):
            lba, data = rng.randrange(BLOCKS - 64), rng.randbytes(rng.randint(1, 64) * scsi.BLOCK)
            if number % 10 == 2:
                os.kill(storage.machine.pid("usb"), signal.SIGKILL)
            storage.write(lba, data)
            expected[lba * scsi.BLOCK : lba * scsi.BLOCK + len(data)] = data
            lba = rng.randrange(BLOCKS - 64)
            assert storage.read(lba, 64) == expected[lba * scsi.BLOCK : (lba + 64) * scsi.BLOCK]
        assert storage.host.controller.restarts > 0
        assert storage.recoveries > 0
    assert image.read_bytes() == expected


def test_a_device_that_is_given_up_is_disconnected_and_its_urbs_end() -> None:
    with plugged(Port, "process", ["keyboard"]) as port:
        port.transfer(0x81, 8)
        waiting = Urb("w", 0x81, c9.INTERRUPT, 8)
        port.host.submit(waiting)
        port.machine.shutdown("usb")
        assert isinstance(port.until(Disconnected), Disconnected)
        port.until(Giveback, waiting)
        assert waiting.status == p.SHUTDOWN
        assert port.transfer(0x81, 8).status == p.NODEV


def test_input_that_the_device_cannot_take_is_lost_and_the_device_goes_on() -> None:
    with plugged(Port, "thread", ["keyboard"]) as port:
        port.host.input(0, b"\xff")
        port.host.input(7, b"a")
        port.host.input(0, b"a")
        assert [port.transfer(0x81, 8).received[2] for _ in range(2)] == [0, 4]
        assert port.host.controller.lost == 2


@pytest.mark.parametrize(
    ("functions", "error", "text"),
    [
        ([["keyboard"], ["block", 7]], "ValueError", "no function is 'block' with (7,)"),
        ([["camera"]], "ValueError", "no function is 'camera' with ()"),
    ],
)
def test_a_device_that_cannot_be_is_an_error_at_the_start(
    functions: list[list[Any]], error: str, text: str
) -> None:
    arguments = ("thing", 1, 1, "0", functions)
    with Machine() as machine, pytest.raises(DomainStartError) as caught:
        machine.start("usb", UsbDevice, *arguments, placement="thread")
    assert (caught.value.error, caught.value.text) == (error, text)
