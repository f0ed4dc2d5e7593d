"""10,000 event channels between 100 domains of one machine: the first, the last, and a send.

A channel is allocated by one domain and bound by another, two hypercalls; a send is one eventfd
write and no hypercall. Two machines are measured in turns: one with a few channels, one with all.
Their domains are threads, and the descriptors of channels that nobody sends on are closed, though
the ports stay open: domains that are processes hold their own, the hypervisor holds none of a bound
channel, and this one process may not have that many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any, ClassVar

from actors import Actor, Message
from benchmarks.effort import Effort
from benchmarks.report import interleave, median, progress, table
from hypervisor import EventChannel, Guest, Machine, new_event

DOMAINS, CHANNELS, SAMPLE, SENDS = 100, 10_000, 200, 20_000


class Lodger(Actor):
    """A domain that hands its guest out, and ignores what it is told."""

    runner: ClassVar[str] = "benchmarks.event_channels:Lodger"

    def __init__(self, guest: Guest, program: type, args: list[Any]) -> None:  # noqa: ARG002
        super().__init__()
        guests.put(guest)

    def on_receive(self, message: Message) -> None:
        """Nothing of it matters here."""


guests: SimpleQueue[Guest] = SimpleQueue()  # global, as a domain starts by the name of its class


def run(effort: Effort) -> None:
    """Measure and print."""
    channels, sample = effort.count(CHANNELS), effort.count(SAMPLE)
    send = partial(_timed, effort.count(SENDS))
    times: dict[str, list[tuple[float, float]]] = {"first": [], "last": []}
    with _world() as few, _world() as many:
        for count in range(channels):
            if count % 100 == 0:
                progress(f"event channels: {count} are open")
            for end in _open(many[count % DOMAINS], many[(count * 7 + 1) % DOMAINS]):
                end.close_signals()
        progress("event channels")
        worlds = {"first": few, "last": many}
        for _ in range(effort.rounds):  # one after the other, so that noise hits both alike
            for name, domains in worlds.items():
                times[name] += _sample(domains[0], domains[1], sample)
        ends = {name: _open(*domains[:2]) for name, domains in worlds.items()}
        floor = new_event()
        measured = interleave(
            {f"send, of the {name}": partial(send, ends[name][0].send) for name in ends}
            | {
                "eventfd_write (floor)": partial(send, partial(os.eventfd_write, floor.fileno(), 1))
            },
            effort.rounds,
        )
        for end in (end for both in ends.values() for end in both):
            end.close_signals()
        floor.close()
    rows = []
    for name, pairs in times.items():
        cells = (f"{median([pair[place] for pair in pairs]) * 1e6:.1f} us" for place in (0, 1))
        rows.append([f"the {name}", *cells])
    title = f"opening one of {channels} event channels between {DOMAINS} domains"
    table(title, ("", "alloc_unbound", "bind_interdomain"), rows)
    sends = [(name, f"{median(each) * 1e6:.2f} us") for name, each in measured.items()]
    table("a send", ("", "median"), sends)


@contextmanager
def _world() -> Iterator[list[Guest]]:
    with Machine(spares=0, port_quota=4 * CHANNELS) as machine:
        for domain in range(DOMAINS):
            machine.start(f"d{domain}", Lodger, placement="thread")
        yield [guests.get() for _ in range(DOMAINS)]


def _open(one: Guest, other: Guest) -> tuple[EventChannel, EventChannel]:
    offer = one.alloc_unbound(other.domid)
    return offer, other.bind_interdomain(one.domid, offer.port, offer.epoch)


def _sample(one: Guest, other: Guest, count: int) -> list[tuple[float, float]]:
    """Seconds of alloc_unbound and of bind_interdomain, for each of ``count`` new channels."""
    times = []
    for _ in range(count):
        began = time.perf_counter()
        offer = one.alloc_unbound(other.domid)
        between = time.perf_counter()
        end = other.bind_interdomain(one.domid, offer.port, offer.epoch)
        times.append((between - began, time.perf_counter() - between))
        offer.close_signals()
        end.close_signals()
    return times


def _timed(count: int, send: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(count):
        send()
    return (time.perf_counter() - began) / count
