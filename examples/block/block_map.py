"""Which blocks of a disk have been changed: a bitmap, and questions about ranges of it. Pure.

Blocks are numbered from 0; a range is ``[first, stop)``. Bit ``n % 8`` of byte ``n // 8`` is block
``n``. A bit that is set stays set.
"""

from __future__ import annotations

from collections.abc import Iterator


class BlockMap:
    """``bits`` is what the map says at first; it is changed in place.

    Raises:
        ValueError: ``bits`` is too short for so many blocks.
    """

    def __init__(self, blocks: int, bits: bytearray) -> None:
        if len(bits) < map_bytes(blocks):
            raise ValueError(f"{len(bits)} bytes are no map of {blocks} blocks")
        self.blocks = blocks
        self.bits = bits

    def __contains__(self, block: int) -> bool:
        return bool(self.bits[block >> 3] >> (block & 7) & 1)

    def runs(self, first: int, stop: int) -> Iterator[tuple[int, int, bool]]:
        """The range in pieces, each as long as it can be: first, stop, whether it is changed."""
        start = first >> 3
        word = int.from_bytes(self.bits[start : map_bytes(stop)], "little") >> (first & 7)
        while first < stop:
            changed = bool(word & 1)
            other = word ^ -1 if changed else word
            length = (other & -other).bit_length() - 1 if other else stop - first
            length = min(length, stop - first)
            yield first, first + length, changed
            word >>= length
            first += length

    def mark(self, first: int, stop: int) -> tuple[int, int]:
        """These are changed; returns which bytes of the map say so, as a range."""
        start, end = first >> 3, map_bytes(stop)
        ones = ((1 << stop - first) - 1) << (first & 7)
        word = int.from_bytes(self.bits[start:end], "little") | ones
        self.bits[start:end] = word.to_bytes(end - start, "little")
        return start, end


def map_bytes(blocks: int) -> int:
    """Bytes of a map of so many blocks."""
    return (blocks + 7) >> 3
