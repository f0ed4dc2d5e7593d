"""The back end's operations on a real image, over a real channel; both placements."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.block import protocol as p
from examples.block.disk import Disk
from hypervisor import DomainStartError, Machine
from transport import FrontEnd, RemoteError, connect

MiB = 1 << 20


@dataclass
class Drive:
    """The operations as methods."""

    channel: FrontEnd
    image: Path

    def ask(self, operation: int, offset: int = 0, length: int = 0, flags: int = 0) -> object:
        return self.channel.call((operation, offset, length, flags))

    def read(self, offset: int, length: int) -> bytes:
        with self.channel.buffer(length) as buffer:
            assert self.channel.call((p.READ, offset, length, 0), buffer) is None
            return bytes(buffer.view)

    def write(self, offset: int, data: bytes, flags: int = 0) -> None:
        with self.channel.buffer(len(data)) as buffer:
            buffer.view[:] = data
            assert self.channel.call((p.WRITE, offset, len(data), flags), buffer) is None

    def extents(self, offset: int, length: int, flags: int = 0) -> list[tuple[int, ...]]:
        with self.channel.buffer(p.EXTENT_BYTES) as buffer:
            count = self.channel.call((p.BLOCK_STATUS, offset, length, flags), buffer)
            return list(p.EXTENT.iter_unpack(buffer.view[: count * p.EXTENT.size]))


@pytest.fixture(params=["thread", "process"])
def drive(image: Path, request: pytest.FixtureRequest) -> Iterator[Drive]:
    with Machine() as machine:
        machine.start("disk", Disk, str(image), placement=request.param)
        with connect(machine, "disk") as channel:
            yield Drive(channel, image)


def test_info_is_the_size_and_whether_it_is_read_only(drive: Drive) -> None:
    assert drive.ask(p.INFO) == (16 * MiB, 0)


def test_reads_and_writes_of_any_size_at_any_place(drive: Drive) -> None:
    expected = bytearray(drive.image.read_bytes())
    rng = random.Random(2)
    for length in (1, 511, 4096, 70_000, 2 * MiB):
        at = rng.randrange(16 * MiB - length)
        assert drive.read(at, length) == expected[at : at + length]
        data = rng.randbytes(length)
        drive.write(at, data, rng.choice([0, p.FUA]))
        expected[at : at + length] = data
    assert drive.read(0, 4 * MiB) == expected[: 4 * MiB]
    assert drive.image.read_bytes() == expected


def test_a_read_behind_the_end_of_a_truncated_image_is_an_error_of_its_own(drive: Drive) -> None:
    os.truncate(drive.image, MiB)
    for offset in (2 * MiB, MiB - 1):
        with pytest.raises(RemoteError) as caught:
            drive.read(offset, 4096)
        assert caught.value.errno == errno.EIO
    assert len(drive.read(0, MiB)) == MiB


@pytest.mark.parametrize("flags", [0, p.NO_HOLE, p.FUA, p.NO_HOLE | p.FAST_ZERO])
def test_zeroes_are_zeroes_and_leave_their_neighbours_alone(drive: Drive, flags: int) -> None:
    before = drive.image.read_bytes()
    drive.ask(p.WRITE_ZEROES, 5000, 100_000, flags)
    expected = before[:5000] + bytes(100_000) + before[105_000:]
    assert drive.image.read_bytes() == expected


def test_zeroes_leave_a_hole_unless_they_must_not(drive: Drive) -> None:
    drive.ask(p.WRITE_ZEROES, MiB, MiB)
    drive.ask(p.WRITE_ZEROES, 4 * MiB, MiB, p.NO_HOLE)
    assert drive.image.stat().st_blocks * 512 == pytest.approx(15 * MiB, abs=64 * 1024)
    assert drive.extents(0, 3 * MiB) == [(MiB, 0), (MiB, 3), (MiB, 0)]


def test_trimming_gives_space_back(drive: Drive) -> None:
    drive.ask(p.TRIM, 0, 8 * MiB)
    assert drive.image.stat().st_blocks * 512 <= 8 * MiB + 64 * 1024
    assert drive.image.stat().st_size == 16 * MiB


def test_extents_follow_one_another_and_end_where_asked(drive: Drive) -> None:
    for at in (1, 3, 5):
        drive.ask(p.TRIM, at * MiB, MiB)
    assert drive.extents(MiB // 2, 3 * MiB) == [(MiB // 2, 0), (MiB, 3), (MiB, 0), (MiB // 2, 3)]
    assert drive.extents(MiB // 2, 3 * MiB, p.ONE_EXTENT) == [(MiB // 2, 0)]


def test_hints_and_flushes_return_nothing(drive: Drive) -> None:
    assert drive.ask(p.CACHE, 0, 16 * MiB) is None
    assert drive.ask(p.FLUSH) is None


def test_an_operation_that_there_is_not_is_an_error_and_no_more(drive: Drive) -> None:
    with pytest.raises(RemoteError) as caught:
        drive.ask(99)
    assert caught.value.errno == errno.EINVAL
    assert drive.ask(p.INFO) == (16 * MiB, 0)


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_an_image_that_cannot_be_served_is_an_error_at_the_start(
    tmp_path: Path, placement: str
) -> None:
    with Machine() as machine, pytest.raises(DomainStartError) as caught:
        machine.start("disk", Disk, str(tmp_path / "missing"), placement=placement)
    assert caught.value.error == "ImageError"
    assert caught.value.text == f"image {tmp_path}/missing does not exist"


def test_zeros_are_written_where_the_file_system_cannot_allocate(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Machine() as machine:
        machine.start("disk", PlainDisk, str(image), placement="process")
        with connect(machine, "disk") as channel:
            drive = Drive(channel, image)
            before = image.read_bytes()
            drive.ask(p.WRITE_ZEROES, 1000, 3 * MiB)
            drive.ask(p.TRIM, 8 * MiB, MiB)
            with pytest.raises(RemoteError) as caught:
                drive.ask(p.WRITE_ZEROES, 9 * MiB, MiB, p.FAST_ZERO)
            assert caught.value.errno == errno.ENOTSUP
    expected = before[:1000] + bytes(3 * MiB) + before[1000 + 3 * MiB :]
    assert image.read_bytes() == expected


class PlainDisk(Disk):
    """On a file system without fallocate."""

    def _allocate(self, mode: int, offset: int, length: int) -> bool:
        return False
