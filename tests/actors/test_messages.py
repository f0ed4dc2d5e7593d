"""Declared messages: what may be in them, and that they arrive as they were sent or not at all."""

from __future__ import annotations

import enum
import fcntl
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, field, replace
from typing import Any, Self

import msgpack  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import (
    Actor,
    ExitReason,
    Fd,
    Message,
    MessageError,
    Packet,
    Ref,
    System,
    TooDeep,
    TooLarge,
    UnknownKind,
    UnknownRef,
    WrongType,
    decode,
    encode,
    prepare_messages,
)
from actors.codec import decode_value, encode_value


class Scalars(Message):
    n: int
    x: float
    s: str
    b: bytes
    yes: bool
    maybe: int | None = None


class Containers(Message):
    numbers: list[int]
    pair: tuple[int, str]
    names: tuple[str, ...]
    table: dict[str, list[bytes | None]]


class Anything(Message):
    value: Any


class Named(Message, kind="test.named"):
    kind: str
    nodes: list[int]


class Tree(Message):
    children: list[Tree]


class Handles(Message):
    fds: list[Fd]
    one: Fd | None = None


class Carrier(Message):
    message: Message
    reason: ExitReason | None = None


class Pointer(Message):
    ref: Ref | None


class Choosy(Message):
    even: int

    def __post_init__(self) -> None:
        if self.even % 2:
            raise ValueError("odd")


