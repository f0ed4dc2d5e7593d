"""A request of 64 bytes and its answer, between two processes: polled, blocking, and 64 in flight.

*Polled*: both sides look all the time, each on a processor of its own. *Blocking*: nobody spins, so
a trip is two wake-ups; what those cost depends on where the two sides run, so it is measured three
times: wherever the kernel likes, on two processors, and both on one. *In flight*: an event loop
that keeps 64 going.
"""

from __future__ import annotations

import os

from benchmarks.contest import Contestant, contest, contest_of_rates, two_cores
from benchmarks.effort import Effort
from benchmarks.report import Aim
from benchmarks.trips import DEPTH

TRIPS = 5000
SPIN, COPYING = "spin (limit)", "spin, 64 B copied (limit)"
PUBSUB, RPC = "iceoryx2", "iceoryx2 request-response"
EVENTFD = "eventfd (limit)"


def run(effort: Effort) -> None:
    """Measure and print."""
    count = effort.count(TRIPS)
    cpus = two_cores("round trip, polled")
    if cpus is not None:
        _polled(effort, count, cpus)
    _blocking(effort, count, "wherever the kernel likes", 1.3, None)
    if cpus is not None:
        _blocking(effort, count, "on two processors", 1.3, cpus)
    one = min(os.sched_getaffinity(0))
    _blocking(effort, count, "both on one processor", 3, (one, one))
    _in_flight(effort, 4 * count, cpus)


def _polled(effort: Effort, count: int, cpus: tuple[int, int]) -> None:
    contest(
        "round trip, 64 B, polled",
        {
            "channel": Contestant(
                "benchmarks.ours:round_trip", ("poll",), aims=(Aim.at_most(0.6, PUBSUB, RPC),)
            ),
            PUBSUB: Contestant("benchmarks.with_iceoryx2:publish_subscribe", needs="iceoryx2"),
            RPC: Contestant("benchmarks.with_iceoryx2:request_response", needs="iceoryx2"),
            COPYING: Contestant("benchmarks.raw:spin", options={"copies": True}),
            SPIN: Contestant("benchmarks.raw:spin", options={"copies": False}),
        },
        effort,
        count=count,
        beside=(PUBSUB, RPC, COPYING),
        cpus=cpus,
    )


def _blocking(
    effort: Effort, count: int, where: str, factor: float, cpus: tuple[int, int] | None
) -> None:
    contest(
        f"round trip, 64 B, blocking, {where}",
        {
            "channel": Contestant(
                "benchmarks.ours:round_trip", ("sleep",), aims=(Aim.at_most(factor, EVENTFD),)
            ),
            "channel, spins first": Contestant("benchmarks.ours:round_trip", ("spin",)),
            "channel to a thread": Contestant("benchmarks.ours:round_trip", ("sleep", "thread")),
            "multiprocessing.Pipe": Contestant("benchmarks.raw:pipe"),
            "iceoryx2 with events": Contestant(
                "benchmarks.with_iceoryx2:with_events", needs="iceoryx2"
            ),
            "pyzmq": Contestant("benchmarks.with_zmq:round_trip", needs="zmq"),
            "xoscar": Contestant("benchmarks.with_xoscar:round_trip", needs="xoscar"),
            "pykka, threads": Contestant("benchmarks.with_pykka:round_trip"),
            EVENTFD: Contestant("benchmarks.raw:eventfd"),
        },
        effort,
        count=count,
        beside=(EVENTFD,),
        cpus=cpus,
    )


def _in_flight(effort: Effort, count: int, cpus: tuple[int, int] | None) -> None:
    aims = (Aim.at_least(1.5, PUBSUB, RPC),)
    contest_of_rates(
        f"{DEPTH} requests of 64 B in flight",
        {
            "channel, polled": Contestant(
                "benchmarks.ours:in_flight", aims=aims, options={"polls": True}
            ),
            "channel": Contestant("benchmarks.ours:in_flight", aims=aims),
            PUBSUB: Contestant("benchmarks.with_iceoryx2:in_flight", needs="iceoryx2"),
            RPC: Contestant(
                "benchmarks.with_iceoryx2:request_response_in_flight", needs="iceoryx2"
            ),
            "multiprocessing.Pipe": Contestant("benchmarks.raw:pipe_in_flight"),
            "pyzmq": Contestant("benchmarks.with_zmq:in_flight", needs="zmq"),
            "xoscar": Contestant("benchmarks.with_xoscar:in_flight", needs="xoscar"),
            "pykka, threads": Contestant("benchmarks.with_pykka:in_flight"),
        },
        effort,
        count=count,
        beside=(PUBSUB, RPC),
        cpus=cpus,
    )
