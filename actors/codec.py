"""Messages as bytes: the one form in which anything passes from actor to actor.

A packet is msgpack bytes and the file descriptors that travel beside them. A message is the array
[kind, field, field, ...]; inside another, or in an answer, it is that array as extension type 1. A
Ref is type 2 (8 bytes of system, 8 of actor, big endian); an Fd is type 3 (its index among the
packet's descriptors, one byte).

Ownership: `encode` duplicates every Fd and the packet owns the duplicates. `decode` empties the
packet, whether it succeeds or not: each descriptor is either in an Fd of the message or closed. A
packet that is dropped closes what it owns. A Ref means something only in its own system, so
`decode` takes the system; without one any Ref is refused, and so a peer process cannot forge one.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import msgpack  # type: ignore[import-untyped, unused-ignore]
from msgpack import ExtType

from actors.errors import TooLarge, UnknownRef, WrongType
from actors.fd import Fd
from actors.message import Message, load_message
from actors.ref import Ref
from actors.schema import ANY, deeper

MAX_BYTES = 1 << 20
MAX_FDS = 253  # SCM_MAX_FD of Linux: more do not fit into one SCM_RIGHTS

_MESSAGE, _REF, _FD = 1, 2, 3


class Packet:
    """A message in transit: ``payload`` bytes, and ``fds`` that it owns."""

    __slots__ = ("fds", "payload", "refs")

    def __init__(
        self, payload: bytes, fds: tuple[int, ...] = (), refs: tuple[Ref, ...] = ()
    ) -> None:
        self.payload = payload
        self.fds = fds
        self.refs = refs  # keeps the actors that it mentions known until it has arrived

    def close(self) -> None:
        """Close the descriptors; nothing if there are none any more."""
        fds, self.fds = self.fds, ()
        for number in fds:
            os.close(number)

    def __del__(self) -> None:
        if self.fds:
            self.close()


class Resolver(Protocol):
    """The part of a System that `decode` needs."""

    def resolve(self, identity: bytes) -> Ref:
        """Raises UnknownRef."""


def encode(message: Message, *, limit: int = MAX_BYTES) -> Packet:
    """The packet of one message. Raises WrongType, TooDeep, TooLarge; OSError if dup fails."""
    if not isinstance(message, Message):
        raise WrongType(f"a declared Message expected, not {type(message).__name__}")
    values, plain = message.__check__(message, 1)
    return _pack(values, None if plain else _Writer(), limit)


def encode_value(value: Any, *, limit: int = MAX_BYTES) -> Packet:
    """Like `encode`, for an answer: None, any msgpack value, or a Message."""
    ANY.check(value, 0)
    return _pack(value, _Writer(), limit)


def decode(packet: Packet, system: Resolver | None = None, *, limit: int = MAX_BYTES) -> Message:
    """The message in a packet, and its descriptors in it.

    Raises UnknownKind, UnknownRef, WrongType, TooDeep, TooLarge.
    """
    reader = _Reader(packet, system)
    try:
        return load_message(_unpack(packet.payload, limit), 1, reader)
    finally:
        reader.close_unclaimed()


def decode_value(packet: Packet, system: Resolver | None = None, *, limit: int = MAX_BYTES) -> Any:
    """The counterpart of `encode_value`."""
    reader = _Reader(packet, system)
    try:
        return ANY.load(_unpack(packet.payload, limit), 0, reader)
    finally:
        reader.close_unclaimed()


class _Writer:
    """The extension types of one packet that is being packed."""

    def __init__(self) -> None:
        self.fds: list[int] = []
        self.refs: list[Ref] = []

    def default(self, value: Any) -> ExtType:
        if isinstance(value, Message):
            values = [value.__kind__, *(getattr(value, name) for name, _ in value.__nodes__())]
            return ExtType(_MESSAGE, msgpack.packb(values, default=self.default))
        if type(value) is Ref:
            self.refs.append(value)
            return ExtType(_REF, value.cell.identity)
        if type(value) is Fd:
            if len(self.fds) >= MAX_FDS:
                raise TooLarge(f"more than {MAX_FDS} descriptors")
            try:
                self.fds.append(os.dup(value.fileno()))
            except ValueError as error:
                raise WrongType(str(error)) from None
            return ExtType(_FD, bytes([len(self.fds) - 1]))
        raise WrongType(f"{type(value).__name__} cannot be sent")


def _pack(value: Any, writer: _Writer | None, limit: int) -> Packet:
    """``writer``: None for what is known to hold no Ref, Fd or message."""
    try:
        if writer is None:
            payload = msgpack.packb(value)
        else:
            payload = msgpack.packb(value, default=writer.default)
        if len(payload) > limit:
            raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    except BaseException as error:
        if writer is not None:
            for number in writer.fds:
                os.close(number)
        if isinstance(error, (OverflowError, ValueError)):
            raise WrongType(f"cannot be sent: {error}") from None
        raise
    if writer is None:
        return Packet(payload)
    return Packet(payload, tuple(writer.fds), tuple(writer.refs))


def _unpack(payload: bytes, limit: int) -> Any:
    if len(payload) > limit:
        raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    try:
        return msgpack.unpackb(payload, strict_map_key=False)
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise WrongType(f"not msgpack: {type(error).__name__} {error}") from None


class _Reader:
    """The extension types of one packet that is being unpacked."""

    __slots__ = ("_fds", "_system")

    def __init__(self, packet: Packet, system: Resolver | None) -> None:
        self._fds: list[int | None] = list(packet.fds)
        self._system = system
        packet.fds = ()

    def revive(self, value: ExtType, depth: int) -> Any:
        code, data = value
        if code == _MESSAGE:
            return load_message(_unpack(data, len(data)), deeper(depth), self)
        if code == _REF:
            if self._system is None:
                raise UnknownRef("a reference to an actor cannot come from outside the system")
            return self._system.resolve(data)
        if code == _FD:
            return self._claim(data)
        raise WrongType(f"extension type {code} is not known")

    def _claim(self, data: bytes) -> Fd:
        index = data[0] if len(data) == 1 else len(self._fds)
        number = self._fds[index] if index < len(self._fds) else None
        if number is None:
            raise WrongType(f"descriptor {data!r:.20} is not in the packet, or is claimed twice")
        self._fds[index] = None
        return Fd(number)

    def close_unclaimed(self) -> None:
        for number in self._fds:
            if number is not None:
                os.close(number)