class Colour(enum.StrEnum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


def over(message: Message) -> Message:
    return decode(encode(message))


INTEGERS = st.integers(-(2**63), 2**64 - 1)
SCALARS = (
    st.none()
    | st.booleans()
    | INTEGERS
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(SCALARS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_any_msgpack_value_arrives_as_it_was_sent(value: Any) -> None:
    assert over(Anything(value)) == Anything(value)


@given(
    st.builds(
        Scalars,
        INTEGERS,
        st.floats(allow_nan=False),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.binary(),
        st.booleans(),
        st.none() | INTEGERS,
    )
)
def test_typed_fields_arrive_as_they_were_sent(message: Scalars) -> None:
    assert over(message) == message


def test_containers_arrive_with_their_declared_types() -> None:
    message = Containers([1, 2], (3, "x"), ("a", "b", "c"), {"k": [b"v", None]})
    assert over(message) == message


def test_a_tuple_in_an_any_arrives_as_a_list() -> None:
    assert over(Anything(("read", (0, 1)))) == Anything(["read", [0, 1]])


def test_enums_arrive_as_the_plain_values_that_they_are() -> None:
    arrived = over(Anything([Colour.RED, Level.HIGH]))
    assert arrived == Anything(["red", 3])
    assert isinstance(arrived, Anything)
    assert [type(value) for value in arrived.value] == [str, int]


def test_messages_travel_inside_messages() -> None:
    message = Carrier(Anything([Tree([Tree([])]), {"m": Named("x", [1])}]), ExitReason("normal"))
    assert over(message) == message


def test_a_message_is_frozen_compares_by_value_and_matches_by_position() -> None:
    message = Named("k", [1])
    with pytest.raises(FrozenInstanceError):
        message.kind = "other"  # type: ignore[misc]
    assert message == Named("k", [1])
    match message:
        case Named(kind, nodes):
            assert (kind, nodes) == ("k", [1])


@pytest.mark.parametrize(
    "message",
    [
        Scalars(True, 1.0, "", b"", True),
        Scalars("1", 1.0, "", b"", True),  # type: ignore[arg-type]
        Scalars(1, "1", "", b"", True),  # type: ignore[arg-type]
        Scalars(1, 1.0, b"", b"", True),  # type: ignore[arg-type]
        Scalars(1, 1.0, "", "", True),  # type: ignore[arg-type]
        Scalars(1, 1.0, "", b"", 1),  # type: ignore[arg-type]
        Scalars(1, 1.0, "", b"", True, "no"),  # type: ignore[arg-type]
        Scalars(2**64, 1.0, "", b"", True),
        Scalars(1, 1.0, "\ud800", b"", True),
        Containers((1,), (1, "x"), (), {}),  # type: ignore[arg-type]
        Containers([1, None], (1, "x"), (), {}),  # type: ignore[list-item]
        Containers([1], (1, "x", 2), (), {}),  # type: ignore[arg-type]
        Containers([1], (1, "x"), (1,), {}),  # type: ignore[arg-type]
        Containers([1], (1, "x"), (), {1: []}),  # type: ignore[dict-item]
        Anything(...),
        Anything({1, 2}),
        Anything([bytearray(1)]),
        Anything({("a", "b"): 1}),
        Carrier(1),  # type: ignore[arg-type]
        Carrier(Anything(...)),
        Pointer(1),  # type: ignore[arg-type]
        Handles([3]),  # type: ignore[list-item]
    ],
    ids=repr,
)
def test_a_wrong_type_is_an_error_at_the_sender(message: Message) -> None:
    with pytest.raises(WrongType):
        encode(message)


def test_the_error_names_the_field() -> None:
    with pytest.raises(WrongType, match=r"Containers\.numbers: int expected, not str 'x'"):
        encode(Containers(["x"], (1, ""), (), {}))  # type: ignore[list-item]


def test_what_is_no_message_is_an_error_at_the_sender() -> None:
    with pytest.raises(WrongType):
        encode({"n": 1})  # type: ignore[arg-type]


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


def forest(levels: int) -> Tree:
    tree = Tree([])
    for _ in range(levels):
        tree = Tree([tree])
    return tree


def test_the_limit_of_depth_is_the_same_on_both_sides() -> None:
    assert over(Anything(nested(31))) == Anything(nested(31))
    with pytest.raises(TooDeep):
        encode(Anything(nested(32)))
    payload = msgpack.packb(_wire(Anything, [nested(32)]))
    with pytest.raises(TooDeep):
        decode(Packet(payload))


def test_messages_in_messages_count_as_depth() -> None:
    assert over(forest(15)) == forest(15)
    with pytest.raises(TooDeep):
        encode(forest(16))


def test_a_value_that_contains_itself_is_too_deep() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(TooDeep):
        encode(Anything(loop))


def test_depth_that_only_the_wire_has_does_not_exhaust_the_stack() -> None:
    with pytest.raises(MessageError):
        decode(Packet(b"\x91" * 100_000))
    payload = b""
    for _ in range(200):
        payload = msgpack.packb(_wire(Anything, [msgpack.ExtType(1, payload)]))
    with pytest.raises(MessageError):
        decode(Packet(payload))


def test_too_many_bytes_are_refused_on_both_sides() -> None:
    with pytest.raises(TooLarge):
        encode(Anything(bytes(1 << 20)))
    packet = encode(Anything(bytes(1000)))
    with pytest.raises(TooLarge):
        decode(packet, limit=1000)
    assert encode(Anything(bytes(2 << 20)), limit=4 << 20).payload


def _wire(cls: type[Message], fields: list[Any]) -> Any:
    return [cls.__kind__, *fields]


def _inside(cls: type[Message], fields: list[Any]) -> Any:
    return msgpack.ExtType(1, msgpack.packb(_wire(cls, fields)))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (["nobody.knows", 1], UnknownKind),
        ([["list"], 1], UnknownKind),
        ([], WrongType),
        (7, WrongType),
        (msgpack.ExtType(1, msgpack.packb(["nobody.knows", 1])), WrongType),
        (_wire(Anything, [msgpack.ExtType(1, msgpack.packb(["nobody.knows", 1]))]), UnknownKind),
        (_wire(Anything, [msgpack.ExtType(1, msgpack.packb([]))]), WrongType),
        (_wire(Anything, [msgpack.ExtType(1, msgpack.packb(7))]), WrongType),
        (_wire(Anything, [msgpack.ExtType(1, b"\xc1")]), WrongType),
        (_wire(Anything, [msgpack.ExtType(9, b"")]), WrongType),
        (_wire(Anything, [msgpack.Timestamp(1)]), WrongType),
        (_wire(Anything, []), WrongType),
        (_wire(Anything, [1, 2]), WrongType),
        (_wire(Scalars, [True, 1.0, "", b"", True, None]), WrongType),
        (_wire(Containers, [[1], [1], [], {}]), WrongType),
        (_wire(Containers, [[1], [1, "x"], [], {"k": [1]}]), WrongType),
        (_wire(Carrier, [5, None]), WrongType),
        (_wire(Carrier, [_inside(Named, ["k", ["no"]]), None]), WrongType),
        (_wire(Carrier, [_inside(Anything, [1]), _inside(Anything, [1])]), WrongType),
        (_wire(Choosy, [3]), WrongType),
        (_wire(Pointer, [msgpack.ExtType(2, bytes(16))]), UnknownRef),
        (_wire(Handles, [[msgpack.ExtType(3, b"\0")], None]), WrongType),
        (_wire(Handles, [[msgpack.ExtType(3, b"")], None]), WrongType),
        (["actors.exit_reason", "normal"], WrongType),
        (["actors.exit_reason", "bored", "", "", ""], WrongType),
    ],
    ids=repr,
)
def test_bad_bytes_are_a_typed_error(value: Any, error: type[MessageError]) -> None:
    with pytest.raises(error):
        decode(Packet(msgpack.packb(value)))


@given(st.binary(max_size=200))
def test_garbage_is_a_typed_error_or_a_message(payload: bytes) -> None:
    for wrapped in (payload, msgpack.packb(_wire(Anything, [msgpack.ExtType(1, payload)]))):
        try:
            assert isinstance(decode(Packet(wrapped)), Message)
        except MessageError:
            continue


@given(st.data())
def test_a_damaged_packet_is_a_typed_error_or_a_message(data: st.DataObject) -> None:
    payload = bytearray(encode(Containers([1, 2], (3, "x"), ("a",), {"k": [b"v", None]})).payload)
    where = data.draw(st.integers(0, len(payload) - 1))
    payload[where] = data.draw(st.integers(0, 255))
    try:
        decode(Packet(bytes(payload)))
    except MessageError:
        return


def test_a_type_that_cannot_travel_is_refused_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match="cannot be the type of a message's field"):

        class Bad(Message):
            thing: set[int]


