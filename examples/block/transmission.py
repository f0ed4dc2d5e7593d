"""The second phase of an NBD connection: what a request may ask, and how its reply looks. Pure.

Rules:
1. A request is judged here once, by `refusal`, before anything is done; nobody behind it checks
   again.
2. A refused request is answered and the connection goes on. Only bytes that are no request at all
   end it; that is the caller's part (the magic number is the first field).
3. READ is answered by one chunk, so "do not fragment" (DF) is honoured without doing anything.
4. Success without data is a simple reply also where structured ones were negotiated (shorter, and
   permitted); an error is then a structured one, because that can say why.

Which error: past the end ENOSPC for what writes, EINVAL for all else; larger than allowed EINVAL,
or EOVERFLOW if the client forbade to fragment (the specification reserves it for that); a change
of a read-only export EPERM; an unknown command, or a flag that the command does not have, EINVAL.
FUA is accepted with every command, as the specification demands.

Specification: doc/proto.md of NetworkBlockDevice/nbd, "Transmission", "Command flags", "Error
values".
"""

from __future__ import annotations

import errno
from typing import Final

from examples.block import nbd
from examples.block.handshake import Export

_FLAGS: Final = {  # command: the flags that it may have
    nbd.CMD_READ: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_DF,
    nbd.CMD_WRITE: nbd.CMD_FLAG_FUA,
    nbd.CMD_DISC: nbd.CMD_FLAG_FUA,
    nbd.CMD_FLUSH: nbd.CMD_FLAG_FUA,
    nbd.CMD_TRIM: nbd.CMD_FLAG_FUA,
    nbd.CMD_CACHE: nbd.CMD_FLAG_FUA,
    nbd.CMD_WRITE_ZEROES: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FAST_ZERO,
    nbd.CMD_BLOCK_STATUS: nbd.CMD_FLAG_FUA | nbd.CMD_FLAG_REQ_ONE,
}
_WRITES: Final = frozenset({nbd.CMD_WRITE, nbd.CMD_TRIM, nbd.CMD_WRITE_ZEROES})
_WITH_DATA: Final = frozenset({nbd.CMD_READ, nbd.CMD_WRITE})
_ERRORS: Final = {
    errno.EPERM: nbd.EPERM,
    errno.EACCES: nbd.EPERM,
    errno.EROFS: nbd.EPERM,
    errno.ENOMEM: nbd.ENOMEM,
    errno.EINVAL: nbd.EINVAL,
    errno.ENOSPC: nbd.ENOSPC,
    errno.EDQUOT: nbd.ENOSPC,
    errno.EFBIG: nbd.ENOSPC,
    errno.EOVERFLOW: nbd.EOVERFLOW,
    errno.ENOTSUP: nbd.ENOTSUP,
    errno.ESHUTDOWN: nbd.ESHUTDOWN,
}
_TEXT_LIMIT: Final = 1024  # bytes of an error's text


class Rules:
    """What the requests of one client may be, after what it has negotiated."""

    def __init__(self, export: Export, *, structured: bool, block_status: bool) -> None:
        self.structured = structured
        self._size = export.size
        self._limit = export.request_limit
        self._read_only = export.read_only
        self._flags = dict(_FLAGS)
        if not structured:
            self._flags[nbd.CMD_READ] = nbd.CMD_FLAG_FUA
        if not block_status:
            del self._flags[nbd.CMD_BLOCK_STATUS]

    def refusal(self, command: int, flags: int, offset: int, length: int) -> int:
        """The NBD error that answers the request, 0 when it may be carried out."""
        allowed = self._flags.get(command)
        if allowed is None or flags & ~allowed:
            return nbd.EINVAL
        if self._read_only and command in _WRITES:
            return nbd.EPERM
        if offset + length > self._size:
            return nbd.ENOSPC if command in _WRITES and command != nbd.CMD_TRIM else nbd.EINVAL
        if length > self._limit and command in _WITH_DATA:
            return nbd.EOVERFLOW if flags & nbd.CMD_FLAG_DF else nbd.EINVAL
        if command == nbd.CMD_FLUSH and (offset or length):
            return nbd.EINVAL
        if command == nbd.CMD_BLOCK_STATUS and not length:
            return nbd.EINVAL  # there is no extent that could be the answer
        return 0

    def success(self, cookie: int) -> bytes:
        """The reply to a request that has no data to return."""
        return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, cookie)

    def data(self, cookie: int, offset: int, length: int) -> bytes:
        """What goes before the ``length`` bytes that a READ returns."""
        if not self.structured:
            return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, cookie)
        if not length:  # a data chunk has at least one byte
            return nbd.CHUNK.pack(
                nbd.STRUCTURED_REPLY_MAGIC, nbd.REPLY_FLAG_DONE, nbd.REPLY_NONE, cookie, 0
            )
        return nbd.DATA_CHUNK.pack(
            nbd.STRUCTURED_REPLY_MAGIC,
            nbd.REPLY_FLAG_DONE,
            nbd.REPLY_OFFSET_DATA,
            cookie,
            length + 8,
            offset,
        )

    def extents(self, cookie: int, length: int) -> bytes:
        """What goes before ``length`` bytes of extents."""
        return nbd.STATUS_CHUNK.pack(
            nbd.STRUCTURED_REPLY_MAGIC,
            nbd.REPLY_FLAG_DONE,
            nbd.REPLY_BLOCK_STATUS,
            cookie,
            length + 4,
            nbd.META_CONTEXT_ID,
        )

    def failure(self, cookie: int, error: int, text: str = "") -> bytes:
        """The reply to a request that ended in ``error``, an NBD error."""
        if not self.structured:
            return nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, error, cookie)
        message = text.encode()[:_TEXT_LIMIT].decode(errors="ignore").encode()
        return (
            nbd.ERROR_CHUNK.pack(
                nbd.STRUCTURED_REPLY_MAGIC,
                nbd.REPLY_FLAG_DONE,
                nbd.REPLY_ERROR,
                cookie,
                6 + len(message),
                error,
                len(message),
            )
            + message
        )


def nbd_error(number: int | None) -> int:
    """The NBD error for an errno of the back end; EIO for what NBD has no name for."""
    return _ERRORS.get(number, nbd.EIO) if number is not None else nbd.EIO
