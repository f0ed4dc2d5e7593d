"""Declared messages: `class Ping(Message): n: int` is a frozen dataclass with a kind and checked
types.

The kind is the message's name on the wire: "module.QualName" unless `class Ping(Message,
kind="x.ping")` says otherwise. Kinds are one table per process, because messages come from other
processes too.

Corner cases: types are looked at when a message is sent and when it arrives, not when it is made.
Annotations are resolved at the first use if they mention what is not defined yet; a wrong one is
a TypeError. Declaring a class again (a reload, a test run twice) replaces the older one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import typing
from typing import Any, ClassVar, Self, dataclass_transform

from actors.errors import UnknownKind, WrongType
from actors.schema import Node, Reader, node_for

_kinds: dict[str, type[Message]] = {}


@dataclass_transform(frozen_default=True)
class Message:
    """Base class of all messages; see this module for how to declare one.

    All names of its own are dunders, so that a field may have any name.
    """

    __kind__: ClassVar[str] = ""
    __cache__: ClassVar[list[tuple[str, Node]] | None] = None

    def __init_subclass__(cls, *, kind: str | None = None) -> None:
        super().__init_subclass__()
        dataclasses.dataclass(frozen=True)(cls)
        cls.__kind__ = kind or f"{cls.__module__}.{cls.__qualname__}"
        cls.__cache__ = None
        known = _kinds.get(cls.__kind__)
        if known is not None and _origin(known) != _origin(cls):
            raise TypeError(f"kind {cls.__kind__!r} belongs to {'.'.join(_origin(known))}")
        with contextlib.suppress(NameError):  # a class further down: resolved at the first use
            cls.__nodes__()
        _kinds[cls.__kind__] = cls

    @classmethod
    def __nodes__(cls) -> list[tuple[str, Node]]:
        """(field, node) in the order of declaration, which is the order on the wire."""
        if cls.__cache__ is None:
            hints = typing.get_type_hints(cls, localns={cls.__name__: cls})
            cls.__cache__ = [
                (field.name, node_for(hints[field.name]))
                for field in dataclasses.fields(typing.cast(Any, cls))
            ]
        return cls.__cache__

    @classmethod
    def __check__(cls, message: Any, depth: int) -> tuple[list[Any], bool]:
        """What goes on the wire, [kind, field, ...], and whether all of that is plain scalars.

        Raises WrongType or TooDeep if a field does not hold what it declares.
        """
        values, plain = [cls.__kind__], True
        for name, node in cls.__cache__ or cls.__nodes__():
            value = getattr(message, name)
            if type(value) not in node.exact:
                plain = False
                try:
                    node.check(value, depth)
                except WrongType as error:
                    raise WrongType(f"{cls.__name__}.{name}: {error}") from None
            values.append(value)
        return values, plain

    @classmethod
    def __load__(cls, values: list[Any], depth: int, reader: Reader) -> Self:
        """The message out of its unpacked fields. Raises WrongType or TooDeep."""
        nodes = cls.__cache__ or cls.__nodes__()
        if len(values) != len(nodes):
            raise WrongType(f"{cls.__name__} has {len(nodes)} fields, not {len(values)}")
        for index, (name, node) in enumerate(nodes):
            value = values[index]
            if type(value) not in node.exact:
                try:
                    values[index] = node.load(value, depth, reader)
                except WrongType as error:
                    raise WrongType(f"{cls.__name__}.{name}: {error}") from None
        try:
            return cls(*values)
        except (TypeError, ValueError) as error:  # its own __post_init__ refused
            raise WrongType(f"{cls.__name__}: {error}") from error


def load_message(values: Any, depth: int, reader: Reader) -> Message:
    """The message out of [kind, field, ...]. Raises UnknownKind, WrongType, TooDeep."""
    if type(values) is not list or not values:
        raise WrongType("a message is an array of its kind and its fields")
    kind = values.pop(0)
    cls = _kinds.get(kind) if type(kind) is str else None
    if cls is None:
        raise UnknownKind(
            f"no message of kind {kind!r:.80} is declared here; import the module that does"
        )
    return cls.__load__(values, depth, reader)


def _origin(cls: type[Message]) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__
