"""A libusb-1.0 for tests: the C library's own functions, at a bus with devices of ours.

PyPI's libusb1 calls it as it calls the real one, with the same structures in memory. It is loaded
once for the process, so `plugged` says which bus it is. A device does what one of ours does: what
it refuses is kept, as hardware keeps it, until `FakeDevice.work` finds that it is served.

Beside the bus there is what the kernel does: its drivers, and which interfaces somebody has.
"""

from __future__ import annotations

import contextlib
import ctypes
import queue
from collections.abc import Iterator, Sequence
from ctypes import POINTER, c_char, c_int, c_void_p, cast, pointer
from threading import Lock
from typing import Any

import usb1

from examples.usb import chapter9 as c9
from examples.usb import descriptors
from examples.usb import protocol as p
from examples.usb.device import CONFIGURATION, Device
from examples.usb.function import Function
from tests.usb.parts import configured, get

c = usb1.libusb1

_STATUSES = {
    p.OK: usb1.TRANSFER_COMPLETED,
    p.STALL: usb1.TRANSFER_STALL,
    p.BABBLE: usb1.TRANSFER_OVERFLOW,
    p.IOERROR: usb1.TRANSFER_ERROR,
}


class FakeDevice:
    """A device of ``functions`` at bus 1, address 4, with a kernel's driver for each interface.

    Attributes:
        said: what the kernel was asked, in order.
        drivers: interfaces that the kernel's drivers have.
        claimed: interfaces that somebody else has.
        denied: nobody may open it.
        deaf: endpoints that answer nothing.
    """

    bus, address = 1, 4

    def __init__(self, functions: Sequence[Function], *, speed: int = p.SPEED_HIGH) -> None:
        self.device: Device = configured(*functions)
        self.speed = speed
        self.descriptor = get(self.device, c9.DEVICE_DESCRIPTOR << 8)[1]
        self.configuration = get(self.device, c9.CONFIGURATION_DESCRIPTOR << 8)[1]
        read = descriptors.read_configuration(self.configuration)
        self.interfaces = [number for number, *_ in read.interfaces]
        self.said: list[str] = []
        self.drivers = set(self.interfaces)
        self.claimed: set[int] = set()
        self.denied = self.gone = self.automatic = False
        self.changes = False  # at its next reset it comes back as another one
        self.deaf: set[int] = set()
        self.waiting: list[_Transfer] = []
        self.ended: queue.Queue[_Transfer | None] = queue.Queue()
        self.lock = Lock()

    def unplug(self) -> None:
        with self.lock:
            self.gone = True
            for transfer in self.waiting:
                transfer.end(usb1.TRANSFER_NO_DEVICE)
            self.waiting.clear()

    def input(self, function: int, data: bytes) -> None:
        """Something happens to it in the world."""
        with self.lock:
            self.device.input(function, data)
            self.work()

    def work(self) -> None:
        """Serve what it can now; what comes to an endpoint first is served first."""
        for transfer in list(self.waiting):
            first = next(one for one in self.waiting if one.endpoint == transfer.endpoint)
            if transfer is first and transfer.endpoint not in self.deaf and transfer.serve():
                self.waiting.remove(transfer)


class _Transfer:
    """A libusb_transfer, with its data, and how much of it is done."""

    def __init__(self, device: FakeDevice, at: Any) -> None:
        self.device = device
        self.at = at
        self.endpoint: int = at.contents.endpoint
        self._done = 0
        memory = (c_char * at.contents.length).from_address(at.contents.buffer or 0)
        self._view = memoryview(memory).cast("B")

    def serve(self) -> bool:
        device, fields = self.device.device, self.at.contents
        if fields.type == usb1.TRANSFER_TYPE_CONTROL:
            setup = c9.Setup.of(bytes(self._view[:8]))
            status, self._done = device.control(setup, self._view[8:])
        elif fields.type == usb1.TRANSFER_TYPE_ISOCHRONOUS:
            packets = c.get_iso_packet_list(self.at)
            results = device.packets(self.endpoint, self._view, [one.length for one in packets])
            for packet, (status, actual) in zip(packets, results, strict=True):
                packet.status, packet.actual_length = _STATUSES[status], actual
            status = p.OK
        else:
            status, actual = device.transfer(self.endpoint, self._view[self._done :])
            self._done += actual
        if status != p.NAK:
            self.end(_STATUSES[status])
        return status != p.NAK

    def end(self, status: int) -> None:
        self.at.contents.status = status
        self.at.contents.actual_length = self._done
        self.device.ended.put(self)


