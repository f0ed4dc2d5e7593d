"""How long a killed back end is missed, and what taking memory back from one costs.

Recovery is timed from the SIGKILL to the end of the next request that the new back end answered.
The limit is that of a bare process: from its SIGKILL until its pidfd says that it has ended.
The revocation of 16 MiB is what the channel itself measures when its back end dies, beside what
revocation.py measures.
"""

from __future__ import annotations

import os
import select
import signal
import time
from functools import partial

from benchmarks import revocation
from benchmarks.apart import apart
from benchmarks.effort import Effort
from benchmarks.ours import Echo
from benchmarks.report import Aim, aim_cells, median, percentile, progress, table, within
from benchmarks.trips import BODY
from hypervisor import Machine
from transport import FrontEnd, connect

KILLS = 20  # in each round: of 100 in all the 99th percentile is not the maximum
PAUSE = 0.3  # seconds of work, in which a spare process gets ready
BUFFERS = revocation.SIZE
AIM = Aim("p99 < 30 ms", 30e-3)
REVOKE_AIM = Aim.at_most(1.5, revocation.BARE)


def run(effort: Effort) -> None:
    """Measure and print."""
    kills = effort.count(KILLS) * effort.rounds
    revokes: list[float] = []
    rows = []
    for title, aims, recoveries in (
        (f"killed after {PAUSE} s of work", (AIM,), partial(_recoveries, PAUSE)),
        ("killed again at once", (), partial(_recoveries, 0.0)),
        ("a bare process (limit)", (), _bare_deaths),
    ):
        progress(f"recovery: {title}")
        seconds, revoked = recoveries(kills)
        revokes += revoked
        p99 = percentile(seconds, 0.99)
        spread = (within(percentile(seconds, share)) for share in (0.5, 0.99, 1.0))
        rows.append((title, *spread, *aim_cells(aims, p99, {})))
    head = ("", "p50", "p99", "max", "aim", "met")
    table(f"SIGKILL to the next completed request, {kills} each", head, rows)

    progress("revocation")
    ours = "a channel's revocation"
    measured = {ours: revokes, **revocation.measure(effort.rounds)}
    medians = {name: median(seconds) for name, seconds in measured.items()}
    table(
        "revoking 16 MiB that another process has mapped",
        ("", "median", "x the bare calls", "aim", "met"),
        [
            (
                name,
                within(seconds),
                f"{seconds / medians[revocation.BARE]:.2f}",
                *aim_cells((REVOKE_AIM,) if name == ours else (), seconds, medians),
            )
            for name, seconds in medians.items()
        ],
    )


def _recoveries(pause: float, kills: int) -> tuple[list[float], list[float]]:
    """Times of recoveries, with ``pause`` seconds of work between them, and of revocations."""
    seconds = []
    with Machine(intensity=kills + 1, period=60.0) as machine:
        machine.start("echo", Echo)
        with connect(machine, "echo", buffer_bytes=BUFFERS) as channel:
            for _ in range(kills):
                _work(channel, pause)
                epochs = channel.statistics().epochs
                machine.kill("echo")
                began = time.perf_counter()
                while channel.call(BODY) and channel.statistics().epochs == epochs:
                    pass  # answered by the dying one
                seconds.append(time.perf_counter() - began)
            return seconds, channel.statistics().revoke_seconds


def _work(channel: FrontEnd, seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        channel.call(BODY)


def _bare_deaths(kills: int) -> tuple[list[float], list[float]]:
    """Times of deaths; nothing is revoked."""
    return [_bare_death() for _ in range(kills)], []


def _bare_death() -> float:
    with apart("contextlib:nullcontext") as process:
        end = os.pidfd_open(process.pid)
        poller = select.poll()
        poller.register(end, select.POLLIN)
        began = time.perf_counter()
        os.kill(process.pid, signal.SIGKILL)
        poller.poll()
        taken = time.perf_counter() - began
        os.close(end)
        return taken
