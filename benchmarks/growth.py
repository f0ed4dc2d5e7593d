"""How cost grows: with idle channels, requests in flight, bytes of a request, and front ends.

Each is a table, and a plot in build/bench where matplotlib is installed. The worlds that are
measured are in growing.py.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from benchmarks import plots
from benchmarks.apart import apart, installed
from benchmarks.contest import two_cores
from benchmarks.effort import Effort
from benchmarks.report import interleave, median, progress, table, within

CHANNELS = (1, 10, 100, 1000)
DEPTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
SIZES = tuple(64 * 4**power for power in range(11))
WAYS = {"mapped": "in place", "copied": "copied by the hypervisor", "stream": "a stream"}
FRONT_ENDS = (1, 2, 4, 8, 16, 32, 64)
LOAD = 16  # requests that each of them has in flight
TRIPS = 1000
_BULK = 256 << 20  # bytes of all requests of one size
_KIB = 1024
IDLE_CHANNEL = "64 slots and 16 KiB of buffers"  # see growing.SLOTS


def run(effort: Effort) -> None:
    """Measure, print and plot."""
    cpus = two_cores("growth")
    if cpus is None:
        return
    if installed("numpy"):
        _channels(effort, cpus)
        _depths(effort, cpus)
        _sizes(effort, cpus)
        _front_ends(effort)


def _channels(effort: Effort, cpus: tuple[int, int]) -> None:
    counts = _some(CHANNELS, effort)
    trips = effort.count(TRIPS) // 2
    with ExitStack() as stack:
        contestants: dict[tuple[int, str], Any] = {}
        idle = {}
        for count in counts:
            progress(f"{count} channels")
            world = stack.enter_context(apart("benchmarks.growing:channels", count, cpus=cpus))
            spins = stack.enter_context(
                apart("benchmarks.growing:channels", count, cpus=cpus, polls=True)
            )
            idle[count] = world.ask("idle")
            contestants[count, "blocking"] = partial(world.ask, "round trip", trips)
            contestants[count, "in flight"] = partial(world.ask, "in flight", 4 * trips)
            contestants[count, "polled"] = partial(spins.ask, "round trip", trips)
        medians = {
            key: median(each) for key, each in interleave(contestants, effort.rounds).items()
        }
    rows = []
    for count in counts:
        each = idle[count]
        cost = [within(each["open"]), f"{each['shared bytes'] / _KIB:.0f}"]
        for side in ("front", "back"):
            cost.append(f"{each[f'{side} bytes'] / _KIB:.1f}")
            cost += [f"{each[f'{side} {what}']:.2f}" for what in ("descriptors", "threads")]
        rows.append([str(count), *(cost if count > 1 else "-" * len(cost))])
    parts = ("KiB", "descriptors", "threads")
    sides = [f"{side} {part}" for side in ("front", "back") for part in parts]
    title = f"what each idle channel beyond the first costs, {IDLE_CHANNEL}"
    table(title, ("channels", "open", "KiB shared", *sides), rows)
    rows = [
        [
            str(count),
            within(medians[count, "blocking"]),
            within(medians[count, "polled"]),
            f"{1e-3 / medians[count, 'in flight']:.1f} k/s",
        ]
        for count in counts
    ]
    table(
        "one channel, while the others are idle",
        ("channels", "blocking, p50", "polled, p50", "64 in flight"),
        rows,
    )
    plots.draw(
        "channels",
        "A round trip on one channel, while the others are idle",
        ("channels", "us, p50"),
        {
            way: [(count, medians[count, way] * 1e6) for count in counts]
            for way in ("blocking", "polled")
        },
    )


def _depths(effort: Effort, cpus: tuple[int, int]) -> None:
    count = 4 * effort.count(TRIPS)
    with ExitStack() as stack:
        worlds = {
            way: stack.enter_context(apart("benchmarks.growing:depths", cpus=cpus, polls=polls))
            for way, polls in {"blocking": False, "polled": True}.items()
        }
        progress("requests in flight")
        measured = interleave(
            {
                (way, depth): partial(world.ask, depth, count)
                for way, world in worlds.items()
                for depth in DEPTHS
            },
            effort.rounds,
        )
    rates = {key: 1 / median(each) for key, each in measured.items()}
    rows = []
    for depth in DEPTHS:
        cells = (
            (f"{rates[way, depth] / 1e3:.1f} k/s", f"{rates[way, depth] / rates[way, 1]:.1f}")
            for way in worlds
        )
        rows.append([str(depth), *(cell for pair in cells for cell in pair)])
    head = [name for way in worlds for name in (way, "x depth 1")]
    table("requests of 64 B per second", ("in flight", *head), rows)
    plots.draw(
        "depth",
        "Requests of 64 B, by how many are in flight",
        ("in flight", "k requests/s"),
        {way: [(depth, rates[way, depth] / 1e3) for depth in DEPTHS] for way in worlds},
    )


def _sizes(effort: Effort, cpus: tuple[int, int]) -> None:
    sizes = _some(SIZES, effort)
    with ExitStack() as stack:
        worlds = {
            way: stack.enter_context(apart("benchmarks.growing:sizes", max(sizes), way, cpus=cpus))
            for way in WAYS
        }
        progress("bytes of a request")
        measured = interleave(
            {
                (way, size): partial(world.ask, size, _trips(size, effort))
                for way, world in worlds.items()
                for size in sizes
            },
            effort.rounds,
        )
    times = {key: median([p50 for p50, _ in each]) for key, each in measured.items()}
    rows = []
    for size in sizes:
        cells = (
            (within(times[way, size]), f"{size / times[way, size] / 1e9:.2f} GB/s") for way in WAYS
        )
        rows.append([_bytes(size), *(cell for pair in cells for cell in pair)])
    head = [name for way in WAYS.values() for name in (way, "")]
    table("a request with so much that the peer reads in full, polled, p50", ("", *head), rows)
    plots.draw(
        "size",
        "A request whose bytes the peer reads in full, polled",
        ("bytes", "us, p50"),
        {name: [(size, times[way, size] * 1e6) for size in sizes] for way, name in WAYS.items()},
    )


def _trips(size: int, effort: Effort) -> int:
    return max(3, min(effort.count(TRIPS), effort.count(_BULK) // size))


def _front_ends(effort: Effort) -> None:
    counts = _some(FRONT_ENDS, effort)
    progress(f"front ends: {max(counts)} processes are started")
    with apart("benchmarks.growing:front_ends", max(counts), LOAD) as world:
        measured = interleave(
            {count: partial(world.ask, count, effort.seconds) for count in counts}, effort.rounds
        )
    rows, rates = [], {}
    for count, rounds in measured.items():
        rates[count] = median([sum(each) for each in rounds]) / effort.seconds
        fair = median([min(each) / max(1, *each) for each in rounds])
        rows.append(
            [
                str(count),
                f"{rates[count] / 1e3:.1f} k/s",
                f"{rates[count] / rates[counts[0]]:.2f}",
                f"{rates[count] / count / 1e3:.2f} k/s",
                f"{fair:.2f}",
            ]
        )
    head = ("front ends", "all of them", "x one", "each", "least / most of one")
    table(f"front ends that are processes, each with {LOAD} requests of 64 B in flight", head, rows)
    plots.draw(
        "front-ends",
        f"Requests of 64 B, by front ends with {LOAD} in flight each",
        ("front ends", "k requests/s"),
        {"all of them": [(count, rate / 1e3) for count, rate in rates.items()]},
    )


def _bytes(count: int) -> str:
    """64 B, 1 KiB, 64 MiB."""
    power = (count.bit_length() - 1) // 10
    return f"{count >> 10 * power} {('B', 'KiB', 'MiB')[power]}"


def _some(steps: tuple[int, ...], effort: Effort) -> tuple[int, ...]:
    """All of them; the smallest few if it is only to be seen that it runs."""
    return steps if effort.share >= 1 else steps[:2]
