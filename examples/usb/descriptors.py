"""Descriptors: how a device says what it is, from values to bytes and back. Pure.

The builders take what the author of a device decides and work out the lengths and counts.
`read_configuration` reads the bytes back: a host knows no more of a device than these.

Corner cases: a string has at most 126 UTF-16 units (bLength is one byte); a longer one is a
`ValueError`, as is a number that does not fit its field (`struct.error`).

Specification: USB 2.0 section 9.6, tables 9-8 to 9-16; the association descriptor's ECN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from struct import Struct, unpack_from
from typing import Final

from examples.usb import chapter9 as c9

US_ENGLISH: Final = 0x0409  # the one LANGID that our devices have
SELF_POWERED: Final = 0xC0  # bmAttributes; bit 7 is always set
MILLIAMPERES: Final = 100

_DEVICE: Final = Struct("<BBHBBBBHHHBBBB")
_QUALIFIER: Final = Struct("<BBHBBBBBB")
_CONFIGURATION: Final = Struct("<BBHBBBBB")
_ASSOCIATION: Final = Struct("<BBBBBBBB")
_INTERFACE: Final = Struct("<BBBBBBBBB")
_ENDPOINT: Final = Struct("<BBBBHB")
_USB_2_0: Final = 0x0200
_CONTROL_PACKET: Final = 64  # bytes; a high-speed device has no choice


class BadDescriptor(Exception):
    """A device describes itself by bytes that are no descriptors; the text says what is wrong."""


@dataclass(frozen=True)
class Identity:
    """Who a device is. The strings may be empty: then it has none."""

    vendor: int
    product: int
    release: int = 0x0100  # bcdDevice
    device_class: int = 0
    subclass: int = 0
    protocol: int = 0
    manufacturer_name: str = "xenidc"
    product_name: str = ""
    serial_number: str = ""


@dataclass(frozen=True)
class Endpoint:
    """One endpoint of an interface. Its number is the device's to give (device.py).

    Attributes:
        direction: `chapter9.IN` or 0.
        kind: BULK, INTERRUPT or ISOCHRONOUS.
        packet: wMaxPacketSize in bytes.
        interval: bInterval; for high speed the period is 2 ** (interval - 1) microframes.
    """

    direction: int
    kind: int
    packet: int
    interval: int = 0


@dataclass(frozen=True)
class Interface:
    """One interface, with its one setting.

    Attributes:
        class_descriptors: bytes that stand between it and its endpoints.
        string: what it is called, or empty.
    """

    interface_class: int
    subclass: int
    protocol: int
    endpoints: tuple[Endpoint, ...] = ()
    class_descriptors: bytes = b""
    string: str = ""


def device(identity: Identity, strings: Sequence[int], configurations: int = 1) -> bytes:
    """Table 9-8. ``strings``: the indices of manufacturer, product and serial number."""
    return _DEVICE.pack(
        _DEVICE.size,
        c9.DEVICE_DESCRIPTOR,
        _USB_2_0,
        identity.device_class,
        identity.subclass,
        identity.protocol,
        _CONTROL_PACKET,
        identity.vendor,
        identity.product,
        identity.release,
        *strings,
        configurations,
    )


def qualifier(identity: Identity) -> bytes:
    """Table 9-9: what it would be at its other speed. Ours are the same, with no configuration."""
    return _QUALIFIER.pack(
        _QUALIFIER.size,
        c9.DEVICE_QUALIFIER_DESCRIPTOR,
        _USB_2_0,
        identity.device_class,
        identity.subclass,
        identity.protocol,
        _CONTROL_PACKET,
        0,
        0,
    )


def configuration(value: int, interfaces: int, body: bytes) -> bytes:
    """Table 9-10 and what belongs to it: ``body`` has all interfaces, in their order."""
    return (
        _CONFIGURATION.pack(
            _CONFIGURATION.size,
            c9.CONFIGURATION_DESCRIPTOR,
            _CONFIGURATION.size + len(body),
            interfaces,
            value,
            0,
            SELF_POWERED,
            MILLIAMPERES // 2,
        )
        + body
    )


def association(first: int, interfaces: Sequence[Interface]) -> bytes:
    """Interfaces from number ``first`` on belong to one driver, which the first of them names."""
    leader = interfaces[0]
    return _ASSOCIATION.pack(
        _ASSOCIATION.size,
        c9.INTERFACE_ASSOCIATION_DESCRIPTOR,
        first,
        len(interfaces),
        leader.interface_class,
        leader.subclass,
        leader.protocol,
        0,
    )


def interface(number: int, spec: Interface, string: int, addresses: Sequence[int]) -> bytes:
    """Table 9-12, the class's own descriptors, and table 9-13 for each endpoint.

    Args:
        string: index of the interface's string.
        addresses: of its endpoints, in their order.
    """
    head = _INTERFACE.pack(
        _INTERFACE.size,
        c9.INTERFACE_DESCRIPTOR,
        number,
        0,
        len(spec.endpoints),
        spec.interface_class,
        spec.subclass,
        spec.protocol,
        string,
    )
    ends = [
        _ENDPOINT.pack(
            _ENDPOINT.size, c9.ENDPOINT_DESCRIPTOR, address, end.kind, end.packet, end.interval
        )
        for address, end in zip(addresses, spec.endpoints, strict=True)
    ]
    return head + spec.class_descriptors + b"".join(ends)


def string(text: str) -> bytes:
    """Table 9-16. Raises ValueError when it is too long."""
    data = text.encode("utf-16-le")
    if len(data) > 252:
        raise ValueError(f"a string descriptor has at most 126 characters: {text!r}")
    return bytes((2 + len(data), c9.STRING_DESCRIPTOR)) + data


def languages() -> bytes:
    """String descriptor zero, table 9-15."""
    return bytes((4, c9.STRING_DESCRIPTOR)) + US_ENGLISH.to_bytes(2, "little")


# --- what a host reads ----------------------------------------------------------------------------


@dataclass(frozen=True)
class DeviceRead:
    """A device descriptor that was read."""

    device_class: int
    subclass: int
    protocol: int
    vendor: int
    product: int
    release: int
    configurations: int


@dataclass(frozen=True)
class EndpointRead:
    """An endpoint that was read; see `Endpoint`.

    Attributes:
        packet: wMaxPacketSize as it stands there, with its bits of more packets in a microframe.
        interface, setting: the numbers of what it belongs to.
    """

    address: int
    kind: int
    packet: int
    interval: int
    interface: int
    setting: int = 0

    @property
    def size(self) -> int:
        """Bytes that it moves in one period at most (USB 2.0 section 9.6.6)."""
        return (self.packet & 0x7FF) * (1 + (self.packet >> 11 & 3))


@dataclass
class ConfigurationRead:
    """A configuration that was read."""

    value: int
    interfaces: list[tuple[int, int, int, int]] = field(default_factory=list)
    """Number, class, subclass, protocol of each, in setting 0."""
    endpoints: list[EndpointRead] = field(default_factory=list)
    """Those of all settings: an address may be there several times."""


def read_device(data: bytes) -> DeviceRead:
    """Read a device descriptor.

    Raises:
        BadDescriptor: it is none.
    """
    if len(data) != _DEVICE.size or data[:2] != bytes((_DEVICE.size, c9.DEVICE_DESCRIPTOR)):
        raise BadDescriptor(f"a device descriptor is {data!r:.80}")
    *_, kind, subclass, protocol, _, vendor, product, release = _DEVICE.unpack(data)[:10]
    return DeviceRead(kind, subclass, protocol, vendor, product, release, data[17])


def read_configuration(data: bytes) -> ConfigurationRead:
    """Read a configuration and all that belongs to it.

    Raises:
        BadDescriptor: the bytes are not a chain of descriptors that a configuration heads.
    """
    found: ConfigurationRead | None = None
    number = setting = 0
    for kind, one in _chain(data):
        if found is None:
            if kind != c9.CONFIGURATION_DESCRIPTOR or len(one) < _CONFIGURATION.size:
                raise BadDescriptor(f"a configuration begins with descriptor {kind}")
            if int.from_bytes(one[2:4], "little") != len(data):
                raise BadDescriptor(f"a configuration of {len(data)} bytes names another length")
            found = ConfigurationRead(one[5])
        elif kind == c9.INTERFACE_DESCRIPTOR and len(one) >= _INTERFACE.size:
            number, setting = one[2], one[3]
            if setting == 0:
                found.interfaces.append((number, *one[5:8]))
        elif kind == c9.ENDPOINT_DESCRIPTOR and len(one) >= _ENDPOINT.size:
            address, attributes, packet, interval = unpack_from("<BBHB", one, 2)
            found.endpoints.append(
                EndpointRead(address, attributes & 3, packet, interval, number, setting)
            )
    if found is None:
        raise BadDescriptor("a configuration is empty")
    return found


def _chain(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length = data[at]
        if length < 2 or at + length > len(data):
            raise BadDescriptor(f"a descriptor of {length} bytes at {at} of {len(data)}")
        yield data[at + 1], data[at : at + length]
        at += length
