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

_GLYPHS: Final = dict(
    pair.split(":", 1) if not pair.startswith("::") else (":", pair[2:])
    for pair in (
        "A:25755 B:65656 C:34443 D:65556 E:74647 F:74644 G:34553 H:55755 I:72227 J:11152 "
        "K:55655 L:44447 M:57755 N:65555 O:25552 P:65644 Q:25563 R:65655 S:34216 T:72222 "
        "U:55557 V:55552 W:55775 X:55255 Y:55222 Z:71247 "
        "0:75557 1:26227 2:61247 3:61216 4:55711 5:74616 6:34757 7:71122 8:75757 9:75716 "
        "!:22202 #:57575 $:36763 %:51245 &:25256 (:12221 ):42224 *:52725 +:02720 "
        "::02020 ;:02024 <:12421 =:07070 >:42124 ?:61202 @:75747 [:32223 ]:62226 "
        "-:00700 .:00002 ,:00024 /:11244 _:00007 ':22000 |:22222"
    ).split()
)
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
