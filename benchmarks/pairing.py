"""A blocking round trip to a domain on the caller's own core, beside one anywhere else.

On one core nobody has to be woken across cores, and none sleeps deeply meanwhile; across two there
is nothing to gain when one side only waits for the other. An eventfd each way is the floor, pinned
in the same two ways.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from benchmarks.report import interleave, median, progress, table
from benchmarks.round_trip import BODY, Echo, Trips, eventfd, timed
from hypervisor import Machine
from transport import connect


def run(rounds: int) -> None:
    """Measure and print."""
    allowed = sorted(os.sched_getaffinity(0))
    here, elsewhere = allowed[0], allowed[-1]
    with ExitStack() as stack:
        trips = {
            "anywhere": stack.enter_context(_channel()),
            "paired, on one core": stack.enter_context(_paired(here)),
            "pinned, on two cores": stack.enter_context(_apart(elsewhere, here)),
            "eventfd, anywhere (floor)": stack.enter_context(eventfd()),
            "eventfd, on one core (floor)": stack.enter_context(_eventfd_on(here)),
        }
        progress("pairing")
        measured = interleave({name: timed(trip) for name, trip in trips.items()}, rounds)
    first = median(measured["anywhere"])
    rows = [
        (name, f"{median(times) * 1e6:.1f} us", f"{first / median(times):.2f}")
        for name, times in measured.items()
    ]
    table("round trip, 64 B body, by placement", ("", "median", "anywhere takes x times"), rows)


@contextmanager
def _channel() -> Iterator[Trips]:
    with Machine() as machine:
        machine.start("echo", Echo)
        with connect(machine, "echo") as channel:

            def trips(count: int) -> None:
                for _ in range(count):
                    channel.call(BODY)

            yield trips


@contextmanager
def _paired(cpu: int) -> Iterator[Trips]:
    with Machine() as machine:
        machine.start("echo", Echo, cpus={cpu})
        with connect(machine, "echo") as channel:

            def trips(count: int) -> None:
                with machine.paired("echo"):
                    for _ in range(count):
                        channel.call(BODY)

            yield trips


@contextmanager
def _apart(domain: int, caller: int) -> Iterator[Trips]:
    with Machine() as machine:
        machine.start("echo", Echo, cpus={domain})
        with connect(machine, "echo") as channel:

            def trips(count: int) -> None:
                with _on(caller):
                    for _ in range(count):
                        channel.call(BODY)

            yield trips


@contextmanager
def _eventfd_on(cpu: int) -> Iterator[Trips]:
    with ExitStack() as stack:
        with _on(cpu):  # which its process inherits
            bare = stack.enter_context(eventfd())

        def trips(count: int) -> None:
            with _on(cpu):
                bare(count)

        yield trips


@contextmanager
def _on(cpu: int) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
