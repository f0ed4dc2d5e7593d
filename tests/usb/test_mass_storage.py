"""Bulk-only transport: the dialogue, the thirteen cases, errors and how a host recovers from
them.
"""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import chapter9 as c9
from examples.usb import mass_storage as ms
from examples.usb import protocol as p
from examples.usb import scsi
from examples.usb.device import Device
from examples.usb.mass_storage import MassStorage
from tests.usb.parts import Memory, configured, control, read, write

IN, OUT = 0x81, 0x01
BLOCK = scsi.BLOCK


def drive(disk: Memory | None = None) -> Device:
    return configured(MassStorage(disk or Memory(), "0123456789AB"))


def cbw(cdb: bytes, length: int = 0, *, to_host: bool = False, tag: int = 7, lun: int = 0) -> bytes:
    flags = 0x80 if to_host else 0
    return ms.CBW.pack(ms.CBW_SIGNATURE, tag, length, flags, lun, len(cdb), cdb)


def csw(device: Device) -> tuple[int, int]:
    """The residue and the status, of the one command that is open."""
    status, data = read(device, IN, 13)
    assert status == p.OK
    signature, tag, residue, outcome = ms.CSW.unpack(data)
    assert (signature, tag) == (ms.CSW_SIGNATURE, 7)
    return residue, outcome


def clear(device: Device, endpoint: int) -> None:
    setup = c9.Setup(0x02, c9.CLEAR_FEATURE, c9.ENDPOINT_HALT, endpoint, 0)
    assert control(device, setup) == (p.OK, b"")


def ask(device: Device, cdb: bytes, length: int) -> bytes:
    """A whole command that returns data, which must pass."""
    assert write(device, OUT, cbw(cdb, length, to_host=True)) == (p.OK, 31)
    status, data = read(device, IN, length)
    if status == p.STALL or len(data) == length or len(data) % 512:
        if status == p.STALL:
            clear(device, IN)
        residue, outcome = csw(device)
        assert (residue, outcome) == (length - len(data), ms.PASSED)
        return data
    raise AssertionError("the data do not end")


def order(device: Device, cdb: bytes, data: bytes = b"") -> int:
    """A whole command that takes ``data`` or none; its status."""
    assert write(device, OUT, cbw(cdb, len(data))) == (p.OK, 31)
    if data and write(device, OUT, data)[0] == p.STALL:
        clear(device, OUT)
    return csw(device)[1]


def sense(device: Device) -> tuple[int, int, int]:
    data = ask(device, bytes((scsi.REQUEST_SENSE, 0, 0, 0, 18, 0)), 18)
    return data[2], data[12], data[13]


def read_10(lba: int, blocks: int) -> bytes:
    return struct.pack(">BBIBHB", scsi.READ_10, 0, lba, 0, blocks, 0)


def write_10(lba: int, blocks: int, flags: int = 0) -> bytes:
    return struct.pack(">BBIBHB", scsi.WRITE_10, flags, lba, 0, blocks, 0)


READY = bytes(6)


def test_a_block_that_is_written_is_read_again() -> None:
    disk = Memory()
    device = drive(disk)
    data = random.Random(1).randbytes(8 * BLOCK)
    assert order(device, write_10(5, 8), data) == ms.PASSED
    assert disk.data[5 * BLOCK : 13 * BLOCK] == data
    assert ask(device, read_10(5, 8), 8 * BLOCK) == data
    assert order(device, READY) == ms.PASSED


@given(st.lists(st.integers(1, 4000), max_size=6), st.lists(st.integers(1, 8), max_size=9))
def test_data_go_in_any_pieces(writes: list[int], reads: list[int]) -> None:
    """The host cuts its data as it likes, in whole packets where it reads."""
    disk = Memory()
    device = drive(disk)
    data = random.Random(2).randbytes(16 * BLOCK)
    write(device, OUT, cbw(write_10(3, 16), len(data)))
    left = data
    for size in [*writes, len(data)]:
        if left:
            assert write(device, OUT, left[:size]) == (p.OK, len(left[:size]))
            left = left[size:]
    assert csw(device) == (0, ms.PASSED)
    write(device, OUT, cbw(read_10(3, 16), len(data), to_host=True))
    got = b""
    for packets in [*reads, 16]:
        if len(got) < len(data):
            got += read(device, IN, min(packets * 512, len(data) - len(got)))[1]
    assert got == data
    assert csw(device) == (0, ms.PASSED)


