"""The file of a copy-on-write overlay: changed blocks where they are on the disk, then the maps.

    [0, size)        the disk's own bytes, sparse: a block means something if it is in the map
    [data, ...)      `data` is the size, rounded up to a page: the header, one page
    then             the live map, a bit for each block, padded to a page
    then             the stable map, the same

The file is as long as that from its birth, which is a rename: there is never half of one.

Rules of order:
1. A block's data is written before its bit in the live map. Both are in the page cache, which
   belongs to the file: whoever is killed in between (SIGKILL) has changed nothing, for the block is
   not in the map; and what has been answered is there for the successor.
2. The kernel writes pages back in any order. So after a crash of the whole machine the live map may
   speak of blocks whose data never arrived. `flush` therefore syncs the data, then copies into the
   stable map what the live map said before that, then syncs again.
3. Which of the two to believe says the boot id in the header (random(4)): the live map if this is
   the same boot in which the overlay was opened last, else the stable one, which loses only what no
   FLUSH had promised.

Corner cases: one process at a time may have it open (flock), the kernel lets go of it at its death.
An overlay is of a base of one size, and says so when it is put before another. The base must not
change under it; nobody can check that.
"""

from __future__ import annotations

import fcntl
import os
from struct import Struct
from typing import Final

from examples.block import protocol as p
from examples.block.block_map import BlockMap, map_bytes

BLOCK: Final = p.PREFERRED
"""Bytes of a block: the unit of the map."""

_PAGE: Final = 4096
_MAGIC: Final = b"xenidc overlay 1"
_HEADER: Final = Struct("<16sQI36s")  # magic, size of the disk, bytes of a block, boot id


class OverlayError(Exception):
    """The overlay cannot be used; the text says which and why, for the person who named it."""


class OverlayMaps:
    """The maps of the overlay ``path`` of a disk of ``size`` bytes, which is made if need be.

    Not thread-safe: one change at a time, and one flush at a time.

    Attributes:
        changed: the blocks that are in the overlay.

    Raises:
        OverlayError: the file cannot be opened or made, is open elsewhere, or is no such overlay.
    """

    def __init__(self, path: str, size: int) -> None:
        blocks = -(-size // BLOCK)
        self._map_size = map_bytes(blocks)
        self._live = _round(size) + _PAGE
        self._stable = self._live + _round(self._map_size)
        try:
            self._file = self._open(path, size)
        except OSError as error:
            raise OverlayError(f"overlay {path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            bits = self._bits(path, size)
        except BlockingIOError:
            os.close(self._file)
            raise OverlayError(f"overlay {path} is in use") from None
        except BaseException:
            os.close(self._file)
            raise
        self.changed = BlockMap(blocks, bits)
        self._flushed = bytes(self._read(self._stable))

    def close(self) -> None:
        """Nothing is synced by that."""
        os.close(self._file)

    def mark(self, first: int, stop: int) -> None:
        """The data of these blocks is written."""
        if all(changed for _, _, changed in self.changed.runs(first, stop)):
            return
        start, end = self.changed.mark(first, stop)
        _write(self._file, self.changed.bits[start:end], self._live + start)

    def snapshot(self) -> bytes | None:
        """What the live map says, to be given to `stabilise`; None: the stable one says it too."""
        bits = bytes(self.changed.bits)
        return bits if bits != self._flushed else None

    def stabilise(self, snapshot: bytes) -> None:
        """The data of all blocks in the snapshot is on the disk; the caller syncs once more."""
        _write(self._file, snapshot, self._stable)
        self._flushed = snapshot

    def _open(self, path: str, size: int) -> int:
        try:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
        new = f"{path}.new"
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.ftruncate(file, self._stable + _round(self._map_size))
            os.posix_fallocate(file, _round(size), _PAGE + 2 * _round(self._map_size))
            _write(file, _HEADER.pack(_MAGIC, size, BLOCK, _boot_id()), _round(size))
            os.fsync(file)
            os.rename(new, path)
        except BaseException:
            os.close(file)
            raise
        folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def _bits(self, path: str, size: int) -> bytearray:
        """Judge the header, and read the map that is to be believed, which then is the live one."""
        header = os.pread(self._file, _HEADER.size, _round(size))
        known = _HEADER.unpack(header) if len(header) == _HEADER.size else (b"", 0, 0, b"")
        length = os.lseek(self._file, 0, os.SEEK_END)
        if known[:3] != (_MAGIC, size, BLOCK) or length != self._stable + _round(self._map_size):
            raise OverlayError(f"{path} is no overlay of an image of {size} bytes")
        if known[3] == _boot_id():
            return self._read(self._live)
        bits = self._read(self._stable)
        _write(self._file, bits, self._live)
        os.fdatasync(self._file)  # before the header says that the live map can be believed
        _write(self._file, _HEADER.pack(_MAGIC, size, BLOCK, _boot_id()), _round(size))
        return bits

    def _read(self, offset: int) -> bytearray:
        return bytearray(os.pread(self._file, self._map_size, offset))


def _round(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def _write(file: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view = view[count:]
        offset += count


def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id", "rb") as file:
        return file.read().strip()
