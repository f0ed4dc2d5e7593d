"""The words of USB 2.0 chapter 9: what a host asks of every device, and how. Pure constants, one
type.

Names are those of the specification, cut where the group says the rest. All numbers on the bus are
little-endian. What a device answers is in device.py, how it describes itself in descriptors.py.

Specification: Universal Serial Bus 2.0, sections 9.3 (setup data), 9.4 (standard requests), 9.6
(descriptors); the interface association descriptor is the ECN of July 2003.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from struct import Struct
from typing import Final, Self

# --- bRequest of the standard requests, table 9-4 -------------------------------------------------

GET_STATUS: Final = 0
CLEAR_FEATURE: Final = 1
SET_FEATURE: Final = 3
SET_ADDRESS: Final = 5
GET_DESCRIPTOR: Final = 6
SET_DESCRIPTOR: Final = 7
GET_CONFIGURATION: Final = 8
SET_CONFIGURATION: Final = 9
GET_INTERFACE: Final = 10
SET_INTERFACE: Final = 11
SYNCH_FRAME: Final = 12

# --- bmRequestType, table 9-2 ---------------------------------------------------------------------

IN: Final = 0x80  # from device to host; also the direction bit of an endpoint's address
STANDARD: Final = 0 << 5
CLASS: Final = 1 << 5
VENDOR: Final = 2 << 5
TYPE_MASK: Final = 3 << 5
DEVICE: Final = 0
INTERFACE: Final = 1
ENDPOINT: Final = 2
RECIPIENT_MASK: Final = 0x1F

# --- features, table 9-6 --------------------------------------------------------------------------

ENDPOINT_HALT: Final = 0
DEVICE_REMOTE_WAKEUP: Final = 1

# --- bDescriptorType, table 9-5 -------------------------------------------------------------------

DEVICE_DESCRIPTOR: Final = 1
CONFIGURATION_DESCRIPTOR: Final = 2
STRING_DESCRIPTOR: Final = 3
INTERFACE_DESCRIPTOR: Final = 4
ENDPOINT_DESCRIPTOR: Final = 5
DEVICE_QUALIFIER_DESCRIPTOR: Final = 6
INTERFACE_ASSOCIATION_DESCRIPTOR: Final = 11

# --- transfer types, bmAttributes of an endpoint, table 9-13 --------------------------------------

CONTROL: Final = 0
ISOCHRONOUS: Final = 1
BULK: Final = 2
INTERRUPT: Final = 3

_SETUP: Final = Struct("<BBHHH")


@dataclass(frozen=True)
class Setup:
    """The eight bytes that begin a control transfer (table 9-2), under short names."""

    request_type: int
    request: int
    value: int
    index: int
    length: int

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """Read a setup packet. Raises `struct.error` unless ``data`` has eight bytes."""
        return cls(*_SETUP.unpack(data))

    def pack(self) -> bytes:
        """The setup packet's bytes."""
        return _SETUP.pack(*astuple(self))

    @property
    def is_in(self) -> bool:
        """The data phase goes to the host. Without a data phase the direction says nothing."""
        return bool(self.request_type & IN)

    @property
    def kind(self) -> int:
        """STANDARD, CLASS or VENDOR."""
        return self.request_type & TYPE_MASK

    @property
    def recipient(self) -> int:
        """DEVICE, INTERFACE or ENDPOINT."""
        return self.request_type & RECIPIENT_MASK
