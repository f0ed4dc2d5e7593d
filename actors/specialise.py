"""The two functions of a message class: made for it at its first use, with its fields spelled out.

Pure. A general packer would ask each field's node; these ask only if the type of a value does not
settle it already (`Node.settled`), which is true of most values of most messages.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from actors.errors import WrongType
from actors.schema import Extension, Node, Reader, Writer

if TYPE_CHECKING:
    from actors.message import Message

Wire = Callable[["Message", int, Writer], list[Any]]
"""[kind, field, ...] out of a message, to be packed. Raises WrongType or TooDeep."""

Load = Callable[[list[Any], int, Reader], "Message"]
"""The message out of [kind, field, ...], unpacked. Raises WrongType or TooDeep."""


def functions_of(cls: type[Message], *, own_init: bool) -> tuple[Wire, Load]:
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