class FakeBus:
    """The functions of libusb-1.0 that are used, without their prefix. At most one device."""

    def __init__(self, device: FakeDevice | None) -> None:
        self.device = device
        self.handles = self.contexts = self.transfers = self.references = 0
        self._memory: dict[int, Any] = {}  # what C would have allocated

    def init_context(self, context: Any, _options: Any, _count: int) -> int:
        self.contexts += 1
        cast(context, POINTER(c_void_p))[0] = 1
        return 0

    def exit(self, _context: Any) -> None:
        self.contexts -= 1

    # --- the bus ---

    def get_device_list(self, _context: Any, found: Any) -> int:
        numbers = [1] if self.device is not None and not self.device.gone else []
        array = (c_void_p * (len(numbers) + 1))(*numbers, None)
        self._memory[0] = array
        cast(found, POINTER(POINTER(c_void_p)))[0] = cast(array, POINTER(c_void_p))
        return len(numbers)

    def free_device_list(self, _list: Any, _unreference: int) -> None:
        del self._memory[0]

    def ref_device(self, _device: Any) -> None:
        self.references += 1

    def unref_device(self, _device: Any) -> None:
        self.references -= 1

    @property
    def _it(self) -> FakeDevice:
        assert self.device is not None
        return self.device

    def get_device_descriptor(self, _device: Any, found: Any) -> int:
        ctypes.memmove(found, self._it.descriptor, 18)
        return 0

    def get_config_descriptor(self, _device: Any, _index: int, found: Any) -> int:
        settings: dict[int, list[Any]] = {}
        data, at = self._it.configuration, 0
        while at < len(data):
            if data[at + 1] == c9.INTERFACE_DESCRIPTOR:
                setting = c.libusb_interface_descriptor()
                ctypes.memmove(ctypes.byref(setting), data[at:], 9)
                settings.setdefault(setting.bInterfaceNumber, []).append(setting)
            at += data[at]
        arrays = [(c.libusb_interface_descriptor * len(one))(*one) for one in settings.values()]
        pointers = [
            c.libusb_interface(cast(one, c.libusb_interface_descriptor_p), len(one))
            for one in arrays
        ]
        interfaces = (c.libusb_interface * len(pointers))(*pointers)
        made = c.libusb_config_descriptor()
        ctypes.memmove(ctypes.byref(made), data, 9)
        made.interface = cast(interfaces, c.libusb_interface_p)
        self._memory[ctypes.addressof(made)] = (made, interfaces, arrays)
        cast(found, c.libusb_config_descriptor_p_p)[0] = pointer(made)
        return 0

    def free_config_descriptor(self, made: Any) -> None:
        del self._memory[ctypes.addressof(made._obj)]

    def get_bus_number(self, _device: Any) -> int:
        return self._it.bus

    def get_port_number(self, _device: Any) -> int:
        return 1

    def get_device_address(self, _device: Any) -> int:
        return self._it.address

    def get_device_speed(self, _device: Any) -> int:
        return self._it.speed

    # --- the device ---

    def open(self, _device: Any, found: Any) -> int:
        if self._it.denied:
            return int(usb1.ERROR_ACCESS)
        self.handles += 1
        cast(found, POINTER(c_void_p))[0] = 1
        return 0

    def close(self, _handle: Any) -> None:
        self.handles -= 1

    def get_configuration(self, _handle: Any, found: Any) -> int:
        configured = self._it.device.state == "configured"
        cast(found, POINTER(c_int))[0] = CONFIGURATION if configured else 0
        return 0

    def set_configuration(self, _handle: Any, value: int) -> int:
        it = self._it
        if it.claimed or it.drivers:
            return int(usb1.ERROR_BUSY)
        it.said.append(f"configuration {value}")
        setup = c9.Setup(0, c9.SET_CONFIGURATION, max(value, 0), 0, 0)
        status, _ = it.device.control(setup, memoryview(b""))
        return 0 if status == p.OK else int(usb1.ERROR_NOT_FOUND)

    def set_auto_detach_kernel_driver(self, _handle: Any, wanted: bool) -> int:
        self._it.automatic = bool(wanted)
        return 0

    def claim_interface(self, _handle: Any, number: int) -> int:
        it = self._it
        if number in it.claimed or (number in it.drivers and not it.automatic):
            return int(usb1.ERROR_BUSY)
        it.drivers.discard(number)
        it.claimed.add(number)
        it.said.append(f"claim {number}")
        return 0

    def release_interface(self, _handle: Any, number: int) -> int:
        it = self._it
        if it.gone:
            return int(usb1.ERROR_NO_DEVICE)
        it.claimed.remove(number)
        it.said.append(f"release {number}")
        if it.automatic:
            it.drivers.add(number)
        return 0

    def set_interface_alt_setting(self, _handle: Any, number: int, setting: int) -> int:
        it = self._it
        it.said.append(f"setting {number} {setting}")
        setup = c9.Setup(c9.INTERFACE, c9.SET_INTERFACE, 0, number, 0)
        status, _ = it.device.control(setup, memoryview(b""))
        return 0 if status == p.OK and setting < 2 else int(usb1.ERROR_NOT_FOUND)

    def clear_halt(self, _handle: Any, endpoint: int) -> int:
        it = self._it
        it.said.append(f"clear {endpoint:#x}")
        setup = c9.Setup(c9.ENDPOINT, c9.CLEAR_FEATURE, c9.ENDPOINT_HALT, endpoint, 0)
        status, _ = it.device.control(setup, memoryview(b""))
        return 0 if status == p.OK else int(usb1.ERROR_NOT_FOUND)

    def reset_device(self, _handle: Any) -> int:
        it = self._it
        it.said.append("reset")
        if it.gone:
            return int(usb1.ERROR_NO_DEVICE)
        if it.changes:
            return int(usb1.ERROR_NOT_FOUND)
        with it.lock:
            assert not it.waiting
            it.device.reset()
            for setup in (
                c9.Setup(0, c9.SET_ADDRESS, it.address, 0, 0),
                c9.Setup(0, c9.SET_CONFIGURATION, CONFIGURATION, 0, 0),
            ):
                assert it.device.control(setup, memoryview(b""))[0] == p.OK
        return 0

    # --- transfers ---

    def alloc_transfer(self, packets: int) -> Any:
        self.transfers += 1
        size = ctypes.sizeof(c.libusb_transfer)
        size += packets * ctypes.sizeof(c.libusb_iso_packet_descriptor)
        memory = ctypes.create_string_buffer(size)
        self._memory[ctypes.addressof(memory)] = memory
        at = cast(memory, c.libusb_transfer_p)
        at.contents.num_iso_packets = packets
        return at

    def free_transfer(self, at: Any) -> None:
        self.transfers -= 1
        del self._memory[ctypes.addressof(at.contents)]

    def submit_transfer(self, at: Any) -> int:
        it = self._it
        with it.lock:
            if it.gone:
                return int(usb1.ERROR_NO_DEVICE)
            it.waiting.append(_Transfer(it, at))
            it.work()
        return 0

    def cancel_transfer(self, at: Any) -> int:
        it = self._it
        address = ctypes.addressof(at.contents)
        with it.lock:
            for transfer in it.waiting:
                if ctypes.addressof(transfer.at.contents) == address:
                    it.waiting.remove(transfer)
                    transfer.end(usb1.TRANSFER_CANCELLED)
                    return 0
        return int(usb1.ERROR_NOT_FOUND)

    def handle_events(self, _context: Any) -> int:
        ended = self._it.ended.get()
        if ended is not None:
            ended.at.contents.callback(ended.at)
        return 0

    def interrupt_event_handler(self, _context: Any) -> None:
        self._it.ended.put(None)


class _Function:
    """A function of a library as ctypes shows it."""

    argtypes: Any = None
    restype: Any = None

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *arguments: Any) -> Any:
        assert _plugged, f"{self.name} is called, and no bus is there"
        return getattr(_plugged[-1], self.name)(*arguments)


class _Library:
    """Has every function; one that `FakeBus` has not fails when it is called."""

    def __getattr__(self, name: str) -> _Function:
        if not name.startswith("libusb_"):
            raise AttributeError(name)
        return _Function(name.removeprefix("libusb_"))


_LIBRARY = _Library()
_plugged: list[FakeBus] = []


@contextlib.contextmanager
def plugged(device: FakeDevice | None) -> Iterator[FakeBus]:
    """A bus with that device; in the end everything that the library gave is given back."""
    assert usb1.loadLibrary(_LIBRARY), "this process has loaded the real libusb"
    bus = FakeBus(device)
    _plugged.append(bus)
    yield bus
    _plugged.remove(bus)
    left = bus.contexts, bus.handles, bus.transfers, bus.references, bus._memory
    assert left == (0, 0, 0, 0, {})
