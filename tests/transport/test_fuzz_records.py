"""Whatever a peer writes into its page: the ring, a back end's connection and a front end hold."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.transport import fuzz_targets
from tests.transport.fuzz_targets import EPOCH, SEEDS, TARGETS, unpack
from transport import RemoteProtocolError, descriptors

NUMBERS = st.one_of(
    st.integers(-12, 12),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.sampled_from([fuzz_targets.MEMORY, fuzz_targets.MEMORY + 1, 4096]),
)
VALUES: Any = st.recursive(
    st.one_of(NUMBERS, st.none(), st.booleans(), st.floats(), st.text(max_size=5), st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.one_of(NUMBERS, st.text(max_size=3)), inner, max_size=3),
    ),
    max_leaves=8,
)
RECORD = st.builds(
    lambda epoch, number, rest: msgpack.packb([epoch, number, *rest]),
    st.one_of(st.just(EPOCH), VALUES),
    st.one_of(st.integers(-8, 8), VALUES),
    st.one_of(
        st.lists(VALUES, max_size=6),
        st.builds(lambda body, numbers: [body, *numbers], VALUES, st.lists(NUMBERS, max_size=5)),
        st.builds(lambda body, spans: [body, spans], VALUES, st.lists(NUMBERS, max_size=6)),
        st.builds(lambda status, value: [status, value], st.integers(-1, 6), VALUES),
        st.tuples(st.just(1), st.tuples(st.text(), st.text(), VALUES, st.text())),
    ),
)
BYTES = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(RECORD, st.binary(max_size=4)), max_size=8).map(b"".join),
)


@settings(max_examples=300)
@given(BYTES)
def test_a_back_end_takes_requests_or_says_whose_fault_it_is(data: bytes) -> None:
    fuzz_targets.requests(data)


@settings(max_examples=150)
@given(BYTES)
def test_a_front_end_ends_each_request_once_whatever_a_back_end_writes(data: bytes) -> None:
    fuzz_targets.answers(data)


@settings(max_examples=200)
@given(st.one_of(st.lists(NUMBERS.map(abs), max_size=12).map(
    lambda words: b"".join(word.to_bytes(8, "little") for word in words)
), st.binary(max_size=200)))  # fmt: skip
@example(b"")
def test_a_ring_holds_whatever_a_peer_rewrites_while_it_is_read(data: bytes) -> None:
    fuzz_targets.ring(data)


@pytest.mark.parametrize("target", TARGETS)
def test_what_correct_peers_write_and_what_was_wrong_once_is_no_surprise(target: str) -> None:
    for data in SEEDS[target]:
        TARGETS[target](data)
        for end in range(0, len(data), 1 + len(data) // 20):
            TARGETS[target](data[:end])


@settings(max_examples=100)
@given(st.lists(st.lists(VALUES, min_size=1, max_size=5), max_size=5), BYTES)
def test_what_takes_records_apart_goes_on_until_something_is_wrong(
    looks: list[list[Any]], rest: bytes
) -> None:
    for values in looks:
        records = [msgpack.packb((EPOCH, 1, value)) for value in values]
        assert [msgpack.packb(word) for word in unpack(b"".join(records))] == records
    whole = descriptors.pack_cancelled(EPOCH, 1)
    for end in range(1, len(whole)):
        with pytest.raises(RemoteProtocolError, match="in part"):
            unpack(whole + whole[:end])
    for hidden in (b"\xc0\x92", whole + b"\xc0\x94\x07\x10\x00\x92", b"\x92\x91"):
        with pytest.raises(RemoteProtocolError, match="in part"):
            unpack(hidden)
    with contextlib.suppress(RemoteProtocolError):
        assert unpack(whole + rest)[0] == (EPOCH, 1, descriptors.CANCELLED, None)


@settings(max_examples=300)
@given(BYTES)
def test_unpacking_gives_whole_values_or_a_typed_refusal(data: bytes) -> None:
    found, said = [], ""
    try:
        found = unpack(data)
    except RemoteProtocolError as error:
        said = str(error)
    assert len(found) <= len(data)
    assert len(said) < 1000


def test_no_more_records_are_made_of_a_ring_than_its_slots_can_have() -> None:
    word = descriptors.pack_cancel(EPOCH, 1)
    assert len(descriptors.unpack(word * 20, 4)) == 20
    with pytest.raises(RemoteProtocolError, match="more than 20 records in a ring of 4 slots"):
        descriptors.unpack(word * 100_000, 4)


@pytest.mark.parametrize("kind", [b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"])
def test_what_a_header_announces_is_not_believed(kind: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=r"exceeds max_|in part"):
        unpack(kind + (99_999_999).to_bytes(4, "big") + b"\x01")


def test_no_array_is_longer_than_a_record_could_say_however_many_bytes_follow() -> None:
    with pytest.raises(RemoteProtocolError, match="exceeds max_array_len"):
        unpack(b"\xdd" + (5000).to_bytes(4, "big") + bytes(5000))


@given(VALUES)
def test_an_answer_of_any_value_is_a_result_or_the_error_that_it_cannot_be_sent(value: Any) -> None:
    (record,) = unpack(descriptors.pack_result(EPOCH, 1, value))
    assert record[:2] == (EPOCH, 1)
    assert record[2] in (descriptors.OK, descriptors.FAILED)
    if record[2] == descriptors.FAILED:
        assert descriptors.error_of(record[3]).error == "LocalProtocolError"
