"""Declared messages: `class Ping(Message): n: int` is a frozen dataclass with a kind and checked
types.

The kind is the message's name on the wire: "module.QualName" unless `class Ping(Message,
kind="x.ping")` says otherwise. Kinds are one table per process, because messages come from other
processes too.

Corner cases: types are looked at when a message is sent and when it arrives, not when it is made.
Annotations are resolved at the first use if they mention what is not defined yet; a wrong one is
a TypeError. Declaring a class again (a reload, a test run twice) replaces the older one.

Speed: at its first use a class gets two functions made for it, `__wire__` and the one in
`loaders`; `_functions_of` shows their source. They ask a field's node only if the value's type
does not settle it already.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any, ClassVar, dataclass_transform

from actors.errors import UnknownKind, WrongType
from actors.schema import Extension, Node, Reader, Writer, node_for

Load = Callable[[list[Any], int, Reader], "Message"]
"""The message out of [kind, field, ...], unpacked. Raises WrongType or TooDeep."""

loaders: dict[str, tuple[Load, bool]] = {}
"""For each kind how to load it, and whether it is plain: the `Reader` is not touched."""

_kinds: dict[str, type[Message]] = {}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
class Message:
    """Base class of all messages; see this module for how to declare one.

    All names of its own are dunders, so that a field may have any name.
    """

    __kind__: ClassVar[str] = ""
    __plain__: ClassVar[bool] = False  # known to hold no Ref, Fd or message: no `Writer` is touched
    __cache__: ClassVar[list[tuple[str, Node]] | None] = None

    def __init_subclass__(cls, *, kind: str | None = None) -> None:
        super().__init_subclass__()
        own_init = "__init__" in cls.__dict__
        dataclasses.dataclass(frozen=True)(cls)
        cls.__kind__ = kind or f"{cls.__module__}.{cls.__qualname__}"
        cls.__cache__ = None
        cls.__plain__ = False
        known = _kinds.get(cls.__kind__)
        if known is not None and _origin(known) != _origin(cls):
            raise TypeError(f"kind {cls.__kind__!r} belongs to {'.'.join(_origin(known))}")
        with contextlib.suppress(NameError):  # a class further down: resolved at the first use
            cls.__nodes__()

        def specialise() -> tuple[Callable[..., list[Any]], Load]:
            wire, load = _functions_of(cls, own_init)
            cls.__plain__ = all(node.plain for _, node in cls.__nodes__())
            cls.__wire__ = wire  # type: ignore[method-assign]
            if _kinds[cls.__kind__] is cls:
                loaders[cls.__kind__] = load, cls.__plain__
            return wire, load

        def first_wire(message: Message, depth: int, writer: Writer) -> list[Any]:
            return specialise()[0](message, depth, writer)

        def first_load(values: list[Any], depth: int, reader: Reader) -> Message:
            return specialise()[1](values, depth, reader)

        cls.__wire__ = first_wire  # type: ignore[method-assign]
        _kinds[cls.__kind__] = cls
        loaders[cls.__kind__] = first_load, False

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

    def __wire__(self, depth: int, writer: Writer) -> list[Any]:
        """What is packed for it: [kind, field, ...].

        Raises WrongType or TooDeep if a field does not hold what it declares.
        """
        raise WrongType(f"{type(self).__name__} is not a declared message")


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


def _functions_of(cls: type[Message], own_init: bool) -> tuple[Callable[..., list[Any]], Load]:
    """Make the two functions of a class. For `class Say(Message): n: int; to: Ref | None` they are

        def wire(message, depth, writer):
            v0 = message.n
            if not (type(v0) is int):
                try:
                    v0 = wire0(v0, depth, writer)
                except WrongType as error:
                    raise WrongType(f"{cls.__name__}.n: {error}") from None
            v1 = message.to
            if not (type(v1) is NoneType):
                try:
                    v1 = (writer.express(v1, depth) if isinstance(v1, revived1) else
                          wire1(v1, depth, writer))
                except ...
            return [kind, v0, v1]

        def load(values, depth, reader):
            try:
                _, v0, v1, = values
            except ValueError:
                raise WrongType(f"{cls.__name__} has 2 fields, not {len(values) - 1}") from None
            if not (type(v0) is int):
                ... the same with load0
            if not (type(v1) is NoneType):
                try:
                    if type(v1) is Extension:
                        v1 = reader.revive(v1, depth)
                        if not isinstance(v1, revived1):
                            raise wrong1(v1)
                    else:
                        v1 = load1(v1, depth, reader)
                except ...
            message = blank()
            message.n = v0
            message.to = v1
            message.__class__ = cls
            return message

    where the conditions are the nodes' own. A class with code of its own in the making of an
    instance has instead of the last five lines

            try:
                return cls(v0, v1)
            except (TypeError, ValueError) as error:
                raise WrongType(f"{cls.__name__}: {error}") from error
    """
    nodes = cls.__nodes__()
    variables = [f"v{index}" for index in range(len(nodes))]
    names: dict[str, Any] = {
        "Extension": Extension,
        "WrongType": WrongType,
        "cls": cls,
        "kind": cls.__kind__,
        "blank": type(cls.__name__, (), {}),
    }
    wire = ["def wire(message, depth, writer):"]
    load = [
        "def load(values, depth, reader):",
        " try:",
        f"  _, {''.join(f'{v}, ' for v in variables)} = values",
        " except ValueError:",
        f"  count = '{len(nodes)} fields, not ' + str(len(values) - 1)",
        "  raise WrongType(f'{cls.__name__} has {count}') from None",
    ]
    for index, (field, node) in enumerate(nodes):
        v = f"v{index}"
        names[f"wire{index}"] = node.wire
        names[f"load{index}"] = node.load
        names[f"wrong{index}"] = node.wrong
        names[f"revived{index}"] = node.revived
        ask_wire = f"wire{index}({v}, depth, writer)"
        ask_load = f"load{index}({v}, depth, reader)"
        failed = [
            "  except WrongType as error:",
            f"   raise WrongType(f'{{cls.__name__}}.{field}: {{error}}') from None",
        ]
        wire += [
            f" {v} = message.{field}",
            f" if not ({node.settled(v, names, loading=False)}):",
            "  try:",
        ]
        load += [
            f" if not ({node.settled(v, names, loading=True)}):",
            "  try:",
        ]
        if node.revived and object not in node.revived:
            express = f"writer.express({v}, depth)"
            wire.append(f"   {v} = {express} if isinstance({v}, revived{index}) else {ask_wire}")
            load += [
                f"   if type({v}) is Extension:",
                f"    {v} = reader.revive({v}, depth)",
                f"    if not isinstance({v}, revived{index}):",
                f"     raise wrong{index}({v})",
                "   else:",
                f"    {v} = {ask_load}",
            ]
        else:
            wire.append(f"   {v} = {ask_wire}")
            load.append(f"   {v} = {ask_load}")
        wire += failed
        load += failed
        if node.as_tuple:
            load += [" else:", f"  {v} = tuple({v})"]
    wire.append(f" return [kind, {', '.join(variables)}]")
    if own_init or _makes_its_instances(cls, [field for field, _ in nodes]):
        load += [
            " try:",
            f"  return cls({', '.join(variables)})",
            " except (TypeError, ValueError) as error:",
            "  raise WrongType(f'{cls.__name__}: {error}') from error",
        ]
    else:
        load += [
            " message = blank()",
            *(f" message.{field} = v{index}" for index, (field, _) in enumerate(nodes)),
            " message.__class__ = cls",
            " return message",
        ]
    source = "\n".join([*wire, *load])
    # Nothing of it is from outside: what varies is the names of fields, which Python has parsed.
    exec(compile(source, f"<codec of {cls.__kind__}>", "exec"), names)  # noqa: S102
    return names["wire"], names["load"]


def _makes_its_instances(cls: type[Message], names: list[str]) -> bool:
    """Whether more than filling its ``__dict__`` belongs to making an instance."""
    if type(cls) is not type or cls.__new__ is not object.__new__ or hasattr(cls, "__post_init__"):
        return True
    fields = dataclasses.fields(typing.cast(Any, cls))
    if not all(field.init and not field.kw_only for field in fields):
        return True
    return any(hasattr(inspect.getattr_static(cls, name, None), "__set__") for name in names)
