"""A disk image file, for mass storage: the medium behind `scsi.Disk`.

Owns the file's descriptor. Writes end in the page cache, which belongs to the file: what a killed
back end had written is there for its successor. A flush that failed is never forgotten, because the
kernel reports lost pages once and calls them clean afterwards.

Corner cases: an image that cannot be opened for writing is opened read-only. A read behind the end
of an image that somebody truncated is EIO. Discarding is a hint, and does nothing where the file
system cannot.

Specifications: pread(2), fallocate(2), fdatasync(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import Final

from examples.usb.scsi import BLOCK

_KEEP_SIZE: Final = 0x01  # linux/falloc.h
_PUNCH_HOLE: Final = 0x02
_CANNOT: Final = (errno.EOPNOTSUPP, errno.ENOSYS)
_CANNOT_WRITE: Final = (errno.EACCES, errno.EPERM, errno.EROFS)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class ImageError(Exception):
    """The image cannot be served; the text says which and why, for the person who named it."""


class Image:
    """The image at ``path``, of whole blocks.

    Raises:
        ImageError: there is none, or it is no image.
    """

    def __init__(self, path: str, *, read_only: bool = False) -> None:
        self.read_only, self._file = _open(path, read_only)
        self.size = os.lseek(self._file, 0, os.SEEK_END)
        self._lost: OSError | None = None
        if not self.size or self.size % BLOCK:
            self.close()
            raise ImageError(f"image {path} has {self.size} bytes, not a multiple of {BLOCK}")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset`` on."""
        while view:
            count = os.preadv(self._file, [view], offset)
            if not count:
                raise OSError(errno.EIO, "the image ends too early")
            view, offset = view[count:], offset + count

    def write(self, offset: int, view: memoryview) -> None:
        """Write ``view`` from ``offset`` on."""
        while view:
            count = os.pwrite(self._file, view, offset)
            view, offset = view[count:], offset + count

    def flush(self) -> None:
        """fdatasync; once it has failed, it fails for ever."""
        if self._lost is not None:
            raise OSError(self._lost.errno, f"an earlier flush failed: {self._lost.strerror}")
        try:
            os.fdatasync(self._file)
        except OSError as error:
            self._lost = error
            raise

    def discard(self, offset: int, length: int) -> None:
        """Give the range back to the file system, if that can take it."""
        if _libc.fallocate(self._file, _PUNCH_HOLE | _KEEP_SIZE, offset, length) != 0:
            number = ctypes.get_errno()
            if number not in _CANNOT:
                raise OSError(number, os.strerror(number))


def _open(path: str, read_only: bool) -> tuple[bool, int]:
    try:
        mode = os.stat(path).st_mode
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
