"""Numbers and layouts of the RFB protocol, which VNC viewers and servers speak. Nothing else.

All integers are big-endian. Specification: rfbproto.rst of rfbproto/rfbproto; the section is named
where it is not obvious.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

VERSION_BYTES: Final = 12
VERSIONS: Final = {3: b"RFB 003.003\n", 7: b"RFB 003.007\n", 8: b"RFB 003.008\n"}

SECURITY_NONE: Final = 1
SECURITY_VNC: Final = 2
RESULT_OK: Final = 0
RESULT_FAILED: Final = 1
CHALLENGE_BYTES: Final = 16

SERVER_INIT: Final = Struct(">HH16sI")  # width, height, pixel format, length of the name
PIXEL_FORMAT: Final = Struct(">BBBBHHHBBB3x")

SET_PIXEL_FORMAT: Final = 0
SET_ENCODINGS: Final = 2
FRAMEBUFFER_UPDATE_REQUEST: Final = 3
KEY_EVENT: Final = 4
POINTER_EVENT: Final = 5
CLIENT_CUT_TEXT: Final = 6

FRAMEBUFFER_UPDATE: Final = Struct(">BxH")  # type 0, number of rectangles
SET_COLOUR_MAP_ENTRIES: Final = Struct(">BxHH")  # type 1, first colour, number of colours
COLOUR: Final = Struct(">HHH")
RECTANGLE: Final = Struct(">HHHHi")  # x, y, width, height, encoding
COPY_SOURCE: Final = Struct(">HH")
LENGTH: Final = Struct(">I")

RAW: Final = 0
COPYRECT: Final = 1
HEXTILE: Final = 5
ZLIB: Final = 6
TIGHT: Final = 7
ZRLE: Final = 16
DESKTOP_SIZE: Final = -223
CURSOR: Final = -239
