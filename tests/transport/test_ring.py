"""The ring against a simple model, at the wrap, and against a peer that lies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport import (
    Incoming,
    LocalProtocolError,
    Outgoing,
    RemoteProtocolError,
    page_size,
    split_page,
)

CAPACITY = 64
JUST_UNDER_THE_WRAP = (1 << 64) - 16


def ring_of(capacity: int) -> memoryview:
    ring, _ = split_page(memoryview(bytearray(page_size(1, capacity))), 1, capacity)
    return ring


def pair(start: int = 0) -> tuple[Outgoing, Incoming, memoryview, memoryview]:
    mine = ring_of(CAPACITY)
    theirs = ring_of(CAPACITY)
    return (
        Outgoing(mine, theirs, start=start),
        Incoming(theirs, mine, start=start),
        mine,
        theirs,
    )


def test_nothing_is_seen_before_it_is_published() -> None:
    out, into, _, _ = pair()
    out.write(b"abc")
    assert into.read() == b""
    out.publish()
    assert into.read() == b"abc"
    assert into.read() == b""


@given(
    start=st.sampled_from([0, 1, CAPACITY - 1, JUST_UNDER_THE_WRAP, (1 << 64) - 1]),
    steps=st.lists(st.one_of(st.binary(max_size=CAPACITY), st.none()), max_size=60),
)
def test_bytes_come_out_as_they_went_in(start: int, steps: list[bytes | None]) -> None:
    out, into, _, _ = pair(start)
    model = b""
    for step in steps:
        if step is None:
            assert into.read() == model
            model = b""
        elif len(model) + len(step) <= CAPACITY:
            assert out.room() == CAPACITY - len(model)
            out.write(step)
            out.publish()
            model += step
        else:
            with pytest.raises(LocalProtocolError):
                out.write(step)
    assert into.read() == model


@pytest.mark.parametrize("start", [0, JUST_UNDER_THE_WRAP])
def test_a_signal_is_wanted_only_by_a_consumer_that_armed(start: int) -> None:
    out, into, _, _ = pair(start)
    wanted = []
    assert not into.arm()
    for _ in range(3):  # the first one wakes; the others find the consumer awake
        out.write(b"x" * 8)
        wanted.append(out.publish())
    assert wanted == [True, False, False]
    assert into.arm()  # it looked again, and found what it had not read
    into.read()
    assert not into.arm()
    out.write(b"y")
    assert out.publish()


def test_publishing_nothing_wants_no_signal() -> None:
    out, into, _, _ = pair()
    into.arm()
    assert not out.publish()


@pytest.mark.parametrize("lie", [CAPACITY + 1, (1 << 64) - 1, 1 << 63])
def test_an_impossible_index_of_the_peer_is_its_fault(lie: int) -> None:
    out, into, mine, theirs = pair()
    mine[:8].cast("Q")[0] = lie
    with pytest.raises(RemoteProtocolError):
        into.read()
    theirs[64:72].cast("Q")[0] = -lie % (1 << 64)
    with pytest.raises(RemoteProtocolError):
        out.room()


def test_a_capacity_is_a_power_of_two() -> None:
    page = ring_of(48)
    with pytest.raises(ValueError, match="power of two"):
        Outgoing(page, page)
