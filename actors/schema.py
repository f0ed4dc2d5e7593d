"""What a declared field may hold: one node per type annotation, made once per message class.

Pure. A node has two directions: `wire` looks at a value and gives what the packer is to pack for
it; `load` turns what msgpack made of that back into the declared value (arrays into tuples,
extension types into capabilities). Both raise `WrongType`, or `TooDeep` beyond MAX_DEPTH
containers and messages inside each other.

Rules: a bool is not an int; an int is a float; subclasses of str, int, ... (enums) are sent as
the plain value. Under `Any` a tuple arrives as a list, because msgpack has only one kind of
array.

Speed: the code that is made for a message class (see `actors.message`) has the test that `settled`
writes in it, and calls a node only if that fails. So the usual values cost no call: scalars of the
very type, and containers of them, which C code goes through and which are packed as they are.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from operator import countOf
from typing import Any, Protocol

from msgpack import ExtType  # type: ignore[import-untyped, unused-ignore]

from actors.errors import TooDeep, WrongType
from actors.fd import Fd
from actors.ref import Ref

MAX_DEPTH = 32

_SCALARS = frozenset({type(None), bool, int, float, str, bytes})

Extension = slice
"""What an extension type is unpacked as, (code, data), until a reader has revived it.

Any type made by C code that keeps two arguments would do, and nothing else in msgpack becomes a
slice. To make an `ExtType` takes Python code, and as long as to unpack a small message thrice.
"""


class Writer(Protocol):
    """Turns what is no msgpack value into the extension types of one packet."""

    def express(self, value: Any, depth: int) -> ExtType:
        """The extension type of a Ref, Fd or message."""

    def mark(self) -> Any:
        """Where it stands."""

    def undo(self, mark: Any) -> None:
        """Give up what it has expressed since that `mark`."""


class Reader(Protocol):
    """Turns the extension types of one packet into what they stand for."""

    def revive(self, value: Extension, depth: int) -> Any: ...

    def mark(self) -> Any:
        """Where it stands."""

    def undo(self, mark: Any) -> None:
        """Take back what it has revived since that `mark`."""


class Node:
    """One annotation.

    Attributes:
        exact: types whose values need no look beyond their type, and are packed as they are.
        plain: it never holds a Ref, Fd or message: the writer and the reader are not touched.
        revived: what an extension type in this place may stand for.
        as_tuple: it is a tuple, which arrives as a list.
    """

    name: str
    exact: frozenset[type] = frozenset()
    plain: bool = True
    revived: tuple[type, ...] = ()
    as_tuple: bool = False

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        raise NotImplementedError

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        raise NotImplementedError

    def settled(
        self,
        value: str,
        names: dict[str, Any],
        *,
        loading: bool,  # noqa: ARG002 - it matters to containers
    ) -> str:
        """Python code: whether the variable ``value`` is quickly seen to need no `wire` (`load`).

        It may use ``depth`` and what it puts into ``names``. An ``as_tuple`` is left to be made.
        """
        return _is_one_of(f"type({value})", self.exact, names)

    def wrong(self, value: Any) -> WrongType:
        if type(value) is Extension:
            return WrongType(f"{self.name} expected, not extension type {value.start}")
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

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:  # noqa: ARG002 - has no inside
        if type(value) not in self.exact and (
            isinstance(value, bool) or not isinstance(value, self._kinds)
        ):
            raise self.wrong(value)
        return value

    def load(self, value: Any, depth: int, reader: Reader) -> Any:  # noqa: ARG002
        if type(value) not in self.exact:
            raise self.wrong(value)
        return value


class _Any(Node):
    name = "a msgpack value, Message, Ref or Fd"
    exact = _SCALARS
    plain = False
    revived = (object,)

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is list or kind is tuple:
            depth = deeper(depth)
            if _SCALARS.issuperset(map(type, value)):
                return value
            return [
                item if type(item) in _SCALARS else self.wire(item, depth, writer) for item in value
            ]
        if kind is dict:
            depth = deeper(depth)
            wired = {}
            for key, item in value.items():
                if type(key) not in _SCALARS:
                    raise _no_key(key)
                wired[key] = item if type(item) in _SCALARS else self.wire(item, depth, writer)
            return wired
        if kind is Ref or hasattr(kind, "__wire__") or isinstance(value, (Ref, Fd)):
            return writer.express(value, depth)
        if isinstance(value, (int, float, str, bytes)):
            return value
        if isinstance(value, dict):
            return self.wire(dict(value), depth, writer)
        if isinstance(value, (list, tuple)) and not isinstance(value, ExtType):
            return self.wire(list(value), depth, writer)
        raise self.wrong(value)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        kind = type(value)
        if kind in _SCALARS:
            return value
        if kind is list:
            depth = deeper(depth)
            if _SCALARS.issuperset(map(type, value)):
                return value
            return [
                item if type(item) in _SCALARS else self.load(item, depth, reader) for item in value
            ]
        if kind is dict:
            depth = deeper(depth)
            loaded = {}  # another one, for a union may have to look at this one again
            for key, item in value.items():
                if type(key) not in _SCALARS:
                    raise _no_key(key)
                loaded[key] = item if type(item) in _SCALARS else self.load(item, depth, reader)
            return loaded
        if kind is Extension:
            return reader.revive(value, depth)
        raise self.wrong(value)


ANY = _Any()


class _Capability(Node):
    """Ref, Fd, or a message class: an extension type on the wire."""

    plain = False

    def __init__(self, kind: type) -> None:
        self.name = kind.__name__
        self.revived = (kind,)
        self._kind = kind

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        if not isinstance(value, self._kind):
            raise self.wrong(value)
        return writer.express(value, depth)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not Extension:
            raise self.wrong(value)
        revived = reader.revive(value, depth)
        if not isinstance(revived, self._kind):
            raise self.wrong(revived)
        return revived


class _Array(Node):
    """list[item], or tuple[item, ...]."""

    def __init__(self, kind: type, item: Node) -> None:
        self.name = f"{kind.__name__}[{item.name}]"
        self.plain = item.plain
        self.as_tuple = kind is tuple
        self._kind = kind
        self._item = item

    def settled(self, value: str, names: dict[str, Any], *, loading: bool) -> str:
        if not self._item.exact:
            return "False"
        kind = "list" if loading else self._kind.__name__
        return (
            f"type({value}) is {kind} and depth < {MAX_DEPTH}"
            f" and {_are_all_of(value, value, self._item.exact, names)}"
        )

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        if not isinstance(value, self._kind) or isinstance(value, ExtType):  # which is a tuple
            raise self.wrong(value)
        depth = deeper(depth)
        items = typing.cast("Iterable[Any]", value)
        exact, wire = self._item.exact, self._item.wire
        return [item if type(item) in exact else wire(item, depth, writer) for item in items]

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not list:
            raise self.wrong(value)
        depth = deeper(depth)
        exact, load = self._item.exact, self._item.load
        items = [item if type(item) in exact else load(item, depth, reader) for item in value]
        return tuple(items) if self.as_tuple else items


class _Tuple(Node):
    """tuple[a, b, c]: so many, each of its own type."""

    as_tuple = True

    def __init__(self, items: list[Node]) -> None:
        self.name = f"tuple[{', '.join(item.name for item in items) or '()'}]"
        self.plain = all(item.plain for item in items)
        self._items = items

    def settled(self, value: str, names: dict[str, Any], *, loading: bool) -> str:
        if not all(item.exact for item in self._items):
            return "False"
        return " and ".join(
            [
                f"type({value}) is {'list' if loading else 'tuple'} and depth < {MAX_DEPTH}",
                f"len({value}) == {len(self._items)}",
                *(
                    _is_one_of(f"type({value}[{index}])", item.exact, names)
                    for index, item in enumerate(self._items)
                ),
            ]
        )

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        if (
            not isinstance(value, tuple)
            or isinstance(value, ExtType)
            or len(value) != len(self._items)
        ):
            raise self.wrong(value)
        depth = deeper(depth)
        return [
            node.wire(item, depth, writer) for node, item in zip(self._items, value, strict=True)
        ]

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not list or len(value) != len(self._items):
            raise self.wrong(value)
        depth = deeper(depth)
        return tuple(
            [node.load(item, depth, reader) for node, item in zip(self._items, value, strict=True)]
        )


class _Dict(Node):
    def __init__(self, key: Node, item: Node) -> None:
        self.name = f"dict[{key.name}, {item.name}]"
        self.plain = key.plain and item.plain
        self._key = key
        self._item = item

    def settled(self, value: str, names: dict[str, Any], *, loading: bool) -> str:  # noqa: ARG002
        if not (self._key.exact and self._item.exact):
            return "False"
        return (
            f"type({value}) is dict and depth < {MAX_DEPTH}"
            f" and {_are_all_of(value, value, self._key.exact, names)}"
            f" and {_are_all_of(f'{value}.values()', value, self._item.exact, names)}"
        )

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        if not isinstance(value, dict):
            raise self.wrong(value)
        depth = deeper(depth)
        key_wire, item_wire = self._key.wire, self._item.wire
        wired = {}
        for key, item in value.items():
            if type(key) not in _SCALARS:
                raise _no_key(key)
            wired[key_wire(key, depth, writer)] = item_wire(item, depth, writer)
        return wired

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is not dict:
            raise self.wrong(value)
        depth = deeper(depth)
        key_load, item_load = self._key.load, self._item.load
        loaded = {}
        for key, item in value.items():
            if type(key) not in _SCALARS:
                raise _no_key(key)
            loaded[key_load(key, depth, reader)] = item_load(item, depth, reader)
        return loaded


class _Union(Node):
    """The first alternative that takes the value; only a wrong type lets the next one try."""

    def __init__(self, options: list[Node]) -> None:
        self.name = " | ".join(option.name for option in options)
        self.exact = frozenset().union(*(option.exact for option in options))
        self.plain = all(option.plain for option in options)
        self.revived = sum((option.revived for option in options), ())
        self._options = options
        # Only a container can have expressed (revived) some items when another turns out wrong.
        self._undoes = not all(option.plain or type(option) is _Capability for option in options)

    def wire(self, value: Any, depth: int, writer: Writer) -> Any:
        mark = writer.mark() if self._undoes else None
        for option in self._options:
            try:
                return option.wire(value, depth, writer)
            except WrongType:
                if mark is not None:
                    writer.undo(mark)
        raise self.wrong(value)

    def load(self, value: Any, depth: int, reader: Reader) -> Any:
        if type(value) is Extension:  # revived once: a descriptor can be claimed only once
            if not self.revived:
                raise self.wrong(value)
            revived = reader.revive(value, depth)
            if not isinstance(revived, self.revived):
                raise self.wrong(revived)
            return revived
        mark = reader.mark() if self._undoes else None
        for option in self._options:
            try:
                return option.load(value, depth, reader)
            except WrongType:
                if mark is not None:
                    reader.undo(mark)
        raise self.wrong(value)


def _no_key(key: Any) -> WrongType:
    return WrongType(f"{type(key).__name__} cannot be the key of a dict")


def _is_one_of(kind: str, kinds: frozenset[type], names: dict[str, Any]) -> str:
    """Python code: whether the type that ``kind`` gives is one of these."""
    if len(kinds) > 2:
        return f"{kind} in {_named(kinds, names)}"
    usual_first = sorted(kinds, key=lambda one: (one is int, one.__name__))
    return " or ".join(f"{kind} is {_named(one, names)}" for one in usual_first) or "False"


def _are_all_of(values: str, whole: str, kinds: frozenset[type], names: dict[str, Any]) -> str:
    """Python code: whether all ``values``, as many as are in ``whole``, have one of these types.

    It is C code that goes through them, and a loop only for a few would be as fast.
    """
    types = f"map(type, {values})"
    if len(kinds) == 1:
        (kind,) = kinds
        return f"{_named(countOf, names)}({types}, {_named(kind, names)}) == len({whole})"
    return f"{_named(kinds, names)}.issuperset({types})"


def _named(value: Any, names: dict[str, Any]) -> str:
    """The name of a value in generated code."""
    name = f"c{id(value)}"
    names[name] = value
    return name


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
        annotation in (Ref, Fd) or hasattr(annotation, "__wire__")
    ):
        return _Capability(annotation)
    raise TypeError(f"{annotation!r} cannot be the type of a message's field")
