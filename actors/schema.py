"""What a declared field may hold: one node per type annotation, made once per message class.

Pure. A node has two directions: `check` looks at a value before it is packed, `load` turns what
msgpack made of it back into the declared value (arrays into tuples, extension types into
capabilities). Both raise `WrongType`, or `TooDeep` beyond MAX_DEPTH containers and messages
inside each other.

Rules: a bool is not an int; an int is a float; subclasses of str, int, ... (enums) are sent as
the plain value. Under `Any` a tuple arrives as a list, because msgpack has only one kind of
array.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Sequence
from typing import Any, Protocol

from msgpack import ExtType  # type: ignore[import-untyped, unused-ignore]

from actors.errors import TooDeep, WrongType
from actors.fd import Fd
from actors.ref import Ref

MAX_DEPTH = 32

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})


class Reader(Protocol):
    """Turns the extension types of one packet into what they stand for."""

    def revive(self, value: ExtType, depth: int) -> Any: ...


class Node:
    """One annotation. ``exact``: types whose values need no look beyond their type."""

    exact: frozenset[type] = frozenset()
    name: str

    def check(self, value: Any, depth: int) -> None:
        raise NotImplementedError

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        raise NotImplementedError

    def wrong(self, value: Any) -> WrongType:
        return WrongType(f"{self.name} expected, not {type(value).__name__} {value!r:.80}")


def deeper(depth: int) -> int:
    """The depth inside one more container. Raises TooDeep."""
    if depth >= MAX_DEPTH:
        raise TooDeep(f"nested deeper than {MAX_DEPTH}")
    return depth + 1


class _Scalar(Node):
    def __init__(self, name: str, kinds: tuple[type, ...]) -> None:
        self.name = name
        self.exact = frozenset(kinds)
        self._kinds = kinds

    def check(self, value: Any, depth: int) -> None:  # noqa: ARG002 - a scalar has no inside
        if type(value) in self.exact:
            return
        if isinstance(value, bool) or not isinstance(value, self._kinds):
            raise self.wrong(value)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:  # noqa: ARG002
        if type(value) not in self.exact:
            raise self.wrong(value)
        return value


class _Any(Node):
    name = "a msgpack value, Message, Ref or Fd"
    exact = _SCALARS

    def check(self, value: Any, depth: int) -> None:
        kind = type(value)
        if kind in _SCALARS or kind is Ref or kind is Fd:
            return
        if isinstance(value, (list, tuple)):
            depth = deeper(depth)
            for item in value:
                if type(item) not in _SCALARS:
                    self.check(item, depth)
        elif isinstance(value, dict):
            depth = deeper(depth)
            for key, item in value.items():
                if type(key) not in _SCALARS:
                    raise WrongType(f"{type(key).__name__} cannot be the key of a dict")
                if type(item) not in _SCALARS:
                    self.check(item, depth)
        elif hasattr(kind, "__check__"):
            kind.__check__(value, deeper(depth))
        elif not isinstance(value, (int, float, str, bytes)):
            raise self.wrong(value)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is list:
            depth = deeper(depth)
            return [
                item if type(item) in _SCALARS else self.load(item, depth, reader) for item in value
            ]
        if kind is dict:
            depth = deeper(depth)
            return {
                key: item if type(item) in _SCALARS else self.load(item, depth, reader)
                for key, item in value.items()
            }
        if kind is ExtType:
            return reader.revive(value, depth)
        raise self.wrong(value)


ANY = _Any()


class _Capability(Node):
    """Ref, Fd, or a message class: an extension type on the wire."""

    def __init__(self, kind: type) -> None:
        self.name = kind.__name__
        self._kind = kind
        self._nested: bool = hasattr(kind, "__check__")

    def check(self, value: Any, depth: int) -> None:
        if not isinstance(value, self._kind):
            raise self.wrong(value)
        if self._nested:
            typing.cast("Any", value).__check__(value, deeper(depth))

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not ExtType:
            raise self.wrong(value)
        revived = reader.revive(value, depth)
        if not isinstance(revived, self._kind):
            raise self.wrong(revived)
        return revived


class _Array(Node):
    """list[item], or tuple[item, ...]."""

    def __init__(self, kind: type, item: Node) -> None:
        self.name = f"{kind.__name__}[{item.name}]"
        self._kind = kind
        self._item = item

    def check(self, value: Any, depth: int) -> None:
        if not isinstance(value, self._kind):
            raise self.wrong(value)
        depth = deeper(depth)
        exact, check = self._item.exact, self._item.check
        for item in typing.cast("Sequence[Any]", value):
            if type(item) not in exact:
                check(item, depth)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not list:
            raise self.wrong(value)
        depth = deeper(depth)
        exact, load = self._item.exact, self._item.load
        return self._kind(
            [item if type(item) in exact else load(item, depth, reader) for item in value]
        )


class _Tuple(Node):
    """tuple[a, b, c]: so many, each of its own type."""

    def __init__(self, items: list[Node]) -> None:
        self.name = f"tuple[{', '.join(item.name for item in items) or '()'}]"
        self._items = items

    def check(self, value: Any, depth: int) -> None:
        if not isinstance(value, tuple) or len(value) != len(self._items):
            raise self.wrong(value)
        depth = deeper(depth)
        for node, item in zip(self._items, value, strict=True):
            node.check(item, depth)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not list or len(value) != len(self._items):
            raise self.wrong(value)
        depth = deeper(depth)
        return tuple(
            node.load(item, depth, reader) for node, item in zip(self._items, value, strict=True)
        )


class _Dict(Node):
    def __init__(self, key: Node, item: Node) -> None:
        self.name = f"dict[{key.name}, {item.name}]"
        self._key = key
        self._item = item

    def check(self, value: Any, depth: int) -> None:
        if not isinstance(value, dict):
            raise self.wrong(value)
        depth = deeper(depth)
        for key, item in value.items():
            if type(key) not in _SCALARS:
                raise WrongType(f"{type(key).__name__} cannot be the key of a dict")
            self._key.check(key, depth)
            self._item.check(item, depth)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not dict:
            raise self.wrong(value)
        depth = deeper(depth)
        return {
            self._key.load(key, depth, reader): self._item.load(item, depth, reader)
            for key, item in value.items()
        }


class _Union(Node):
    """The first alternative that takes the value; only a wrong type lets the next one try."""

    def __init__(self, options: list[Node]) -> None:
        self.name = " | ".join(option.name for option in options)
        self.exact = frozenset().union(*(option.exact for option in options))
        self._options = options

    def check(self, value: Any, depth: int) -> None:
        for option in self._options:
            try:
                return option.check(value, depth)
            except WrongType:
                continue
        raise self.wrong(value)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is ExtType:  # revived once: a descriptor can be claimed only once
            revived = reader.revive(value, depth)
            self.check(revived, depth)
            return revived
        for option in self._options:
            try:
                return option.load(value, depth, reader)
            except WrongType:
                continue
        raise self.wrong(value)


_PLAIN: dict[Any, Node] = {
    Any: ANY,
    object: ANY,
    int: _Scalar("int", (int,)),
    float: _Scalar("float", (float, int)),
    str: _Scalar("str", (str,)),
    bytes: _Scalar("bytes", (bytes,)),
    bool: _Scalar("bool", (bool,)),
    None: _Scalar("None", (type(None),)),
    type(None): _Scalar("None", (type(None),)),
    list: _Array(list, ANY),
    tuple: _Array(tuple, ANY),
    dict: _Dict(ANY, ANY),
}


def node_for(annotation: Any) -> Node:
    """The node of one annotation. Raises TypeError for one that messages cannot have."""
    if (isinstance(annotation, type) or annotation is Any or annotation is None) and (
        plain := _PLAIN.get(annotation)
    ):
        return plain
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Union or origin is types.UnionType:
        return _Union([node_for(arg) for arg in args])
    if origin is list:
        return _Array(list, node_for(args[0]))
    if origin is tuple:
        if len(args) == 2 and args[1] is Ellipsis:
            return _Array(tuple, node_for(args[0]))
        return _Tuple([node_for(arg) for arg in args])
    if origin is dict:
        return _Dict(node_for(args[0]), node_for(args[1]))
    if isinstance(annotation, type) and (
        annotation in (Ref, Fd) or hasattr(annotation, "__check__")
    ):
        return _Capability(annotation)
    raise TypeError(f"{annotation!r} cannot be the type of a message's field")
