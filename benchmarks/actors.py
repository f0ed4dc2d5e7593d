"""Actors beside stock pykka: ask, tell, a great many idle ones, and a supervised restart.

Both sides get the same 64 bytes and do the same with them. A declared Message costs pykka nothing
(it passes the object on); ours packs and checks it. The great many are measured in a process of
their own, which does nothing else: what it has more of resident than before is theirs.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from _thread import allocate_lock
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from queue import SimpleQueue
from threading import Thread
from typing import Any

import pykka

from actors import Actor, ChildSpec, Message, Ref, Supervisor, System
from benchmarks.report import interleave, median, percentile, progress, table

BODY = bytes(range(64))
ASKS = 3000  # of each contestant in each round
TELLS = 20_000
RESTARTS = 300
MANY = {"pooled": 100_000, "pykka": 2_000}
RUNS = 2  # at most, of a great many: a run takes seconds


class Ping(Message):
    body: bytes


PLAIN = {"body": BODY}


class Tally:
    """Counts down what is to be handled, in the one thread that handles it; then `done`."""

    def __init__(self) -> None:
        self.left = 0
        self.done = allocate_lock()
        self.done.acquire()

    def count(self) -> None:
        self.left -= 1
        if not self.left:
            self.done.release()


class Echo(Actor):
    """Has its own thread. Room for all that is told, as pykka has."""

    mailbox_count = 1 << 30
    mailbox_bytes = 1 << 40

    def __init__(self, tally: Tally | None = None) -> None:
        super().__init__()
        self.tally = tally

    def on_receive(self, message: Any) -> Any:
        return message.body if self.tally is None else self.tally.count()


class PooledEcho(Echo):
    pooled = True


class PykkaEcho(pykka.ThreadingActor):
    def __init__(self, tally: Tally | None = None) -> None:
        super().__init__()
        self.tally = tally

    def on_receive(self, message: Any) -> Any:
        return message.body if self.tally is None else self.tally.count()


class PykkaPlain(PykkaEcho):
    def on_receive(self, message: Any) -> Any:
        return message["body"] if self.tally is None else self.tally.count()


class Mortal(Actor):
    """Says when it has come to life; whatever it is told kills it."""

    def on_start(self) -> None:
        births.put((time.perf_counter(), self.ref))

    def on_receive(self, message: Message) -> Any:
        raise RuntimeError("on purpose")


class PooledMortal(Mortal):
    pooled = True


class Idle(Actor):
    pooled = True

    def on_receive(self, message: Message) -> None:
        pass


class PykkaIdle(pykka.ThreadingActor):
    def on_receive(self, message: Any) -> None:
        pass


births: SimpleQueue[tuple[float, Ref]] = SimpleQueue()  # specs cannot hold it

Kind = tuple[type[Actor] | type[pykka.ThreadingActor], Any]
KINDS: dict[str, Kind] = {
    "pooled actor": (PooledEcho, Ping(BODY)),
    "thread actor": (Echo, Ping(BODY)),
    "pykka, Message": (PykkaEcho, Ping(BODY)),
    "pykka, dict": (PykkaPlain, PLAIN),
}
OURS = ("pooled actor", "pooled actor, by its pool", "thread actor")


def run(rounds: int) -> None:
    """Measure and print."""
    _ask(rounds)
    _tell(rounds)
    _many(min(rounds, RUNS))
    _restart(rounds)


def _start(system: System, stack: ExitStack, kind: Kind, *args: Any) -> Any:
    """The reference of either side's; it ends with the system or the stack."""
    actor_class = kind[0]
    if issubclass(actor_class, Actor):
        return system.start(actor_class, *args)
    ref = actor_class.start(*args)
    stack.callback(ref.stop)
    return ref


def _ask(rounds: int) -> None:
    progress("ask")
    with ExitStack() as stack, System() as system:
        refs = {name: _start(system, stack, kind) for name, kind in KINDS.items()}
        contestants = {name: _asks(refs[name].ask, KINDS[name][1]) for name in KINDS}
        future = refs["pooled actor"].ask_future
        contestants[OURS[1]] = _asks(lambda message: future(message).result(), Ping(BODY))
        asked, answered = allocate_lock(), allocate_lock()
        contestants["two locks (floor)"] = _asks(_hand_over(asked, answered, stack), BODY)
        measured = interleave(contestants, rounds)
    times = {name: median(measured[name]) for name in (*OURS, *list(KINDS)[2:], *measured)}
    rows = [
        (
            name,
            f"{times[name] * 1e6:.1f} us",
            *(f"{times[other] / times[name]:.2f}" for other in list(KINDS)[2:]),
            ">= 2" if name in OURS else "-",
        )
        for name in times
    ]
    head = ("", "p50", "x pykka, Message", "x pykka, dict", "aim")
    table("ask, 64 B each way (x: times as fast)", head, rows)


def _asks(ask: Callable[[Any], Any], message: Any) -> Callable[[], float]:
    def measure() -> float:
        for _ in range(ASKS // 10):  # warm
            ask(message)
        times = []
        for _ in range(ASKS):
            began = time.perf_counter()
            ask(message)
            times.append(time.perf_counter() - began)
        return percentile(times, 0.5)

    return measure


def _hand_over(asked: Any, answered: Any, stack: ExitStack) -> Callable[[Any], None]:
    open_, close = [True], Thread(target=lambda: None)
    return lambda _: None
