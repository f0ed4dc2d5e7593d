"""The machine's end of a hypercall socket: what a domain that does not read may cost, and miss."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from actors import Fd, Message
from hypervisor import LastMappingGone
from hypervisor.frames import receive_frame
from hypervisor.hypercall_end import MOST_HELD, HypercallEnd


@pytest.fixture
def pair() -> Iterator[tuple[HypercallEnd, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    with closing(HypercallEnd(Fd(ours.detach()))) as end, theirs:
        yield end, theirs


def fill(end: HypercallEnd) -> int:
    """Say what fits; how much that was."""
    count = 0
    try:
        while True:
            end.send(LastMappingGone(0), hold=False)
            count += 1
    except BlockingIOError:
        return count


def read(theirs: socket.socket) -> list[Message | None]:
    found = []
    try:
        while True:
            found.append(receive_frame(theirs))
    except BlockingIOError:
        return found


def test_what_others_cause_again_and_again_is_held_once(
    pair: tuple[HypercallEnd, socket.socket],
) -> None:
    end, theirs = pair
    full = fill(end)
    for _ in range(2 * MOST_HELD):
        end.send(LastMappingGone(7), hold=True)
        end.send(LastMappingGone(8), hold=True)
    assert read(theirs) == [LastMappingGone(0)] * full
    end.flush()
    assert read(theirs) == [LastMappingGone(7), LastMappingGone(8)]
    assert not end.holds


def test_what_is_held_has_an_end(pair: tuple[HypercallEnd, socket.socket]) -> None:
    end, _ = pair
    fill(end)
    for gref in range(MOST_HELD):
        end.send(LastMappingGone(gref), hold=True)
    with pytest.raises(BlockingIOError, match="wait for it"):
        end.send(LastMappingGone(MOST_HELD), hold=True)


def test_nothing_overtakes_what_is_held(pair: tuple[HypercallEnd, socket.socket]) -> None:
    end, theirs = pair
    full = fill(end)
    end.send(LastMappingGone(1), hold=True)
    read(theirs)
    end.send(LastMappingGone(2), hold=False)
    end.flush()
    assert full
    assert read(theirs) == [LastMappingGone(1), LastMappingGone(2)]
