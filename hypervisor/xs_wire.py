"""The XenStore wire protocol as bytes: messages, their parts, and a stream cut into messages.

From xen/include/public/io/xs_wire.h and docs/misc/xenstore.txt. A message is 16 bytes of header
(type, req_id, tx_id, length; little endian) and at most 4096 bytes of payload; what the payload
means is the business of xs_requests.py. Arguments end with a nul each; a value that comes after
them does not.

Corner cases: an unknown type is a message like any other, and is answered with ENOSYS. A length
beyond the limit is not: what follows it cannot be told from the next message, so `Frames` gives the
messages before it and then fails for good (`WireError`), however the bytes were cut on their way.
That ends the one connection. Whoever feeds a `Frames` takes the messages out before it feeds more,
so it never holds more than that and one message.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

from hypervisor.errors import HypervisorError

PAYLOAD_MAX = 4096
_HEADER = struct.Struct("<IIII")
HEADER_SIZE = _HEADER.size


class Op(IntEnum):
    """enum xsd_sockmsg_type."""

    CONTROL = 0
    DIRECTORY = 1
    READ = 2
    GET_PERMS = 3
    WATCH = 4
    UNWATCH = 5
    TRANSACTION_START = 6
    TRANSACTION_END = 7
    INTRODUCE = 8
    RELEASE = 9
    GET_DOMAIN_PATH = 10
    WRITE = 11
    MKDIR = 12
    RM = 13
    SET_PERMS = 14
    WATCH_EVENT = 15
    ERROR = 16
    IS_DOMAIN_INTRODUCED = 17
    RESUME = 18
    SET_TARGET = 19
    RESET_WATCHES = 21
    DIRECTORY_PART = 22
    GET_FEATURE = 23
    SET_FEATURE = 24
    GET_QUOTA = 25
    SET_QUOTA = 26


FEATURE_WATCHDEPTH = 4  # XENSTORE_SERVER_FEATURE_*
FEATURE_DOMID_ANY = 8


class WireError(HypervisorError):
    """The other side of this connection does not speak the protocol; it cannot go on."""


class Packet(NamedTuple):
    """One message. ``type`` may be a number that `Op` does not know."""

    type: int
    req_id: int
    tx_id: int
    payload: bytes

    def encode(self) -> bytes:
        assert len(self.payload) <= PAYLOAD_MAX
        return _HEADER.pack(*self[:3], len(self.payload)) + self.payload


def watch_event(path: str, token: bytes) -> bytes:
    """What nobody has asked for just now."""
    return Packet(Op.WATCH_EVENT, 0, 0, pack([path.encode("ascii"), token])).encode()


def pack(parts: Iterable[bytes]) -> bytes:
    """A nul after each."""
    return b"".join(b"%b\0" % part for part in parts)


def unpack(payload: bytes) -> list[bytes]:
    """The parts that end with a nul; what is behind the last of them is left out."""
    return payload.split(b"\0")[:-1]


def parse(data: bytes) -> Packet:
    """The message that ``data`` is.

    Raises:
        WireError: it is not exactly one.
    """
    if len(data) >= HEADER_SIZE:
        kind, req_id, tx_id, length = _HEADER.unpack_from(data)
        if length == len(data) - HEADER_SIZE <= PAYLOAD_MAX:
            return Packet(kind, req_id, tx_id, data[HEADER_SIZE:])
    raise WireError(f"{len(data)} bytes are not one message of the store's protocol")


class Frames:
    """Cuts what one side of a connection has sent into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        """How many bytes wait for the rest of their message, or to be taken."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        self._buffer += data

    def take(self) -> Packet | None:
        """The next message that is there as a whole, or None.

        Raises:
            WireError: what is next is no message, and nothing after it can be understood.
        """
        if len(self._buffer) < HEADER_SIZE:
            return None
        kind, req_id, tx_id, length = _HEADER.unpack_from(self._buffer)
        if length > PAYLOAD_MAX:
            raise WireError(f"a message of {length} bytes; at most {PAYLOAD_MAX} are allowed")
        end = HEADER_SIZE + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER_SIZE:end])
        del self._buffer[:end]
        return Packet(kind, req_id, tx_id, payload)
