"""Messages as bytes: the one form in which anything passes from actor to actor.

A packet is msgpack bytes and the file descriptors that travel beside them. A message is the array
[kind, field, field, ...]; inside another, or in an answer, it is that array as extension type 1. A
Ref is type 2 (8 bytes of system, 8 of actor, big endian); an Fd is type 3 (its index among the
packet's descriptors, one byte); a NamedRef is type 4 (the name in UTF-8).

Ownership: `encode` duplicates every Fd and the packet owns the duplicates. `decode` empties the
packet, whether it succeeds or not: each descriptor is either in an Fd of the message or closed. A
packet that is dropped closes what it owns. A Ref means something only in its own system, so
`decode` takes the system; without one any Ref is refused, and so a peer process cannot forge one.

Speed: a message of plain fields takes no object but its list, its bytes and its packet. Packers
are kept and used again. One is out of ``_packers`` while it packs: then neither another thread,
nor a finalizer that happens to run meanwhile and sends, writes into the same buffer; and one that
has failed does not come back.
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
from actors.ref import Ref
from actors.schema import ANY, Extension, Reader, deeper

MAX_BYTES = 1 << 20
MAX_FDS = 253  # SCM_MAX_FD of Linux: more do not fit into one SCM_RIGHTS

_MESSAGE, _REF, _FD, _NAMED = 1, 2, 3, 4

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
        payload = writer.pack(message.__wire__(1, writer))
        if len(payload) > limit:
            raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    except BaseException as error:
        if not isinstance(message, Message):
            raise WrongType(f"a Message expected, not {type(message).__name__}") from None
        raise writer.failed(error) from None
    packet = _Blank()
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
        payload = writer.pack(value if type(value) in _SCALARS else ANY.wire(value, 0, writer))
        if len(payload) > limit:
            raise TooLarge(f"{len(payload)} bytes; at most {limit}")
    except BaseException as error:
        raise writer.failed(error) from None
    packet = _Blank()
    packet.payload = payload
    if writer.used:
        packet.refs, packet.descriptors = writer.cargo()
    else:
        packet.refs = ()
        packet.descriptors = None
    _give_writer(writer)
    return packet


def decode(packet: Packet, system: Resolver | None = None, *, limit: int = MAX_BYTES) -> Message:
    """The message in a packet, and its descriptors in it.

    Raises UnknownKind, UnknownRef, WrongType, TooDeep, TooLarge.
    """
    if packet.descriptors is not None:
        return _emptied(packet, system, limit, 1, load_message)
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
    reader.fds = [*packet.descriptors.take()]
    try:
        return load(_unpack(packet.payload, limit), depth, reader)
    finally:
        for number in reader.fds:
            if number is not None:
                os.close(number)


class _Writer:
    """Packs one packet at a time, and has the extension types of it."""

    __slots__ = ("fds", "pack", "refs", "used")

    def __init__(self) -> None:
        self.pack: Callable[[Any], bytes] = msgpack.Packer().pack
        self.fds: list[int] = []
        self.refs: list[Ref] = []
        self.used = False

    def express(self, value: Any, depth: int) -> ExtType:
        if type(value) is Ref:
            self.used = True
            self.refs.append(value)
            return _new_tuple(ExtType, (_REF, value.cell.identity))
        if isinstance(value, Message):
            inner = value.__wire__(deeper(depth), self)
            return _new_tuple(ExtType, (_MESSAGE, self.pack(inner)))
        if isinstance(value, Ref):
            name = getattr(value, "registered_name", None)
            if name is not None:
                return _new_tuple(ExtType, (_NAMED, name.encode()))
        if isinstance(value, Fd):
            if len(self.fds) >= MAX_FDS:
                raise TooLarge(f"more than {MAX_FDS} descriptors")
            self.used = True
            try:
                self.fds.append(os.dup(value.fileno()))
            except ValueError as error:
                raise WrongType(str(error)) from None
            return _new_tuple(ExtType, (_FD, bytes([len(self.fds) - 1])))
        raise WrongType(f"{type(value).__name__} cannot be sent")

    def mark(self) -> tuple[int, int]:
        return len(self.fds), len(self.refs)

    def undo(self, mark: tuple[int, int]) -> None:
        fds, refs = mark
        while len(self.fds) > fds:
            os.close(self.fds.pop())
        del self.refs[refs:]

    def cargo(self) -> tuple[tuple[Ref, ...], Descriptors | None]:
        """What the packet owns from now on. This is as new again."""
        refs, fds = tuple(self.refs), tuple(self.fds)
        self.refs.clear()
        self.fds.clear()
        self.used = False
        return refs, Descriptors(fds) if fds else None

    def failed(self, error: BaseException) -> BaseException:
        """What to raise instead. Nobody uses this again."""
        self.undo((0, 0))
        if isinstance(error, (OverflowError, ValueError, TypeError)):
            return WrongType(f"cannot be sent: {error}")
        return error


class _Reader:
    """The extension types of one packet that is being unpacked.

    Without an `__init__`, which would take twice as long.
    """

    __slots__ = ("fds", "system")
    fds: list[int | None]
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

    def _claim(self, data: bytes) -> Fd:
        index = data[0] if len(data) == 1 else len(self.fds)
        number = self.fds[index] if index < len(self.fds) else None
        if number is None:
            raise WrongType(f"descriptor {data!r:.20} is not in the packet, or is claimed twice")
        self.fds[index] = None
        return Fd(number)


_OUTSIDE = "a reference to an actor cannot come from outside the system"
_SCALARS = ANY.exact
_NO_FDS: list[int | None] = []
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