def test_two_classes_cannot_have_one_kind() -> None:
    with pytest.raises(TypeError, match="belongs to"):

        class Thief(Message, kind="test.named"):
            pass


def test_a_class_may_mention_one_that_is_declared_later() -> None:
    assert over(Early([Late(1)])) == Early([Late(1)])


class Early(Message):
    late: list[Late]


class Late(Message):
    n: int


class Defaults(Message):
    numbers: list[int] = field(default_factory=list)
    table: dict[str, int] = field(default_factory=dict)


def test_a_field_may_have_a_default_factory() -> None:
    first, second = Defaults(), Defaults()
    assert first.numbers is not second.numbers
    assert over(first) == Defaults([], {})
    assert over(Defaults([1])) == Defaults([1], {})


class Base(Message):
    n: int


class Derived(Base):
    s: str


def test_a_message_may_inherit_from_another() -> None:
    assert over(Base(1)) == Base(1)
    assert over(Derived(1, "x")) == Derived(1, "x")
    with pytest.raises(WrongType, match=r"Derived\.s: str expected, not int 2"):
        encode(Derived(1, 2))  # type: ignore[arg-type]


class Own(Message):
    """Has a say in how its instances are made."""

    n: int

    def __init__(self, n: int) -> None:
        object.__setattr__(self, "n", n)
        object.__setattr__(self, "twice", 2 * n)


class Slotted(Message):
    __slots__ = ("n",)
    n: int


class Allocated(Message):
    n: int

    def __new__(cls, *_: Any) -> Self:
        self = super().__new__(cls)
        object.__setattr__(self, "made", True)
        return self


def test_how_a_class_makes_its_instances_is_also_how_they_arrive() -> None:
    own, slotted, allocated = over(Own(3)), over(Slotted(3)), over(Allocated(3))
    assert own == Own(3)
    assert vars(own) == {"n": 3, "twice": 6}
    assert slotted == Slotted(3)
    assert vars(slotted) == {}
    assert allocated == Allocated(3)
    assert vars(allocated) == {"n": 3, "made": True}


def test_what_has_arrived_is_as_frozen_as_what_was_sent() -> None:
    arrived = over(Base(1))
    assert type(arrived) is Base
    with pytest.raises(FrozenInstanceError):
        arrived.n = 2  # type: ignore[misc]
    assert hash(arrived) == hash(Base(1))
    assert replace(arrived, n=2) == Base(2)
    assert repr(arrived) == "Base(n=1)"


