"""Messages as bytes: the one form in which anything passes from actor to actor.

A packet is msgpack bytes and the file descriptors that travel beside them. A message is the array
[kind, field, field, ...]; inside another, or in an answer, it is that array as extension type 1. A
Ref is type 2 (8 bytes of system, 8 of actor, big endian); an Fd is type 3 (its index among the
packet's descriptors, one byte); a NamedRef is type 4 (the name in UTF-8).

Ownership: `encode` duplicates every Fd and the packet owns the duplicates. `decode` empties the
packet, whether it succeeds or not: each descriptor is either in an Fd of the message or closed. A
packet that is dropped closes what it owns. A Ref means something only in its own system, so
`decode` takes the system; without one any Ref is refused, and so a peer process cannot forge one.

Speed: every message passes here. Writers, each with a packer and its buffer, are kept and used
again. One is out of ``_writers`` while it is used: then neither another thread, nor a finalizer
that happens to run meanwhile and sends, writes into the same buffer. One that has failed, or has
packed more than the limit, does not come back.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Protocol

import msgpack  # type: ignore[import-untyped, unused-ignore]
from msgpack import ExtType, unpackb

from actors.errors import TooLarge, UnknownRef, WrongType
from actors.fd import Fd
from actors.message import Message, load_message, loaders
from actors.ref import NamedRef, Ref
from actors.schema import ANY, Extension, Reader, deeper

MAX_BYTES = 1 << 20
MAX_FDS = 253  # SCM_MAX_FD of Linux: more do not fit into one SCM_RIGHTS

_MESSAGE, _REF, _FD, _NAMED = 1, 2, 3, 4

_UNSENDABLE = (OverflowError, ValueError, TypeError)
_UNREADABLE = (ValueError, TypeError, RecursionError, msgpack.UnpackException)

_new_tuple = tuple.__new__  # an ExtType without the checks of its __new__


class Descriptors:
    """Some file descriptors that are closed with it, unless they have been taken out."""

    __slots__ = ("numbers",)

    def __init__(self, numbers: tuple[int, ...]) -> None:
        self.numbers = numbers

    def take(self) -> tuple[int, ...]:
        numbers, self.numbers = self.numbers, ()
        return numbers

    def __del__(self) -> None:
        for number in self.take():
            os.close(number)


class Packet:
    """A message in transit: ``payload`` bytes, and ``fds`` that it owns."""

    __slots__ = ("descriptors", "payload", "refs")

    def __init__(
        self, payload: bytes, fds: tuple[int, ...] = (), refs: tuple[Ref, ...] = ()
    ) -> None:
        self.payload = payload
        self.refs = refs  # keeps the actors that it mentions known until it has arrived
        # An object of their own, so that the many packets without any need no finalizer.
        self.descriptors = Descriptors(fds) if fds else None

    @property
    def fds(self) -> tuple[int, ...]:
        """The descriptors that it owns just now."""
        return () if self.descriptors is None else self.descriptors.numbers

    def close(self) -> None:
        """Close the descriptors; nothing if there are none any more."""
        if self.descriptors is not None:
            for number in self.descriptors.take():
                os.close(number)


class _Blank(Packet):
    """One whose attributes are still to be set: half the time of a call with arguments."""

    __slots__ = ()
    __init__ = object.__init__


class Resolver(Protocol):
    """The part of a System that `decode` needs."""

    def resolve(self, identity: bytes) -> Ref:
        """Raises UnknownRef."""

    def named(self, name: str) -> Ref:
        """A reference to whoever is registered as ``name`` whenever it is used."""


def encode(message: Message, *, limit: int = MAX_BYTES) -> Packet:
    """The packet of one message. Raises WrongType, TooDeep, TooLarge; OSError if dup fails."""
    try:
        writer = _take_writer()
    except IndexError:
        writer = _Writer()
    try:
        values = message.__wire__(1, writer)
        # What follows is `_Writer.packet`, written out to save a call.
        try:
            payload = writer.pack(values)
        except _UNSENDABLE as error:
            raise WrongType(f"cannot be sent: {error}") from None
        if len(payload) > limit:
            raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    except BaseException:
        writer.undo(_NOTHING)
        if not isinstance(message, Message):
            raise WrongType(f"a Message expected, not {type(message).__name__}") from None
        raise
    packet: Packet = _Blank()
    packet.payload = payload
    if writer.used:
        packet.refs, packet.descriptors = writer.cargo()
    else:
        packet.refs = ()
        packet.descriptors = None
    _give_writer(writer)
    return packet


def encode_value(value: Any, *, limit: int = MAX_BYTES) -> Packet:
    """Like `encode`, for an answer: None, any msgpack value, or a Message."""
    try:
        writer = _take_writer()
    except IndexError:
        writer = _Writer()
    try:
        values = value if type(value) in _SCALARS else ANY.wire(value, 0, writer)
        packet = writer.packet(values, limit)
    except BaseException:
        writer.undo(_NOTHING)
        raise
    _give_writer(writer)
    return packet


def decode(packet: Packet, system: Resolver | None = None, *, limit: int = MAX_BYTES) -> Message:
    """The message in a packet, and its descriptors in it.

    Raises UnknownKind, UnknownRef, WrongType, TooDeep, TooLarge.
    """
    if packet.descriptors is not None:
        message: Message = _emptied(packet, system, limit, 1, load_message)
        return message
    payload = packet.payload
    if len(payload) > limit:
        raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    try:
        values = unpackb(payload, strict_map_key=False, ext_hook=Extension)
    except _UNREADABLE as error:
        raise WrongType(f"not msgpack: {type(error).__name__} {error}") from None
    if type(values) is list:
        try:
            load, plain = loaders[values[0]]
        except (LookupError, TypeError):
            pass
        else:
            if plain:
                return load(values, 1, _NO_READER)
            reader = _Reader()
            reader.system = system
            reader.fds = _NO_FDS
            return load(values, 1, reader)
    return load_message(values, 1, _NO_READER)  # which says what is wrong


def decode_value(packet: Packet, system: Resolver | None = None, *, limit: int = MAX_BYTES) -> Any:
    """The counterpart of `encode_value`."""
    if packet.descriptors is not None:
        return _emptied(packet, system, limit, 0, ANY.load)
    value = _unpack(packet.payload, limit)
    if type(value) in _SCALARS:
        return value
    reader = _Reader()
    reader.system = system
    reader.fds = _NO_FDS
    return ANY.load(value, 0, reader)


def _emptied(
    packet: Packet,
    system: Resolver | None,
    limit: int,
    depth: int,
    load: Callable[[Any, int, Reader], Any],
) -> Any:
    """What is in a packet that has descriptors."""
    assert packet.descriptors is not None
    reader = _Reader()
    reader.system = system
    reader.fds = [Fd(number) for number in packet.descriptors.take()]
    try:
        return load(_unpack(packet.payload, limit), depth, reader)
    finally:
        for fd in reader.fds:
            if fd is not None:
                fd.close()


class _Writer:
    """Packs one packet at a time, and makes the extension types of it."""

    __slots__ = ("_fds", "_refs", "pack", "used")

    def __init__(self) -> None:
        self.pack: Callable[[Any], bytes] = msgpack.Packer().pack
        self.used = False  # whether there is any cargo
        self._fds: list[int] = []
        self._refs: list[Ref] = []

    def express(self, value: Any, depth: int) -> ExtType:
        if type(value) is Ref:
            self.used = True
            self._refs.append(value)
            return _new_tuple(ExtType, (_REF, value.cell.identity))
        if isinstance(value, Message):
            inner = value.__wire__(deeper(depth), self)
            try:
                return _new_tuple(ExtType, (_MESSAGE, self.pack(inner)))
            except _UNSENDABLE as error:
                raise WrongType(f"cannot be sent: {error}") from None
        if isinstance(value, NamedRef):
            self.used = True
            self._refs.append(value)
            try:
                return _new_tuple(ExtType, (_NAMED, value.registered_name.encode()))
            except UnicodeEncodeError as error:
                raise WrongType(f"cannot be sent: {error}") from None
        if isinstance(value, Fd):
            if len(self._fds) >= MAX_FDS:
                raise TooLarge(f"more than {MAX_FDS} descriptors")
            try:
                self._fds.append(os.dup(value.fileno()))
            except ValueError as error:
                raise WrongType(str(error)) from None
            self.used = True
            return _new_tuple(ExtType, (_FD, bytes([len(self._fds) - 1])))
        raise WrongType(f"{type(value).__name__} cannot be sent")

    def mark(self) -> tuple[int, int]:
        return len(self._fds), len(self._refs)

    def undo(self, mark: tuple[int, int]) -> None:
        fds, refs = mark
        while len(self._fds) > fds:
            os.close(self._fds.pop())
        del self._refs[refs:]

    def packet(self, values: Any, limit: int) -> Packet:
        """What is to be packed, packed, with the cargo. Raises WrongType, TooLarge."""
        try:
            payload = self.pack(values)
        except _UNSENDABLE as error:
            raise WrongType(f"cannot be sent: {error}") from None
        if len(payload) > limit:
            raise TooLarge(f"{len(payload)} bytes; at most {limit}")
        packet: Packet = _Blank()
        packet.payload = payload
        if self.used:
            packet.refs, packet.descriptors = self.cargo()
        else:
            packet.refs = ()
            packet.descriptors = None
        return packet

    def cargo(self) -> tuple[tuple[Ref, ...], Descriptors | None]:
        """The references, and the descriptors, which the packet owns from now on."""
        refs, fds = tuple(self._refs), tuple(self._fds)
        self._refs.clear()
        self._fds.clear()
        self.used = False
        return refs, Descriptors(fds) if fds else None


class _Reader:
    """The extension types of one packet that is being unpacked.

    ``fds``: those that are not claimed yet. Without an `__init__`, which would take twice as long.
    """

    __slots__ = ("fds", "system")
    fds: list[Fd | None]
    system: Resolver | None

    def revive(self, value: Extension, depth: int) -> Any:
        code, data = value.start, value.stop
        if code == _REF:
            if self.system is None:
                raise UnknownRef(_OUTSIDE)
            return self.system.resolve(data)
        if code == _MESSAGE:
            return load_message(_unpack(data, len(data)), deeper(depth), self)
        if code == _FD:
            return self._claim(data)
        if code == _NAMED:
            if self.system is None:
                raise UnknownRef(_OUTSIDE)
            return self.system.named(_text(data))
        raise WrongType(f"extension type {code} is not known")

    def mark(self) -> list[Fd | None]:
        return [*self.fds]

    def undo(self, mark: list[Fd | None]) -> None:
        self.fds[:] = mark

    def _claim(self, data: bytes) -> Fd:
        index = data[0] if len(data) == 1 else len(self.fds)
        fd = self.fds[index] if index < len(self.fds) else None
        if fd is None:
            raise WrongType(f"descriptor {data!r:.20} is not in the packet, or is claimed twice")
        self.fds[index] = None
        return fd


_OUTSIDE = "a reference to an actor cannot come from outside the system"
_SCALARS = ANY.exact
_NOTHING = 0, 0  # the mark at the beginning
_NO_FDS: list[Fd | None] = []
_NO_READER = _Reader()  # for plain messages, which do not touch it

_writers: list[_Writer] = []  # as many as were ever in use at once
_take_writer = _writers.pop
_give_writer = _writers.append


def _unpack(payload: bytes, limit: int) -> Any:
    if len(payload) > limit:
        raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    try:
        return unpackb(payload, strict_map_key=False, ext_hook=Extension)
    except _UNREADABLE as error:
        raise WrongType(f"not msgpack: {type(error).__name__} {error}") from None


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WrongType(f"not the name of an actor: {error}") from None
