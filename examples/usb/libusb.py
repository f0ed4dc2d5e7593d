"""A device of this machine by libusb (PyPI libusb1): opened, claimed, and transfers on it.

All that the others need to know of libusb is here. Owns the library's context, the device's handle,
and one thread, in which the library says that transfers have ended. Rules:

1. Opening takes the device away from the kernel's drivers, and `close` gives it back. A process
   that is killed gives nothing back; who opens the device next does, in the end.
2. A transfer ends once, in the library's thread, with a status of protocol.py. Only `Transfer.wait`
   waits for it. Who has waited closes it, and nobody cancels it at the same time or later.
3. What asks the kernel (`set_configuration`, `reset`...) waits for it: it is for worker threads.
4. Data are copied. The library writes into a transfer's memory until that has ended, also after
   whoever has asked for it is gone and his pages were revoked.

Why this library: its transfers are asynchronous, can be cancelled, and there are isochronous ones.
PyPI's pyusb has none of the three.

Source: libusb-1.0's API reference (asynchronous I/O, device handling), and the docstrings of usb1.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from threading import Event, Thread
from typing import Any, Final

import usb1

from examples.usb import chapter9 as c9
from examples.usb import protocol as p

_ENDS: Final = {
    usb1.TRANSFER_COMPLETED: p.OK,
    usb1.TRANSFER_STALL: p.STALL,
    usb1.TRANSFER_NO_DEVICE: p.NODEV,
    usb1.TRANSFER_OVERFLOW: p.BABBLE,
}
"""What the library calls how a transfer ends; IOERROR is the rest, but for a cancelled one."""

_ERRORS: Final = {
    usb1.ERROR_NO_DEVICE: p.NODEV,
    usb1.ERROR_PIPE: p.STALL,
    usb1.ERROR_NOT_FOUND: p.STALL,  # a configuration, interface or endpoint that is not there
    usb1.ERROR_INVALID_PARAM: p.INVAL,
}
"""The same for its calls."""


class Transfer:
    """One transfer that is under way, or has ended.

    Attributes:
        status: how it ended.
        actual: bytes that were moved.
        results: status and actual length of each isochronous packet.
        data: what came, of a read; of an isochronous one each packet where its lengths say.
    """

    def __init__(self, transfer: Any) -> None:
        self.status = p.IOERROR
        self.actual = 0
        self.results: tuple[tuple[int, int], ...] = ()
        self.data: Any = b""
        self._transfer = transfer
        self._cancelled = p.IOERROR  # what it ends with if it is cancelled
        self._ended = Event()

    def wait(self) -> None:
        """Wait for its end."""
        self._ended.wait()

    def cancel(self, status: int) -> None:
        """Have it end soon, with ``status`` unless it has ended otherwise."""
        self._cancelled = status
        with contextlib.suppress(usb1.USBErrorNotFound, usb1.USBErrorNoDevice):
            self._transfer.cancel()

    def close(self) -> None:
        """Free the library's part of it."""
        self._transfer.close()

    def fail(self, status: int) -> None:
        """It could not even begin."""
        self.status = status
        self._ended.set()

    def on_end(self, transfer: Any) -> None:
        """The library calls this, in its thread."""
        status = transfer.getStatus()
        cancelled = status == usb1.TRANSFER_CANCELLED
        self.status = self._cancelled if cancelled else _ENDS.get(status, p.IOERROR)
        self.actual = transfer.getActualLength()
        self.data = transfer.getBuffer()
        if transfer.getType() == usb1.TRANSFER_TYPE_ISOCHRONOUS:
            self.results = tuple(
                (_ENDS.get(one["status"], p.IOERROR), one["actual_length"])
                for one in transfer.getISOSetupList()
            )
            self.actual = sum(actual for _, actual in self.results)
        self._ended.set()


