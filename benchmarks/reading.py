"""Bulk data that is read in full: how it is made, marked, and read as fast as memory allows.

Reading is the sum of all 8-byte words, which a writer who knows it before can check: nobody answers
right who has left out a page, or read what was there before.
"""

from __future__ import annotations

import numpy as np

_MODULUS = 1 << 64


def fill(memory: memoryview) -> int:
    """Give it contents, whose first word is 0; returns the sum."""
    words = _words(memory)
    words[:] = np.arange(len(words), dtype=np.uint64)
    return read_all(memory)


def stamp(memory: memoryview, number: int) -> None:
    """Make the first word ``number``, and with it the sum another one."""
    _words(memory)[0] = number


def read_all(memory: memoryview) -> int:
    """The sum of its words, modulo 2**64."""
    return int(_words(memory).sum(dtype=np.uint64)) % _MODULUS


def _words(memory: memoryview) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.frombuffer(memory, dtype=np.uint64)
