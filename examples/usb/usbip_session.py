"""One USB/IP client's connection, as a state machine. Pure, no I/O.

Owns the bytes that have arrived and are not understood yet, and which of the client's transfers
have not ended. The connection around it feeds what arrives, does what the events say, and sends
what the methods return.

    OPERATION --List--> CLOSING, when the list is sent
    OPERATION --Wanted--> IMPORTING --imported--> URBS
                                    `-refused---> CLOSING
    URBS: Submitted and Unlinked, until the connection ends

Rules:
1. Every CMD_SUBMIT gets one RET_SUBMIT, unless it is unlinked: then there is a RET_UNLINK with
   CONNRESET alone. A CMD_UNLINK of what has ended, or of what never was, gets RET_UNLINK with OK,
   behind the RET_SUBMIT if there is one to come.
2. What one client may have under way is bounded: `URBS_LIMIT` transfers of `BYTES_LIMIT` bytes.
3. Only bytes that make no sense end the connection (`RemoteProtocolError`); a transfer that makes
   no sense is answered.

Source: Linux Documentation/usb/usbip_protocol.rst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from examples.usb import protocol as p
from examples.usb import usbip
from examples.usb.chapter9 import BULK, CONTROL, IN
from examples.usb.urb import Urb
from examples.usb.usbip import Exported
from transport import RemoteProtocolError

URBS_LIMIT: Final = 1024
BYTES_LIMIT: Final = 32 << 20

OPERATION: Final = "operation"
IMPORTING: Final = "importing"
URBS: Final = "urbs"
CLOSING: Final = "closing"


@dataclass(frozen=True)
class List:
    """The client wants the list of devices (`usbip.devlist`); then its connection is to be
    closed.
    """


@dataclass(frozen=True)
class Wanted:
    """It wants this device, or (None) any that is free: `imported` or `refused`."""

    busid: str | None


@dataclass(frozen=True)
class Submitted:
    """It submits a URB: `ended`. Its id is the client's number and the command's."""

    urb: Urb


@dataclass(frozen=True)
class Unlinked:
    """It wants the URB of that id to end soon: `ended` too."""

    id: tuple[int, Any]


@dataclass(frozen=True)
class Reset:
    """It resets its device."""


Event = List | Wanted | Submitted | Unlinked | Reset


class Session:
    """The server's side of the connection of ``client``, a number that no other one has.

    Attributes:
        state: OPERATION, IMPORTING, URBS or CLOSING.
        greeting: what is to be sent first: nothing.
    """

    greeting = b""

    def __init__(self, client: int) -> None:
        self.state = OPERATION
        self._client = client
        self._input = bytearray()
        self._devid = 0
        self._kind_of: Callable[[int], int | None] = lambda _endpoint: None
        self._under_way: dict[int, usbip.Submit] = {}
        self._unlinks: dict[int, list[int]] = {}  # URB -> who wants to know of its end
        self._bytes = 0

    def receive(self, data: bytes | memoryview) -> tuple[list[Event], bytes]:
        """Take in what has arrived; returns what is to be done, and what is to be sent at once.

        Raises:
            RemoteProtocolError: the client does not speak this protocol. Close its connection.
        """
        self._input += data
        events: list[Event] = []
        output = b""
        if self.state == OPERATION:
            self._operation(events)
        while self.state == URBS and (found := usbip.command(self._input)) is not None:
            command, size = found
            del self._input[:size]
            if command.devid != self._devid:
                raise RemoteProtocolError(f"a command for device {command.devid:#x}")
            if isinstance(command, usbip.Submit):
                events.append(self._submit(command))
            elif command.target in self._under_way:
                self._unlinks.setdefault(command.target, []).append(command.seqnum)
                events.append(Unlinked((self._client, command.target)))
            else:
                output += usbip.unlinked(command.seqnum, p.OK)
        return events, output

    def _operation(self, events: list[Event]) -> None:
        found = usbip.operation(self._input)
        if found is None:
            return
        request, size = found
        del self._input[:size]
        if isinstance(request, usbip.Devlist):
            self.state = CLOSING
            events.append(List())
        else:
            self.state = IMPORTING
            events.append(Wanted(request.busid))

    def _submit(self, command: usbip.Submit) -> Submitted:
        if command.seqnum in self._under_way:
            raise RemoteProtocolError(f"command {command.seqnum} has not ended, and is there again")
        self._bytes += command.length
        self._under_way[command.seqnum] = replace(command, data=b"")
        count = len(self._under_way)
        if count > URBS_LIMIT or self._bytes > BYTES_LIMIT:
            raise RemoteProtocolError(f"{count} transfers of {self._bytes} bytes are under way")
        return Submitted(self._urb(command))

    def _urb(self, command: usbip.Submit) -> Urb:
        is_control = command.endpoint == 0
        address = command.endpoint | (IN if command.is_in and not is_control else 0)
        kind = self._kind_of(address)
        data, length = command.data, command.length
        if command.packets:
            length = sum(span for _, span in command.packets)
            data = b"".join(data[at : at + span] for at, span in command.packets)
        return Urb(
            (self._client, command.seqnum),
            address,
            BULK if kind is None else kind,
            length,
            data,
            command.setup if kind == CONTROL else b"",
            tuple(span for _, span in command.packets),
            bool(command.flags & usbip.URB_SHORT_NOT_OK),
        )

    # --- answers ----------------------------------------------------------------------------------

    def imported(self, device: Exported, kind_of: Callable[[int], int | None]) -> bytes:
        """The answer to `Wanted`: it has the device. Call `receive` again, there may be commands.

        Args:
            kind_of: the transfer type of an endpoint's address.
        """
        self.state = URBS
        self._devid = device.devid
        self._kind_of = kind_of
        return usbip.imported(device)

    def refused(self, status: int) -> bytes:
        """The answer to `Wanted`: it has not. Then the connection is to be closed."""
        self.state = CLOSING
        return usbip.refused(status)

    def ended(self, urb: Urb) -> tuple[list[Event], bytes]:
        """A URB has ended; returns what is to be done, and what the client is to be told."""
        _, number = urb.id
        command = self._under_way.pop(number)
        self._bytes -= command.length
        unlinks = self._unlinks.pop(number, [])
        if unlinks and urb.status == p.CONNRESET:
            return [], b"".join(usbip.unlinked(seqnum, p.CONNRESET) for seqnum in unlinks)
        told = usbip.submitted(command, urb)
        return [], told + b"".join(usbip.unlinked(seqnum, p.OK) for seqnum in unlinks)
