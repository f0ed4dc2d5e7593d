"""Item 1: bulk transfer of any size, alignment and number of pieces, and arrays of numpy."""

from __future__ import annotations

import mmap
import zlib

import numpy as np
import pytest

from hypervisor import Machine
from tests.transport.conftest import Opens
from transport import BufferPart, LocalBuffer, LocalProtocolError, RemoteError, connect


@pytest.mark.parametrize("size", [0, 1, 511, 4096, 4097, 100_000])
def test_a_buffer_of_any_size_is_what_the_driver_sees(opens: Opens, memory: str, size: int) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 20)
    with channel.buffer(size) as buffer:
        buffer.view[:] = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert channel.call("sum", buffer) == (zlib.crc32(buffer.view),)
        channel.call("fill", buffer)
        assert bytes(buffer.view) == (bytes(range(256)) * (size // 256 + 1))[:size]


def test_parts_of_a_buffer_may_lie_anywhere(opens: Opens, memory: str) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 20)
    with channel.buffer(1000) as buffer:
        buffer.view[:] = b"a" * 1000
        channel.call("upper", buffer[101:203])
        channel.call("upper", buffer[999:])
        channel.call("upper", buffer[:1])
        channel.call("upper", buffer[500:500])
        assert bytes(buffer.view) == b"A" + b"a" * 100 + b"A" * 102 + b"a" * 796 + b"A"


def test_a_part_with_a_step_is_refused(opens: Opens) -> None:
    channel = opens()
    with channel.buffer(10) as buffer, pytest.raises(ValueError, match="one piece"):
        buffer[::2]


def test_several_buffers_go_in_one_request_in_order(opens: Opens, memory: str) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 20)
    with channel.buffer(10) as one, channel.buffer(5000) as two:
        one.view[:], two.view[:] = b"x" * 10, b"y" * 5000
        parts: list[LocalBuffer | BufferPart] = [two[4990:], one, two[:3], one[2:4]]
        sums = tuple(zlib.crc32(part.view) for part in parts)
        assert channel.call("sum", parts) == sums
        assert channel.call("sum", iter(parts)) == sums
        assert channel.call("sum", []) == ()


def test_data_phases_go_over_several_buffers(opens: Opens, memory: str) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 20)
    with channel.buffer(10) as one, channel.buffer(7) as two:
        one.view[:], two.view[:] = b"x" * 10, b"y" * 7
        assert channel.call(("in place", 4), [one[1:], two[:0], two[1:]]) == 15
        assert (bytes(one.view), bytes(two.view)) == (b"x" + b"X" * 9, b"y" + b"Y" * 6)


def test_a_stream_is_as_long_as_memory_is(opens: Opens, memory: str, place: str) -> None:
    size = (64 << 20) if (place, memory) == ("process", "mapped") else (3 << 20)
    channel = opens(memory=memory, buffer_bytes=1 << 18)
    with mmap.mmap(-1, size) as data:
        data[-3:] = b"end"
        assert channel.call(("drain-in", 0), send=data) == (size, zlib.crc32(data))
        channel.call(("flood-out", size, 100_000), receive=data)
        pattern = (bytes(range(251)) * 399)[:100_000]
        assert data[:100_000] == pattern
        assert data[-(size % 100_000) :] == pattern[: size % 100_000]
    assert channel.statistics().free_bytes == 1 << 18


def test_a_stream_of_nothing_is_a_request_like_any_other(opens: Opens) -> None:
    channel = opens()
    assert channel.call(("drain-in", 0), send=b"") == (0, 0)
    assert channel.call(("flood-out", 0, 1), receive=bytearray()) == 0


def test_a_stream_goes_both_ways_at_once(opens: Opens, memory: str) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 16)
    sent, received = b"abc" * 10_000, bytearray(30_000)
    assert channel.call(("mirror", 999), send=sent, receive=received) == 30_000
    assert received == sent.upper()


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_four_gibibytes_go_in_one_request(tmp_path: object) -> None:
    from tests.transport.device import Device

    size = 4 << 30
    with Machine() as machine, mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as nothing:
        machine.start("device", Device)
        channel = connect(machine, "device")
        assert channel.call(("drain-in", 0), send=nothing)[0] == size