INQUIRY_36 = bytes((scsi.INQUIRY, 0, 0, 0, 36, 0))
TWO_IN = read_10(0, 2)
TWO_OUT = write_10(0, 2)
KiB = 2 * BLOCK


@pytest.mark.parametrize(
    ("case", "cdb", "expected", "to_host", "moved", "stalls", "residue", "outcome"),
    [
        (1, READY, 0, False, 0, False, 0, ms.PASSED),  # Hn = Dn
        (2, TWO_IN, 0, False, 0, False, 0, ms.PHASE_ERROR),  # Hn < Di
        (3, TWO_OUT, 0, False, 0, False, 0, ms.PHASE_ERROR),  # Hn < Do
        (4, READY, KiB, True, 0, True, KiB, ms.PASSED),  # Hi > Dn
        (5, TWO_IN, 2 * KiB, True, KiB, True, KiB, ms.PASSED),  # Hi > Di, on a packet's end
        (5, INQUIRY_36, 100, True, 36, False, 64, ms.PASSED),  # Hi > Di, in a short packet
        (6, TWO_IN, KiB, True, KiB, False, 0, ms.PASSED),  # Hi = Di
        (7, TWO_IN, BLOCK, True, 0, True, BLOCK, ms.PHASE_ERROR),  # Hi < Di
        (8, TWO_OUT, KiB, True, 0, True, KiB, ms.PHASE_ERROR),  # Hi <> Do
        (9, READY, KiB, False, 0, True, KiB, ms.PASSED),  # Ho > Dn
        (10, TWO_IN, KiB, False, 0, True, KiB, ms.PHASE_ERROR),  # Ho <> Di
        (11, TWO_OUT, 2 * KiB, False, KiB, True, KiB, ms.PASSED),  # Ho > Do
        (12, TWO_OUT, KiB, False, KiB, False, 0, ms.PASSED),  # Ho = Do
        (13, TWO_OUT, BLOCK, False, 0, True, BLOCK, ms.PHASE_ERROR),  # Ho < Do
    ],
)
def test_the_thirteen_cases(
    case: int,
    cdb: bytes,
    expected: int,
    to_host: bool,
    moved: int,
    stalls: bool,
    residue: int,
    outcome: int,
) -> None:
    disk = Memory()
    device = drive(disk)
    write(device, OUT, cbw(cdb, expected, to_host=to_host))
    if expected:
        endpoint = IN if to_host else OUT
        view = memoryview(bytearray(b"x" * expected))
        status, actual = device.transfer(endpoint, view)
        assert (status, actual) == (p.STALL if stalls else p.OK, moved)
        if stalls:
            assert device.transfer(endpoint, view) == (p.STALL, 0)
            clear(device, endpoint)
    assert csw(device) == (residue, outcome)
    written = moved if outcome == ms.PASSED and not to_host else 0
    assert disk.data == b"x" * written + bytes(disk.size - written)
    assert order(device, READY) == ms.PASSED  # and the dialogue goes on


def test_what_a_host_sends_behind_the_data_is_refused_also_in_a_transfer_of_its_own() -> None:
    device = drive()
    write(device, OUT, cbw(TWO_OUT, 2 * KiB))
    assert write(device, OUT, bytes(KiB)) == (p.OK, KiB)
    assert write(device, OUT, bytes(KiB)) == (p.STALL, 0)
    clear(device, OUT)
    assert csw(device) == (KiB, ms.PASSED)


