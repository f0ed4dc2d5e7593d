"""A disk that another domain serves, for mass storage: the medium behind `scsi.Disk`.

Owns a channel of the block driver's (examples/block), so that two channels stack. Data are copied
once, between the USB host's pages and this channel's. A caller waits for the answer, also while the
disk's back end is replaced: every operation of a block device may be done twice.

Rules: nothing is asked before it is needed, since a driver that starts may not wait. A write ends
in the page cache, as that protocol says, and `flush` takes it to the disk; so no write of a device
that has died is carried out later than those of its successor.
"""

from __future__ import annotations

import errno
from typing import Any, Final

from examples.block import protocol as block
from transport import FrontEnd, LocalBuffer, RemoteError, TransportError

_PIECE: Final = 1 << 20  # bytes of one request


class Volume:
    """The disk at the other end of ``channel``, which stays the caller's."""

    def __init__(self, channel: FrontEnd) -> None:
        self._channel = channel
        self._piece = min(_PIECE, channel.buffer_limit)
        self._known: tuple[int, bool] | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return self._info()[0]

    @property
    def read_only(self) -> bool:
        """Its back end refuses to write."""
        return self._info()[1]

    def read(self, offset: int, view: memoryview) -> None:
        """Fill ``view`` from ``offset`` on. Raises OSError."""
        for at in range(0, len(view), self._piece):
            piece = view[at : at + self._piece]
            with self._channel.buffer(len(piece)) as buffer:
                self._call(block.READ, offset + at, len(piece), buffer)
                piece[:] = buffer.view

    def write(self, offset: int, view: memoryview) -> None:
        """Write ``view`` from ``offset`` on. Raises OSError."""
        for at in range(0, len(view), self._piece):
            piece = view[at : at + self._piece]
            with self._channel.buffer(len(piece)) as buffer:
                buffer.view[:] = piece
                self._call(block.WRITE, offset + at, len(piece), buffer)

    def flush(self) -> None:
        """Bring everything written to the disk. Raises OSError."""
        self._call(block.FLUSH, 0, 0)

    def discard(self, offset: int, length: int) -> None:
        """The range is not needed any more: a hint. Raises OSError."""
        self._call(block.TRIM, offset, length)

    def _info(self) -> tuple[int, bool]:
        if self._known is None:
            size, read_only = self._call(block.INFO, 0, 0)
            self._known = size, bool(read_only)
        return self._known

    def _call(
        self, operation: int, offset: int, length: int, buffer: LocalBuffer | None = None
    ) -> Any:
        try:
            return self._channel.call((operation, offset, length, 0), buffer)
        except RemoteError as error:
            raise OSError(error.errno or errno.EIO, error.text) from error
        except TransportError as error:
            raise OSError(errno.EIO, str(error)) from error
