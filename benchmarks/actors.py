"""Actors beside stock pykka: ask, tell, a great many idle ones, and a supervised restart.

Both sides are sent the same 64 bytes, and answer with as many; pykka passes on any object as it is,
ours packs, checks and unpacks it. One processor shows the work, all of them what waking adds.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import pykka

from actors import Actor, ChildSpec, Message, Ref, Supervisor, System
from benchmarks.effort import Effort
from benchmarks.report import interleave, median, percentile, progress, table

ASKS, TELLS, RESTARTS = 2000, 20_000, 100  # of each contestant in each round
BODY = bytes(range(64))


class Ping(Message):
    body: bytes


class Echo(Actor):
    mailbox_count = 2 * TELLS  # so that none is refused; pykka's has no bound

    def on_receive(self, message: Any) -> Any:  # noqa: ARG002
        return BODY


class PooledEcho(Echo):
    pooled = True


class PykkaEcho(pykka.ThreadingActor):
    use_daemon_thread = True  # an error in here must not hang

    def on_receive(self, message: Any) -> Any:  # noqa: ARG002
        return BODY


class Mortal(Actor):  # without `on_receive`: whatever it is told is a TypeError
    def on_start(self) -> None:
        births.put((time.perf_counter(), self.ref))


class PooledMortal(Mortal):
    pooled = True


births: SimpleQueue[tuple[float, Ref]] = SimpleQueue()  # global, as a ChildSpec cannot hold it
kinds: dict[str, tuple[Any, Any]] = {
    "pooled actor": (PooledEcho, Ping(BODY)),
    "thread actor": (Echo, Ping(BODY)),
    "pykka, Message": (PykkaEcho, Ping(BODY)),
    "pykka, dict": (PykkaEcho, {"body": BODY}),
}
mortals = {"pooled actor": PooledMortal, "thread actor": Mortal}
pykkas = ["pykka, Message", "pykka, dict"]
Measures = dict[str, Callable[[], float]]
Contest = Callable[[dict[str, Any]], Measures]
Show = Callable[[float], str]


def run(effort: Effort) -> None:
    """Measure and print."""
    rounds, tells = effort.rounds, effort.count(TELLS)
    asks = partial(_asks, count=effort.count(ASKS))
    _compare("ask, 64 B there and back, p50", asks, rounds, lambda s: f"{s * 1e6:.1f} us", ">= 2")
    for threads in (1, 2):
        title = f"{tells} tells of 64 B, {threads} sending, until the last is handled"
        contest = partial(_tells, threads=threads, tells=tells)
        _compare(title, contest, rounds, lambda s: f"{tells / s / 1e3:.0f} k/s", ">= 1.5")
    rows, restarts = [], effort.count(RESTARTS)
    for name, usual in {"pooled actor": 100_000, "pykka, Message": 2_000}.items():
        count = effort.count(usual)
        progress(f"{count} x {name}")
        call = f"from benchmarks.actors import many; many({name!r}, {count})"
        printed = subprocess.check_output([sys.executable, "-c", call])
        start, idle, used, stop = map(float, printed.split())
        ends = (f"{s:.2f} s ({s / count * 1e6:.0f} us each)" for s in (start, stop))
        sizes = (f"{pages * mmap.PAGESIZE / count / 1024:.2f} KiB" for pages in (idle, used))
        rows.append((f"{count} x {name}", *ends, *sizes))
    rows.append(("aim, pooled", "< 5 s (50 us each)", "-", "< 4 KiB", "-"))
    table("a great many", ("", "start", "stop", "idle, each", "after an ask, each"), rows)
    fates = {"pooled actor": ["pooled actor", "-"], "thread actor": ["thread actor", "< 200 us"]}
    for _ in _processors("restarts"):
        for name, times in _restarts(rounds, restarts).items():
            fates[name] += [f"{percentile(times, share) * 1e6:.0f} us" for share in (0.5, 0.99)]
    head = ("", "aim for p50", "p50 on one processor", "p99", "p50 on all", "p99")
    title = f"from a fatal tell to the end of the next on_start, {rounds * restarts} each"
    table(title, head, [*fates.values(), ("pykka", *"-----")])


def _processors(what: str) -> Iterator[None]:
    """Twice: on one processor, then on all. Threads that are started meanwhile are there too."""
    everywhere = os.sched_getaffinity(0)
    for processors in ({min(everywhere)}, everywhere):
        progress(f"{what}, {len(processors)} processor(s)")
        os.sched_setaffinity(0, processors)
        yield


def _compare(title: str, contest: Contest, rounds: int, show: Show, aim: str) -> None:
    rows = {name: [name, aim] for name in mortals}
    for _ in _processors(title):
        with System() as system:
            refs = {name: system.start(kinds[name][0]) for name in mortals}
            refs |= {name: kinds[name][0].start() for name in pykkas}
            measured = interleave(contest(refs), rounds)
            pykka.ActorRegistry.stop_all()
        for name, times in measured.items():
            ratios = [f"{median(measured[other]) / median(times):.2f}" for other in pykkas]
            rows.setdefault(name, [name, "-"]).extend([show(median(times)), *ratios])
    head = ["on one processor", *(f"x {name}" for name in pykkas)]
    table(title, ("", "aim", *head, "on all", *head[1:]), list(rows.values()))


def _asks(refs: dict[str, Any], count: int) -> Measures:
    def measure(ask: Callable[[Any], object], message: Any = None) -> float:
        times = []
        for _ in range(count // 10 + count):
            began = time.perf_counter()
            ask(message)
            times.append(time.perf_counter() - began)
        return median(times[count // 10 :])  # the first were to warm

    asked, answered = Lock(), Lock()
    asked.acquire()
    answered.acquire()

    def answer() -> None:
        while asked.acquire():
            answered.release()

    def hand_over(_: Any) -> None:
        asked.release()
        answered.acquire()

    Thread(target=answer, daemon=True).start()  # in the end it waits for ever
    future = refs["pooled actor"].ask_future
    asks = {name: partial(measure, refs[name].ask, kinds[name][1]) for name in kinds}
    asks["ask_future, pooled"] = partial(measure, lambda m: future(m).result(), Ping(BODY))
    return {**asks, "two locks (floor)": partial(measure, hand_over)}


def _tells(refs: dict[str, Any], threads: int, tells: int) -> Measures:
    def measure(ref: Any, message: Any) -> float:
        def tell(count: int) -> None:
            for _ in range(count):
                ref.tell(message)

        with ThreadPoolExecutor(threads) as pool:
            for count in (tells // 10, tells):  # the first are to warm
                began = time.perf_counter()
                list(pool.map(tell, [count // threads] * threads))
                ref.ask(message)  # it comes after all that was told
            return time.perf_counter() - began

    return {name: partial(measure, refs[name], kinds[name][1]) for name in kinds}


def _restarts(rounds: int, count: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in mortals}
    for name, child in [*mortals.items()] * rounds:
        with System() as system:  # the period is short, as a supervisor goes through all in it
            system.start(Supervisor, [ChildSpec.of("child", child)], intensity=10**9, period=0.01)
            _, ref = births.get()
            for place in range(-count // 10, count):  # the first are to warm
                time.sleep(0.001)  # everyone has come to rest
                began = time.perf_counter()
                ref.tell(Ping(BODY))
                born, ref = births.get()
                times[name] += [born - began] if place >= 0 else []
    return times


def many(name: str, count: int) -> None:
    """Print seconds to start, pages when idle, pages when each was asked once, seconds to stop."""
    (kind, message), statm = kinds[name], Path("/proc/self/statm").read_text
    with System() as system:
        start = (lambda: system.start(kind)) if name in mortals else kind.start
        start().ask(message)  # what the first one loads is not the others' size
        before, began = int(statm().split()[1]), time.perf_counter()
        refs = [start() for _ in range(count)]
        started, idle = time.perf_counter() - began, int(statm().split()[1]) - before
        for ref in refs:
            ref.ask(message)
        used, began = int(statm().split()[1]) - before, time.perf_counter()
        pykka.ActorRegistry.stop_all()
    print(started, idle, used, time.perf_counter() - began)
