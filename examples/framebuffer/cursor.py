"""The pointer that a viewer draws itself, as a picture in text. Pure.

Specification: rfbproto.rst, "Cursor Pseudo-encoding".
"""

from __future__ import annotations

from typing import Final

import numpy as np

from examples.framebuffer import rfb
from examples.framebuffer.pixels import Converter

_ARROW: Final = """
#..........
##.........
#o#........
#oo#.......
#ooo#......
#oooo#.....
#ooooo#....
#oooooo#...
#ooooooo#..
#oooo#####.
#oo#o#.....
#o#.#o#....
##..#o#....
.....##....
"""


def cursor_rectangle(converter: Converter) -> bytes:
    """The rectangle that tells a viewer the pointer's shape; its hot spot is the tip."""
    rows = np.array([[ord(mark) for mark in line] for line in _ARROW.split()], dtype=np.uint8)
    height, width = rows.shape
    picture = np.where(rows == ord("o"), np.uint32(0xFFFFFF), np.uint32(0))
    mask = np.packbits(rows != ord("."), axis=1)
    header = rfb.RECTANGLE.pack(0, 0, width, height, rfb.CURSOR)
    return header + converter.pixels(converter.values(picture)).tobytes() + mask.tobytes()
