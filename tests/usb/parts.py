"""What the tests of devices share: a disk in memory, functions to test with, shorthand for
requests.
"""

from __future__ import annotations

import errno
from typing import Any

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb.backend import UsbDevice
from examples.usb.descriptors import Endpoint, Identity, Interface
from examples.usb.device import CONFIGURATION, Device
from examples.usb.function import Function, InPipe, Result

IDENTITY = Identity(0x1209, 0x0001, product_name="thing", serial_number="0123456789AB")


class Memory:
    """A disk in memory; counts flushes, remembers discards, and fails with ``error`` where told."""

    def __init__(self, size: int = 1 << 20, *, read_only: bool = False) -> None:
        self.data = bytearray(size)
        self.read_only = read_only
        self.flushes = 0
        self.discarded: list[tuple[int, int]] = []
        self.bad: range = range(0)  # offsets that cannot be read or written
        self.error = errno.EIO

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, view: memoryview) -> None:
        self._fail_within(offset, len(view))
        view[:] = self.data[offset : offset + len(view)]

    def write(self, offset: int, view: memoryview) -> None:
        self._fail_within(offset, len(view))
        self.data[offset : offset + len(view)] = view

    def flush(self) -> None:
        if self.bad:
            raise OSError(self.error, "broken")
        self.flushes += 1

    def discard(self, offset: int, length: int) -> None:
        self.discarded.append((offset, length))

    def _fail_within(self, offset: int, length: int) -> None:
        if self.bad and offset < self.bad.stop and offset + length > self.bad.start:
            raise OSError(self.error, "broken")


class Camera(Function):
    """Isochronous, both ways: what is sent to it comes back, a packet each."""

    def __init__(self) -> None:
        self.pipe = InPipe(64)

    def interfaces(self, first: int) -> list[Interface]:
        ends = (Endpoint(c9.IN, c9.ISOCHRONOUS, 64, 1), Endpoint(0, c9.ISOCHRONOUS, 64, 1))
        return [Interface(0xFF, 0, 0, ends, string="camera")]

    def reset(self) -> None:
        self.pipe.clear()

    def send(self, endpoint: int, view: memoryview) -> Result:
        return self.pipe.fill(view)

    def receive(self, endpoint: int, view: memoryview) -> Result:
        self.pipe.put(bytes(view))
        return p.OK, len(view)


class CameraDevice(UsbDevice):
    """The back end of one."""

    def function(self, serial_number: str, kind: str, *arguments: Any) -> Function:
        return Camera()


def control(device: Device, setup: c9.Setup, data: bytes = b"") -> tuple[int, bytes]:
    """A control transfer: its status, and what came back."""
    view = memoryview(bytearray(data or setup.length))
    status, actual = device.control(setup, view)
    return status, bytes(view[:actual]) if setup.is_in else b""


def get(device: Device, value: int, length: int = 1024, index: int = 0) -> tuple[int, bytes]:
    """GET_DESCRIPTOR of the device."""
    return control(device, c9.Setup(c9.IN, c9.GET_DESCRIPTOR, value, index, length))


def configured(*functions: Function, identity: Identity = IDENTITY) -> Device:
    """A device that a host has addressed and configured."""
    device = Device(identity, functions)
    assert control(device, c9.Setup(0, c9.SET_ADDRESS, 5, 0, 0)) == (p.OK, b"")
    assert control(device, c9.Setup(0, c9.SET_CONFIGURATION, CONFIGURATION, 0, 0)) == (p.OK, b"")
    return device


def read(device: Device, endpoint: int, length: int) -> tuple[int, bytes]:
    """A transfer from the device: its status, and what came."""
    view = memoryview(bytearray(length))
    status, actual = device.transfer(endpoint, view)
    return status, bytes(view[:actual])


def write(device: Device, endpoint: int, data: bytes) -> Result:
    """A transfer to the device: its status, and how many bytes it took."""
    return device.transfer(endpoint, memoryview(bytearray(data)))
