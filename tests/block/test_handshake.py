"""The option haggling, byte by byte: rows of what a client sends and what it gets."""

from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.block import nbd
from examples.block.handshake import CLOSE, OPTION_LIMIT, TRANSMISSION, Export, Handshake
from transport import RemoteProtocolError

EXPORT = Export("disk", 1 << 20, read_only=False, request_limit=1 << 16)
FLAGS = struct.pack(">I", nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES)

Reply = tuple[int, int, bytes]  # option, type, data


def option(number: int, data: bytes = b"") -> bytes:
    return nbd.OPTION.pack(nbd.OPTION_MAGIC, number, len(data)) + data


def counted(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def go(name: bytes = b"", wanted: tuple[int, ...] = ()) -> bytes:
    return counted(name) + struct.pack(f">H{len(wanted)}H", len(wanted), *wanted)


def contexts(*queries: bytes, name: bytes = b"") -> bytes:
    return counted(name) + struct.pack(">I", len(queries)) + b"".join(map(counted, queries))


def replies(data: bytes) -> list[Reply]:
    found = []
    while data:
        magic, number, kind, length = nbd.OPTION_REPLY.unpack_from(data)
        assert magic == nbd.OPTION_REPLY_MAGIC
        found.append((number, kind, data[nbd.OPTION_REPLY.size :][:length]))
        data = data[nbd.OPTION_REPLY.size + length :]
    return found


def kinds(handshake: Handshake, sent: bytes) -> list[int]:
    return [kind for _, kind, _ in replies(handshake.receive(sent))]


def begun(export: Export = EXPORT) -> Handshake:
    handshake = Handshake(export)
    assert handshake.receive(FLAGS) == b""
    return handshake


@pytest.mark.parametrize("number", [nbd.OPT_GO, nbd.OPT_INFO])
@pytest.mark.parametrize("name", [b"", b"disk"])
def test_go_and_info_tell_the_size_and_the_block_sizes(number: int, name: bytes) -> None:
    handshake = begun()
    answers = replies(handshake.receive(option(number, go(name, (nbd.INFO_BLOCK_SIZE,)))))
    assert answers == [
        (number, nbd.REP_INFO, struct.pack(">HQH", 0, 1 << 20, EXPORT.flags(structured=False))),
        (number, nbd.REP_INFO, struct.pack(">HIII", 3, 1, 4096, 1 << 16)),
        (number, nbd.REP_ACK, b""),
    ]
    assert handshake.outcome == (TRANSMISSION if number == nbd.OPT_GO else None)


def test_export_name_is_answered_without_a_reply_header() -> None:
    handshake = begun()
    answer = handshake.receive(option(nbd.OPT_EXPORT_NAME, b"disk"))
    assert answer == struct.pack(">QH", 1 << 20, EXPORT.flags(structured=False))
    assert handshake.outcome == TRANSMISSION


def test_export_name_is_padded_for_a_client_that_does_not_decline() -> None:
    handshake = Handshake(EXPORT)
    handshake.receive(struct.pack(">I", nbd.FLAG_FIXED_NEWSTYLE))
    answer = handshake.receive(option(nbd.OPT_EXPORT_NAME))
    assert len(answer) == 10 + 124
    assert not any(answer[10:])


def test_export_name_of_an_unknown_export_closes() -> None:
    handshake = begun()
    assert handshake.receive(option(nbd.OPT_EXPORT_NAME, b"other")) == b""
    assert handshake.outcome == CLOSE


@pytest.mark.parametrize("number", [nbd.OPT_GO, nbd.OPT_INFO])
def test_an_unknown_export_is_refused_and_haggling_goes_on(number: int) -> None:
    handshake = begun()
    assert kinds(handshake, option(number, go(b"other"))) == [nbd.REP_ERR_UNKNOWN]
    assert kinds(handshake, option(nbd.OPT_GO, go()))[-1] == nbd.REP_ACK


def test_list_names_the_export() -> None:
    assert replies(begun().receive(option(nbd.OPT_LIST))) == [
        (nbd.OPT_LIST, nbd.REP_SERVER, counted(b"disk")),
        (nbd.OPT_LIST, nbd.REP_ACK, b""),
    ]


def test_abort_is_acknowledged_and_closes() -> None:
    handshake = begun()
    assert kinds(handshake, option(nbd.OPT_ABORT)) == [nbd.REP_ACK]
    assert handshake.outcome == CLOSE


@pytest.mark.parametrize("number", [4, 5, 11, 12, 0, 0xFFFFFFFF])
def test_an_option_that_we_do_not_have_is_unsupported(number: int) -> None:
    assert kinds(begun(), option(number, b"whatever")) == [nbd.REP_ERR_UNSUP]


def test_do_not_fragment_is_offered_with_structured_replies_only() -> None:
    handshake = begun()
    assert not EXPORT.flags(structured=False) & nbd.SEND_DF
    assert kinds(handshake, option(nbd.OPT_STRUCTURED_REPLY)) == [nbd.REP_ACK]
    (_, _, info), *_ = replies(handshake.receive(option(nbd.OPT_GO, go())))
    assert struct.unpack(">HQH", info)[2] & nbd.SEND_DF


def test_a_read_only_export_says_so_and_offers_nothing_that_writes() -> None:
    flags = Export("", 512, read_only=True, request_limit=512).flags(structured=True)
    assert flags & nbd.READ_ONLY
    assert not flags & (nbd.SEND_TRIM | nbd.SEND_WRITE_ZEROES | nbd.SEND_FAST_ZERO)


@pytest.mark.parametrize(
    ("number", "queries", "found", "selected"),
    [
        (nbd.OPT_LIST_META_CONTEXT, [], True, False),
        (nbd.OPT_LIST_META_CONTEXT, [b"base:"], True, False),
        (nbd.OPT_LIST_META_CONTEXT, [b"base:allocation"], True, False),
        (nbd.OPT_LIST_META_CONTEXT, [b"other:thing"], False, False),
        (nbd.OPT_SET_META_CONTEXT, [], False, False),
        (nbd.OPT_SET_META_CONTEXT, [b"base:"], False, False),
        (nbd.OPT_SET_META_CONTEXT, [b"base:allocation"], True, True),
        (nbd.OPT_SET_META_CONTEXT, [b"x-a:b", b"base:allocation"], True, True),
        (nbd.OPT_SET_META_CONTEXT, [b"base:allocation", b"base:allocation"], True, True),
    ],
)
def test_meta_contexts(number: int, queries: list[bytes], found: bool, selected: bool) -> None:
    handshake = begun()
    handshake.receive(option(nbd.OPT_STRUCTURED_REPLY))
    answers = replies(handshake.receive(option(number, contexts(*queries))))
    assert answers[-1] == (number, nbd.REP_ACK, b"")
    assert [data[4:] for _, _, data in answers[:-1]] == [b"base:allocation"] * found
    assert handshake.block_status == selected


def test_setting_meta_contexts_replaces_those_before_also_when_it_fails() -> None:
    handshake = begun()
    handshake.receive(option(nbd.OPT_STRUCTURED_REPLY))
    handshake.receive(option(nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation")))
    assert handshake.block_status
    sent = option(nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation", name=b"other"))
    assert kinds(handshake, sent) == [nbd.REP_ERR_UNKNOWN]
    assert not handshake.block_status


@pytest.mark.parametrize(
    ("number", "data"),
    [
        (nbd.OPT_LIST, b"x"),
        (nbd.OPT_STRUCTURED_REPLY, b"x"),
        (nbd.OPT_GO, b""),
        (nbd.OPT_GO, b"\0\0\0\5abc"),
        (nbd.OPT_GO, b"\xff\xff\xff\xff"),
        (nbd.OPT_GO, go(b"disk") + b"x"),
        (nbd.OPT_INFO, go(b"disk", (1, 2))[:-1]),
        (nbd.OPT_GO, go(b"a" * 4097)),
        (nbd.OPT_SET_META_CONTEXT, b""),
        (nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation") + b"x"),
        (nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation")[:-1]),
        (nbd.OPT_SET_META_CONTEXT, counted(b"") + b"\xff\xff\xff\xff"),
    ],
)
def test_a_malformed_option_is_refused_and_haggling_goes_on(number: int, data: bytes) -> None:
    handshake = begun()
    if number == nbd.OPT_SET_META_CONTEXT:
        handshake.receive(option(nbd.OPT_STRUCTURED_REPLY))
    assert kinds(handshake, option(number, data)) == [nbd.REP_ERR_INVALID]
    assert handshake.outcome is None


def test_meta_contexts_need_structured_replies_first() -> None:
    sent = option(nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation"))
    assert kinds(begun(), sent) == [nbd.REP_ERR_INVALID]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack(">I", 1 << 2),
        FLAGS + b"GET / HTTP/1.1\r\n\r\n",
        FLAGS + nbd.OPTION.pack(nbd.OPTION_MAGIC, nbd.OPT_GO, OPTION_LIMIT + 1),
    ],
    ids=["unknown client flags", "another protocol", "an option without end"],
)
def test_what_is_no_option_at_all_is_an_error(sent: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        Handshake(EXPORT).receive(sent)


def test_what_follows_the_handshake_is_left_over() -> None:
    handshake = begun()
    handshake.receive(option(nbd.OPT_GO, go()) + b"first request")
    assert handshake.leftover == b"first request"


SENSIBLE = FLAGS + b"".join(
    [
        option(nbd.OPT_LIST),
        option(nbd.OPT_STRUCTURED_REPLY),
        option(nbd.OPT_SET_META_CONTEXT, contexts(b"base:allocation")),
        option(99, b"?"),
        option(nbd.OPT_GO, go(b"disk", (1, 3))),
        b"the rest",
    ]
)


@given(cuts=st.lists(st.integers(0, len(SENSIBLE)), max_size=12))
def test_it_does_not_matter_how_the_bytes_arrive(cuts: list[int]) -> None:
    whole = Handshake(EXPORT)
    expected = whole.receive(SENSIBLE)
    pieces = Handshake(EXPORT)
    edges = [0, *sorted(cuts), len(SENSIBLE)]
    answer = b"".join(
        pieces.receive(SENSIBLE[start:end]) for start, end in itertools.pairwise(edges)
    )
    assert answer == expected
    assert pieces.leftover == whole.leftover == b"the rest"


@given(
    data=st.binary(max_size=300),
    number=st.integers(0, 12) | st.integers(0, 2**32 - 1),
    honest=st.booleans(),
)
def test_arbitrary_bytes_end_in_an_answer_or_in_the_typed_error(
    data: bytes, number: int, honest: bool
) -> None:
    handshake = begun()
    handshake.receive(option(nbd.OPT_STRUCTURED_REPLY))
    try:
        handshake.receive(option(number, data) if honest else data)
    except RemoteProtocolError:
        assert not honest
