"""The worlds in which costs grow (growth.py): each is a factory for apart.py.

They return plain figures: seconds, bytes, counts.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.reading import fill, read_all, stamp
from benchmarks.trips import BODY, DEPTH, Latencies, flooded, latencies
from hypervisor import GrantQuota, Machine
from transport import BackEnd, FrontEnd, Offloaded, Request, connect

SLOTS, BUFFERS = DEPTH, 16 << 10
"""Of a channel of which there may be many: 64, and 16 KiB."""
_KIB = 1024


# --- channels that do nothing ---------------------------------------------------------------------


@contextmanager
def channels(count: int, *, polls: bool = False) -> Iterator[Callable[..., Any]]:
    """``count`` channels to one back end, of which the first one is used.

    Yields a function of what to measure, and of how many trips: "idle": what each channel beyond
    the first one costs; "round trip": the p50; "in flight": the seconds of each of 64, on one
    channel more, since one that an event loop drives is not for callers that sleep.
    """
    driver = ours.Spinner if polls else ours.Echo
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))  # the usual 1024 is too few
    with (
        Machine(spares=0, grant_quota=GrantQuota(regions=2 * count + 16)) as machine,
        ExitStack() as opened,
    ):
        machine.start("echo", driver)
        pids = {"front": os.getpid(), "back": machine.pid("echo")}
        first = opened.enter_context(_small(machine, "echo"))
        first.call(BODY)
        before = _possessions(pids)
        began = time.perf_counter()
        for _ in range(count - 1):
            opened.enter_context(_small(machine, "echo"))
        taken = time.perf_counter() - began
        each = {"open": taken / max(1, count - 1)} | {
            name: (after - before[name]) / max(1, count - 1)
            for name, after in _possessions(pids).items()
        }
        trip = partial(first.call, BODY, wait="poll" if polls else "sleep")

        def measure(what: str, trips: int = 0) -> Any:
            if what == "idle":
                return each
            if what == "round trip":
                return latencies(trip, trips)[0]
            with _small(machine, "echo") as driven:
                return flooded(partial(ours.flood, driven, DEPTH, polls=polls))(trips)

        yield measure


def _small(machine: Machine, device: str) -> FrontEnd:
    return connect(machine, device, slots=SLOTS, buffer_bytes=BUFFERS)


def _possessions(pids: dict[str, int]) -> dict[str, int]:
    """What the processes of both sides have: bytes, descriptors, threads."""
    found, shared = {}, {}
    for side, pid in pids.items():
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
        descriptors = os.listdir(f"/proc/{pid}/fd")
        found[f"{side} bytes"] = int(status["RssAnon"].split()[0]) * _KIB
        found[f"{side} descriptors"] = len(descriptors)
        found[f"{side} threads"] = int(status["Threads"])
        for number in descriptors:
            link = f"/proc/{pid}/fd/{number}"
            try:
                if os.readlink(link).startswith("/memfd:"):
                    file = os.stat(link)
                    shared[file.st_ino] = file.st_blocks * 512
            except FileNotFoundError:
                continue  # it was the one of the listing
    return found | {"shared bytes": sum(shared.values())}


# --- requests in flight ---------------------------------------------------------------------------


@contextmanager
def depths(*, polls: bool) -> Iterator[Callable[[int, int], float]]:
    """Yields: the seconds of each request, with so many in flight, of so many."""
    with ours.echo(ours.Spinner if polls else ours.Echo) as channel:
        yield lambda depth, count: flooded(partial(ours.flood, channel, depth, polls=polls))(count)


# --- bytes of a request ---------------------------------------------------------------------------


class Reader(BackEnd):
    """Answers with the sum of all that comes, in a buffer or as a stream."""

    spin = 0.01

    def on_request(self, request: Request) -> int | Offloaded:
        if request.phases is not None:
            return self.offload(self._read_stream, request)
        assert request.buffer is not None
        with request.buffer.map(readonly=True) as pages:
            return read_all(pages)

    def _read_stream(self, request: Request) -> int:
        total = 0
        while len(piece := request.pull()):
            total += read_all(piece)
        return total % (1 << 64)


@contextmanager
def sizes(largest: int, way: str) -> Iterator[Callable[[int, int], Latencies]]:
    """Yields: the p50 and p99 of requests with so many bytes, read in full by the peer; so many.

    ``way``: "mapped" or "copied" buffers, or a "stream" out of memory of the caller's own.
    """
    memory = "copied" if way == "copied" else "mapped"
    with Machine(spares=0) as machine:
        machine.start("reader", Reader)
        with connect(
            machine, "reader", buffer_bytes=max(4 * largest, 16 << 10), memory=memory
        ) as channel:
            yield partial(_send, channel, streams=way == "stream")


def _send(channel: FrontEnd, size: int, count: int, *, streams: bool) -> Latencies:
    with ExitStack() as stack:
        if streams:
            view = memoryview(bytearray(size))
            call = partial(channel.call, None, send=view, wait="poll")
        else:
            buffer = stack.enter_context(channel.buffer(size))
            view = buffer.view
            call = partial(channel.call, None, buffer, wait="poll")
        first, number = fill(view), 0

        def trip() -> None:
            nonlocal number
            number += 1
            stamp(view, number)
            assert call() == first + number

        return latencies(trip, count)


# --- front ends -----------------------------------------------------------------------------------


class Load(BackEnd):
    """A domain that is a front end of the echo, and keeps it busy when it is told to."""

    def on_start(self) -> None:
        self._channel = self.connect("echo", slots=SLOTS, buffer_bytes=BUFFERS)

    def on_request(self, request: Request) -> int | Offloaded:
        depth, seconds = request.body
        return self.offload(self._load, depth, seconds)

    def _load(self, depth: int, seconds: float) -> int:
        """How many requests it had answered in that time."""
        channel, until = self._channel, time.perf_counter() + seconds
        ended = submitted = 0
        while time.perf_counter() < until:
            while submitted - ended < depth:
                channel.submit(BODY)
                submitted += 1
            channel.push()
            channel.wait()
            ended += len(channel.reap())
        counted = ended
        while ended < submitted:
            channel.wait()
            ended += len(channel.reap())
        return counted


@contextmanager
def front_ends(most: int, depth: int) -> Iterator[Callable[[int, float], list[int]]]:
    """``most`` domains that are front ends of one back end, each a process.

    Yields: how many requests each of so many had answered in so many seconds, all at once.
    """
    with Machine(spares=0) as machine, ExitStack() as opened:
        machine.start("echo", ours.Echo)
        loads = []
        for number in range(most):
            machine.start(f"load-{number}", Load)
            loads.append(opened.enter_context(_small(machine, f"load-{number}")))

        def measure(count: int, seconds: float) -> list[int]:
            futures = [load.future([depth, seconds]) for load in loads[:count]]
            return [future.result(seconds + 60) for future in futures]

        yield measure
