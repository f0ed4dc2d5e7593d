"""A CDC-ACM serial line: bytes through, and the few settings of a modem. Pure.

Input are the bytes that come in on the line, output those that go out. With ``loopback`` the line
is a wire from one to the other: what the host sends comes back to it.

Rules: the line's speed is told and not kept, bytes go as fast as they are taken. What comes in
waits for the host, `CAPACITY` bytes of it: a loopback then has no room for more (NAK), a line from
outside loses the newest, as a UART does, and the host is told of the overrun. Carrier and data set
ready are always on; the host is told so after each reset.

Specification: USB Class Definitions for CDC 1.2, sections 5.2.3 (functional descriptors), and PSTN
1.2, sections 6.3 (requests) and 6.5.4 (SERIAL_STATE).
"""

from __future__ import annotations

from struct import pack
from typing import Final

from examples.usb import protocol as p
from examples.usb.chapter9 import BULK, IN, INTERRUPT, Setup
from examples.usb.descriptors import Endpoint, Interface
from examples.usb.function import Function, InPipe, Result, Stalled

SET_LINE_CODING: Final = 0x20
GET_LINE_CODING: Final = 0x21
SET_CONTROL_LINE_STATE: Final = 0x22
SEND_BREAK: Final = 0x23
SERIAL_STATE: Final = 0x20  # bNotificationCode

NOTIFICATION: Final = 0  # places of the endpoints
BULK_IN: Final = 1
BULK_OUT: Final = 2

CAPACITY: Final = 64 << 10  # bytes

CARRIER: Final = 1 << 0  # bits of SERIAL_STATE
DATA_SET_READY: Final = 1 << 1
OVERRUN: Final = 1 << 6

_PACKET: Final = 512  # bytes, high speed
_NOTIFICATION_PACKET: Final = 16
_INTERVAL: Final = 9  # 2**8 microframes, 32 ms
_9600_8N1: Final = pack("<IBBB", 9600, 0, 0, 8)


class Serial(Function):
    """A serial line; ``loopback`` connects its two wires."""

    def __init__(self, *, loopback: bool = False) -> None:
        self._loopback = loopback
        self._in = InPipe(_PACKET)
        self._notifications = InPipe(_NOTIFICATION_PACKET)
        self._out = bytearray()
        self._interface = 0
        self.reset()

    def interfaces(self, first: int) -> list[Interface]:
        self._interface = first
        functional = (
            pack("<BBBH", 5, 0x24, 0x00, 0x0110)  # header: CDC 1.1
            + pack("<BBBBB", 5, 0x24, 0x01, 0, first + 1)  # call management: none
            + pack("<BBBB", 4, 0x24, 0x02, 0x06)  # ACM: line coding and state, break
            + pack("<BBBBB", 5, 0x24, 0x06, first, first + 1)  # union
        )
        notification = Endpoint(IN, INTERRUPT, _NOTIFICATION_PACKET, _INTERVAL)
        data = (Endpoint(IN, BULK, _PACKET), Endpoint(0, BULK, _PACKET))
        return [
            Interface(2, 2, 1, (notification,), functional),  # communication, ACM, V.250
            Interface(10, 0, 0, data),
        ]

    def reset(self) -> None:
        self._in.clear()
        self._notifications.clear()
        self._tell(CARRIER | DATA_SET_READY)
        self._coding = _9600_8N1
        self._out.clear()

    def control(self, setup: Setup, data: bytes) -> bytes:
        match setup.request:
            case 0x20 if len(data) == len(_9600_8N1):
                self._coding = data
            case 0x21 if setup.is_in:
                return self._coding
            case 0x22 | 0x23 if not data:  # nobody listens to DTR, RTS and breaks
                pass
            case _:
                raise Stalled
        return b""

    def send(self, endpoint: int, view: memoryview) -> Result:
        return (self._notifications if endpoint == NOTIFICATION else self._in).fill(view)

    def receive(self, endpoint: int, view: memoryview) -> Result:  # noqa: ARG002 - the shape is Function's
        taken = bytes(view[: self._room])
        if not self._loopback:
            self._out += taken
        elif taken:
            self._in.put(taken, end=True)
        return (p.OK if len(taken) == len(view) else p.NAK), len(taken)

    def ready(self, endpoint: int) -> bool:
        match endpoint:
            case 0:
                return bool(self._notifications)
            case 1:
                return bool(self._in)
        return self._room > 0

    @property
    def _room(self) -> int:
        """How many bytes the host can send now."""
        if self._loopback:
            return CAPACITY - self._in.size
        return p.SAID_LIMIT - len(self._out)

    def input(self, data: bytes) -> None:
        """Bytes come in on the line."""
        taken = data[: CAPACITY - self._in.size]
        if taken:
            self._in.put(taken, end=True)
        if len(taken) < len(data):
            self._tell(CARRIER | DATA_SET_READY | OVERRUN)

    def output(self) -> bytes:
        said = bytes(self._out)
        self._out.clear()
        return said

    def _tell(self, state: int) -> None:
        """The newest state only: a host that does not ask is not told of every one."""
        if self._notifications:
            self._notifications.clear()
        self._notifications.put(pack("<BBHHHH", 0xA1, SERIAL_STATE, 0, self._interface, 2, state))
