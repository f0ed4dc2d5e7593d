"""What a demo run does, chosen by its seed alone: requests, and after how many of them to kill.

Nothing here depends on time: the same seed gives the same requests in the same order, and the same
faults between the same two requests, however quick the machine is. How far a run gets, and how
requests in flight interleave, is up to the machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from examples.block.oracle import FLUSH, READ, WRITE, Asked

SMALLEST = 512  # bytes of a request
LARGEST = 1 << 20
KILL = "kill"
HANG = "hang"

_POOL = 4 << 20
_FLUSHES = 1 / 400  # of all requests
_DEEP = 1 / 50  # of all writes: acknowledged when they are on the disk (FUA)


@dataclass(frozen=True)
class Step:
    """One request, and whether a write of it has to reach the disk before it is answered."""

    request: Asked
    fua: bool = False


def contents(seed: int, size: int) -> Iterator[bytes]:
    """The image to begin with, in pieces."""
    choice = random.Random(f"contents {seed}")
    while size:
        piece = min(size, LARGEST)
        yield choice.randbytes(piece)
        size -= piece


def steps(seed: int, size: int) -> Iterator[Step]:
    """Requests without end for a disk of ``size`` bytes: reads, writes, and a few flushes.

    Lengths are multiples of 512 and spread over the orders of magnitude, so that there are as many
    of 512 B to 1 KiB as of 512 KiB to 1 MiB.
    """
    choice = random.Random(f"requests {seed}")
    pool = choice.randbytes(_POOL + LARGEST)
    largest = min(LARGEST, size)
    spread = (largest // SMALLEST).bit_length()
    while True:
        if choice.random() < _FLUSHES:
            yield Step(Asked(FLUSH))
            continue
        length = min(largest, int(SMALLEST * 2 ** choice.uniform(0, spread)) // SMALLEST * SMALLEST)
        offset = choice.randrange((size - length) // SMALLEST + 1) * SMALLEST
        if choice.random() < 0.5:
            yield Step(Asked(READ, offset, length))
        else:
            start = choice.randrange(_POOL)
            data = pool[start : start + length]
            yield Step(Asked(WRITE, offset, length, data), choice.random() < _DEEP)


def faults(seed: int, kills: int, mean: int) -> list[tuple[int, str]]:
    """(number of requests since the fault before, kind): ``kills`` kills and one hang among them.

    Args:
        mean: how many requests lie between two faults, on average.
    """
    choice = random.Random(f"faults {seed}")
    kinds = [KILL] * kills
    kinds.insert(choice.randrange(kills + 1), HANG)
    return [(choice.randint(1, 2 * mean - 1), kind) for kind in kinds]
