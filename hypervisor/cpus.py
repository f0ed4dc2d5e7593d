"""Which processors a domain, or who calls it, runs on.

A blocking round trip between two processes on one core needs no signal between cores and wakes no
idle one, so it is much cheaper there than across two; work that the two could do at the same time
is not. So it is a choice: ``cpus`` of `Machine.start` for the domain, `Machine.paired` for the
thread that calls it.

Affinity belongs to threads, and is inherited by those that they start (sched_setaffinity(2)).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from hypervisor.errors import BadCpus


def checked(cpus: Iterable[int]) -> list[int]:
    """The processors in order, each once.

    Raises:
        BadCpus: there are none, or the calling thread itself may not run on one of them.
    """
    wanted, allowed = set(cpus), os.sched_getaffinity(0)
    if not wanted or not wanted <= allowed:
        raise BadCpus(f"cpus are some of {sorted(allowed)}, not {sorted(wanted)}")
    return sorted(wanted)


def confine(cpus: Iterable[int]) -> None:
    """Have every thread of this process, and those to come, run on these alone.

    Raises:
        OSError: the kernel does not allow it (a cpuset, for instance).
    """
    for task in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(task), cpus)


@contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """The calling thread runs on ``cpu`` alone, and afterwards wherever it could before."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
