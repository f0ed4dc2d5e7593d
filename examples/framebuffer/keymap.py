"""What viewers call a key and what Linux calls it: X keysyms and key codes. Pure tables.

A keysym names what is printed on a key, a code the key's place. As Xen's own back end does, the
keyboard is taken for an American one; a letter and its capital are the same key, and Shift is a key
like any other. What has no place there is not passed on.

Specification: X11/keysymdef.h; linux/input-event-codes.h; rfbproto.rst, "KeyEvent".
"""

from __future__ import annotations

from typing import Final

_ROWS: Final = {  # the code of the first key of a row -> the row, and the row with Shift
    2: ("1234567890-=", "!@#$%^&*()_+"),
    16: ("qwertyuiop[]", "QWERTYUIOP{}"),
    30: ("asdfghjkl;'`", 'ASDFGHJKL:"~'),
    43: ("\\zxcvbnm,./", "|ZXCVBNM<>?"),
    57: (" ", " "),
}

KEYCODES: Final[dict[int, int]] = {
    **{
        ord(a): first + n
        for first, rows in _ROWS.items()
        for row in rows
        for n, a in enumerate(row)
    },
    **{0xFFBE + n: 59 + n for n in range(10)},  # F1 to F10
    0xFFC8: 87,  # F11
    0xFFC9: 88,  # F12
    0xFF08: 14,  # BackSpace
    0xFF09: 15,  # Tab
    0xFF0D: 28,  # Return
    0xFF1B: 1,  # Escape
    0xFF50: 102,  # Home
    0xFF51: 105,  # Left
    0xFF52: 103,  # Up
    0xFF53: 106,  # Right
    0xFF54: 108,  # Down
    0xFF55: 104,  # Page_Up
    0xFF56: 109,  # Page_Down
    0xFF57: 107,  # End
    0xFF63: 110,  # Insert
    0xFFFF: 111,  # Delete
    0xFF8D: 96,  # KP_Enter
    0xFFE1: 42,  # Shift_L
    0xFFE2: 54,  # Shift_R
    0xFFE3: 29,  # Control_L
    0xFFE4: 97,  # Control_R
    0xFFE5: 58,  # Caps_Lock
    0xFFE9: 56,  # Alt_L
    0xFFEA: 100,  # Alt_R
    0xFFEB: 125,  # Super_L
    0xFFEC: 126,  # Super_R
    0xFE03: 100,  # ISO_Level3_Shift
}
"""X keysym -> Linux key code."""
