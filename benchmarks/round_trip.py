"""The channel's round trip with a body of 64 bytes, beside the least that two processes need.

An eventfd each way is the floor: two wake-ups and nothing said. A multiprocessing.Pipe is what
people take who want to say something. The two channels to a driver that spins are the same with
nobody asleep; "64 in flight" is the time for each request of an event loop that keeps 64 going. (On
one core: pairing.py.)
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import Pipe
from typing import Any

from benchmarks.report import interleave, median, progress, table
from hypervisor import Machine
from transport import BackEnd, Request, connect

BODY = bytes(range(64))
TRIPS = 3000
DEPTH = 64

Trips = Callable[[int], None]


class Echo(BackEnd):
    """Answers with the body."""

    def on_request(self, request: Request) -> Any:
        return request.body


class Spinner(Echo):
    """Looks for requests without being signalled."""

    spin: float = 0.01


def run(rounds: int) -> None:
    """Measure and print."""
    with ExitStack() as stack:
        trips = {
            "channel": stack.enter_context(_channel("process")),
            "channel, caller sleeps at once": stack.enter_context(_channel("process", "sleep")),
            "channel, polled, driver spins": stack.enter_context(
                _channel("process", "poll", Spinner)
            ),
            "channel, 64 in flight": stack.enter_context(_flood(Echo)),
            "channel, 64 in flight, driver spins": stack.enter_context(_flood(Spinner)),
            "channel, back end a thread": stack.enter_context(_channel("thread")),
            "multiprocessing.Pipe": stack.enter_context(_pipe()),
            "eventfd ping-pong (floor)": stack.enter_context(eventfd()),
        }
        progress("round trips")
        measured = interleave({name: timed(trip) for name, trip in trips.items()}, rounds)
    ours = median(measured["channel"])
    rows = [
        (name, f"{median(times) * 1e6:.1f} us", f"{ours / median(times):.2f}")
        for name, times in measured.items()
    ]
    table("round trip, 64 B body", ("", "median", "channel takes x times"), rows)


def timed(trips: Trips) -> Callable[[], float]:
    """What measures the seconds of one trip."""

    def measure() -> float:
        trips(TRIPS // 10)  # warm
        began = time.perf_counter()
        trips(TRIPS)
        return (time.perf_counter() - began) / TRIPS

    return measure


@contextmanager
def _channel(placement: str, wait: str = "spin", driver: type[BackEnd] = Echo) -> Iterator[Trips]:
    with Machine() as machine:
        machine.start("echo", driver, placement=placement)
        with connect(machine, "echo") as channel:

            def trips(count: int) -> None:
                for _ in range(count):
                    channel.call(BODY, wait=wait)

            yield trips


@contextmanager
def _flood(driver: type[BackEnd]) -> Iterator[Trips]:
    with Machine() as machine:
        machine.start("echo", driver)
        with connect(machine, "echo") as channel:

            def trips(count: int) -> None:
                submitted = ended = 0
                while ended < count:
                    while submitted < count and submitted - ended < DEPTH:
                        channel.submit(BODY)
                        submitted += 1
                    channel.push()
                    channel.wait()
                    ended += len(channel.reap())

            yield trips


@contextmanager
def _pipe() -> Iterator[Trips]:
    ours, theirs = Pipe()
    with _peer("pipe", theirs.fileno()):
        theirs.close()

        def trips(count: int) -> None:
            for _ in range(count):
                ours.send_bytes(BODY)
                ours.recv_bytes()

        yield trips
        ours.close()


@contextmanager
def eventfd() -> Iterator[Trips]:
    """A process that answers each event with one."""
    asked, answered = os.eventfd(0, 0), os.eventfd(0, 0)
    try:
        with _peer("eventfd", asked, answered):

            def trips(count: int) -> None:
                for _ in range(count):
                    os.eventfd_write(asked, 1)
                    os.eventfd_read(answered)

            yield trips
            os.eventfd_write(asked, 2)
    finally:
        os.close(asked)
        os.close(answered)


@contextmanager
def _peer(kind: str, *descriptors: int) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.peer", kind, *map(str, descriptors)]
    with subprocess.Popen(command, pass_fds=descriptors):
        yield
