"""What the front and the back end of a block device say to each other over the channel.

A request's body is always ``(operation, offset, length, flags)``, all ints: one shape, cheap to
pack and to check. Offset and length are in bytes, any alignment; the front end has checked them
against the size once. Every operation is idempotent: a request that was in flight when a back end
died is simply sent again, whether or not the old one had done it already.

    operation     buffer                        answer                        may block?
    INFO          none                          [size, read_only (0 or 1)]    no
    READ          length bytes, to be filled    None                          as little as possible
    WRITE         length bytes to write         None                          FUA only
    FLUSH         none                          None                          yes
    TRIM          none                          None (a hint)                 yes
    WRITE_ZEROES  none                          None                          yes
    CACHE         none                          None (a hint)                 yes
    BLOCK_STATUS  EXTENT_BYTES, to be filled    number of extents in it       yes

Durability: a request is answered when its effect is in the page cache; a FLUSH, and any request
with FUA, when it has reached the disk. The page cache belongs to the file and not to the process,
so what a killed back end had answered is still there for its successor, and for its FLUSH.

Extents lie in the buffer as pairs of big-endian 32-bit numbers (length, status), which is how NBD
wants them: they are sent from there as they are. They start at ``offset``, leave no gap, and may
end early; there is at least one.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

Body = tuple[int, int, int, int]

INFO: Final = 0
READ: Final = 1
WRITE: Final = 2
FLUSH: Final = 3
TRIM: Final = 4
WRITE_ZEROES: Final = 5
CACHE: Final = 6
BLOCK_STATUS: Final = 7

FUA: Final = 1 << 0  # WRITE, TRIM, WRITE_ZEROES: answer when it is on the disk
NO_HOLE: Final = 1 << 1  # WRITE_ZEROES: leave the range allocated
FAST_ZERO: Final = 1 << 2  # WRITE_ZEROES: fail (ENOTSUP) rather than write zeros
ONE_EXTENT: Final = 1 << 3  # BLOCK_STATUS: the first extent only

EXTENT: Final = Struct(">II")
EXTENT_BYTES: Final = 4096
EXTENT_HOLE: Final = 1 << 0
EXTENT_ZERO: Final = 1 << 1

SECTOR: Final = 512  # bytes; a disk's size is a multiple of it
PREFERRED: Final = 4096  # bytes; requests of this size and alignment suit the page cache best
