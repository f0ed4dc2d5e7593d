"""xoscar as a contestant (trips.py): an actor in another process of its pool."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import xoscar

from benchmarks.trips import BODY, DEPTH, Latencies, Measure, spread, warm


class Echo(xoscar.Actor):
    """Answers with the body."""

    def echo(self, body: bytes) -> bytes:
        """It."""
        return body


@contextmanager
def round_trip() -> Iterator[Measure]:
    """Awaited one by one."""
    with _pool() as (run, actor):

        async def measure(count: int) -> Latencies:
            now = time.perf_counter
            times = []
            for _ in range(warm(count)):
                began = now()
                await actor.echo(BODY)
                times.append(now() - began)
            return spread(times[-count:])

        yield lambda count: run(measure(count))


@contextmanager
def in_flight() -> Iterator[Callable[[int], float]]:
    """`DEPTH` coroutines, each of which awaits one by one."""
    with _pool() as (run, actor):

        async def ask(count: int) -> None:
            for _ in range(count):
                await actor.echo(BODY)

        async def flood(count: int) -> None:
            await asyncio.gather(*(ask(count) for _ in range(DEPTH)))

        async def measure(count: int) -> float:
            each = max(1, count // DEPTH)
            await flood(max(1, each // 10))
            began = time.perf_counter()
            await flood(each)
            return (time.perf_counter() - began) / (each * DEPTH)

        yield lambda count: run(measure(count))


@contextmanager
def _pool() -> Iterator[tuple[Callable[[Awaitable[Any]], Any], Any]]:
    loop = asyncio.new_event_loop()
    run = loop.run_until_complete
    pool = run(xoscar.create_actor_pool("127.0.0.1", n_process=1))
    (address,) = pool.sub_processes  # the one that is not ours
    yield run, run(xoscar.create_actor(Echo, address=address, uid="echo"))
    run(pool.stop())
    loop.close()
