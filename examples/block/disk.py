"""The back end of a block device: it alone opens the image, and works on the front end's own pages.

Owns the image's descriptor. One endpoint thread calls `on_request`; what may block there goes to
worker threads, so that requests behind it are served meanwhile. Rules:

1. READ and WRITE hand the front end's pages to the kernel: no byte passes through this process's
   own memory. A READ is first tried with RWF_NOWAIT, inline: the page cache answers at once, and
   only what would wait for the disk goes to a worker. Where the file system does not know that
   flag (tmpfs, which never waits), it is read inline anyway.
2. WRITE ends in the page cache, inline. FLUSH, and FUA on anything, is answered after fdatasync.
3. An fdatasync that failed is never forgotten: the kernel reports lost pages once and calls them
   clean afterwards, so that a second one would succeed falsely. Every later FLUSH of this
   incarnation fails.
4. Nothing here remembers a request: an incarnation that is killed leaves the page cache, which
   belongs to the file, and its successor continues from there (see protocol.py).

Corner cases: a READ behind the end of an image that somebody truncated is EIO, and so is what is
left of one that straddles it. TRIM and CACHE are hints: where the file system cannot, they succeed
without doing anything. An image that cannot be opened for writing is opened read-only and says so.

Specifications: preadv2(2), fallocate(2), lseek(2) SEEK_DATA, fdatasync(2), posix_fadvise(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from typing import Any, Final

from examples.block import protocol as p
from transport import BackEnd, RemoteBuffer, Request

_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_PUNCH_HOLE: Final = 0x02
_ZERO_RANGE: Final = 0x10
_ZEROS: Final = bytes(1 << 20)
_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS)
_CANNOT_WRITE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_EXTENTS: Final = p.EXTENT_BYTES // p.EXTENT.size
_EXTENT_LIMIT: Final = (1 << 32) - p.PREFERRED  # the longest extent that 32 bits can say

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class ImageError(Exception):
    """The image cannot be served; the text says which and why, for the person who named it."""


class Disk(BackEnd):
    """Serves one image file (or block device).

    Start arguments: the image's path, and whether it shall be read-only in any case. Raises
    `ImageError` when there is nothing to serve.
    """

    workers = 4
    idempotent = True  # until it is answered; nobody relies on the order of what is in flight

    def on_start(self, path: str, read_only: bool = False) -> None:
        self.read_only, self.image = _open(path, read_only)
        try:
            self.size = _size(path, self.image)
            self._nowait = _nowait(self.image)
        except BaseException:
            os.close(self.image)
            raise
        self._lost: OSError | None = None
        self._slow: dict[int, Callable[..., int | None]] = {
            p.FLUSH: self.flush,
            p.TRIM: self.trim,
            p.WRITE_ZEROES: self.write_zeroes,
            p.CACHE: self.cache,
        }

    def on_stop(self) -> None:
        os.close(self.image)

    def on_request(self, request: Request) -> Any:
        operation, offset, length, flags = request.body
        buffer = request.buffer
        if buffer is not None:
            if operation == p.READ:
                return self.read(buffer, offset)
            if operation == p.WRITE and not flags & p.FUA:
                return self.write(buffer, offset, flags)
            if operation == p.WRITE:
                return self.offload(self.write, buffer, offset, flags)
            if operation == p.BLOCK_STATUS:
                return self.offload(self.block_status, buffer, offset, length, flags)
        elif operation in self._slow:
            return self.offload(self._slow[operation], offset, length, flags)
        elif operation == p.INFO:
            return [self.size, int(self.read_only)]
        raise OSError(errno.EINVAL, f"no operation {operation} has this shape")

    def read(self, buffer: RemoteBuffer, offset: int) -> Any:
        """Fill ``buffer`` from the image: at once, or on a worker when that would wait."""
        with buffer.map() as pages:
            try:
                if os.preadv(self.image, [pages], offset, self._nowait) == len(pages):
                    return None
            except BlockingIOError:
                pass  # not in the page cache
        return self.offload(self._read_waiting, buffer, offset)

    def _read_waiting(self, buffer: RemoteBuffer, offset: int) -> None:
        with buffer.map() as pages:
            done = 0
            while done < len(pages):
                count = os.preadv(self.image, [pages[done:]], offset + done)
                if not count:
                    raise OSError(errno.EIO, f"the image ends before byte {offset + len(pages)}")
                done += count

    def write(self, buffer: RemoteBuffer, offset: int, flags: int) -> None:
        """Write ``buffer`` to the image; with FUA to the disk."""
        with buffer.map(readonly=True) as pages:
            done = os.pwritev(self.image, [pages], offset)
            while done < len(pages):
                done += os.pwritev(self.image, [pages[done:]], offset + done)
        if flags & p.FUA:
            self.sync()

    def flush(self, _offset: int, _length: int, _flags: int) -> None:
        """Everything that was answered before is on the disk when this returns."""
        self.sync()

    def sync(self) -> None:
        """fdatasync; once it has failed, it fails for ever."""
        if self._lost is not None:
            raise OSError(self._lost.errno, f"an earlier flush failed: {self._lost.strerror}")
        try:
            os.fdatasync(self.image)
        except OSError as error:
            self._lost = error
            raise

    def trim(self, offset: int, length: int, flags: int) -> None:
        """Give the range back to the file system, if that can take it."""
        self._allocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length)
        if flags & p.FUA:
            self.sync()

    def write_zeroes(self, offset: int, length: int, flags: int) -> None:
        """Make the range read as zeros, the quickest way that the flags allow."""
        if not flags & p.NO_HOLE:
            done = self._allocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length)
        elif not (done := self._allocate(_ZERO_RANGE | _KEEP_SIZE, offset, length)):
            # Two steps instead of one; if killed in between, the request is sent again.
            done = self._allocate(_PUNCH_HOLE | _KEEP_SIZE, offset, length)
            done = done and self._allocate(_KEEP_SIZE, offset, length)
        if not done:
            if flags & p.FAST_ZERO:
                raise OSError(errno.ENOTSUP, "zeros can only be written here, not allocated")
            self._write_zeros(offset, offset + length)
        if flags & p.FUA:
            self.sync()

    def _write_zeros(self, start: int, end: int) -> None:
        while start < end:
            start += os.pwrite(self.image, _ZEROS[: end - start], start)

    def _allocate(self, mode: int, offset: int, length: int) -> bool:
        """fallocate; False when this file cannot do it that way."""
        if _libc.fallocate(self.image, mode, offset, length) == 0:
            return True
        number = ctypes.get_errno()
        if number in _CANNOT:
            return False
        raise OSError(number, os.strerror(number))

    def cache(self, offset: int, length: int, _flags: int) -> None:
        """Ask the kernel to read the range ahead."""
        os.posix_fadvise(self.image, offset, length, os.POSIX_FADV_WILLNEED)

    def block_status(self, buffer: RemoteBuffer, offset: int, length: int, flags: int) -> int:
        """Write the extents of the range to ``buffer``; returns their number."""
        limit = 1 if flags & p.ONE_EXTENT else _EXTENTS
        end = min(offset + length, offset + _EXTENT_LIMIT)
        with buffer.map() as pages:
            for number in range(limit):
                stop, status = self._extent(offset, end)
                p.EXTENT.pack_into(pages, number * p.EXTENT.size, stop - offset, status)
                offset = stop
                if offset >= end:
                    break
        return number + 1

    def _extent(self, offset: int, end: int) -> tuple[int, int]:
        """Where the extent from ``offset`` ends, at most ``end``, and its status."""
        hole = p.EXTENT_HOLE | p.EXTENT_ZERO
        try:
            data = os.lseek(self.image, offset, os.SEEK_DATA)
            if data > offset:
                return min(data, end), hole
            return min(os.lseek(self.image, offset, os.SEEK_HOLE), end), 0
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end of the file
                return end, hole
            if error.errno in (errno.EINVAL, *_CANNOT):  # not that kind of file: all is allocated
                return end, 0
            raise


def _open(path: str, read_only: bool) -> tuple[bool, int]:
    """Open the image; returns whether it is read-only, and the descriptor."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            raise ImageError(f"image {path} is a directory")
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise ImageError(f"image {path} is neither a file nor a block device")
        if not read_only:
            try:
                return False, os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in _CANNOT_WRITE:
                    raise
        return True, os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise ImageError(f"image {path} does not exist") from None
    except OSError as error:
        raise ImageError(f"image {path} cannot be opened: {error.strerror}") from error


def _size(path: str, image: int) -> int:
    size = os.lseek(image, 0, os.SEEK_END)
    if size == 0:
        raise ImageError(f"image {path} is empty")
    if size % p.SECTOR:
        raise ImageError(f"image {path} has {size} bytes, not a multiple of {p.SECTOR}")
    return size


def _nowait(image: int) -> int:
    """RWF_NOWAIT if reads of this file know it, else 0."""
    try:
        os.preadv(image, [bytearray(1)], 0, os.RWF_NOWAIT)
    except BlockingIOError:
        return os.RWF_NOWAIT
    except OSError as error:
        if error.errno in _CANNOT:
            return 0
        raise
    return os.RWF_NOWAIT
