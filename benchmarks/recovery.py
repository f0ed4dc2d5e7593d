"""How long a killed back end is missed, and what taking memory back from one costs.

Recovery is timed from the SIGKILL to the end of the next request that the new back end answered.
The revocation of 16 MiB is what the channel itself measures when its back end dies, beside what
revocation.py measures.
"""

from __future__ import annotations

import time

from benchmarks import revocation
from benchmarks.report import median, percentile, progress, table
from benchmarks.round_trip import BODY, Echo
from hypervisor import Machine
from transport import FrontEnd, connect

KILLS = 100  # so that the 99th percentile is not the maximum
BUFFERS = revocation.SIZE


def run(rounds: int) -> None:
    """Measure and print."""
    rows, revokes = [], []
    for title, pause in {"after 0.3 s of work": 0.3, "again at once": 0.0}.items():
        progress(f"recovery, killed {title}")
        seconds, revoked = _recoveries(pause)
        revokes += revoked
        rows.append((f"killed {title}", *_spread(seconds, 1e3, "ms")))
    head = ("", "p50", "p99", "max")
    table(f"SIGKILL to the next completed request, {KILLS} each", head, rows)

    progress("revocation")
    measured = {"a channel's revocation": revokes, **revocation.measure(rounds)}
    bare = median(measured[revocation.BARE])
    table(
        "revoking 16 MiB that another process has mapped",
        ("", "median", "x the bare calls"),
        [
            (name, f"{median(seconds) * 1e3:.2f} ms", f"{median(seconds) / bare:.2f}")
            for name, seconds in measured.items()
        ],
    )


def _recoveries(pause: float) -> tuple[list[float], list[float]]:
    """Times of recoveries, with ``pause`` seconds of work between them, and of revocations."""
    seconds = []
    with Machine(intensity=KILLS + 1, period=60.0) as machine:
        machine.start("echo", Echo)
        with connect(machine, "echo", buffer_bytes=BUFFERS) as channel:
            for _ in range(KILLS):
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


def _spread(seconds: list[float], unit: float, name: str) -> list[str]:
    return [f"{percentile(seconds, share) * unit:.1f} {name}" for share in (0.5, 0.99, 1.0)]
