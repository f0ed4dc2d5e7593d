"""Item 4: data phases: any number, in any order, in either direction, inside one request."""

from __future__ import annotations

from pathlib import Path

import pytest

from hypervisor import Machine
from tests.transport.conftest import Opens
from tests.transport.device import BLOCK
from transport import FrontEnd, RemoteError, connect


def scsi(
    channel: FrontEnd, operation: str, number: int, out: bytes = b"", into: int = 0
) -> tuple[tuple[int, int], bytes]:
    """A command block with its data-out; the status and the data-in."""
    received = bytearray(into)
    count = (len(out) or into) // BLOCK
    status = channel.call(("scsi", (operation, number, count)), send=out, receive=received)
    return status, bytes(received)


def test_a_scsi_exchange_is_one_request(opens: Opens, memory: str) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 14)
    one, two = b"1" * BLOCK, b"2" * BLOCK
    assert scsi(channel, "WRITE", 1, one + two) == ((0, 2 * BLOCK), b"")
    assert scsi(channel, "READ", 1, into=2 * BLOCK) == ((0, 2 * BLOCK), one + two)
    assert scsi(channel, "READ", 7, into=2 * BLOCK) == ((2, 0), bytes(2 * BLOCK))
    # Data-out, data-in, then data-out again or not, as the device finds.
    received = bytearray(BLOCK)
    body = ("scsi", ("COMPARE AND WRITE", 1, 1))
    assert channel.call(body, send=two + two, receive=received) == (2, BLOCK)
    assert received == one
    assert channel.call(body, send=one + two, receive=received) == (0, 2 * BLOCK)
    assert scsi(channel, "READ", 1, into=BLOCK) == ((0, BLOCK), two)


def test_phases_need_not_use_what_there_is(opens: Opens) -> None:
    channel = opens()
    received = bytearray(100)
    assert channel.call(("flood-out", 10, 3), receive=received) is not None
    assert received[10:] == bytes(90)
    assert scsi(channel, "WRITE", 0, b"x" * BLOCK + b"half") == ((0, BLOCK), b"")


def test_phases_of_a_stream_belong_into_offloaded_work(opens: Opens) -> None:
    channel = opens()
    with pytest.raises(RemoteError, match="offloaded work") as caught:
        channel.call(("in place", 1), send=b"x", receive=bytearray(1))
    assert caught.value.error == "LocalProtocolError"


def test_pushing_what_nobody_has_room_for_is_an_error(opens: Opens) -> None:
    channel = opens()
    with pytest.raises(RemoteError, match="room for"):
        channel.call(("mirror", 4), send=b"four")
    with channel.buffer(8) as buffer:
        buffer.view[:] = b"abcdefgh"
        assert channel.call(("in place", 3), buffer) == 8
        assert bytes(buffer.view) == b"ABCDEFGH"


def test_a_stream_begins_again_with_the_next_back_end(machine: Machine, tmp_path: Path) -> None:
    from tests.transport.device import Device

    machine.start("device", Device, str(tmp_path))
    channel = connect(machine, "device", buffer_bytes=1 << 16)
    sent, received = b"data" * 50_000, bytearray(6000)
    answer = channel.call(("again-die-in-stream", "flag"), send=sent, receive=received)
    import zlib

    assert answer == (len(sent), zlib.crc32(sent))
    assert received == b"right" * 1000 + bytes(1000)
    assert channel.statistics().resent == 1