def test_a_host_that_skips_its_data_phase_clears_the_halt_and_goes_on() -> None:
    device = drive()
    write(device, OUT, cbw(READY, KiB))
    clear(device, OUT)
    assert csw(device) == (KiB, ms.PASSED)
    assert order(device, READY) == ms.PASSED


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        bytes(31),
        cbw(READY)[:30],
        cbw(READY) + b"\0",
        cbw(READY, lun=1),
        cbw(READY)[:14] + b"\0" + bytes(16),
        cbw(READY)[:14] + b"\x11" + bytes(16),
        cbw(READY)[:12] + b"\x01" + cbw(READY)[13:],
        bytes(512),
    ],
)
def test_what_is_no_command_breaks_the_dialogue_until_reset_recovery(garbage: bytes) -> None:
    device = drive()
    assert write(device, OUT, garbage) == (p.STALL, 0)
    for _ in range(2):
        assert read(device, IN, 13) == (p.STALL, b"")
        clear(device, IN)
        clear(device, OUT)
        assert write(device, OUT, cbw(READY)) == (p.STALL, 0)
    assert control(device, c9.Setup(0x21, ms.RESET, 0, 0, 0)) == (p.OK, b"")
    clear(device, IN)
    clear(device, OUT)
    assert order(device, READY) == ms.PASSED


def test_reset_recovery_in_the_middle_of_data_forgets_the_command() -> None:
    disk = Memory()
    device = drive(disk)
    write(device, OUT, cbw(TWO_OUT, KiB))
    write(device, OUT, b"x" * BLOCK)
    control(device, c9.Setup(0x21, ms.RESET, 0, 0, 0))
    assert read(device, IN, 13) == (p.NAK, b"")
    assert order(device, READY) == ms.PASSED
    assert disk.data[:KiB] == b"x" * BLOCK + bytes(BLOCK)


def test_a_new_command_replaces_one_whose_status_nobody_fetched() -> None:
    device = drive()
    write(device, OUT, cbw(TWO_IN, KiB, to_host=True, tag=6))
    assert order(device, READY) == ms.PASSED


def test_the_status_waits_for_the_data_and_a_reader_waits_for_a_command() -> None:
    device = drive()
    assert read(device, IN, 13) == (p.NAK, b"")
    assert device.take_ready() == ()
    write(device, OUT, cbw(TWO_OUT, KiB))
    assert read(device, IN, 13) == (p.NAK, b"")
    write(device, OUT, bytes(KiB))
    assert device.take_ready() == (IN,)
    assert csw(device) == (0, ms.PASSED)


# --- errors of the disk ---------------------------------------------------------------------------


def test_a_read_error_in_the_middle_ends_the_data_and_says_so() -> None:
    disk = Memory()
    device = drive(disk)
    disk.bad = range(BLOCK, BLOCK + 1)
    write(device, OUT, cbw(TWO_IN, KiB, to_host=True))
    assert read(device, IN, BLOCK)[0] == p.OK
    assert read(device, IN, BLOCK) == (p.STALL, b"")
    clear(device, IN)
    assert csw(device) == (BLOCK, ms.FAILED)
    assert sense(device) == scsi.UNRECOVERED_READ_ERROR
    assert sense(device) == scsi.NO_SENSE


def test_a_write_error_in_the_middle_ends_the_data_and_says_so() -> None:
    disk = Memory()
    device = drive(disk)
    disk.bad = range(BLOCK, BLOCK + 1)
    write(device, OUT, cbw(TWO_OUT, KiB))
    assert write(device, OUT, bytes(BLOCK))[0] == p.OK
    assert write(device, OUT, bytes(BLOCK)) == (p.STALL, 0)
    clear(device, OUT)
    assert csw(device) == (BLOCK, ms.FAILED)
    assert sense(device) == scsi.WRITE_ERROR


def test_a_flush_that_fails_fails_the_command_that_needs_it() -> None:
    disk = Memory()
    device = drive(disk)
    assert order(device, write_10(0, 1, 8), bytes(BLOCK)) == ms.PASSED
    assert disk.flushes == 1
    disk.bad = range(disk.size - 1, disk.size)
    synchronize = bytes((scsi.SYNCHRONIZE_CACHE_10, *bytes(9)))
    assert order(device, write_10(0, 1, 8), bytes(BLOCK)) == ms.FAILED
    assert sense(device) == scsi.WRITE_ERROR
    assert order(device, synchronize) == ms.FAILED
    disk.bad = range(0)
    assert order(device, synchronize) == ms.PASSED


