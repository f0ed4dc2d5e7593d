"""The XenStore protocol in bytes: messages, streams that are cut anyhow, and what each request is
answered, from docs/misc/xenstore.txt and xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hypervisor.store import Effect, Store
from hypervisor.store_permissions import Caller
from hypervisor.store_quota import Quota
from hypervisor.store_watches import Event
from hypervisor.xs_requests import answer
from hypervisor.xs_wire import (
    HEADER_SIZE,
    PAYLOAD_MAX,
    Frames,
    Op,
    Packet,
    WireError,
    pack,
    unpack,
    watch_event,
)

ROOT, GUEST = Caller(0), Caller(1)


def store(**quota: int) -> Store:
    made = Store(Quota(**quota))
    made.introduce(1)
    made.introduce(2)
    return made


def ask(
    to: Store, op: int, payload: bytes, caller: Caller = ROOT, tx: int = 0
) -> tuple[str, bytes, list[Effect]]:
    """The type and the payload of the reply, which is for this request, and the effects."""
    answered = answer(to, caller, Packet(op, 77, tx, payload))
    frames = Frames()
    frames.feed(answered.reply)
    reply = frames.take()
    assert reply is not None
    assert len(frames) == 0
    assert (reply.req_id, reply.tx_id) == (77, tx)
    return Op(reply.type).name, reply.payload, answered.effects


def says(to: Store, op: Op, payload: bytes, caller: Caller = ROOT, tx: int = 0) -> bytes | str:
    """The payload, or the name of the error."""
    kind, reply, effects = ask(to, op, payload, caller, tx)
    if kind == "ERROR":
        assert effects == []
        assert reply[-1:] == b"\0"
        return reply[:-1].decode()
    assert kind == op.name
    return reply


# --- bytes ----------------------------------------------------------------------------------------


def test_numbers_of_types_are_those_of_xs_wire_h() -> None:
    # fmt: off
    in_order = [
        "CONTROL", "DIRECTORY", "READ", "GET_PERMS", "WATCH", "UNWATCH", "TRANSACTION_START",
        "TRANSACTION_END", "INTRODUCE", "RELEASE", "GET_DOMAIN_PATH", "WRITE", "MKDIR", "RM",
        "SET_PERMS", "WATCH_EVENT", "ERROR", "IS_DOMAIN_INTRODUCED", "RESUME", "SET_TARGET", None,
        "RESET_WATCHES", "DIRECTORY_PART", "GET_FEATURE", "SET_FEATURE", "GET_QUOTA", "SET_QUOTA",
    ]
    # fmt: on
    assert {op.value: op.name for op in Op} == {
        number: name for number, name in enumerate(in_order) if name
    }


def test_a_message_is_a_header_in_little_endian_and_a_payload() -> None:
    assert Packet(Op.READ, 1, 0x01020304, b"/a\0").encode() == bytes.fromhex(
        "02000000 01000000 04030201 03000000 2f6100"
    )
    assert watch_event("/a", b"t k") == struct.pack("<4I", 15, 0, 0, 7) + b"/a\0t k\0"


@pytest.mark.parametrize(
    ("payload", "parts"),
    [
        (b"", []),
        (b"\0", [b""]),
        (b"a\0", [b"a"]),
        (b"a\0b\0", [b"a", b"b"]),
        (b"a\0\0b\0", [b"a", b"", b"b"]),
        (b"a\0rest", [b"a"]),
        (b"rest", []),
    ],
)
def test_arguments_end_with_a_nul(payload: bytes, parts: list[bytes]) -> None:
    assert unpack(payload) == parts
    assert payload.startswith(pack(parts))


PACKETS = st.builds(
    Packet,
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=60) | st.just(b"x" * PAYLOAD_MAX),
)


def taken(frames: Frames, chunks: list[bytes]) -> tuple[list[Packet], bool]:
    """What comes out, and whether it fails, which it then does for good."""
    packets = []
    for chunk in chunks:
        frames.feed(chunk)
        try:
            while (packet := frames.take()) is not None:
                packets.append(packet)
        except WireError:
            frames.feed(b"\0" * 100)
            with pytest.raises(WireError):
                frames.take()
            return packets, True
    return packets, False


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    chunks = []
    for size in sizes:
        chunks.append(data[:size])
        data = data[size:]
    return [*chunks, data]


@given(st.lists(PACKETS, max_size=5), st.lists(st.integers(0, 30), max_size=20), st.binary())
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    packets: list[Packet], sizes: list[int], rest: bytes
) -> None:
    rest = rest[: HEADER_SIZE - 1]
    data = b"".join(packet.encode() for packet in packets) + rest
    frames = Frames()
    assert taken(frames, cut(data, sizes)) == (packets, False)
    assert len(frames) == len(rest)


@settings(max_examples=300)
@given(st.binary(max_size=200), st.lists(st.integers(0, 50), max_size=10))
def test_any_bytes_are_messages_or_the_one_error(data: bytes, sizes: list[int]) -> None:
    at_once, bad = taken(Frames(), [data])
    assert taken(Frames(), cut(data, sizes)) == (at_once, bad)
    whole = b"".join(packet.encode() for packet in at_once)
    assert data.startswith(whole)
    if bad:
        assert int.from_bytes(data[len(whole) + 12 : len(whole) + 16], "little") > PAYLOAD_MAX


@pytest.mark.parametrize(("length", "bad"), [(PAYLOAD_MAX, False), (PAYLOAD_MAX + 1, True)])
def test_a_length_is_refused_before_its_payload_is_there(length: int, bad: bool) -> None:
    frames = Frames()
    frames.feed(Packet(Op.READ, 1, 0, b"/\0").encode() + struct.pack("<4I", 2, 0, 0, length))
    first = frames.take()
    assert first is not None
    assert first.payload == b"/\0"
    if not bad:
        assert frames.take() is None
        return
    with pytest.raises(WireError, match="4097 bytes"):
        frames.take()


# --- requests -------------------------------------------------------------------------------------

TABLE: list[tuple[Op, bytes, bytes | str]] = [
    # nodes
    (Op.WRITE, b"/a\0one", b"OK\0"),
    (Op.READ, b"/a\0", b"one"),
    (Op.WRITE, b"/a\0nul\0 in it\0", b"OK\0"),
    (Op.READ, b"/a\0", b"nul\0 in it\0"),
    (Op.WRITE, b"/a\0", b"OK\0"),
    (Op.READ, b"/a\0", b""),
    (Op.WRITE, b"/a", "EINVAL"),
    (Op.WRITE, b"", "EINVAL"),
    (Op.WRITE, b"/\xff\0x", "EINVAL"),
    (Op.READ, b"/a", "EINVAL"),
    (Op.READ, b"/a\0/b\0", "EINVAL"),
    (Op.READ, b"/a\0more", "EINVAL"),
    (Op.READ, b"", "EINVAL"),
    (Op.READ, b"\0", "EINVAL"),
    (Op.READ, b"@releaseDomain\0", "EINVAL"),
    (Op.READ, b"/none\0", "ENOENT"),
    (Op.MKDIR, b"/a/b\0", b"OK\0"),
    (Op.MKDIR, b"/a/b\0", b"OK\0"),
    (Op.MKDIR, b"/a/b\0x", "EINVAL"),
    (Op.DIRECTORY, b"/a\0", b"b\0"),
    (Op.DIRECTORY, b"/a/b\0", b""),
    (Op.DIRECTORY, b"/local/domain\0", b"1\x002\0"),
    (Op.RM, b"/a/b\0", b"OK\0"),
    (Op.RM, b"/a/b\0", b"OK\0"),
    (Op.RM, b"/a/b/c\0", "ENOENT"),
    (Op.RM, b"/\0", "EINVAL"),
    (Op.RM, b"/a", "EINVAL"),
    # permissions
    (Op.GET_PERMS, b"/a\0", b"n0\0"),
    (Op.SET_PERMS, b"/a\0b0\0r1\0w65535\0", b"OK\0"),
    (Op.GET_PERMS, b"/a\0", b"b0\0r1\0w65535\0"),
    (Op.SET_PERMS, b"/a\0n0\0reserved", b"OK\0"),
    (Op.SET_PERMS, b"/a\0", "EINVAL"),
    (Op.SET_PERMS, b"/a\0n0", "EINVAL"),
    (Op.SET_PERMS, b"/a\0x0\0", "EINVAL"),
    (Op.SET_PERMS, b"/a\0n65536\0", "EINVAL"),
    (Op.SET_PERMS, b"/none\0n0\0", "ENOENT"),
    (Op.GET_PERMS, b"@introduceDomain\0", b"n0\0"),
    (Op.SET_PERMS, b"@introduceDomain\0n0\0r1\0", b"OK\0"),
    (Op.GET_PERMS, b"@introduceDomain\0", b"n0\0r1\0"),
    # watches
    (Op.WATCH, b"/a\0t\0", b"OK\0"),
    (Op.WATCH, b"/a\0t\0", "EEXIST"),
    (Op.WATCH, b"/a\0t\0001\0", "EEXIST"),
    (Op.WATCH, b"/a\0u\x001\0", b"OK\0"),
    (Op.WATCH, b"/a\0u2\0x\0", "EINVAL"),
    (Op.WATCH, b"/a\0v\0reserved", b"OK\0"),
    (Op.WATCH, b"/a\0\0", b"OK\0"),
    (Op.WATCH, b"/a\0\xff\0", b"OK\0"),
    (Op.WATCH, b"/a\0", "EINVAL"),
    (Op.WATCH, b"//\0t\0", "EINVAL"),
    (Op.WATCH, b"/a\0" + b"x" * 1023 + b"\0", "E2BIG"),
    (Op.UNWATCH, b"/a\0t\0", b"OK\0"),
    (Op.UNWATCH, b"/a\0t\0", "ENOENT"),
    (Op.UNWATCH, b"/a\0", "EINVAL"),
    (Op.RESET_WATCHES, b"\0", b"OK\0"),
    (Op.UNWATCH, b"/a\0u\0", "ENOENT"),
    # domains
    (Op.GET_DOMAIN_PATH, b"5\0", b"/local/domain/5\0"),
    (Op.GET_DOMAIN_PATH, b"007\0", b"/local/domain/7\0"),
    (Op.GET_DOMAIN_PATH, b"x\0", "EINVAL"),
    (Op.GET_DOMAIN_PATH, b"-1\0", "EINVAL"),
    (Op.GET_DOMAIN_PATH, b"65536\0", "EINVAL"),
    (Op.GET_DOMAIN_PATH, b"\0", "EINVAL"),
    (Op.IS_DOMAIN_INTRODUCED, b"1\0", b"T\0"),
    (Op.IS_DOMAIN_INTRODUCED, b"0\0", b"T\0"),
    (Op.IS_DOMAIN_INTRODUCED, b"32752\0", b"T\0"),
    (Op.IS_DOMAIN_INTRODUCED, b"9\0", b"F\0"),
    (Op.INTRODUCE, b"9\x00123\x004\0", b"OK\0"),
    (Op.INTRODUCE, b"9\x00123\x004\0/path\0", b"OK\0"),
    (Op.IS_DOMAIN_INTRODUCED, b"9\0", b"T\0"),
    (Op.INTRODUCE, b"9\x00123\0", "EINVAL"),
    (Op.INTRODUCE, b"9\x00-5\x000\0", "EINVAL"),
    (Op.INTRODUCE, b"0\x001\x001\0", "EINVAL"),
    (Op.SET_TARGET, b"9\x001\0", b"OK\0"),
    (Op.SET_TARGET, b"9\x008\0", "ENOENT"),
    (Op.SET_TARGET, b"9\0", "EINVAL"),
    (Op.RESUME, b"9\0", b"OK\0"),
    (Op.RESUME, b"8\0", "ENOENT"),
    (Op.RELEASE, b"9\0", b"OK\0"),
    (Op.RELEASE, b"9\0", "ENOENT"),
    (Op.RELEASE, b"0\0", "EINVAL"),
    (Op.READ, b"/local/domain/9\0", "ENOENT"),
    # settings
    (Op.GET_FEATURE, b"", b"12\0"),
    (Op.GET_FEATURE, b"1\0", b"12\0"),
    (Op.GET_FEATURE, b"8\0", "ENOENT"),
    (Op.SET_FEATURE, b"1\x000\0", "ENOSYS"),
    (
        Op.GET_QUOTA,
        b"",
        b"nodes node-size watches transactions transaction-nodes permissions\0",
    ),
    (Op.GET_QUOTA, b"nodes\0", b"1000\0"),
    (Op.SET_QUOTA, b"1\0nodes\x005\0", b"OK\0"),
    (Op.GET_QUOTA, b"1\0nodes\0", b"5\0"),
    (Op.GET_QUOTA, b"2\0nodes\0", b"1000\0"),
    (Op.SET_QUOTA, b"node-size\x007\0", b"OK\0"),
    (Op.GET_QUOTA, b"node-size\0", b"7\0"),
    (Op.GET_QUOTA, b"2\0node-size\0", b"2048\0"),
    (Op.SET_QUOTA, b"none\x007\0", "EINVAL"),
    (Op.SET_QUOTA, b"nodes\0x\0", "EINVAL"),
    (Op.SET_QUOTA, b"8\0nodes\x007\0", "ENOENT"),
    (Op.SET_QUOTA, b"nodes\0", "EINVAL"),
    (Op.GET_QUOTA, b"none\0", "EINVAL"),
    (Op.GET_QUOTA, b"8\0nodes\0", "ENOENT"),
    (Op.GET_QUOTA, b"1\0nodes\0more\0", "EINVAL"),
    (Op.CONTROL, b"help\0", b"help\nquota [<domid>]\n\0"),
    (Op.CONTROL, b"live-update\0-s\0", "EINVAL"),
    (Op.CONTROL, b"", "EINVAL"),
    (Op.CONTROL, b"quota\x008\0", "ENOENT"),
    # not requests
    (Op.WATCH_EVENT, b"/a\0t\0", "ENOSYS"),
    (Op.ERROR, b"EINVAL\0", "ENOSYS"),
]


def test_requests_of_domain_0_are_answered_one_after_the_other() -> None:
    to = store()
    for op, payload, expected in TABLE:
        assert (op, payload, says(to, op, payload)) == (op, payload, expected)


def test_quotas_are_shown() -> None:
    to = store()
    shown = says(to, Op.CONTROL, b"quota\x001\0")
    assert isinstance(shown, bytes)
    assert shown.startswith(b"nodes             1000\nnode-size         2048\n")


@pytest.mark.parametrize("kind", [20, 27, 1000, 0xFFFF, 0xFFFFFFFF])
def test_a_type_that_is_not_known_is_enosys(kind: int) -> None:
    assert ask(store(), kind, b"\0") == ("ERROR", b"ENOSYS\0", [])


def test_only_domain_0_may_manage_domains() -> None:
    to, tried = store(), []
    for op in Op:
        reply = says(to, op, b"", GUEST)
        if reply == "EACCES":
            tried.append(op.name)
    assert tried == [
        "CONTROL",
        "INTRODUCE",
        "RELEASE",
        "IS_DOMAIN_INTRODUCED",
        "RESUME",
        "SET_TARGET",
        "GET_QUOTA",
        "SET_QUOTA",
    ]
    assert says(to, Op.GET_FEATURE, b"1\0", GUEST) == "EACCES"
    assert says(to, Op.GET_DOMAIN_PATH, b"2\0", GUEST) == b"/local/domain/2\0"


def test_a_guest_speaks_relatively_and_of_what_is_its_own() -> None:
    to = store()
    assert says(to, Op.WRITE, b"x/y\0hers", GUEST) == b"OK\0"
    assert says(to, Op.READ, b"/local/domain/1/x/y\0", GUEST) == b"hers"
    assert says(to, Op.READ, b"/local/domain/2\0", GUEST) == "EACCES"
    assert says(to, Op.WRITE, b"x\0" + b"v" * 2049, GUEST) == "ENOSPC"


def test_transactions_on_the_wire() -> None:
    to = store()
    assert says(to, Op.TRANSACTION_START, b"\0") == b"1\0"
    assert says(to, Op.WRITE, b"/a\0x", tx=1) == b"OK\0"
    assert says(to, Op.READ, b"/a\0", tx=1) == b"x"
    assert says(to, Op.READ, b"/a\0") == "ENOENT"
    assert says(to, Op.READ, b"/a\0", GUEST, tx=1) == "ENOENT"
    assert says(to, Op.TRANSACTION_START, b"\0", tx=1) == "EBUSY"
    assert says(to, Op.TRANSACTION_START, b"\0", tx=9) == "ENOENT"
    assert says(to, Op.TRANSACTION_END, b"X\0", tx=1) == "EINVAL"
    assert says(to, Op.TRANSACTION_END, b"T", tx=1) == "EINVAL"
    assert says(to, Op.TRANSACTION_END, b"T\0", tx=1) == b"OK\0"
    assert says(to, Op.READ, b"/a\0") == b"x"
    assert says(to, Op.TRANSACTION_END, b"T\0", tx=1) == "ENOENT"
    assert says(to, Op.TRANSACTION_END, b"T\0") == "ENOENT"
    assert says(to, Op.TRANSACTION_START, b"\0") == b"2\0"
    assert says(to, Op.READ, b"/a\0", tx=2) == b"x"
    assert says(to, Op.WRITE, b"/a\0y") == b"OK\0"
    assert says(to, Op.TRANSACTION_END, b"T\0", tx=2) == "EAGAIN"
    assert says(to, Op.TRANSACTION_START, b"\0") == b"3\0"
    assert says(to, Op.TRANSACTION_END, b"F\0", tx=3) == b"OK\0"


def test_a_transaction_that_is_none_is_refused_whatever_is_asked() -> None:
    to = store()
    without = {Op.WATCH, Op.UNWATCH}
    known = {op for op in Op if says(to, op, b"") != "ENOSYS"}
    assert {op for op in known if says(to, op, b"", tx=5) == "ENOENT"} == known - without


def test_effects_come_beside_the_reply() -> None:
    to = store()
    assert ask(to, Op.WATCH, b"/a\0t\0") == ("WATCH", b"OK\0", [Event(ROOT, "/a", b"t")])
    assert ask(to, Op.WATCH, b"x\0\xff t\0", GUEST)[2] == [Event(GUEST, "x", b"\xff t")]
    assert ask(to, Op.WRITE, b"/a/b\0x")[2] == [Event(ROOT, "/a/b", b"t")]
    assert ask(to, Op.MKDIR, b"/a/c\0")[2] == [Event(ROOT, "/a/c", b"t")]
    assert ask(to, Op.SET_PERMS, b"/a/c\0n1\0")[2] == [Event(ROOT, "/a/c", b"t")]
    assert ask(to, Op.RM, b"/a\0")[2] == [Event(ROOT, "/a", b"t")]
    assert ask(to, Op.WATCH, b"@releaseDomain\0r\x001\0")[2] == [
        Event(ROOT, "@releaseDomain", b"r")
    ]
    assert ask(to, Op.RELEASE, b"2\0")[2] == [Event(ROOT, "@releaseDomain/2", b"r")]
    ask(to, Op.TRANSACTION_START, b"\0")
    assert ask(to, Op.WRITE, b"/a\0x", tx=1)[2] == []
    assert ask(to, Op.TRANSACTION_END, b"T\0", tx=1)[2] == [Event(ROOT, "/a", b"t")]


# --- long directories -----------------------------------------------------------------------------


def parts_of(to: Store, path: bytes) -> list[bytes]:
    """As libxenstore does it: part by part, from the beginning if something has changed."""
    found, generation, count = b"", b"", 0
    while not (found == b"\0" or found[-2:] == b"\0\0"):
        reply = says(to, Op.DIRECTORY_PART, path + b"\0%d\0" % len(found))
        assert isinstance(reply, bytes)
        assert len(reply) <= PAYLOAD_MAX
        now, _, part = reply.partition(b"\0")
        if found and now != generation:
            found = b""
            continue
        generation, found = now, found + part
        count += 1
        if count == 2:
            says(to, Op.WRITE, path + b"/0-new\0")
    return unpack(found[:-1])


@pytest.mark.parametrize(
    ("count", "length"), [(0, 1), (1, 1), (2, 2040), (2, 2046), (5, 3000), (2000, 9)]
)
def test_a_long_directory_is_had_in_parts(count: int, length: int) -> None:
    to = store()
    names = {b"%0*d" % (length, i) for i in range(count)}
    says(to, Op.MKDIR, b"/d\0")
    for name in names:
        says(to, Op.WRITE, b"/d/" + name + b"\0")
    whole = says(to, Op.DIRECTORY, b"/d\0")
    if sum(map(len, names)) + count <= PAYLOAD_MAX:
        assert whole == pack(sorted(names))
    else:
        assert whole == "E2BIG"
    found = parts_of(to, b"/d")
    assert found == sorted(found)
    assert set(found) - {b"0-new"} == names
    assert (b"0-new" in found) == (count > 2)


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"/d\x000\0", b"a\0bb\0\0"),
        (b"/d\x002\0", b"bb\0\0"),
        (b"/d\x005\0", b"\0"),
        (b"/d\x00999\0", b"\0"),
        (b"/d\0", "EINVAL"),
        (b"/d\0x\0", "EINVAL"),
        (b"/none\x000\0", "ENOENT"),
    ],
)
def test_a_part(payload: bytes, expected: bytes | str) -> None:
    to = store()
    says(to, Op.WRITE, b"/d/a\0")
    says(to, Op.WRITE, b"/d/bb\0")
    reply = says(to, Op.DIRECTORY_PART, payload)
    assert (reply.partition(b"\0")[2] if isinstance(reply, bytes) else reply) == expected


# --- anything -------------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [b"", b"/", b"/a", b"/a/b", b"x", b"//", b"@releaseDomain", b"n0", b"b1", b"T", b"F", b"1"]
)
PAYLOADS = st.binary(max_size=40) | st.lists(PIECES, max_size=4).map(pack)
REQUESTS = st.tuples(
    st.builds(Packet, st.integers(0, 28), st.integers(0, 9), st.integers(0, 3), PAYLOADS),
    st.sampled_from([Caller(0), Caller(0, 1), Caller(1), Caller(2), Caller(3)]),
)


@settings(max_examples=200)
@given(st.lists(REQUESTS, max_size=60))
def test_whatever_is_asked_there_is_one_answer(requests: list[tuple[Packet, Caller]]) -> None:
    to = store(nodes=6, watches=2, transactions=2, transaction_nodes=5)
    for packet, caller in requests:
        answered = answer(to, caller, packet)
        frames = Frames()
        frames.feed(answered.reply)
        reply = frames.take()
        assert reply is not None
        assert frames.take() is None
        assert reply[1:3] == packet[1:3]
        assert reply.type in (packet.type, Op.ERROR)
        for effect in answered.effects:
            if isinstance(effect, Event):
                frames.feed(watch_event(effect.path, effect.token))
                event = frames.take()
                assert event is not None
                assert event[:3] == (Op.WATCH_EVENT, 0, 0)
                assert unpack(event.payload) == [effect.path.encode(), effect.token]
