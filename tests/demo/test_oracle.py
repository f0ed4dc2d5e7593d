"""The oracle: what it lets pass, what it finds, and that it agrees with a simple disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.block.oracle import FLUSH, READ, WRITE, Asked, Oracle

SIZE = 64


def write(offset: int, data: bytes) -> Asked:
    return Asked(WRITE, offset, len(data), data)


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (Asked(READ, 0, 8), Asked(READ, 0, 8), True),
        (Asked(READ, 0, 8), write(8, b"x"), True),
        (Asked(READ, 0, 8), write(7, b"x"), False),
        (write(7, b"x"), Asked(READ, 0, 8), False),
        (write(0, b"xx"), write(1, b"y"), False),
        (write(0, b"xx"), write(2, b"y"), True),
        (write(0, b"x" * SIZE), Asked(FLUSH), True),
    ],
)
def test_only_what_leaves_one_right_answer_may_be_in_flight_together(
    first: Asked, second: Asked, together: bool
) -> None:
    oracle = Oracle(bytes(SIZE))
    oracle.begin(1, first)
    assert oracle.admits(second) is together
    if not together:
        with pytest.raises(ValueError, match="overlaps"):
            oracle.begin(2, second)


def test_a_write_counts_from_its_acknowledgement_on() -> None:
    oracle = Oracle(bytes(SIZE))
    oracle.begin(1, write(3, b"new"))
    assert oracle.contents == bytes(SIZE)
    oracle.end(1)
    assert oracle.contents[3:6] == b"new"
    assert (oracle.requests, oracle.bytes_written) == (1, 3)


def test_a_read_of_the_right_bytes_is_right() -> None:
    oracle = Oracle(b"right" + bytes(SIZE))
    oracle.begin(1, Asked(READ, 0, 5))
    oracle.end(1, memoryview(b"right"))
    assert (oracle.wrong, oracle.lost, oracle.bytes_read) == (0, 0, 5)


@pytest.mark.parametrize("found", [b"rigHt", b"righ", b""])
def test_a_read_of_other_bytes_is_wrong(found: bytes) -> None:
    oracle = Oracle(b"right" + bytes(SIZE))
    oracle.begin(1, Asked(READ, 0, 5))
    oracle.end(1, found)
    assert (oracle.wrong, oracle.requests) == (1, 0)
    assert len(oracle.notes) == 1


def test_the_old_bytes_after_an_acknowledged_write_are_wrong() -> None:
    oracle = Oracle(b"old")
    oracle.begin(1, write(0, b"new"))
    oracle.end(1)
    oracle.begin(2, Asked(READ, 0, 3))
    oracle.end(2, b"old")
    assert oracle.wrong == 1


def test_a_request_that_never_ends_is_lost() -> None:
    oracle = Oracle(bytes(SIZE))
    oracle.begin(1, Asked(FLUSH))
    assert oracle.lost == 1


def test_a_request_that_fails_is_lost_and_its_write_does_not_count() -> None:
    oracle = Oracle(b"old")
    oracle.begin(1, write(0, b"new"))
    oracle.end(1, error=OSError(5, "no"))
    assert (oracle.lost, bytes(oracle.contents)) == (1, b"old")


def test_an_answer_given_twice_is_wrong() -> None:
    oracle = Oracle(bytes(SIZE))
    oracle.begin(1, Asked(FLUSH))
    oracle.end(1)
    oracle.end(1)
    assert (oracle.requests, oracle.wrong) == (1, 1)


@pytest.mark.parametrize(
    "request_", [Asked(READ, SIZE, 1), Asked(READ, -1, 1), Asked(WRITE, 0, 2, b"x")]
)
def test_an_impossible_request_is_refused(request_: Asked) -> None:
    with pytest.raises(ValueError, match="request 1"):
        Oracle(bytes(SIZE)).begin(1, request_)


def test_only_the_first_few_faults_are_noted() -> None:
    oracle = Oracle(bytes(SIZE))
    for number in range(100):
        oracle.end(number)
    assert (oracle.wrong, len(oracle.notes)) == (100, Oracle.NOTES)


ranges = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 16)).map(
    lambda pair: (pair[0], min(pair[1], SIZE - pair[0]))
)
asked = ranges.flatmap(
    lambda place: st.one_of(
        st.just(Asked(READ, *place)),
        st.binary(min_size=place[1], max_size=place[1]).map(lambda data: write(place[0], data)),
    )
)


@given(st.lists(asked, max_size=40), st.randoms(use_true_random=False))
def test_a_disk_that_does_what_it_is_told_in_any_order_is_right(
    requests: list[Asked], choice: object
) -> None:
    disk = bytearray(range(SIZE))
    oracle = Oracle(disk)
    in_flight: dict[int, Asked] = {}

    def end_one(number: int) -> None:
        request = in_flight.pop(number)
        start, stop = request.offset, request.offset + request.length
        if request.kind == WRITE:
            disk[start:stop] = request.data
        oracle.end(number, bytes(disk[start:stop]))

    for number, request in enumerate(requests):
        while not oracle.admits(request):
            end_one(choice.choice(sorted(in_flight)))  # type: ignore[attr-defined]
        oracle.begin(number, request)
        in_flight[number] = request
    while in_flight:
        end_one(choice.choice(sorted(in_flight)))  # type: ignore[attr-defined]
    assert (oracle.wrong, oracle.lost, oracle.requests) == (0, 0, len(requests))
    assert oracle.contents == disk


@given(st.lists(asked, min_size=1, max_size=20), st.data())
def test_a_disk_that_drops_one_write_is_found_by_the_comparison(
    requests: list[Asked], data: st.DataObject
) -> None:
    disk = bytearray(range(SIZE))
    oracle = Oracle(disk)
    dropped = data.draw(st.integers(0, len(requests) - 1))
    for number, request in enumerate(requests):
        start, stop = request.offset, request.offset + request.length
        oracle.begin(number, request)
        if request.kind == WRITE and number != dropped:
            disk[start:stop] = request.data
        oracle.end(number, bytes(disk[start:stop]))
    differs = oracle.contents != disk
    before = oracle.wrong
    oracle.begin(-1, Asked(READ, 0, SIZE))
    oracle.end(-1, bytes(disk))
    assert (oracle.wrong > before) is differs
