"""The pure parts: slots and journal, the book of requests, streams, records, and what a back end
makes of arbitrary records.
"""

from __future__ import annotations

import itertools
import threading
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transport.fuzz_targets import unpack
from transport import LocalProtocolError, OnLoss, RemoteProtocolError, descriptors
from transport.completion import Completion
from transport.journal import SETTLE, SLOT_LIMIT, Journal, Reached, journal_size
from transport.pending import Pending
from transport.ring import page_size
from transport.serving import Connection
from transport.stream import Stream

# --- slots and journal ----------------------------------------------------------------------------


@given(st.sampled_from([1, 2, 8, 64]), st.lists(st.integers(0, 1000)))
def test_numbers_in_flight_have_slots_of_their_own_and_none_comes_twice(
    count: int, steps: list[int]
) -> None:
    pending, flying, seen = Pending("disk", count), list[Completion](), set[int]()
    for step in steps:
        if step % 2 and flying:
            pending.end(flying.pop(step % len(flying)))
        elif pending.credits:
            request = Completion("x")
            assert pending.add(request, 1) is not None
            assert request.number >= count
            assert request.number not in seen
            seen.add(request.number)
            flying.append(request)
        slots = {request.number % count for request in flying}
        assert len(slots) == len(flying) == count - pending.credits


@pytest.mark.parametrize("count", [0, -1, 3, 12, SLOT_LIMIT * 2])
def test_a_number_of_slots_is_a_power_of_two_within_bounds(count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        Pending("disk", count)


@given(st.lists(st.integers(8, 1 << 40), max_size=30))
def test_a_journal_knows_the_last_that_began_in_each_slot(numbers: list[int]) -> None:
    journal = Journal(memoryview(bytearray(journal_size(8))), 8)
    for number in numbers:
        journal.begin(number)
    last = {number % 8: number for number in numbers}
    for number in numbers:
        assert journal.begun(number) == (last[number % 8] == number)
        assert not journal.begun(number + (1 << 41))


def test_what_becomes_of_a_request_is_said_for_every_case() -> None:
    assert set(SETTLE) == set(itertools.product(OnLoss, Reached))
    for on_loss, reached in SETTLE:
        again = SETTLE[on_loss, reached] == "send"
        sent = reached is not Reached.QUEUED
        twice = {
            OnLoss.SETTLE: reached is Reached.BEGUN,  # then it could be done twice
            OnLoss.FAIL: sent,
            OnLoss.REISSUE: False,
        }[on_loss]
        assert again != twice


# --- the book -------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.sampled_from(OnLoss), st.sampled_from(Reached), st.booleans())),
)
def test_a_lost_back_end_ends_exactly_those_that_may_have_been_done(
    cases: list[tuple[OnLoss, Reached, bool]],
) -> None:
    pending = Pending("disk", 256)
    begun = set()
    for on_loss, reached, cancelled in cases:
        request = Completion("x")
        request.on_loss = on_loss
        pending.add(request, 1)
        request.cancelled = cancelled
        if reached is not Reached.QUEUED:
            request.reached = Reached.SENT
        if reached is Reached.BEGUN:
            begun.add(request.number)
    book = list(pending)
    lost = pending.settle(lambda number: number in begun)
    expected = [
        request
        for request, (on_loss, reached, _) in zip(book, cases, strict=True)
        if SETTLE[on_loss, reached] == "unknown"
    ]
    assert lost == expected
    assert all(request.error is not None for request in lost)
    for request in lost:
        pending.end(request)
    assert pending.credits == 256 - len(pending)
    again = unpack(b"".join(pending.records(2)))
    words: list[tuple[Any, ...]] = []
    for request in pending:
        words.append((2, request.number, "x"))
        words += [(2, -request.number)] if request.cancelled else []
    assert again == words
    for request in list(pending):
        assert pending.find(request.number) is request
        pending.end(request)
    assert pending.credits == 256


def test_a_request_that_cannot_be_sent_takes_no_slot() -> None:
    pending = Pending("disk", 1)
    with pytest.raises(LocalProtocolError):
        pending.add(Completion(object()), 1)
    assert (pending.credits, len(pending)) == (1, 0)
    pending.add(Completion("x"), 1)
    assert pending.add(Completion("y"), 1) is None
    for number in (0, 2, True, None, "1", 1.0):
        with pytest.raises(RemoteProtocolError):
            pending.find(number)


# --- streams --------------------------------------------------------------------------------------