class Chain(Message):
    inner: Chain | None = None
    numbers: list[int] = field(default_factory=list)
    pair: tuple[int, ...] = ()
    table: dict[str, int] = field(default_factory=dict)


def chain(levels: int, end: Chain) -> Chain:
    for _ in range(levels):
        end = Chain(end)
    return end


@pytest.mark.parametrize("end", [Chain(), Chain(None, [1], (1,), {"k": 1})])
def test_the_deepest_containers_count_as_depth_too(end: Chain) -> None:
    assert over(chain(30, end)) == chain(30, end)
    with pytest.raises(TooDeep):
        encode(chain(31, end))
    fields: list[Any] = [None, end.numbers, list(end.pair), end.table]
    for _ in range(31):
        fields = [_inside(Chain, fields), [], [], {}]
    with pytest.raises(TooDeep):
        decode(Packet(msgpack.packb(_wire(Chain, fields))))


def test_what_has_an_extension_type_of_its_own_cannot_be_forged() -> None:
    class Pair(Message):
        pair: tuple[int, bytes] | tuple[int | bytes, ...]

    for value in (msgpack.ExtType(2, bytes(16)), msgpack.ExtType(1, encode(Base(1)).payload)):
        for message in (Anything(value), Anything([value]), Anything({"k": value}), Pair(value)):
            with pytest.raises(WrongType):
                encode(message)


def test_what_is_not_quite_a_message_on_the_wire_is_a_typed_error() -> None:
    kind = Base.__kind__
    for value in ({0: kind, 1: 1}, kind, [[kind, 1]], [kind], [kind, 1, 2], [kind.encode(), 1]):
        with pytest.raises(MessageError):
            decode(Packet(msgpack.packb(value)))
    key = b"\x81" + msgpack.packb(msgpack.ExtType(2, bytes(16))) + b"\x01"
    time = b"\x81" + msgpack.packb(msgpack.Timestamp(1)) + b"\x01"
    for table in (key, time):
        with pytest.raises(WrongType):
            decode_value(Packet(table))
        with pytest.raises(WrongType):
            decode(Packet(b"\x92" + msgpack.packb(Anything.__kind__) + table))


def test_a_class_is_no_message() -> None:
    for thing in (Base, Message(), Message, None, 1):
        with pytest.raises(WrongType):
            encode(thing)  # type: ignore[arg-type]


VALUES_OF_ANSWERS = [None, True, 1, -(2**63), 1.5, "x", b"x", [], [1, [None]], {1: {"k": [b""]}}]


@pytest.mark.parametrize("value", [*VALUES_OF_ANSWERS, Base(1), [Base(1), {"k": Derived(1, "x")}]])
def test_an_answer_arrives_as_it_was_given(value: Any) -> None:
    arrived = decode_value(encode_value(value))
    assert arrived == value
    assert type(arrived) is type(value)


@pytest.mark.parametrize("value", [2**64, "\ud800", object(), [{1}], {(): 1}, Base("x")])  # type: ignore[arg-type]
def test_an_answer_that_cannot_be_sent_is_an_error_at_the_sender(value: Any) -> None:
    with pytest.raises(WrongType):
        encode_value(value)


def test_a_message_that_failed_leaves_nothing_in_the_next() -> None:
    expected = encode(Scalars(1, 1.0, "s", b"b", True)).payload
    for bad in (Scalars(2**64, 1.0, "s", b"b", True), Scalars(1, 1.0, "\ud800", b"b", True)):
        for message in (bad, Carrier(bad), Carrier(Anything([1, bad]))):
            with pytest.raises(WrongType):
                encode(message)
            assert encode(Scalars(1, 1.0, "s", b"b", True)).payload == expected
    with pytest.raises(TooLarge):
        encode(Anything(bytes(1000)), limit=100)
    assert encode(Scalars(1, 1.0, "s", b"b", True)).payload == expected


class Meddler(int):
    """Sends a message while it is being packed, as a finalizer might."""

    def __gt__(self, other: int) -> bool:
        assert over(Carrier(Anything([1, 2]))) == Carrier(Anything([1, 2]))
        return int(self) > other


