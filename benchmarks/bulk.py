"""One request with 1 MiB, and with 16 MiB, that the peer reads in full where it lies.

Nobody sleeps, so what is beside reading is the way there and back. The sender has its data in the
shared memory already, and marks each request; the answer is the sum of all that was read. The limit
is one process that reads as much of its own shared memory.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks import growing
from benchmarks.contest import Contestant, contest, two_cores
from benchmarks.effort import Effort
from benchmarks.reading import fill, read_all
from benchmarks.report import Aim
from benchmarks.trips import Measure, timed

SIZES = {1 << 20: ("1 MiB", 2000), 16 << 20: ("16 MiB", 200)}
"""And how many requests are timed in a round."""
LIMIT, OTHER = "reading (limit)", "iceoryx2"


def run(effort: Effort) -> None:
    """Measure and print."""
    cpus = two_cores("bulk")
    if cpus is None:
        return
    for size, (name, count) in SIZES.items():
        contest(
            f"one request with {name} that the peer reads in full, in place, polled",
            {
                "channel": Contestant(
                    "benchmarks.bulk:ours", (size,), aims=(Aim.at_most(1.1, OTHER),)
                ),
                OTHER: Contestant("benchmarks.with_iceoryx2:bulk", (size,), needs="iceoryx2"),
                LIMIT: Contestant("benchmarks.bulk:limit", (size,)),
            },
            effort,
            count=effort.count(count),
            beside=(OTHER, LIMIT),
            cpus=cpus,
        )


@contextmanager
def ours(size: int) -> Iterator[Measure]:
    """A contestant (trips.py): a channel."""
    with growing.sizes(size, "mapped") as send:
        yield partial(send, size)


@contextmanager
def limit(size: int) -> Iterator[Measure]:
    """A contestant: no peer at all."""
    memory = os.memfd_create("reading")
    os.ftruncate(memory, size)
    with mmap.mmap(memory, size) as pages, memoryview(pages) as view:
        fill(view)
        yield timed(lambda: read_all(view))
    os.close(memory)
