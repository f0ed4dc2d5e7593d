"""The back end of a USB device that is real: one of this machine, by libusb.

Owns which of the host's transfers are under way in the hardware. Rules:

1. A transfer is begun in the endpoint's thread, so in the order in which they come, and a worker
   waits for its end. It lasts until the device ends it, or the host lets go of it (UNLINK).
2. What the kernel keeps books of (address, configuration, settings, halts) is asked of the kernel,
   not sent to the device past it.
3. A reset, and everything that ends this back end or its connection, cancels what is under way.
4. A device that is unplugged answers NODEV from then on; nobody looks for it when it comes back. A
   successor has to have the same device, not one of the same kind: start it with `located`.

Corner case: the kernel gets the device back when this ends in order. After a kill it is the
successor that takes the device, and then gives it back.

Untested on hardware. The tests have a C library of their own in the place of libusb-1.0; those with
a guest have the real one, and a real kernel, whose device comes to it by USB/IP.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb.chapter9 import Setup
from transport import BackEnd, Request

if TYPE_CHECKING:
    from examples.usb.libusb import OpenDevice, Transfer

_NOTHING = (0, (), (), ())  # actual, packets, ready, output


class HostDevice(BackEnd):
    """Serves one device of this machine.

    Start argument: which, VENDOR:PRODUCT or BUS-DEVICE. Raises OSError if it cannot be had.
    """

    workers = 64  # each waits for one transfer

    def on_start(self, where: str) -> None:
        self._library = _library()
        self._device: OpenDevice = self._library.OpenDevice(where)
        self._incarnation = int.from_bytes(os.urandom(7), "big")
        self._lock = Lock()
        self._under_way: dict[Transfer, int] = {}  # and their endpoints

    def on_abandoned(self) -> None:
        self._cancel(p.IOERROR)

    def on_stop(self) -> None:
        self._device.close()

    def on_request(self, request: Request) -> Any:
        match request.body:
            case (p.CONNECT,):
                return self.offload(self._connect)
            case (_, int(incarnation), *_) if incarnation != self._incarnation:
                return (p.STALE,)
            case (p.SUBMIT, _, int(endpoint), int(kind), int(length), bytes(setup), packets):
                if kind == c9.CONTROL:
                    return self._control(request, Setup.of(setup))
                return self._begin(request, endpoint, kind, length, packets)
            case (p.UNLINK, _, int(endpoint)):
                self._cancel(p.NAK, endpoint)
                return p.OK, *_NOTHING
            case (p.RESET, _):
                self._cancel(p.IOERROR)
                return self.offload(self._ask, self._device.reset)
        return p.INVAL, *_NOTHING  # also input: the world is at the device itself

    def _connect(self) -> tuple[int, int, bool]:
        self._cancel(p.IOERROR)
        self._device.reset()
        return self._incarnation, self._device.speed, True

    # --- transfers --------------------------------------------------------------------------------

    def _control(self, request: Request, setup: Setup) -> Any:
        asks: dict[tuple[int, int], tuple[Callable[..., None], tuple[int, ...]]] = {
            (c9.DEVICE, c9.SET_CONFIGURATION): (self._device.set_configuration, (setup.value,)),
            (c9.INTERFACE, c9.SET_INTERFACE): (
                self._device.set_interface,
                (setup.index, setup.value),
            ),
            (c9.ENDPOINT, c9.CLEAR_FEATURE): (self._device.clear_halt, (setup.index,)),
        }
        kind = (setup.request_type, setup.request)
        if kind == (c9.DEVICE, c9.SET_ADDRESS):
            return p.OK, *_NOTHING  # it has one, on its own bus
        if kind in asks:
            function, arguments = asks[kind]
            return self.offload(self._ask, function, *arguments)
        transfer = self._device.control(setup, b"" if setup.is_in else _data(request))
        return self._hold(request, 0, transfer, is_in=setup.is_in)

    def _begin(
        self, request: Request, endpoint: int, kind: int, length: int, packets: Sequence[int]
    ) -> Any:
        is_in = bool(endpoint & c9.IN)
        data = b"" if is_in else _data(request)
        if kind == c9.ISOCHRONOUS:
            transfer = self._device.packets(endpoint, list(packets), data)
        else:
            transfer = self._device.transfer(kind, endpoint, length, data)
        return self._hold(request, endpoint, transfer, is_in=is_in)

    def _hold(self, request: Request, endpoint: int, transfer: Transfer, *, is_in: bool) -> Any:
        with self._lock:
            self._under_way[transfer] = endpoint
        return self.offload(self._finish, request, transfer, is_in)

    def _finish(self, request: Request, transfer: Transfer, is_in: bool) -> Any:
        """In a worker: its end, and what it has read."""
        transfer.wait()
        with self._lock:
            del self._under_way[transfer]
            transfer.close()
        length = len(transfer.data) if transfer.results else transfer.actual
        if is_in and length and request.buffer is not None:
            with request.buffer.map() as pages:
                pages[:length] = transfer.data[:length]
        return transfer.status, transfer.actual, transfer.results, (), ()

    def _cancel(self, status: int, endpoint: int | None = None) -> None:
        with self._lock:
            for transfer, at in self._under_way.items():
                if endpoint in (None, at):
                    transfer.cancel(status)

    def _ask(self, function: Callable[..., None], *arguments: int) -> Any:
        """In a worker: what the library does at once."""
        return self._library.outcome(function, *arguments), *_NOTHING


def located(where: str) -> str:
    """BUS-DEVICE of the device that is VENDOR:PRODUCT now. Raises OSError if there is none."""
    found: str = _library().locate(where)
    return found


def _library() -> Any:
    try:
        from examples.usb import libusb  # noqa: PLC0415 - an optional extra
    except ModuleNotFoundError as error:
        if error.name != "usb1":
            raise
        raise OSError("a host device needs libusb1: pip install 'xenidc[libusb]'") from None
    return libusb


def _data(request: Request) -> bytes:
    """A copy of what is to be sent; see libusb.py."""
    if request.buffer is None:
        return b""
    with request.buffer.map(readonly=True) as pages:
        return bytes(pages)
