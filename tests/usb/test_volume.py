"""A USB disk on the block driver's channel: two channels, either of whose back ends may die."""

from __future__ import annotations

import errno
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.block import protocol as block
from examples.block.disk import Disk
from examples.usb import scsi
from examples.usb.volume import Volume
from hypervisor import Machine
from tests.usb.test_host import BLOCKS, Storage, plugged
from transport import FrontEnd, connect

SIZE = BLOCKS * scsi.BLOCK


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


@contextmanager
def channel_to(image: Path, *, read_only: bool = False) -> Iterator[tuple[Machine, FrontEnd]]:
    with Machine() as machine:
        machine.start("disk1", Disk, str(image), read_only, placement="thread")
        with connect(machine, "disk1", buffer_bytes=1 << 16) as channel:
            yield machine, channel


def test_a_volume_is_read_and_written_in_pieces_that_the_channel_has_room_for(image: Path) -> None:
    data = random.Random(2).randbytes(100_000)
    with channel_to(image) as (_, channel):
        volume = Volume(channel)
        assert (volume.size, volume.read_only) == (SIZE, False)
        volume.write(512, memoryview(data))
        found = memoryview(bytearray(len(data)))
        volume.read(512, found)
        assert found == data
        volume.flush()
        volume.discard(0, 4096)
        assert channel.statistics().in_flight == 0
        assert channel.statistics().free_bytes == 1 << 16
    assert image.read_bytes()[4096 : 512 + len(data)] == data[4096 - 512 :]


def test_what_the_disk_refuses_is_an_os_error_with_its_number(image: Path) -> None:
    with channel_to(image, read_only=True) as (machine, channel):
        volume = Volume(channel)
        assert volume.read_only
        with pytest.raises(OSError) as behind:
            volume.read(2 * SIZE, memoryview(bytearray(512)))
        assert behind.value.errno == errno.EIO
        with pytest.raises(OSError) as refused:
            volume.write(0, memoryview(bytes(512)))
        assert refused.value.errno == errno.EBADF
        machine.destroy("disk1")
        with pytest.raises(OSError) as gone:
            volume.flush()
        assert gone.value.errno == errno.EIO


@pytest.mark.parametrize("victims", [["usb"], ["disk1"], ["usb", "disk1"]])
def test_two_stacked_channels_survive_the_death_of_either_back_end(
    image: Path, victims: list[str]
) -> None:
    rng = random.Random(4)
    expected = bytearray(image.read_bytes())
    with plugged(Storage, "process", ["block", "disk1"]) as storage:
        storage.machine.start("disk1", Disk, str(image), placement="process")
        for number in range(30):
            lba, data = rng.randrange(BLOCKS - 64), rng.randbytes(rng.randint(1, 64) * scsi.BLOCK)
            if number % 10 == 2:
                for victim in victims:
                    os.kill(storage.machine.pid(victim), signal.SIGKILL)
            storage.write(lba, data)
            expected[lba * scsi.BLOCK : lba * scsi.BLOCK + len(data)] = data
            assert storage.read(lba, 64) == expected[lba * scsi.BLOCK : (lba + 64) * scsi.BLOCK]
        assert (storage.host.controller.restarts > 0) == ("usb" in victims)
    assert image.read_bytes() == expected


def test_the_protocol_of_the_block_driver_is_what_a_volume_speaks() -> None:
    assert block.SECTOR == scsi.BLOCK