def test_verify_reads_the_range() -> None:
    disk = Memory()
    device = drive(disk)
    verify = struct.pack(">BBIBHB", scsi.VERIFY_10, 0, 4, 0, 4, 0)
    assert order(device, verify) == ms.PASSED
    disk.bad = range(7 * BLOCK, 7 * BLOCK + 1)
    assert order(device, verify) == ms.FAILED
    disk.bad = range(8 * BLOCK, 8 * BLOCK + 1)
    assert order(device, verify) == ms.PASSED


def test_unmap_discards_what_it_names_or_nothing() -> None:
    disk = Memory()
    device = drive(disk)

    def unmap(*ranges: tuple[int, int]) -> int:
        body = b"".join(struct.pack(">QII", lba, blocks, 0) for lba, blocks in ranges)
        data = struct.pack(">HHI", 6 + len(body), len(body), 0) + body
        return order(device, struct.pack(">BBIBHB", scsi.UNMAP, 0, 0, 0, len(data), 0), data)

    assert unmap((0, 4), (8, 0), (16, 1)) == ms.PASSED
    assert disk.discarded == [(0, 4 * BLOCK), (16 * BLOCK, BLOCK)]
    assert unmap((0, 4), (1 << 40, 1)) == ms.FAILED
    assert sense(device) == scsi.LBA_OUT_OF_RANGE
    assert unmap(*[(0, 1)] * 257) == ms.FAILED
    assert len(disk.discarded) == 2
    assert order(device, bytes((scsi.UNMAP, *bytes(9)))) == ms.PASSED


def test_a_disk_that_is_read_only_refuses_before_any_data() -> None:
    device = drive(Memory(read_only=True))
    assert order(device, write_10(0, 2), bytes(KiB)) == ms.FAILED
    assert sense(device) == scsi.WRITE_PROTECTED
    assert order(device, bytes((scsi.UNMAP, *bytes(6), 0, 24, 0)), bytes(24)) == ms.FAILED
    assert ask(device, bytes((scsi.MODE_SENSE_6, 0, 0x3F, 0, 4, 0)), 4)[2] & 0x80


def test_requests_of_the_class() -> None:
    device = drive()
    assert control(device, c9.Setup(0xA1, ms.GET_MAX_LUN, 0, 0, 1)) == (p.OK, b"\0")
    assert control(device, c9.Setup(0xA1, ms.GET_MAX_LUN, 1, 0, 1))[0] == p.STALL
    assert control(device, c9.Setup(0x21, ms.RESET, 1, 0, 0))[0] == p.STALL
    assert control(device, c9.Setup(0x21, 0x11, 0, 0, 0))[0] == p.STALL


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just(OUT), st.binary(max_size=600)),
            st.tuples(
                st.just(OUT),
                st.builds(
                    lambda cdb, length, to_host: cbw(cdb, length, to_host=to_host),
                    st.binary(min_size=1, max_size=16),
                    st.integers(0, 5000),
                    st.booleans(),
                ),
            ),
            st.tuples(st.just(IN), st.integers(0, 2000)),
            st.just((c9.CLEAR_FEATURE, 0)),
        ),
        max_size=20,
    )
)
def test_whatever_a_host_says_reset_recovery_helps(steps: list[tuple[int, bytes | int]]) -> None:
    disk = Memory(64 * BLOCK)
    device = drive(disk)
    for endpoint, what in steps:
        if isinstance(what, bytes):
            assert write(device, endpoint, what)[0] in (p.OK, p.STALL)
        elif endpoint == IN:
            assert read(device, IN, what)[0] in (p.OK, p.NAK, p.STALL, p.BABBLE)
        else:
            clear(device, IN)
            clear(device, OUT)
    control(device, c9.Setup(0x21, ms.RESET, 0, 0, 0))
    clear(device, IN)
    clear(device, OUT)
    assert order(device, READY) == ms.PASSED
    assert disk.size == 64 * BLOCK
