"""The back end of a USB device: it runs one device of functions that plain arguments name.

Owns the device (device.py) and its incarnation, a number that no other run of a back end has.
Rules:

1. A request for another incarnation is answered STALE and does nothing: the channel sends requests
   again to the successor of a back end that died.
2. Data move between the device and the host's own pages.
3. Every request is served in the endpoint's thread, one after another: what a disk does keeps the
   other functions of the same device waiting, as a slow device does. Devices are domains of their
   own and do not wait for each other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Any

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb.descriptors import Identity
from examples.usb.device import Device
from examples.usb.function import Function
from examples.usb.keyboard import Keyboard
from examples.usb.mass_storage import MassStorage
from examples.usb.serial import Serial
from examples.usb.volume import Volume
from transport import BackEnd, Request


class UsbDevice(BackEnd):
    """Serves one device.

    Start arguments: product, the device's name; vendor and product number; its serial number; and
    its functions, each a list: ``["block", device]``, a disk that another domain serves
    (examples/block), ``["keyboard"]``, ``["serial", loopback]``. Raises ValueError for a function
    that there is not.
    """

    def on_start(
        self,
        name: str,
        vendor: int,
        product: int,
        serial_number: str,
        functions: Sequence[Sequence[Any]],
    ) -> None:
        made = [self.function(serial_number, *one) for one in functions]
        identity = Identity(vendor, product, product_name=name, serial_number=serial_number)
        self.device = Device(identity, made)
        self._incarnation = int.from_bytes(os.urandom(7), "big")

    def function(self, serial_number: str, kind: str, *arguments: Any) -> Function:
        """The function that plain arguments name; override it for a device of your own."""
        match kind, arguments:
            case "block", (str(device),):
                channel = self.connect(device, slots=16, buffer_bytes=4 * p.URB_LIMIT)
                return MassStorage(Volume(channel), serial_number)
            case "keyboard", ():
                return Keyboard()
            case "serial", (bool(loopback),):
                return Serial(loopback=loopback)
        raise ValueError(f"no function is {kind!r} with {arguments!r}")

    def on_request(self, request: Request) -> Any:
        match request.body:
            case (p.CONNECT,):
                self.device.reset()
                return self._incarnation, self.device.speed, False
            case (_, int(incarnation), *_) if incarnation != self._incarnation:
                return (p.STALE,)
            case (p.SUBMIT, _, int(endpoint), int(kind), int(length), bytes(setup), packets):
                if request.buffer is None:
                    result = self._submit(endpoint, kind, setup, packets, memoryview(b""))
                else:
                    with request.buffer.map() as pages, pages[:length] as view:
                        result = self._submit(endpoint, kind, setup, packets, view)
            case (p.RESET, _):
                self.device.reset()
                result = p.OK, 0, ()
            case (p.INPUT, _, int(function), bytes(data)):
                self.device.input(function, data)
                result = p.OK, len(data), ()
            case _:
                raise OSError(errno.EINVAL, f"no request is {request.body!r:.80}")
        output = self.device.take_output()  # which makes room for more
        return *result, self.device.take_ready(), output

    def _submit(
        self, endpoint: int, kind: int, setup: bytes, packets: Sequence[int], view: memoryview
    ) -> tuple[int, int, tuple[tuple[int, int], ...]]:
        if kind == c9.CONTROL:
            return *self.device.control(c9.Setup.of(setup), view), ()
        if kind == c9.ISOCHRONOUS:
            results = self.device.packets(endpoint, view, packets)
            return p.OK, sum(actual for _, actual in results), results
        return *self.device.transfer(endpoint, view), ()
