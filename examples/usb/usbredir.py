"""The usbredir protocol: the layouts of its packets. Pure, no state but what two hellos agree on.

A packet is a header, a header of its type, and perhaps data. All numbers are little-endian. We are
the "usb-host" of the specification, the client (QEMU) its "usb-guest". What is done with packets is
in usbredir_session.py.

Rules: a packet is read when all of it has arrived; its length is judged first, `LIMIT` bytes at
most. What both sides are capable of (`CAPABILITIES`) decides on three layouts: identifiers of 64
bits, bulk lengths of 32, and what the descriptions of a device have.

Source: usb-redirection-protocol.md of spice/usbredir, version 0.7; usbredirproto.h.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import Final

from examples.usb import protocol as p
from transport import RemoteProtocolError

HELLO: Final = 0
DEVICE_CONNECT: Final = 1
DEVICE_DISCONNECT: Final = 2
RESET: Final = 3
INTERFACE_INFO: Final = 4
EP_INFO: Final = 5
SET_CONFIGURATION: Final = 6
GET_CONFIGURATION: Final = 7
CONFIGURATION_STATUS: Final = 8
SET_ALT_SETTING: Final = 9
GET_ALT_SETTING: Final = 10
ALT_SETTING_STATUS: Final = 11
START_ISO_STREAM: Final = 12
STOP_ISO_STREAM: Final = 13
ISO_STREAM_STATUS: Final = 14
START_INTERRUPT_RECEIVING: Final = 15
STOP_INTERRUPT_RECEIVING: Final = 16
INTERRUPT_RECEIVING_STATUS: Final = 17
CANCEL_DATA_PACKET: Final = 21
DEVICE_DISCONNECT_ACK: Final = 24
CONTROL_PACKET: Final = 100
BULK_PACKET: Final = 101
ISO_PACKET: Final = 102
INTERRUPT_PACKET: Final = 103

SUCCESS: Final = 0
CANCELLED: Final = 1
INVAL: Final = 2
IOERROR: Final = 3
STALL: Final = 4
BABBLE: Final = 6

STATUSES: Final = {
    p.OK: SUCCESS,
    p.CONNRESET: CANCELLED,
    p.INVAL: INVAL,
    p.STALL: STALL,
    p.BABBLE: BABBLE,
}
"""What our statuses are called there; IOERROR is what has no name."""

CAP_DEVICE_VERSION: Final = 1 << 1
CAP_MAX_PACKET_SIZE: Final = 1 << 4
CAP_64_BIT_IDS: Final = 1 << 5
CAP_32_BIT_BULK: Final = 1 << 6
CAPABILITIES: Final = CAP_DEVICE_VERSION | CAP_MAX_PACKET_SIZE | CAP_64_BIT_IDS | CAP_32_BIT_BULK

HEADER: Final = Struct("<II")  # type, length of what is behind the identifier
HELLO_BODY: Final = Struct("<64sI")  # version, capabilities
CONNECT_BODY: Final = Struct("<BBBBHH")  # speed, class, subclass, protocol, vendor, product
CONTROL_BODY: Final = Struct("<BBBBHHH")  # endpoint, request, type, status, value, index, length
BULK_BODY: Final = Struct("<BBHI")  # endpoint, status, length, stream
SHORT_BODY: Final = Struct("<BBH")  # endpoint, status, length: interrupt and isochronous

LIMIT: Final = p.URB_LIMIT + 64  # bytes of a packet's body

_ENDS: Final = 32  # endpoints have 32 places: 16 out, 16 in


@dataclass(frozen=True)
class Packet:
    """A packet from the client: its type, its identifier, and what is behind them."""

    kind: int
    id: int
    body: bytes


def read(data: bytes | bytearray, capabilities: int) -> tuple[Packet, int] | None:
    """The packet at the beginning of ``data`` and its length; None while it is not complete.

    Raises:
        RemoteProtocolError: it is longer than any packet is.
    """
    width = 8 if capabilities & CAP_64_BIT_IDS else 4
    start = HEADER.size + width
    if len(data) < start:
        return None
    kind, length = HEADER.unpack_from(data)
    if length > LIMIT:
        raise RemoteProtocolError(f"a packet of {length} bytes, {LIMIT} allowed")
    if len(data) < start + length:
        return None
    number = int.from_bytes(data[HEADER.size : start], "little")
    return Packet(kind, number, bytes(data[start : start + length])), start + length


def packet(kind: int, number: int, body: bytes, capabilities: int) -> bytes:
    """A packet to the client."""
    width = 8 if capabilities & CAP_64_BIT_IDS else 4
    return HEADER.pack(kind, len(body)) + number.to_bytes(width, "little") + body


def place(address: int) -> int:
    """Where the endpoint of that address stands in the description of all."""
    return address & 0x0F | (16 if address & 0x80 else 0)


def table(values: dict[int, int], default: int = 0, width: int = 1) -> bytes:
    """32 numbers, of ``width`` bytes each, by place."""
    return b"".join(
        values.get(number, default).to_bytes(width, "little") for number in range(_ENDS)
    )
