"""Declared messages: `class Ping(Message): n: int` is a frozen dataclass with a kind and checked
types.

The kind is the message's name on the wire: "module.QualName" unless `class Ping(Message,
kind="x.ping")` says otherwise. Kinds are one table per process, because messages come from other
processes too.

Corner cases: types are looked at when a message is sent and when it arrives, not when it is made.
Annotations are resolved at the first use if they mention what is not defined yet; a wrong one is
a TypeError. Declaring a class again (a reload, a test run twice) replaces the older one.

Speed: at its first use a class gets two functions made for it, `__wire__` and the one in
`loaders`; see `_functions_of` for their source. They ask the node of a field only if the value
itself does not settle the matter.
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

Wire = Callable[["Message", int, Writer], list[Any]]
Load = Callable[[list[Any], int, Reader], "Message"]
"""The message out of [kind, field, ...]. Raises WrongType or TooDeep."""

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

    def __init_subclass__(cls, *, kind: str | None = None) -> None:
        super().__init_subclass__()
        own_init = "__init__" in cls.__dict__
        dataclasses.dataclass(frozen=True)(cls)
        cls.__kind__ = kind or f"{cls.__module__}.{cls.__qualname__}"
        cls.__cache__ = None
        known = _kinds.get(cls.__kind__)
        if known is not None and _origin(known) != _origin(cls):
            raise TypeError(f"kind {cls.__kind__!r} belongs to {'.'.join(_origin(known))}")
        with contextlib.suppress(NameError):  # a class further down: resolved at the first use
            cls.__nodes__()

        def specialise() -> tuple[Wire, Load]:
            wire, load = _functions_of(cls, own_init=own_init)
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
        """What is packed for it: [kind, field, ...]. Replaced in every class that is declared.

        Raises WrongType or TooDeep if a field does not hold what it declares.
        """
        raise WrongType(f"{type(self).__name__} is not declared as a message")


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


def _functions_of(cls: type[Message], *, own_init: bool) -> tuple[Wire, Load]:
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
                    if isinstance(v1, revived1):
                        v1 = writer.express(v1, depth)
                    else:
                        v1 = wire1(v1, depth, writer)
                except ...
            return [kind, v0, v1]

        def load(values, depth, reader):
            try:
                _, v0, v1, = values
            except ValueError:
                raise miscounted(values) from None
            if not (type(v0) is int):
                ... as above, with load0
            if not (type(v1) is NoneType):
                try:
                    if type(v1) is Extension:
                        v1 = reader.revive(v1, depth)
                        if not isinstance(v1, revived1):
                            raise wrong1(v1)
                    else:
                        v1 = load1(v1, depth, reader)
                except ...
            message = Blank()
            message.n = v0
            message.to = v1
            message.__class__ = cls
            return message

    where each condition is what the node of that field calls settled. A frozen instance can be
    filled only by one slow call for each field; therefore it is made as one of an ordinary class,
    unless the class has a say in the making of its instances. Then `load` ends with

            try:
                return cls(v0, v1)
            except (TypeError, ValueError) as error:
                raise WrongType(f"{cls.__name__}: {error}") from error
    """
    nodes = cls.__nodes__()
    variables = [f"v{index}" for index in range(len(nodes))]
    names: dict[str, Any] = {
        "Blank": type(cls.__name__, (), {}),
        "Extension": Extension,
        "WrongType": WrongType,
        "cls": cls,
        "kind": cls.__kind__,
        "miscounted": lambda values: WrongType(
            f"{cls.__name__} has {len(nodes)} fields, not {len(values) - 1}"
        ),
    }
    wire = ["def wire(message, depth, writer):"]
    load = [
        "def load(values, depth, reader):",
        " try:",
        f"  _, {''.join(f'{v}, ' for v in variables)} = values",
        " except ValueError:",
        "  raise miscounted(values) from None",
    ]
    for v, (field, node) in zip(variables, nodes, strict=True):
        wire += [f" {v} = message.{field}", *_asking(node, v, field, names, loading=False)]
        load += _asking(node, v, field, names, loading=True)
    wire += [f" return [{', '.join(['kind', *variables])}]"]
    if own_init or not _is_filled_only(cls, names["Blank"]):
        load += [
            " try:",
            f"  return cls({', '.join(variables)})",
            " except (TypeError, ValueError) as error:",
            "  raise WrongType(f'{cls.__name__}: {error}') from error",
        ]
    else:
        load += [
            " message = Blank()",
            *(f" message.{field} = {v}" for v, (field, _) in zip(variables, nodes, strict=True)),
            " message.__class__ = cls",
            " return message",
        ]
    source = "\n".join([*wire, *load])
    # Nothing of it is from outside: what varies is the names of fields, which Python has parsed.
    exec(compile(source, f"<codec of {cls.__kind__}>", "exec"), names)  # noqa: S102
    return names["wire"], names["load"]


def _asking(node: Node, v: str, field: str, names: dict[str, Any], *, loading: bool) -> list[str]:
    """The lines of one field: if the value is not settled, ask the node what becomes of it."""
    suffix = v.removeprefix("v")
    names[f"wire{suffix}"], names[f"load{suffix}"] = node.wire, node.load
    names[f"wrong{suffix}"], names[f"revived{suffix}"] = node.wrong, node.revived
    if not loading:
        capability, ask = f"isinstance({v}, revived{suffix})", f"wire{suffix}({v}, depth, writer)"
        at_once = [f"    {v} = writer.express({v}, depth)"]
    else:
        capability, ask = f"type({v}) is Extension", f"load{suffix}({v}, depth, reader)"
        at_once = [
            f"    {v} = reader.revive({v}, depth)",
            f"    if not isinstance({v}, revived{suffix}):",
            f"     raise wrong{suffix}({v})",
        ]
    if node.revived and object not in node.revived:
        asking = [f"   if {capability}:", *at_once, "   else:", f"    {v} = {ask}"]
    else:
        asking = [f"   {v} = {ask}"]
    return [
        f" if not ({node.settled(v, names, loading=loading)}):",
        "  try:",
        *asking,
        "  except WrongType as error:",
        f"   raise WrongType(f'{{cls.__name__}}.{field}: {{error}}') from None",
        *([" else:", f"  {v} = tuple({v})"] if loading and node.as_tuple else []),
    ]


def _is_filled_only(cls: type[Message], blank: type) -> bool:
    """Whether to make an instance is no more than to set its fields."""
    fields = dataclasses.fields(typing.cast(Any, cls))
    if (
        type(cls) is not type
        or cls.__new__ is not object.__new__
        or hasattr(cls, "__post_init__")
        or not all(field.init and not field.kw_only for field in fields)
        or any(hasattr(inspect.getattr_static(cls, f.name, None), "__set__") for f in fields)
    ):
        return False
    try:
        blank().__class__ = cls
    except TypeError:  # it has another layout: a base class in C, or __slots__
        return False
    return True
