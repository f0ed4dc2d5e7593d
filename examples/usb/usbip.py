"""The USB/IP protocol: bytes to values and back. Pure, no state.

`operation` and `command` read what a client sends, from the beginning of what has arrived; the
others write what a server answers. All numbers are big-endian. Session rules are in
usbip_session.py.

Limits, so that nobody can make us wait for or remember more: a transfer has at most
`protocol.URB_LIMIT` bytes and `PACKET_LIMIT` isochronous packets, which are Linux's own.

Corner cases: number_of_packets of a transfer that is not isochronous is -1 from new kernels and 0
from old ones. Isochronous data are sent to the device with the gaps between packets, and come back
without them.

Source: Linux Documentation/usb/usbip_protocol.rst, version 1.1.1; drivers/usb/usbip/usbip_common.c
for what it leaves open (the layout of isochronous data).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct
from typing import Final

from examples.usb import protocol as p
from examples.usb.descriptors import EndpointRead
from examples.usb.urb import Urb
from transport import RemoteProtocolError

VERSION: Final = 0x0111

OP_REQ_IMPORT: Final = 0x8003
OP_REP_IMPORT: Final = 0x0003
OP_REQ_DEVLIST: Final = 0x8005
OP_REP_DEVLIST: Final = 0x0005

ST_OK: Final = 0  # status of an OP_REP, tools/usb/usbip/libsrc/usbip_common.h
ST_NA: Final = 1  # not available
ST_DEV_BUSY: Final = 2
ST_DEV_ERR: Final = 3
ST_NODEV: Final = 4

CMD_SUBMIT: Final = 1
CMD_UNLINK: Final = 2
RET_SUBMIT: Final = 3
RET_UNLINK: Final = 4

DIR_OUT: Final = 0
DIR_IN: Final = 1

URB_SHORT_NOT_OK: Final = 0x0001

OPERATION: Final = Struct(">HHI")  # version, code, status
BUSID: Final = Struct(">32s")
DEVICE: Final = Struct(">256s32sIIIHHHBBBBBB")  # path, bus id, bus, device, speed, ...
INTERFACE: Final = Struct(">BBBx")  # class, subclass, protocol
COUNT: Final = Struct(">I")
BASIC: Final = Struct(">IIIII")  # command, seqnum, devid, direction, endpoint
SUBMIT: Final = Struct(">20xIiiii8s")  # flags, length, start frame, packets, interval, setup
UNLINK: Final = Struct(">20xI24x")  # seqnum of the SUBMIT
SUBMITTED: Final = Struct(">IIIIIiiiii8x")  # ..., status, actual, start frame, packets, errors
UNLINKED: Final = Struct(">IIIIIi24x")  # ..., status
PACKET: Final = Struct(">IIII")  # offset, length, actual length, status
HEADER: Final = 48  # bytes of every command and its return

PACKET_LIMIT: Final = 1024  # USBIP_MAX_ISO_PACKETS; what a device takes is less, and is answered


@dataclass(frozen=True)
class Exported:
    """A device as clients see it.

    Attributes:
        interfaces: class, subclass, protocol of each.
        endpoints: those of all settings; USB/IP's clients read the descriptors.
    """

    path: str
    busid: str
    busnum: int
    devnum: int
    speed: int
    vendor: int
    product: int
    release: int
    device_class: int
    subclass: int
    protocol: int
    configuration: int
    configurations: int
    interfaces: tuple[tuple[int, int, int], ...]
    endpoints: tuple[EndpointRead, ...] = ()

    @property
    def devid(self) -> int:
        """What commands name it by."""
        return self.busnum << 16 | self.devnum


# --- from a client --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Devlist:
    """OP_REQ_DEVLIST."""


@dataclass(frozen=True)
class Import:
    """OP_REQ_IMPORT."""

    busid: str


@dataclass(frozen=True)
class Submit:
    """CMD_SUBMIT.

    Attributes:
        packets: offset and length in the transfer buffer of each isochronous packet.
        number_of_packets: as the client says it, which for other transfers is 0 or -1.
    """

    seqnum: int
    devid: int
    is_in: bool
    endpoint: int
    flags: int
    length: int
    setup: bytes
    data: bytes
    packets: tuple[tuple[int, int], ...] = ()
    number_of_packets: int = -1


@dataclass(frozen=True)
class Unlink:
    """CMD_UNLINK of the SUBMIT ``target``."""

    seqnum: int
    devid: int
    target: int


def operation(data: bytes | bytearray) -> tuple[Devlist | Import, int] | None:
    """The request at the beginning of ``data`` and its length; None while it is not complete.

    Raises:
        RemoteProtocolError: it is none.
    """
    if len(data) < OPERATION.size:
        return None
    version, code, _ = OPERATION.unpack_from(data)
    if version != VERSION:
        raise RemoteProtocolError(f"the client speaks USB/IP {version:#06x}, not {VERSION:#06x}")
    if code == OP_REQ_DEVLIST:
        return Devlist(), OPERATION.size
    if code != OP_REQ_IMPORT:
        raise RemoteProtocolError(f"{code:#06x} is not an operation")
    size = OPERATION.size + BUSID.size
    if len(data) < size:
        return None
    (busid,) = BUSID.unpack_from(data, OPERATION.size)
    return Import(busid.partition(b"\0")[0].decode("ascii", "backslashreplace")), size


def command(data: bytes | bytearray) -> tuple[Submit | Unlink, int] | None:
    """The command at the beginning of ``data`` and its length; None while it is not complete.

    Raises:
        RemoteProtocolError: it is none.
    """
    if len(data) < HEADER:
        return None
    kind, seqnum, devid, direction, endpoint = BASIC.unpack_from(data)
    if kind == CMD_UNLINK:
        (target,) = UNLINK.unpack_from(data)
        return Unlink(seqnum, devid, target), HEADER
    if kind != CMD_SUBMIT:
        raise RemoteProtocolError(f"{kind:#x} is not a command")
    flags, length, _, packets, _, setup = SUBMIT.unpack_from(data)
    if direction not in (DIR_OUT, DIR_IN) or endpoint > 15:
        raise RemoteProtocolError(f"a transfer of direction {direction} to endpoint {endpoint}")
    if not 0 <= length <= p.URB_LIMIT:
        raise RemoteProtocolError(f"a transfer of {length} bytes, {p.URB_LIMIT} allowed")
    if not -1 <= packets <= PACKET_LIMIT:
        raise RemoteProtocolError(f"a transfer of {packets} packets, {PACKET_LIMIT} allowed")
    behind = HEADER + (length if direction == DIR_OUT else 0)
    size = behind + max(packets, 0) * PACKET.size
    if len(data) < size:
        return None
    spans = tuple(span[:2] for span in PACKET.iter_unpack(bytes(data[behind:size])))
    if any(offset + span > length for offset, span in spans):
        raise RemoteProtocolError("an isochronous packet lies outside of its transfer")
    payload = bytes(data[HEADER:behind])
    is_in = direction == DIR_IN
    return (
        Submit(seqnum, devid, is_in, endpoint, flags, length, setup, payload, spans, packets),
        size,
    )


# --- to a client ----------------------------------------------------------------------------------


def devlist(devices: Sequence[Exported]) -> bytes:
    """OP_REP_DEVLIST."""
    parts = [OPERATION.pack(VERSION, OP_REP_DEVLIST, ST_OK), COUNT.pack(len(devices))]
    for device in devices:
        parts.append(_device(device))
        parts += [INTERFACE.pack(*one) for one in device.interfaces]
    return b"".join(parts)


def imported(device: Exported) -> bytes:
    """OP_REP_IMPORT: the device is the client's."""
    return OPERATION.pack(VERSION, OP_REP_IMPORT, ST_OK) + _device(device)


