"""Actors beside stock pykka: ask, tell, a great many idle ones, and a supervised restart.

Both sides are sent the same 64 bytes and answer with them. pykka passes on whatever object it is
given; ours packs, checks and unpacks it. The great many are measured in a process that does nothing
else: what it has more of resident memory than before is theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from _thread import allocate_lock
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pykka

from actors import Actor, ChildSpec, Message, Ref, Supervisor, System
from benchmarks.report import interleave, median, percentile, progress, table

ASKS = 2000  # of each contestant in each round, as the next two
TELLS = 20_000
RESTARTS = 100
MANY = {"pooled actor": 100_000, "pykka, Message": 2_000}


class Ping(Message):
    body: bytes


class Echo(Actor):
    mailbox_count = 2 * TELLS  # so that none is refused; pykka's has no bound

    def on_receive(self, message: Any) -> Any:
        return message.body


class PooledEcho(Echo):
    pooled = True


class PykkaEcho(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message.body


class PykkaDictEcho(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> Any:
        return message["body"]


class Mortal(Actor):
    """Whatever it is told ends it: an actor's own `on_receive` raises TypeError."""

    def on_start(self) -> None:
        births.put((time.perf_counter(), self.ref))


class PooledMortal(Mortal):
    pooled = True


births: SimpleQueue[tuple[float, Ref]] = SimpleQueue()  # global, as a ChildSpec cannot hold it
ping = Ping(bytes(range(64)))
kinds: dict[str, tuple[Any, Any]] = {
    "pooled actor": (PooledEcho, ping),
    "thread actor": (Echo, ping),
    "pykka, Message": (PykkaEcho, ping),
    "pykka, dict": (PykkaDictEcho, {"body": ping.body}),
}
ours, pykkas = list(kinds)[:2], list(kinds)[2:]


def run(rounds: int) -> None:
    """Measure and print."""
    progress("ask")
    with _started() as refs:
        asks = {name: _asking(refs[name].ask, message) for name, (_, message) in kinds.items()}
        asks["ask_future, pooled"] = _asking(lambda m: refs[ours[0]].ask_future(m).result(), ping)
        asks["two locks (floor)"] = _asking(_two_locks(), None)
        times = interleave(asks, rounds)
    _compare("ask, 64 B there and back, p50", times, lambda s: f"{s * 1e6:.1f} us", ">= 2")

    for threads in (1, 2):
        progress(f"tell, {threads} sending")
        with _started() as refs:
            tells = {name: _telling(refs[name], kinds[name][1], threads) for name in kinds}
            times = interleave(tells, rounds)
        title = f"{TELLS} tells of 64 B, {threads} sending, until the last is handled"
        _compare(title, times, lambda s: f"{TELLS / s / 1e3:.0f} k/s", ">= 1.5")

    rows = []
    for name, count in MANY.items():
        progress(f"{count} x {name}")
        command = [sys.executable, "-m", "benchmarks.actors", name, str(count)]
        start, idle, used, stop = json.loads(subprocess.check_output(command))
        ends = (f"{s:.2f} s ({s / count * 1e6:.0f} us each)" for s in (start, stop))
        sizes = (f"{size / count / 1024:.2f} KiB" for size in (idle, used))
        rows.append((f"{count} x {name}", *ends, *sizes))
    rows.append(("aim, pooled", "< 5 s (50 us each)", "-", "< 4 KiB", "-"))
    table("a great many", ("", "start", "stop", "idle, each", "after an ask, each"), rows)

    progress("restarts")
    fates: dict[str, list[float]] = {name: [] for name in ours}
    pooled, thread = (fates[name] for name in ours)
    interleave({"p": _restarting(PooledMortal, pooled), "t": _restarting(Mortal, thread)}, rounds)
    rows = [("pykka", "-", "-", "-")]
    for name, aim in zip(ours, ("-", "< 200 us"), strict=True):
        spread = (f"{percentile(fates[name], share) * 1e6:.0f} us" for share in (0.5, 0.99))
        rows.append((name, *spread, aim))
    title = f"from a fatal tell to the end of the next on_start, {rounds * RESTARTS} each"
    table(title, ("", "p50", "p99", "aim for p50"), rows)


def _compare(
    title: str, measured: Mapping[str, list[float]], show: Callable[[float], str], aim: str
) -> None:
    rows = []
    for name, times in measured.items():
        ratios = (f"{median(measured[other]) / median(times):.2f}" for other in pykkas)
        rows.append((name, show(median(times)), *ratios, aim if name in ours else "-"))
    table(title, ("x: so many times as fast as", "", *(f"x {p}" for p in pykkas), "aim"), rows)


@contextmanager
def _started() -> Iterator[dict[str, Any]]:
    with System() as system:
        try:
            refs = {name: system.start(kinds[name][0]) for name in ours}
            yield refs | {name: kinds[name][0].start() for name in pykkas}
        finally:
            pykka.ActorRegistry.stop_all()


def _two_locks() -> Callable[[Any], object]:
    asked, answered = allocate_lock(), allocate_lock()
    asked.acquire()
    answered.acquire()

    def answer() -> None:
        while asked.acquire():
            answered.release()

    def hand_over(_: Any) -> None:
        asked.release()
        answered.acquire()

    Thread(target=answer, daemon=True).start()  # it waits for ever in the end, and costs nothing
    return hand_over


def _asking(ask: Callable[[Any], object], message: Any) -> Callable[[], float]:
    def measure() -> float:
        times = []
        for _ in range(ASKS // 10 + ASKS):
            began = time.perf_counter()
            ask(message)
            times.append(time.perf_counter() - began)
        return median(times[ASKS // 10 :])  # the first were to warm

    return measure


def _telling(ref: Any, message: Any, threads: int) -> Callable[[], float]:
    def tell(count: int) -> None:
        for _ in range(count):
            ref.tell(message)

    def measure() -> float:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(tell, [TELLS // 20] * threads))  # warm
            ref.ask(message)
            began = time.perf_counter()
            list(pool.map(tell, [TELLS // threads] * threads))
            ref.ask(message)  # it comes after all that was told
            return time.perf_counter() - began

    return measure


def _restarting(child: type[Mortal], times: list[float]) -> Callable[[], float]:
    def measure() -> float:
        with System() as system:
            # The period is short, since a supervisor goes through the restarts of the last one.
            system.start(Supervisor, [ChildSpec.of("child", child)], intensity=10**9, period=0.01)
            _, ref = births.get()
            for count in range(-RESTARTS // 10, RESTARTS):  # the first are to warm
                time.sleep(0.001)  # everyone has come to rest
                began = time.perf_counter()
                ref.tell(ping)
                born, ref = births.get()
                if count >= 0:
                    times.append(born - began)
        return median(times)

    return measure


def _many(name: str, count: int) -> None:
    """Print seconds to start, bytes when idle, bytes when each was asked once, seconds to stop."""
    kind, message = kinds[name]
    with System() as system:
        start = (lambda: system.start(kind)) if name in ours else kind.start
        start().ask(message)  # what the first one loads is not the others' size
        before, began = _resident(), time.perf_counter()
        refs = [start() for _ in range(count)]
        started, idle = time.perf_counter() - began, _resident() - before
        for ref in refs:
            ref.ask(message)
        used, began = _resident() - before, time.perf_counter()
        pykka.ActorRegistry.stop_all()
    print(json.dumps([started, idle, used, time.perf_counter() - began]))


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    _many(sys.argv[1], int(sys.argv[2]))
