"""The numbers and layouts of the NBD protocol: what both phases of a connection are made of.

Pure constants and structs, all big-endian as on the wire; no behaviour. Names are those of the
specification without their ``NBD_`` prefix, grouped as there. Requests and replies are in
transmission.py, the option haggling before them in handshake.py.

Specification: doc/proto.md of NetworkBlockDevice/nbd (fixed newstyle, structured replies). Left
out, and refused as unknown: TLS, extended headers, resize.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

# --- handshake ------------------------------------------------------------------------------------

INIT_MAGIC: Final = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC: Final = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC: Final = 0x0003E889045565A9

GREETING: Final = Struct(">QQH")  # INIT_MAGIC, OPTION_MAGIC, handshake flags
CLIENT_FLAGS: Final = Struct(">I")
OPTION: Final = Struct(">QII")  # OPTION_MAGIC, option, length of the data behind it
OPTION_REPLY: Final = Struct(">QIII")  # OPTION_REPLY_MAGIC, option, reply type, length
EXPORT_REPLY: Final = Struct(">QH")  # size, transmission flags; answers OPT_EXPORT_NAME
EXPORT_PADDING: Final = 124  # zeros behind EXPORT_REPLY unless both sides say NO_ZEROES

FLAG_FIXED_NEWSTYLE: Final = 1 << 0
FLAG_NO_ZEROES: Final = 1 << 1

OPT_EXPORT_NAME: Final = 1
OPT_ABORT: Final = 2
OPT_LIST: Final = 3
OPT_INFO: Final = 6
OPT_GO: Final = 7
OPT_STRUCTURED_REPLY: Final = 8
OPT_LIST_META_CONTEXT: Final = 9
OPT_SET_META_CONTEXT: Final = 10

REP_ACK: Final = 1
REP_SERVER: Final = 2
REP_INFO: Final = 3
REP_META_CONTEXT: Final = 4
REP_ERR_UNSUP: Final = 1 << 31 | 1
REP_ERR_INVALID: Final = 1 << 31 | 3
REP_ERR_UNKNOWN: Final = 1 << 31 | 6

INFO_EXPORT: Final = 0
INFO_BLOCK_SIZE: Final = 3
INFO_EXPORT_DATA: Final = Struct(">HQH")  # INFO_EXPORT, size, transmission flags
INFO_BLOCK_SIZE_DATA: Final = Struct(">HIII")  # INFO_BLOCK_SIZE, minimum, preferred, maximum

STRING_LIMIT: Final = 4096  # bytes; the specification's bound for every string
META_CONTEXT: Final = "base:allocation"  # the one context that the specification defines
META_CONTEXT_ID: Final = 1

# --- transmission flags ---------------------------------------------------------------------------

HAS_FLAGS: Final = 1 << 0
READ_ONLY: Final = 1 << 1
SEND_FLUSH: Final = 1 << 2
SEND_FUA: Final = 1 << 3
SEND_TRIM: Final = 1 << 5
SEND_WRITE_ZEROES: Final = 1 << 6
SEND_DF: Final = 1 << 7
CAN_MULTI_CONN: Final = 1 << 8
SEND_CACHE: Final = 1 << 10
SEND_FAST_ZERO: Final = 1 << 11

# --- requests -------------------------------------------------------------------------------------

REQUEST_MAGIC: Final = 0x25609513
REQUEST: Final = Struct(">IHHQQI")  # REQUEST_MAGIC, flags, command, cookie, offset, length

CMD_READ: Final = 0
CMD_WRITE: Final = 1
CMD_DISC: Final = 2
CMD_FLUSH: Final = 3
CMD_TRIM: Final = 4
CMD_CACHE: Final = 5
CMD_WRITE_ZEROES: Final = 6
CMD_BLOCK_STATUS: Final = 7

CMD_FLAG_FUA: Final = 1 << 0
CMD_FLAG_NO_HOLE: Final = 1 << 1
CMD_FLAG_DF: Final = 1 << 2
CMD_FLAG_REQ_ONE: Final = 1 << 3
CMD_FLAG_FAST_ZERO: Final = 1 << 4

# --- replies --------------------------------------------------------------------------------------

SIMPLE_REPLY_MAGIC: Final = 0x67446698
STRUCTURED_REPLY_MAGIC: Final = 0x668E33EF
SIMPLE_REPLY: Final = Struct(">IIQ")  # SIMPLE_REPLY_MAGIC, error, cookie
CHUNK: Final = Struct(">IHHQI")  # STRUCTURED_REPLY_MAGIC, flags, type, cookie, payload length
DATA_CHUNK: Final = Struct(">IHHQIQ")  # the same, and the offset of the data that follows
STATUS_CHUNK: Final = Struct(">IHHQII")  # the same, and the metadata context's id
ERROR_CHUNK: Final = Struct(">IHHQIIH")  # the same, and error, length of the text that follows

REPLY_FLAG_DONE: Final = 1 << 0
REPLY_NONE: Final = 0
REPLY_OFFSET_DATA: Final = 1
REPLY_BLOCK_STATUS: Final = 5
REPLY_ERROR: Final = 1 << 15 | 1

# --- errors: the only values that may stand in a reply --------------------------------------------

EPERM: Final = 1
EIO: Final = 5
ENOMEM: Final = 12
EINVAL: Final = 22
ENOSPC: Final = 28
EOVERFLOW: Final = 75
ENOTSUP: Final = 95
ESHUTDOWN: Final = 108
