"""DES, the one cipher that VNC authentication knows. Pure, from the tables of FIPS 46-3.

Single DES keeps no secret any more: who listened to one login can find the password. That is VNC's
own limit, and why people put ssh around it. The well-kept Python libraries have taken single DES
out, or left it as a curiosity in a large package; two blocks for each login are not worth that.

Specification: FIPS 46-3; rfbproto.rst, "VNC Authentication".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

_ROWS: Final = range(8)
_INITIAL: Final = [top - 8 * row for top in (58, 60, 62, 64, 57, 59, 61, 63) for row in _ROWS]
_FINAL: Final = [column - row for row in _ROWS for column in (40, 8, 48, 16, 56, 24, 64, 32)]
_EXPANSION: Final = [(4 * group + place - 1) % 32 + 1 for group in _ROWS for place in range(6)]
_PERMUTATION: Final = [
    *(16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10),
    *(2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4, 25),
]
_CHOICE_1: Final = [
    *(57, 49, 41, 33, 25, 17, 9, 1, 58, 50, 42, 34, 26, 18),
    *(10, 2, 59, 51, 43, 35, 27, 19, 11, 3, 60, 52, 44, 36),
    *(63, 55, 47, 39, 31, 23, 15, 7, 62, 54, 46, 38, 30, 22),
    *(14, 6, 61, 53, 45, 37, 29, 21, 13, 5, 28, 20, 12, 4),
]
_CHOICE_2: Final = [
    *(14, 17, 11, 24, 1, 5, 3, 28, 15, 6, 21, 10, 23, 19, 12, 4),
    *(26, 8, 16, 7, 27, 20, 13, 2, 41, 52, 31, 37, 47, 55, 30, 40),
    *(51, 45, 33, 48, 44, 49, 39, 56, 34, 53, 46, 42, 50, 36, 29, 32),
]
_SHIFTS: Final = (1, 1, 2, 2, 2, 2, 2, 2, 1, 2, 2, 2, 2, 2, 2, 1)
_BOXES: Final = [  # S1 to S8: four rows of sixteen, a hexadecimal digit each
    "E4D12FB83A6C59070F74E2D1A6CB953841E8D62BFC973A50FC8249175B3EA06D",
    "F18E6B34972DC05A3D47F28EC01A69B50E7BA4D158C6932FD8A13F42B67C05E9",
    "A09E63F51DC7B428D709346A285ECBF1D6498F30B12C5AE71AD069874FE3B52C",
    "7DE3069A1285BC4FD8B56F03472C1AE9A690CB7DF13E52843F06A1D8945BC72E",
    "2C417AB6853FD0E9EB2C47D150FA3986421BAD78F9C5630EB8C71E2D6F09A453",
    "C1AF92680D34E75BAF427C9561DE0B389EF528C3704A1DB6432C95FABE17608D",
    "4B2EF08D3C975A61D0B7491AE35C2F8614BDC37EAF6805926BD814A7950FE23C",
    "D2846FB1A93E50C71FD8A374C56B0E927B419CE206ADF35821E74A8DFC90356B",
]

Bits = list[int]


def encrypt(key: bytes, block: bytes) -> bytes:
    """One block of 8 bytes with a key of 8 bytes, whose parity bits do not count."""
    bits = _choose(_bits(block), _INITIAL)
    left, right = bits[:32], bits[32:]
    for subkey in _subkeys(key):
        mixed = _round(right, subkey)
        left, right = right, [a ^ b for a, b in zip(left, mixed, strict=True)]
    return _bytes(_choose(right + left, _FINAL))


def vnc_response(password: bytes, challenge: bytes) -> bytes:
    """What a viewer that knows the password answers to a challenge of 16 bytes.

    Only the first 8 bytes of the password count, and each goes in with its lowest bit first.
    """
    key = bytes(_mirrored(byte) for byte in password[:8].ljust(8, b"\0"))
    return encrypt(key, challenge[:8]) + encrypt(key, challenge[8:])


def _round(right: Bits, subkey: Bits) -> Bits:
    mixed = [a ^ b for a, b in zip(_choose(right, _EXPANSION), subkey, strict=True)]
    out: Bits = []
    for number, box in enumerate(_BOXES):
        b0, b1, b2, b3, b4, b5 = mixed[6 * number : 6 * number + 6]
        row, column = b0 << 1 | b5, b1 << 3 | b2 << 2 | b3 << 1 | b4
        digit = int(box[16 * row + column], 16)
        out += [digit >> 3 & 1, digit >> 2 & 1, digit >> 1 & 1, digit & 1]
    return _choose(out, _PERMUTATION)


def _subkeys(key: bytes) -> Iterator[Bits]:
    bits = _choose(_bits(key), _CHOICE_1)
    left, right = bits[:28], bits[28:]
    for shift in _SHIFTS:
        left, right = left[shift:] + left[:shift], right[shift:] + right[:shift]
        yield _choose(left + right, _CHOICE_2)


def _choose(bits: Bits, table: Sequence[int]) -> Bits:
    """The bits in the table's order; tables count from 1."""
    return [bits[place - 1] for place in table]


def _bits(data: bytes) -> Bits:
    return [byte >> place & 1 for byte in data for place in range(7, -1, -1)]


def _bytes(bits: Bits) -> bytes:
    return int("".join(map(str, bits)), 2).to_bytes(len(bits) // 8, "big")


def _mirrored(byte: int) -> int:
    return int(f"{byte:08b}"[::-1], 2)
