"""A bitmap font, three by five pixels a glyph; small letters look like capitals. Pure.

A glyph is five octal digits, its rows from the top; 4 is the left pixel of a row, 1 the right one.
What has no glyph is shown as a box.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

WIDTH: Final = 3
HEIGHT: Final = 5
ADVANCE: Final = 4  # columns from glyph to glyph

_CHARACTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&()*+:;<=>?@[]-.,/_'|"
_ROWS: Final = """
25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 65555 25552 65644
25563 65655 34216 72222 55557 55552 55775 55255 55222 71247
75557 26227 61247 61216 55711 74616 34757 71122 75757 75716
22202 57575 36763 51245 25256 12221 42224 52725 02720 02020 02024 12421 07070 42124 61202 75747
32223 62226 00700 00002 00024 11244 00007 22000 22222
"""
_GLYPHS: Final = dict(zip(_CHARACTERS, _ROWS.split(), strict=True))
_BOX: Final = "75557"


def glyphs(text: str) -> npt.NDArray[np.bool_]:
    """The text in one line: an array of 5 rows, true where there is ink."""
    line = np.zeros((HEIGHT, ADVANCE * len(text)), dtype=bool)
    for place, character in enumerate(text.upper()):
        rows = "00000" if character == " " else _GLYPHS.get(character, _BOX)
        for y, digit in enumerate(rows):
            for x in range(WIDTH):
                line[y, ADVANCE * place + x] = int(digit) & 4 >> x
    return line
