"""What a request may ask, and the exact bytes of its reply: rows from the specification."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.block import nbd
from examples.block.handshake import Export
from examples.block.transmission import Rules, nbd_error

SIZE, LIMIT = 1 << 20, 1 << 16
RULES = Rules(Export("", SIZE, False, LIMIT), structured=True, block_status=True)
SIMPLE = Rules(Export("", SIZE, False, LIMIT), structured=False, block_status=False)
READ_ONLY = Rules(Export("", SIZE, True, LIMIT), structured=True, block_status=True)
COOKIE = 0x0123456789ABCDEF

R, W, F, T, C, Z, S = (
    nbd.CMD_READ,
    nbd.CMD_WRITE,
    nbd.CMD_FLUSH,
    nbd.CMD_TRIM,
    nbd.CMD_CACHE,
    nbd.CMD_WRITE_ZEROES,
    nbd.CMD_BLOCK_STATUS,
)
FUA, DF = nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_DF


@pytest.mark.parametrize(
    ("rules", "command", "flags", "offset", "length", "error"),
    [
        (RULES, R, 0, 0, 1, 0),
        (RULES, R, 0, SIZE - LIMIT, LIMIT, 0),
        (RULES, R, DF | FUA, 3, 5, 0),
        (RULES, R, 0, SIZE, 0, 0),
        (RULES, R, 0, SIZE, 1, nbd.EINVAL),
        (RULES, R, 0, 2**64 - 1, 2, nbd.EINVAL),
        (RULES, R, 0, 0, LIMIT + 1, nbd.EINVAL),
        (RULES, R, DF, 0, LIMIT + 1, nbd.EOVERFLOW),
        (RULES, R, 1 << 1, 0, 1, nbd.EINVAL),
        (RULES, R, 1 << 15, 0, 1, nbd.EINVAL),
        (SIMPLE, R, DF, 0, 1, nbd.EINVAL),
        (RULES, W, FUA, 0, LIMIT, 0),
        (RULES, W, 0, SIZE - 1, 2, nbd.ENOSPC),
        (RULES, W, 0, 0, LIMIT + 1, nbd.EINVAL),
        (RULES, W, DF, 0, 1, nbd.EINVAL),
        (READ_ONLY, W, 0, 0, 1, nbd.EPERM),
        (READ_ONLY, T, 0, 0, 1, nbd.EPERM),
        (READ_ONLY, Z, 0, 0, 1, nbd.EPERM),
        (READ_ONLY, R, 0, 0, 1, 0),
        (READ_ONLY, F, 0, 0, 0, 0),
        (RULES, F, FUA, 0, 0, 0),
        (RULES, F, 0, 1, 0, nbd.EINVAL),
        (RULES, T, FUA, 0, SIZE, 0),
        (RULES, T, 0, 1, SIZE, nbd.EINVAL),
        (RULES, Z, FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO, 0, SIZE, 0),
        (RULES, Z, 0, 1, SIZE, nbd.ENOSPC),
        (RULES, C, 0, 0, SIZE, 0),
        (RULES, C, 0, 0, SIZE + 1, nbd.EINVAL),
        (RULES, S, nbd.CMD_FLAG_REQ_ONE, 0, SIZE, 0),
        (RULES, S, 0, 0, 0, nbd.EINVAL),
        (RULES, S, 0, SIZE, 1, nbd.EINVAL),
        (SIMPLE, S, 0, 0, SIZE, nbd.EINVAL),
        (RULES, 8, 0, 0, 0, nbd.EINVAL),
        (RULES, 0xFFFF, 0, 0, 0, nbd.EINVAL),
    ],
)
def test_what_a_request_may_ask(
    rules: Rules, command: int, flags: int, offset: int, length: int, error: int
) -> None:
    assert rules.refusal(command, flags, offset, length) == error


@given(
    command=st.integers(0, 0xFFFF) | st.integers(0, 8),
    flags=st.integers(0, 0xFFFF) | st.integers(0, 31),
    offset=st.integers(0, 2**64 - 1) | st.integers(0, SIZE),
    length=st.integers(0, 2**32 - 1) | st.integers(0, SIZE),
)
def test_what_is_let_through_lies_within_the_export(
    command: int, flags: int, offset: int, length: int
) -> None:
    error = RULES.refusal(command, flags, offset, length)
    assert error in (0, nbd.EINVAL, nbd.ENOSPC, nbd.EOVERFLOW)
    if not error:
        assert offset + length <= SIZE
        assert command in range(8)
        assert length <= LIMIT or command not in (R, W)


def test_success_without_data_is_a_simple_reply() -> None:
    expected = struct.pack(">IIQ", 0x67446698, 0, COOKIE)
    assert RULES.success(COOKIE) == SIMPLE.success(COOKIE) == expected


def test_data_follow_one_chunk_that_is_the_last() -> None:
    assert RULES.data(COOKIE, 4096, 512) == struct.pack(
        ">IHHQIQ", 0x668E33EF, 1, 1, COOKIE, 520, 4096
    )
    assert SIMPLE.data(COOKIE, 4096, 512) == struct.pack(">IIQ", 0x67446698, 0, COOKIE)


def test_no_data_are_no_data_chunk() -> None:
    assert RULES.data(COOKIE, 4096, 0) == struct.pack(">IHHQI", 0x668E33EF, 1, 0, COOKIE, 0)


def test_extents_name_their_metadata_context() -> None:
    assert RULES.extents(COOKIE, 16) == struct.pack(">IHHQII", 0x668E33EF, 1, 5, COOKIE, 20, 1)


def test_an_error_says_why_where_it_can() -> None:
    assert SIMPLE.failure(COOKIE, nbd.EIO, "x") == struct.pack(">IIQ", 0x67446698, 5, COOKIE)
    header = struct.pack(">IHHQIIH", 0x668E33EF, 1, 0x8001, COOKIE, 9, 5, 3)
    assert RULES.failure(COOKIE, nbd.EIO, "why") == header + b"why"


@given(text=st.text(min_size=300, max_size=1200))
def test_the_text_of_an_error_is_bounded_and_stays_utf8(text: str) -> None:
    reply = RULES.failure(COOKIE, nbd.EIO, text)
    message = reply[nbd.ERROR_CHUNK.size :]
    fields = nbd.ERROR_CHUNK.unpack_from(reply)
    assert fields[4] == 6 + len(message)
    assert fields[6] == len(message) <= 1024
    assert text.startswith(message.decode())


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (errno.ENOSPC, nbd.ENOSPC),
        (errno.EDQUOT, nbd.ENOSPC),
        (errno.EFBIG, nbd.ENOSPC),
        (errno.EROFS, nbd.EPERM),
        (errno.EOPNOTSUPP, nbd.ENOTSUP),
        (errno.EBADF, nbd.EIO),
        (None, nbd.EIO),
    ],
)
def test_errors_of_the_back_end_get_the_names_that_nbd_has(number: int | None, error: int) -> None:
    assert nbd_error(number) == error
