"""Declared messages: `class Ping(Message): n: int` is a frozen dataclass with a kind and checked
types.

The kind is the message's name on the wire: "module.QualName" unless `class Ping(Message,
kind="x.ping")` says otherwise. Kinds are one table per process, because messages come from other
processes too.

Corner cases: types are looked at when a message is sent and when it arrives, not when it is made.
Annotations are resolved at the first use if they mention what is not defined yet; a wrong one is
a TypeError. Declaring a class again (a reload, a test run twice) replaces the older one.

Speed: at its first use a class gets two functions made for it (specialise.py): `__wire__`, and the
one in `loaders`. What a dataclass would have made for each class to be shown, compared and hashed
is here, once for all: to compile it was an eighth of the time in which a process starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from operator import attrgetter
from types import ModuleType
from typing import Any, ClassVar, dataclass_transform

from actors.errors import UnknownKind, WrongType
from actors.schema import Node, Reader, Writer, node_for
from actors.specialise import Load, Wire, functions_of

loaders: dict[str, tuple[Load, bool]] = {}
"""For each kind how to load it, and whether it is plain: the `Reader` is not touched."""

_kinds: dict[str, type[Message]] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Message:
    """Base class of all messages; see this module for how to declare one.

    All names of its own are dunders, so that a field may have any name.
    """

    __kind__: ClassVar[str] = ""
    __cache__: ClassVar[list[tuple[str, Node]] | None] = None
    __compared__: ClassVar[Any]  # an attrgetter: what two messages are compared by
    __hashed__: ClassVar[Any]

    def __init_subclass__(cls, *, kind: str | None = None) -> None:
        super().__init_subclass__()
        own_init = "__init__" in cls.__dict__
        dataclasses.dataclass(frozen=True, repr=False, eq=False)(cls)
        cls.__kind__ = kind or f"{cls.__module__}.{cls.__qualname__}"
        cls.__cache__ = None
        # With the kind, so that what they get is a tuple, however many fields there are: it looks
        # whether two values are the same before it compares them.
        compared = [each.name for each in _fields(cls) if each.compare]
        hashed = [
            each.name for each in _fields(cls) if (each.compare if each.hash is None else each.hash)
        ]
        cls.__compared__ = attrgetter("__kind__", *compared)
        cls.__hashed__ = attrgetter("__kind__", *hashed)
        known = _kinds.get(cls.__kind__)
        if known is not None and _origin(known) != _origin(cls):
            raise TypeError(f"kind {cls.__kind__!r} belongs to {'.'.join(_origin(known))}")
        with contextlib.suppress(NameError):  # a class further down: resolved at the first use
            cls.__nodes__()

        def specialise() -> tuple[Wire, Load]:
            wire, load = functions_of(cls, own_init=own_init)
            type.__setattr__(cls, "__wire__", wire)
            if _kinds[cls.__kind__] is cls:
                plain = all(node.plain for _, node in cls.__nodes__())
                loaders[cls.__kind__] = load, plain
            return wire, load

        def first_wire(message: Message, depth: int, writer: Writer) -> list[Any]:
            return specialise()[0](message, depth, writer)

        def first_load(values: list[Any], depth: int, reader: Reader) -> Message:
            return specialise()[1](values, depth, reader)

        type.__setattr__(cls, "__wire__", first_wire)
        type.__setattr__(cls, "__specialise__", staticmethod(specialise))
        _kinds[cls.__kind__] = cls
        loaders[cls.__kind__] = first_load, False

    def __repr__(self) -> str:
        shown = (f"{each.name}={getattr(self, each.name)!r}" for each in _fields(self) if each.repr)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        compared = self.__compared__
        return bool(compared(self) == compared(other))

    def __hash__(self) -> int:
        return hash(self.__hashed__(self))

    @classmethod
    def __nodes__(cls) -> list[tuple[str, Node]]:
        """(field, node) in the order of declaration, which is the order on the wire."""
        if cls.__cache__ is None:
            hints = typing.get_type_hints(cls, localns={cls.__name__: cls})
            cls.__cache__ = [(field.name, node_for(hints[field.name])) for field in _fields(cls)]
        return cls.__cache__

    def __wire__(self, depth: int, writer: Writer) -> list[Any]:
        """What is packed for it: [kind, field, ...]. Replaced in every class that is declared.

        Raises WrongType or TooDeep if a field does not hold what it declares.
        """
        raise WrongType(f"{type(self).__name__} is not declared as a message")

    @staticmethod
    def __specialise__() -> tuple[Wire, Load]:
        """Make the two functions now. Replaced in every class that is declared."""
        raise WrongType("Message itself is not declared as a message")


def prepare_messages(module: ModuleType) -> None:
    """Make now what each message class of a module is to get at its first use, a quarter of a
    millisecond each: for who has time now, and none later.
    """
    for value in vars(module).values():
        if isinstance(value, type) and issubclass(value, Message) and value is not Message:
            value.__specialise__()


def _fields(message: Message | type[Message]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(typing.cast(Any, message))


def load_message(values: Any, depth: int, reader: Reader) -> Message:
    """The message out of [kind, field, ...]. Raises UnknownKind, WrongType, TooDeep."""
    if type(values) is not list or not values:
        raise WrongType("a message is an array of its kind and its fields")
    kind = values[0]
    if type(kind) is not str or kind not in loaders:
        raise UnknownKind(
            f"no message of kind {kind!r:.80} is declared here; import the module that does"
        )
    return loaders[kind][0](values, depth, reader)


def _origin(cls: type[Message]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
