"""What each SCSI command means: rows of command blocks and plans, or the sense that refuses
them.
"""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import scsi
from examples.usb.scsi import CheckCondition, DataIn, LogicalUnit, Plan, Read, Verify, Write
from tests.usb.parts import Memory

BLOCK = scsi.BLOCK
BLOCKS = 2048


def unit(*, read_only: bool = False) -> LogicalUnit:
    return LogicalUnit(Memory(BLOCKS * BLOCK, read_only=read_only), "0123456789AB")


def data(cdb: bytes, of: LogicalUnit | None = None) -> bytes:
    plan = (of or unit()).plan(cdb)
    assert isinstance(plan, DataIn)
    return plan.data


def six(code: int, *rest: int) -> bytes:
    return bytes((code, *rest)).ljust(6, b"\0")


def ten(code: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", code, flags, lba, 0, count, 0)


def twelve(code: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIIBB", code, flags, lba, count, 0, 0)


def sixteen(code: int, lba: int, count: int, flags: int = 0) -> bytes:
    return struct.pack(">BBQIBB", code, flags, lba, count, 0, 0)


@pytest.mark.parametrize(
    ("cdb", "plan"),
    [
        (six(scsi.READ_6, 0, 1, 2, 3), Read(258 * BLOCK, 3 * BLOCK)),
        (six(scsi.READ_6, 0xE0, 1, 0, 0), Read(256 * BLOCK, 256 * BLOCK)),
        (six(scsi.WRITE_6, 0, 1, 2, 3), Write(258 * BLOCK, 3 * BLOCK, False)),
        (ten(scsi.READ_10, 5, 6), Read(5 * BLOCK, 6 * BLOCK)),
        (ten(scsi.READ_10, 5, 0), Read(5 * BLOCK, 0)),
        (ten(scsi.WRITE_10, 5, 6), Write(5 * BLOCK, 6 * BLOCK, False)),
        (ten(scsi.WRITE_10, 5, 6, 8), Write(5 * BLOCK, 6 * BLOCK, True)),
        (twelve(scsi.READ_12, 5, 6), Read(5 * BLOCK, 6 * BLOCK)),
        (twelve(scsi.WRITE_12, 5, 6, 8), Write(5 * BLOCK, 6 * BLOCK, True)),
        (sixteen(scsi.READ_16, 5, 6), Read(5 * BLOCK, 6 * BLOCK)),
        (sixteen(scsi.WRITE_16, 5, 6, 8), Write(5 * BLOCK, 6 * BLOCK, True)),
        (ten(scsi.READ_10, BLOCKS - 1, 1), Read((BLOCKS - 1) * BLOCK, BLOCK)),
        (ten(scsi.READ_10, BLOCKS, 0), Read(BLOCKS * BLOCK, 0)),
        (ten(scsi.VERIFY_10, 5, 6), Verify(5 * BLOCK, 6 * BLOCK)),
        (ten(scsi.SYNCHRONIZE_CACHE_10, 0, 0), scsi.Flush()),
        (sixteen(scsi.SYNCHRONIZE_CACHE_16, 0, 0), scsi.Flush()),
        (six(scsi.TEST_UNIT_READY), scsi.Done()),
        (six(scsi.PREVENT_ALLOW_MEDIUM_REMOVAL, 0, 0, 0, 1), scsi.Done()),
        (six(scsi.START_STOP_UNIT, 0, 0, 0, 1), scsi.Done()),
        (six(scsi.START_STOP_UNIT, 0, 0, 0, 2), scsi.Flush()),
        (ten(scsi.UNMAP, 0, 24), scsi.Parameters(24)),
    ],
)
def test_a_command_becomes_a_plan(cdb: bytes, plan: Plan) -> None:
    assert unit().plan(cdb) == plan


@pytest.mark.parametrize(
    ("cdb", "sense"),
    [
        (b"", scsi.INVALID_COMMAND),
        (six(0x77), scsi.INVALID_COMMAND),
        (six(scsi.READ_10), scsi.INVALID_FIELD),  # too short
        (bytes((scsi.READ_6, 0)), scsi.INVALID_FIELD),
        (ten(scsi.READ_10, BLOCKS, 1), scsi.LBA_OUT_OF_RANGE),
        (ten(scsi.READ_10, 0, BLOCKS + 1), scsi.LBA_OUT_OF_RANGE),
        (sixteen(scsi.WRITE_16, 2**64 - 1, 1), scsi.LBA_OUT_OF_RANGE),
        (six(scsi.READ_6, 0x1F, 0xFF, 0xFF, 1), scsi.LBA_OUT_OF_RANGE),
        (ten(scsi.VERIFY_10, 0, 1, 2), scsi.INVALID_FIELD),
        (ten(scsi.UNMAP, 0, 24, 1), scsi.INVALID_FIELD),
        (six(scsi.INQUIRY, 0, 0x80, 0, 36), scsi.INVALID_FIELD),
        (six(scsi.INQUIRY, 1, 0x99, 0, 36), scsi.INVALID_FIELD),
        (six(scsi.MODE_SENSE_6, 0, 0x05, 0, 36), scsi.INVALID_FIELD),
        (six(scsi.MODE_SENSE_6, 0, 0x08, 1, 36), scsi.INVALID_FIELD),
        (six(scsi.MODE_SENSE_6, 0, 0xC8, 0, 36), scsi.INVALID_FIELD),
        (sixteen(scsi.SERVICE_ACTION_IN_16, 0, 32, 0x12), scsi.INVALID_FIELD),
    ],
)
def test_a_command_that_makes_no_sense_is_refused(cdb: bytes, sense: scsi.Sense) -> None:
    with pytest.raises(CheckCondition) as caught:
        unit().plan(cdb)
    assert caught.value.sense == sense


@pytest.mark.parametrize(
    "cdb",
    [
        six(scsi.WRITE_6, 0, 0, 0, 1),
        ten(scsi.WRITE_10, 0, 1),
        twelve(scsi.WRITE_12, 0, 1),
        sixteen(scsi.WRITE_16, 0, 1),
        ten(scsi.UNMAP, 0, 24),
    ],
)
def test_a_read_only_disk_takes_nothing(cdb: bytes) -> None:
    with pytest.raises(CheckCondition) as caught:
        unit(read_only=True).plan(cdb)
    assert caught.value.sense == scsi.WRITE_PROTECTED


def test_inquiry_says_what_it_is() -> None:
    full = data(six(scsi.INQUIRY, 0, 0, 0, 96))
    assert len(full) == 36 == full[4] + 5
    assert full[0] == 0
    assert full[8:32] == b"xenidc  disk            "
    assert data(six(scsi.INQUIRY, 0, 0, 0, 5)) == full[:5]


@pytest.mark.parametrize("page", [0x00, 0x80, 0x83, 0xB0, 0xB2])
def test_vital_product_data_pages_have_the_length_that_they_say(page: int) -> None:
    found = data(six(scsi.INQUIRY, 1, page, 0, 255))
    assert found[:2] == bytes((0, page))
    assert int.from_bytes(found[2:4], "big") == len(found) - 4
    assert page in data(six(scsi.INQUIRY, 1, 0, 0, 255))[4:]


def test_vital_product_data_name_the_unit_and_its_limits() -> None:
    assert data(six(scsi.INQUIRY, 1, 0x80, 0, 255))[4:] == b"0123456789AB"
    assert data(six(scsi.INQUIRY, 1, 0x83, 0, 255)).endswith(b"0123456789AB")
    limits = data(six(scsi.INQUIRY, 1, 0xB0, 0, 255))
    assert len(limits) == 64
    assert struct.unpack_from(">II", limits, 20) == (0xFFFFFFFF, 256)
    assert data(six(scsi.INQUIRY, 1, 0xB2, 0, 255))[5] == 0x80


def test_capacity_is_the_last_block() -> None:
    assert data(ten(scsi.READ_CAPACITY_10, 0, 0)) == struct.pack(">II", BLOCKS - 1, BLOCK)
    long = data(sixteen(scsi.SERVICE_ACTION_IN_16, 0, 32, scsi.READ_CAPACITY_16))
    assert struct.unpack_from(">QI", long) == (BLOCKS - 1, BLOCK)
    assert (len(long), long[14]) == (32, 0x80)
    cdb = sixteen(scsi.SERVICE_ACTION_IN_16, 0, 32, scsi.READ_CAPACITY_16)
    assert data(cdb, unit(read_only=True))[14] == 0


def test_a_disk_that_is_too_large_for_ten_bytes_says_so() -> None:
    class Huge(Memory):
        @property
        def size(self) -> int:
            return (1 << 33) * BLOCK

    huge = LogicalUnit(Huge(), "0")
    assert data(ten(scsi.READ_CAPACITY_10, 0, 0), huge)[:4] == b"\xff\xff\xff\xff"
    long = data(sixteen(scsi.SERVICE_ACTION_IN_16, 0, 32, scsi.READ_CAPACITY_16), huge)
    assert struct.unpack_from(">Q", long) == ((1 << 33) - 1,)
    assert huge.plan(sixteen(scsi.READ_16, 1 << 32, 1)) == Read((1 << 32) * BLOCK, BLOCK)


def test_mode_pages() -> None:
    short = data(six(scsi.MODE_SENSE_6, 0, 0x3F, 0, 255))
    assert short[0] == len(short) - 1
    assert (short[2], short[3]) == (0x10, 0)
    assert short[4:7] == bytes((0x08, 18, 4))
    assert short[24:26] == bytes((0x0A, 10))
    long = data(ten(scsi.MODE_SENSE_10, 0x3F << 24, 255))
    assert int.from_bytes(long[:2], "big") == len(long) - 2
    assert long[8:] == short[4:]
    assert data(six(scsi.MODE_SENSE_6, 0, 0x08, 0, 255))[4:] == short[4:24]
    changeable = data(six(scsi.MODE_SENSE_6, 0, 0x7F, 0, 255))
    assert changeable[4:] == bytes((0x08, 18, *bytes(18), 0x0A, 10, *bytes(10)))
    assert data(six(scsi.MODE_SENSE_6, 0, 0x3F, 0, 4)) == short[:4]


def test_there_is_one_unit() -> None:
    assert data(twelve(scsi.REPORT_LUNS, 0, 16)) == bytes((0, 0, 0, 8, *bytes(12)))


def test_sense_is_told_once_and_forgotten_by_the_next_command() -> None:
    one = unit()
    request = six(scsi.REQUEST_SENSE, 0, 0, 0, 18)
    one.failed(scsi.LBA_OUT_OF_RANGE)
    told = data(request, one)
    assert (told[0], told[2], told[7], told[12], told[13]) == (0x70, 5, 10, 0x21, 0)
    assert len(told) == 18
    assert data(request, one)[2] == 0
    one.failed(scsi.LBA_OUT_OF_RANGE)
    one.plan(six(scsi.TEST_UNIT_READY))
    assert data(request, one)[2] == 0


@pytest.mark.parametrize(
    ("number", "writing", "sense"),
    [
        (errno.EIO, False, scsi.UNRECOVERED_READ_ERROR),
        (errno.EIO, True, scsi.WRITE_ERROR),
        (errno.ENOSPC, True, scsi.SPACE_ALLOCATION_FAILED),
        (errno.EROFS, True, scsi.WRITE_PROTECTED),
        (errno.EBADF, True, scsi.INTERNAL_TARGET_FAILURE),
    ],
)
def test_errors_of_the_disk_have_a_name_in_scsi(
    number: int, writing: bool, sense: scsi.Sense
) -> None:
    assert scsi.sense_of(OSError(number, "x"), writing=writing) == sense


@pytest.mark.parametrize("parameters", [b"\0" * 7, b"\0"])
def test_a_parameter_list_without_its_head_is_refused(parameters: bytes) -> None:
    with pytest.raises(CheckCondition) as caught:
        unit().unmap(parameters)
    assert caught.value.sense == scsi.PARAMETER_LIST_LENGTH_ERROR


@given(st.binary(max_size=16), st.binary(max_size=64))
def test_any_bytes_are_a_plan_within_the_disk_or_refused(cdb: bytes, parameters: bytes) -> None:
    one = unit()
    try:
        plan = one.plan(cdb)
    except CheckCondition:
        pass
    else:
        if isinstance(plan, Read | Write | Verify):
            assert plan.offset + plan.length <= BLOCKS * BLOCK
    try:
        ranges = one.unmap(parameters)
    except CheckCondition:
        return
    assert all(offset + length <= BLOCKS * BLOCK for offset, length in ranges)
