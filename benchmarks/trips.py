"""What every contestant of a round trip does alike: 64 bytes, there and back, timed one by one.

A contestant is a factory for apart.py. What it yields is called with a count, and returns seconds:
`Latencies` of that many trips, or of each request of that many in flight (`Seconds`). The trips
before, to warm, are a tenth of the count.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from benchmarks.apart import Apart
from benchmarks.report import percentile

BODY = bytes(range(64))
DEPTH = 64
"""Requests in flight, where several are."""

Latencies = list[float]
"""The p50 and the p99, in seconds. Reading the clock is in them: 0.04 us."""

Measure = Callable[[int], Latencies]


def latencies(trip: Callable[[], object], count: int) -> Latencies:
    """Make trips and time each."""
    now = time.perf_counter
    times = []
    for _ in range(warm(count)):
        began = now()
        trip()
        times.append(now() - began)
    return spread(times[-count:])


def spread(times: list[float]) -> Latencies:
    """The p50 and the p99."""
    return [percentile(times, share) for share in (0.5, 0.99)]


def warm(count: int) -> int:
    """How many trips there are for so many that are timed."""
    return count + count // 10


def timed(trip: Callable[[], object]) -> Measure:
    """A contestant whose peer needs not be told."""
    return lambda count: latencies(trip, count)


def served(server: Apart, trip: Callable[[], object]) -> Measure:
    """A contestant whose peer is told how many trips there will be."""

    def measure(count: int) -> Latencies:
        server.tell(warm(count))
        times = latencies(trip, count)
        server.hear()
        return times

    return measure


def ahead(send: Callable[[], object], receive: Callable[[], object]) -> Callable[[int], None]:
    """Sends so many, and receives as many, `DEPTH` of them on their way."""

    def flood(count: int) -> None:
        for sent in range(count + DEPTH):
            if sent >= DEPTH:
                receive()
            if sent < count:
                send()

    return flood


def flooded(flood: Callable[[int], None], server: Apart | None = None) -> Callable[[int], float]:
    """Seconds for each request, with `DEPTH` of them in flight."""

    def measure(count: int) -> float:
        if server is not None:
            server.tell(warm(count))
        flood(count // 10)
        began = time.perf_counter()
        flood(count)
        taken = time.perf_counter() - began
        if server is not None:
            server.hear()
        return taken / count

    return measure