def test_a_message_may_be_packed_while_another_is() -> None:
    assert over(Base(Meddler(5))) == Base(5)
    assert over(Carrier(Base(Meddler(5)))) == Carrier(Base(5))


def test_threads_pack_at_the_same_time() -> None:
    def work(seed: int) -> None:
        for i in range(seed, seed + 500):
            text = str(i) * (i % 50)
            message = Carrier(Anything([i, text, Named(text, [i])]))
            assert over(message) == message
            assert over(Derived(i, text)) == Derived(i, text)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(0, 4000, 1000)))


# --- descriptors ----------------------------------------------------------------------------------


def same_file(a: int, b: int) -> bool:
    flags = [fcntl.fcntl(fd, fcntl.F_GETFL) for fd in (a, b)]  # the two ends of a pipe differ here
    return os.path.sameopenfile(a, b) and flags[0] == flags[1]


def test_a_descriptor_is_duplicated_for_the_receiver_and_stays_with_the_sender() -> None:
    read, write = os.pipe()
    sent, other = Fd(read), Fd(write)
    arrived = over(Handles([sent, other, sent], sent))
    assert isinstance(arrived, Handles)
    copies = [*arrived.fds, arrived.one]
    assert [fd is not None and same_file(fd.fileno(), read) for fd in copies] == [
        True,
        False,
        True,
        True,
    ]
    assert len({fd.fileno() for fd in copies if fd is not None}) == 4
    for fd in [*copies, sent, other]:
        assert fd is not None
        fd.close()


def test_a_packet_that_is_dropped_closes_its_descriptors() -> None:
    read, write = os.pipe()
    sent = Fd(read)
    packet = encode(Handles([sent]))
    sent.close()
    packet.close()
    packet.close()
    with pytest.raises(BrokenPipeError):
        os.write(write, b"x")
    os.close(write)


@pytest.mark.parametrize(
    "message",
    [Anything([1, object()]), Scalars("x", 1.0, "", b"", True)],  # type: ignore[arg-type]
    ids=["any", "typed"],
)
def test_a_message_that_cannot_be_sent_leaves_no_descriptor(message: Message) -> None:
    with Pipe() as pipe, pytest.raises(WrongType):
        encode(Carrier(Anything([Handles([pipe.read]), message])))


class Either(Message):
    value: list[Fd | int] | list[Any] | None


def test_what_one_alternative_has_expressed_goes_if_another_takes_the_value() -> None:
    with Pipe() as pipe:
        before = os.listdir("/proc/self/fd")
        packet = encode(Either([1, pipe.read, "x", pipe.write]))
        assert len(packet.fds) == 2
        arrived: Any = decode(packet)
        assert same_file(arrived.value[1].fileno(), pipe.read.fileno())
        assert same_file(arrived.value[3].fileno(), pipe.write.fileno())
        with pytest.raises(WrongType):
            encode(Either([pipe.read, object()]))
        del arrived
        assert os.listdir("/proc/self/fd") == before


def test_a_closed_descriptor_cannot_be_sent() -> None:
    with Pipe() as pipe:
        closed = Fd(os.dup(pipe.read.fileno()))
        closed.close()
        with pytest.raises(WrongType):
            encode(Handles([pipe.read, closed]))


def test_too_many_descriptors_are_refused() -> None:
    with Pipe() as pipe, pytest.raises(TooLarge):
        encode(Handles([pipe.read] * 254))


@pytest.mark.parametrize(
    "fields", [[[], None], [[0, 0], None], [[1], None], [[0, 7], None], [[0], 5]], ids=repr
)
def test_what_a_packet_brings_and_the_message_does_not_claim_is_closed(fields: list[Any]) -> None:
    exts = [msgpack.ExtType(3, bytes([i])) for i in fields[0]]
    payload = msgpack.packb(_wire(Handles, [exts, fields[1]]))
    with Pipe() as pipe:
        packet = Packet(payload, (os.dup(pipe.read.fileno()), os.dup(pipe.write.fileno())))
        try:
            decode(packet)
        except WrongType:
            assert fields[0]
        assert packet.fds == ()


def test_an_fd_gives_its_number_away_only_once() -> None:
    read, write = os.pipe()
    fd = Fd(read)
    assert fd.take() == read
    fd.close()
    os.fstat(read)
    with pytest.raises(ValueError, match="closed"):
        fd.take()
    os.close(read)
    os.close(write)
    with pytest.raises(ValueError, match="no file descriptor"):
        Fd(-1)