@pytest.mark.parametrize("shape", [(), (1000,), (10, 20, 5), (3, 0)])
@pytest.mark.parametrize("kind", ["u1", "<f8", "c16"])
def test_an_array_goes_in_and_out(opens: Opens, shape: tuple[int, ...], kind: str) -> None:
    channel = opens()
    rng = np.random.default_rng(1)
    array = rng.random(shape) if shape else np.array(0.5)
    array = (array * 100).astype(kind)
    array.setflags(write=False)
    assert channel.call(("drain-in", 0), send=array) == (array.nbytes, zlib.crc32(array.tobytes()))
    into = np.zeros_like(array)
    into.setflags(write=True)
    channel.call(("flood-out", into.nbytes, 100_000), receive=into)
    assert into.tobytes() == (bytes(range(251)) * (into.nbytes // 251 + 1))[: into.nbytes]


def test_what_is_not_in_one_piece_or_cannot_be_written_is_refused_at_once(opens: Opens) -> None:
    channel = opens()
    matrix = np.zeros((10, 10))
    readonly = np.zeros(10)
    readonly.setflags(write=False)
    for send, receive in [
        (matrix[:, ::2], None),
        (matrix.T[1:], None),
        ("text", None),
        (np.array([object()]), None),
        (None, matrix[::2]),
        (None, readonly),
        (None, b"bytes"),
    ]:
        with pytest.raises(LocalProtocolError):
            channel.call("x", send=send, receive=receive)
    with channel.buffer(1) as buffer, pytest.raises(ValueError, match="not both"):
        channel.call("x", buffer, send=b"y")
    assert channel.statistics().in_flight == 0
    assert channel.statistics().free_bytes == 16 << 20


def test_an_array_in_a_buffer_is_the_drivers_own_pages(opens: Opens, memory: str) -> None:
    channel = opens(memory=memory, buffer_bytes=1 << 20)
    with channel.buffer(4 * 8 * 8) as buffer:
        array = np.frombuffer(buffer.view, dtype="<u4").reshape(8, 8)
        channel.call("fill", buffer)
        assert array[0, 1] == 0x07060504
        array[:] = 7
        assert channel.call("sum", buffer) == (zlib.crc32(array.tobytes()),)
        assert np.shares_memory(array, np.frombuffer(buffer.view, dtype="u1"))
        del array


def test_a_buffer_of_another_channel_or_a_released_one_is_refused(opens: Opens) -> None:
    one, two = opens(device="one"), opens(device="two")
    buffer = one.buffer(10)
    with pytest.raises(LocalProtocolError, match="another channel"):
        two.call("sum", buffer)
    buffer.release()
    with pytest.raises(LocalProtocolError, match="released"):
        one.call("sum", buffer)
    assert one.statistics().in_flight == two.statistics().in_flight == 0


def test_a_body_that_cannot_be_sent_leaves_no_memory_reserved_for_its_stream(opens: Opens) -> None:
    channel = opens()
    for submit in (channel.call, channel.submit, channel.future):
        with pytest.raises(LocalProtocolError):
            submit(object(), send=b"x" * 100_000)
    assert channel.statistics().free_bytes == 16 << 20


def test_a_driver_that_pushes_too_much_hears_of_it_and_nothing_is_written(opens: Opens) -> None:
    channel = opens()
    received = bytearray(10)
    with pytest.raises(RemoteError, match="room for"):
        channel.call(("flood-out", 11, 11), receive=received)
    assert received == bytearray(10)
    with channel.buffer(4) as buffer:
        with pytest.raises(RemoteError, match="room for"):
            channel.call(("push", b"12345"), [buffer[:2], buffer[2:]])
        assert bytes(buffer.view) == bytes(4)
        channel.call(("push", b"123"), [buffer[2:], buffer[:2]])
        assert bytes(buffer.view) == b"3\00012"