def refused(status: int) -> bytes:
    """OP_REP_IMPORT: it is not."""
    return OPERATION.pack(VERSION, OP_REP_IMPORT, status)


def submitted(command: Submit, urb: Urb) -> bytes:
    """RET_SUBMIT: the URB of that command has ended."""
    errors = sum(status != p.OK for status, _ in urb.results)
    spans = command.packets
    head = SUBMITTED.pack(
        RET_SUBMIT,
        command.seqnum,
        0,
        0,
        0,
        urb.status,
        urb.actual,
        0,
        command.number_of_packets,
        errors,
    )
    if not spans:
        return head + urb.received
    data, tail, at = [], [], 0
    results = urb.results or ((urb.status, 0),) * len(spans)
    for (offset, length), (status, actual) in zip(spans, results, strict=True):
        if urb.is_in:
            data.append(urb.received[at : at + actual])
        tail.append(PACKET.pack(offset, length, actual, status & 0xFFFFFFFF))
        at += length
    return b"".join((head, *data, *tail))


def unlinked(seqnum: int, status: int) -> bytes:
    """RET_UNLINK: CONNRESET if it was, OK if there was nothing to unlink any more."""
    return UNLINKED.pack(RET_UNLINK, seqnum, 0, 0, 0, status)


def _device(device: Exported) -> bytes:
    return DEVICE.pack(
        device.path.encode(),
        device.busid.encode(),
        device.busnum,
        device.devnum,
        device.speed,
        device.vendor,
        device.product,
        device.release,
        device.device_class,
        device.subclass,
        device.protocol,
        device.configuration,
        device.configurations,
        len(device.interfaces),
    )