class Pipe:
    def __enter__(self) -> Self:
        self.read, self.write = (Fd(number) for number in os.pipe())
        return self

    def __exit__(self, *_: object) -> None:
        self.read.close()
        self.write.close()


# --- references -----------------------------------------------------------------------------------


def test_a_reference_arrives_in_its_own_system_alone() -> None:
    with System() as here, System() as there:
        ref = here.start(Actor)
        payload = encode(Pointer(ref)).payload
        assert decode(Packet(payload), here) == Pointer(ref)
        for system in (there, None):
            with pytest.raises(UnknownRef):
                decode(Packet(payload), system)
        with pytest.raises(UnknownRef):
            there.start(Actor).tell(Pointer(ref))


def test_a_reference_to_an_actor_that_has_ended_still_arrives() -> None:
    with System() as system:
        ref = system.start(Actor)
        ref.stop()
        assert decode(encode(Pointer(ref)), system) == Pointer(ref)


class Pointers(Message):
    one: Ref
    many: list[Ref]
    maybe: Ref | None = None


def test_a_reference_by_name_travels_as_that_name() -> None:
    with System() as system:
        ref = system.named("disk/\N{GREEK SMALL LETTER ALPHA}")
        for message in (Pointer(ref), Anything([ref]), Pointers(ref, [ref, ref], ref)):
            assert decode(encode(message), system) == message
            with pytest.raises(UnknownRef):
                decode(encode(message))
        assert decode_value(encode_value(ref), system) == ref
        extension = msgpack.ExtType(4, "disk/\N{GREEK SMALL LETTER ALPHA}".encode())
        assert encode(Pointer(ref)).payload == msgpack.packb(_wire(Pointer, [extension]))


def test_a_name_means_something_in_its_own_system_only() -> None:
    with System() as here, System() as there:
        ref = here.start(Actor)
        with pytest.raises(UnknownRef, match="disk is of another system"):
            ref.tell(Pointer(there.named("disk")))


def test_a_name_that_is_no_text_is_a_typed_error() -> None:
    with System() as system:
        with pytest.raises(WrongType):
            encode(Pointer(system.named("\ud800")))
        payload = msgpack.packb(_wire(Pointer, [msgpack.ExtType(4, b"\xff")]))
        with pytest.raises(WrongType):
            decode(Packet(payload), system)


def test_a_packet_mentions_the_references_in_it() -> None:
    with System() as system:
        ref = system.start(Actor)
        assert encode(Pointer(ref)).refs == (ref,)
        named = system.named("x")
        assert encode(Pointers(ref, [ref, named])).refs == (ref, ref, named)
        assert encode(Carrier(Anything({"k": [Pointer(ref)]}))).refs == (ref,)
        assert encode_value([ref]).refs == (ref,)
        assert encode(Base(1)).refs == ()


class Marked(Message):
    n: int
    note: str = field(default="", compare=False)
    secret: str = field(default="", repr=False)
    items: list[int] = field(default_factory=list, hash=False)


class OtherMarked(Marked):
    pass


def test_what_a_field_says_of_comparing_showing_and_hashing_holds() -> None:
    message = Marked(1, "a", "b", [2])
    assert message == Marked(1, "other", "b", [2])
    assert message != Marked(1, "a", "other", [2])
    assert message != OtherMarked(1, "a", "b", [2])
    assert hash(message) == hash(Marked(1, "a", "b", [3]))
    assert repr(message) == "Marked(n=1, note='a', items=[2])"


def test_a_message_is_like_itself_whatever_is_in_it() -> None:
    message = Marked(1, "", "", [math.nan])  # type: ignore[list-item]
    assert message == message  # noqa: PLR0124
    assert message != Marked(1, "", "", [math.inf])  # type: ignore[list-item]


def test_what_is_prepared_beforehand_is_as_what_is_prepared_at_its_first_use() -> None:
    prepare_messages(sys.modules[__name__])
    message = Marked(1, "a", "b", [2])
    assert decode(encode(message)) == message
    assert decode(encode(Base(7))) == Base(7)