class OpenDevice:
    """The device ``where``: VENDOR:PRODUCT, or BUS-DEVICE, the numbers that lsusb shows.

    Attributes:
        speed: of protocol.py.

    Raises:
        OSError: there is none, or it cannot be had; the text says why, and what to do.
    """

    def __init__(self, where: str) -> None:
        self._context = _context()
        self._closing = False
        try:
            self._device = _find(self._context, where)
            self.speed = self._device.getDeviceSpeed()
            if self.speed > p.SPEED_HIGH:
                raise OSError(f"USB device {where} speaks USB 3: plug it into a port of USB 2")
            self._handle = self._device.open()
            self._interfaces: list[int] = []
            self._claim()
        except usb1.USBErrorAccess as error:
            raise self._unusable(where, "no permission, run as root or see udev(7)") from error
        except usb1.USBErrorBusy as error:
            raise self._unusable(where, "another program has it") from error
        except usb1.USBError as error:
            raise self._unusable(where, str(error)) from error
        except BaseException:
            self._context.close()
            raise
        self._thread = Thread(target=self._run, name="libusb")
        self._thread.start()

    def _unusable(self, where: str, reason: str) -> OSError:
        self._context.close()
        return OSError(f"USB device {where} cannot be used: {reason}")

    def _run(self) -> None:
        while not self._closing:
            with contextlib.suppress(usb1.USBErrorInterrupted):
                self._context.handleEvents()

    def close(self) -> None:
        """Give the device back to the kernel. Every transfer has ended."""
        self._closing = True
        self._context.interruptEventHandler()
        self._thread.join()
        with contextlib.suppress(usb1.USBError):  # it may have been unplugged
            self._release()
        self._context.close()

    # --- transfers --------------------------------------------------------------------------------

    def control(self, setup: c9.Setup, data: bytes) -> Transfer:
        """Begin a control transfer; ``data`` of one to the device."""
        what = setup.length if setup.is_in else data
        fields = (setup.request_type, setup.request, setup.value, setup.index)
        return self._begin(0, lambda transfer, end: transfer.setControl(*fields, what, end))

    def transfer(self, kind: int, endpoint: int, length: int, data: bytes) -> Transfer:
        """Begin a bulk or interrupt transfer."""
        what = length if endpoint & c9.IN else data

        def fill(transfer: Any, end: Callable[[Any], None]) -> None:
            fill = transfer.setBulk if kind == c9.BULK else transfer.setInterrupt
            fill(endpoint, what, end)

        return self._begin(0, fill)

    def packets(self, endpoint: int, lengths: list[int], data: bytes) -> Transfer:
        """Begin an isochronous transfer of packets of these lengths."""
        what = sum(lengths) if endpoint & c9.IN else data
        return self._begin(
            len(lengths),
            lambda transfer, end: transfer.setIsochronous(
                endpoint, what, end, iso_transfer_length_list=lengths
            ),
        )

    def _begin(self, packets: int, fill: Callable[[Any, Callable[[Any], None]], None]) -> Transfer:
        transfer = self._handle.getTransfer(packets)
        begun = Transfer(transfer)
        try:
            fill(transfer, begun.on_end)
            transfer.submit()
        except usb1.USBError as error:
            begun.fail(_status_of(error))
        except ValueError:  # an isochronous packet of 0 bytes, which usb1 does not have
            begun.fail(p.INVAL)
        return begun

    # --- what the kernel wants to be asked, since it keeps books of it ----------------------------

    def set_configuration(self, value: int) -> None:
        """Choose a configuration. The present one is begun again. Raises USBError."""
        if value == self._handle.getConfiguration():
            for number in self._with_settings():
                self._handle.setInterfaceAltSetting(number, 0)
            return
        self._set_automatic(False)  # no driver may come in between
        self._release()
        try:
            self._handle.setConfiguration(value or -1)  # the library's word for none
        finally:
            self._claim()

    def set_interface(self, number: int, setting: int) -> None:
        """Choose an interface's setting. Raises USBError."""
        self._handle.setInterfaceAltSetting(number, setting)

    def clear_halt(self, endpoint: int) -> None:
        """End an endpoint's halt. Raises USBError."""
        self._handle.clearHalt(endpoint)

    def reset(self) -> None:
        """Reset the device. Raises USBError; USBErrorNoDevice if it has come back as another."""
        try:
            self._handle.resetDevice()
        except usb1.USBErrorNotFound as error:
            raise usb1.USBErrorNoDevice(usb1.ERROR_NO_DEVICE) from error

    def _claim(self) -> None:
        """Take all interfaces from the kernel's drivers."""
        self._set_automatic(True)
        for interface in self._present():
            number = interface[0].getNumber()
            self._handle.claimInterface(number)
            self._interfaces.append(number)

    def _release(self) -> None:
        while self._interfaces:
            self._handle.releaseInterface(self._interfaces.pop())

    def _set_automatic(self, wanted: bool) -> None:
        """Whether claiming detaches the kernel's driver, and releasing attaches it."""
        with contextlib.suppress(usb1.USBErrorNotSupported):
            self._handle.setAutoDetachKernelDriver(wanted)

    def _present(self) -> Iterator[Any]:
        """The interfaces of the present configuration."""
        value = self._handle.getConfiguration()
        for configuration in self._device.iterConfigurations():
            if configuration.getConfigurationValue() == value:
                yield from configuration

    def _with_settings(self) -> list[int]:
        """The numbers of those that have several settings."""
        return [each[0].getNumber() for each in self._present() if each.getNumSettings() > 1]


def locate(where: str) -> str:
    """BUS-DEVICE of the device that is ``where`` now: no other one, until that is unplugged.

    Raises:
        OSError: there is none, or no libusb.
    """
    context = _context()
    try:
        return _address(_find(context, where))
    finally:
        context.close()


def _context() -> Any:
    context = usb1.USBContext()
    try:
        return context.open()
    except (OSError, usb1.USBError) as error:
        raise OSError(
            f"libusb-1.0 cannot be used ({error}): apt-get install libusb-1.0-0"
        ) from error


def _find(context: Any, where: str) -> Any:
    for device in context.getDeviceIterator(skip_on_error=True):
        ids = f"{device.getVendorID():04x}:{device.getProductID():04x}"
        if where in (ids, _address(device)):
            return device
        device.close()
    raise OSError(f"no USB device is {where}; lsusb shows those that there are")


def _address(device: Any) -> str:
    return f"{device.getBusNumber()}-{device.getDeviceAddress()}"


def outcome(function: Callable[..., None], *arguments: int) -> int:
    """Call it; the status of protocol.py for how that ends."""
    try:
        function(*arguments)
    except usb1.USBError as error:
        return _status_of(error)
    return p.OK


def _status_of(error: usb1.USBError) -> int:
    return _ERRORS.get(error.value, p.IOERROR)
