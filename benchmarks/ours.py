"""Our own channel as a contestant (trips.py), in each way of waiting."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from benchmarks.trips import BODY, DEPTH, Measure, flooded, timed
from hypervisor import Machine
from transport import BackEnd, FrontEnd, Request, connect


class Echo(BackEnd):
    """Answers with the body, which may be done twice: the others, too, keep no journal."""

    idempotent = True

    def on_request(self, request: Request) -> Any:
        return request.body


class Spinner(Echo):
    """Looks for requests without being signalled."""

    spin: float = 0.01


@contextmanager
def echo(driver: type[BackEnd] = Echo, placement: str = "process") -> Iterator[FrontEnd]:
    """A channel to such a driver."""
    with Machine(spares=0) as machine:
        machine.start("echo", driver, placement=placement)
        with connect(machine, "echo") as channel:
            yield channel


@contextmanager
def round_trip(wait: str, placement: str = "process") -> Iterator[Measure]:
    """A caller that waits so; the driver of one who polls spins."""
    with echo(Spinner if wait == "poll" else Echo, placement) as channel:
        yield timed(partial(channel.call, BODY, wait=wait))


@contextmanager
def in_flight(depth: int = DEPTH, *, polls: bool = False) -> Iterator[Callable[[int], float]]:
    """An event loop that keeps so many in flight."""
    with echo(Spinner if polls else Echo) as channel:
        yield flooded(partial(flood, channel, depth, polls=polls))


def flood(channel: FrontEnd, depth: int, count: int, *, polls: bool = False) -> None:
    """Make ``count`` requests, ``depth`` of them in flight; ``polls``: never sleep."""
    submitted = ended = 0
    while ended < count:
        while submitted < count and submitted - ended < depth:
            channel.submit(BODY)
            submitted += 1
        channel.push()
        if not polls:
            channel.wait()
        ended += len(channel.reap(arm=not polls))