class Chunk:
    """Buffer memory."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.view = memoryview(bytearray(size))


@given(st.binary(max_size=50), st.integers(1, 20), st.lists(st.integers(-2, 30), max_size=40))
def test_a_stream_moves_every_byte_once_in_order_or_says_whose_fault_it_is(
    data: bytes, size: int, limits: list[int]
) -> None:
    chunk = Chunk(size)
    received = bytearray(len(data))
    stream = Stream(memoryview(data), memoryview(received), chunk)  # type: ignore[arg-type]
    moved = 0
    for limit in limits:
        if limit < 1 or moved == len(data):
            with pytest.raises(RemoteProtocolError):
                stream.pull(limit)
            continue
        count = stream.pull(limit)
        assert 1 <= count <= min(limit, size)
        assert chunk.view[:count] == data[moved : moved + count]
        assert stream.push(count) == count
        moved += count
        assert received == data[:moved] + bytes(len(data) - moved)
    for count in (0, -1, size + 1, len(data) - moved + 1):
        with pytest.raises(RemoteProtocolError):
            stream.push(count)
    stream.restart()
    if data:
        count = stream.pull(size)
        assert chunk.view[:count] == data[:count]


def test_a_stream_whose_caller_has_gone_moves_nothing_and_says_so_once() -> None:
    received = bytearray(4)
    stream = Stream(memoryview(b"data"), memoryview(received), Chunk(4))  # type: ignore[arg-type]
    stream.pull(2)
    stream.abandon()
    received.clear()  # nobody holds it
    for turn in (stream.pull, stream.push):
        assert turn(1) == 0
        with pytest.raises(RemoteProtocolError, match="has gone"):
            turn(1)
        stream.restart()


# --- records --------------------------------------------------------------------------------------

BODIES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner).map(tuple) | st.dictionaries(st.text() | st.integers(0, 1000), inner)
    ),
    max_leaves=10,
)


@given(BODIES, st.integers(1, 1 << 50), st.integers(1, 1 << 50))
def test_a_record_comes_out_as_it_went_in_and_fits_its_place(
    body: Any, epoch: int, number: int
) -> None:
    try:
        record = descriptors.pack_request(epoch, number, body, (1 << 32, 1 << 32, 1 << 40, 1 << 40))
    except LocalProtocolError:
        assert len(msgpack.packb(body)) > 800
        return
    # With it there may be its cancellation, and the end of a phase; and a cancellation that was
    # not read yet of the request that had the slot before.
    words = [
        descriptors.pack_cancel(epoch, number),
        descriptors.pack_phase_done(epoch, number, 1 << 40),
        descriptors.pack_cancel(epoch, number),
    ]
    assert len(record) + sum(map(len, words)) <= descriptors.RECORD_LIMIT
    assert unpack(record + b"".join(words))[0][2] == body


@given(st.text(max_size=2000), st.integers(1, 1 << 60), st.integers(1, 1 << 63))
def test_an_answer_fits_whatever_went_wrong(text: str, epoch: int, number: int) -> None:
    for record in (
        descriptors.pack_error(epoch, number, OSError(5, text)),
        descriptors.pack_result(epoch, number, text),
        descriptors.pack_result(epoch, number, object()),
    ):
        word = descriptors.pack_phase(epoch, number, descriptors.PUSH, 1 << 40)
        assert len(record) + len(word) <= descriptors.RECORD_LIMIT
        ((said_epoch, said_number, status, value),) = unpack(record)
        assert (said_epoch, said_number) == (epoch, number)
        if status == descriptors.FAILED:
            descriptors.error_of(value)


@given(st.binary(max_size=300) | st.lists(BODIES.map(msgpack.packb)).map(b"".join))
def test_arbitrary_bytes_are_records_or_the_peers_fault(data: bytes) -> None:
    try:
        found = unpack(data)
    except RemoteProtocolError:
        return
    assert isinstance(found, list)


def test_a_record_that_announces_much_takes_no_memory() -> None:
    for bomb in (b"\xdd\x05\xf5\xe1\x00", b"\xdf\x05\xf5\xe1\x00", b"\xc6\x7f\xff\xff\xff"):
        with pytest.raises(RemoteProtocolError):
            unpack(bomb * 3)


# --- what a back end makes of them ----------------------------------------------------------------


class Memory:
    """The buffer memory of a front end."""

    size = 1000
    usable = True
    handle = None


class Runtime:
    def lock(self, what: Any) -> Any:
        return threading.Lock()


def connection() -> Connection:
    """One in epoch 5, over memory of nobody else."""

    class Mapped:
        view = memoryview(bytearray(page_size(8, descriptors.RECORD_LIMIT)))

    page: Any = Mapped()
    memory: Any = Memory()
    return Connection((0, 1), EPOCH, page, page, memory, page, 8, Runtime())  # type: ignore[arg-type]


EPOCH = 5
FIELDS = BODIES | st.integers(-5, 1100)


@given(
    st.lists(
        FIELDS
        | st.tuples(FIELDS, FIELDS, FIELDS)
        | st.lists(FIELDS, max_size=6).map(lambda rest: (EPOCH, 9, *rest))
        | st.lists(FIELDS, max_size=2).map(lambda rest: (EPOCH, -9, *rest))
        | st.tuples(st.just(EPOCH), st.integers(1, 20), st.just("x"), st.lists(FIELDS).map(tuple)),
        max_size=8,
    )
)
def test_any_records_are_requests_within_bounds_or_the_front_ends_fault(records: list[Any]) -> None:
    served = connection()
    served.backlog += records
    for record in records:
        try:
            found = served.next()
        except RemoteProtocolError:
            continue
        if found is None:
            assert record[1] < 0
            continue
        number, request = found
        assert record[:2] == (EPOCH, number)
        assert request.body is record[2]
        for buffer in request.buffers:
            assert 0 <= buffer.start <= buffer.start + buffer.length <= Memory.size


def test_a_request_that_is_running_cannot_come_again_and_phases_come_when_awaited() -> None:
    served = connection()
    served.backlog.append((EPOCH, 9, "x", 0, 10, 5, 5))
    found = served.next()
    assert found is not None
    served.begin(*found)
    for word in ((EPOCH, 9, "x"), (EPOCH, -9, 5), (EPOCH, -9, -5), (EPOCH, -10, 5)):
        served.backlog.append(word)
        with pytest.raises(RemoteProtocolError):
            served.next()
    served.backlog += [(EPOCH, -10), (EPOCH, -9)]
    assert served.next() is None
    seen = [found[1].cancelled]
    assert served.next() is None
    assert [*seen, found[1].cancelled] == [False, True]
    assert not served.idle
    assert not served.end(9, None)
    assert served.idle
