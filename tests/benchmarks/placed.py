"""For test_benchmarks.py: a process that says where it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def affinity() -> Iterator[Callable[[], list[int]]]:
    """Yields: the processors of the calling thread."""
    yield lambda: sorted(os.sched_getaffinity(0))
