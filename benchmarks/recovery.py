"""How long a killed back end is missed, and what taking memory back from one costs.

Recovery is timed from the SIGKILL to the end of the next request that the new back end answered.
The revocation of 16 MiB is what the channel itself measures when its back end dies, beside the
bare system calls on memory that another process has mapped and touched.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable

from benchmarks.report import interleave, median, percentile, progress, table
from benchmarks.round_trip import BODY, Echo
from hypervisor import Machine, punch_hole
from transport import FrontEnd, connect

KILLS = 100  # so that the 99th percentile is not the maximum
BUFFERS = 16 << 20

_MAP_FIXED = 0x10  # asm-generic/mman-common.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]


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
    bare = interleave({"bare": _bare(fresh=False), "with fresh pages": _bare(fresh=True)}, rounds)
    ours = median(revokes)
    table(
        "revoking 16 MiB that another process has mapped",
        ("", "median", "ours takes x times"),
        [
            ("a channel's revocation", f"{ours * 1e3:.2f} ms", "1.00"),
            *(
                (name, f"{median(bare[key]) * 1e3:.2f} ms", f"{ours / median(bare[key]):.2f}")
                for name, key in {
                    "mmap(MAP_FIXED) + punch hole": "bare",
                    "the same + allocating the fresh pages": "with fresh pages",
                }.items()
            ),
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


def _bare(*, fresh: bool) -> Callable[[], float]:
    def measure() -> float:
        old = os.memfd_create("old")
        new = os.memfd_create("new")
        os.posix_fallocate(old, 0, BUFFERS)
        os.ftruncate(new, BUFFERS)
        if not fresh:
            os.posix_fallocate(new, 0, BUFFERS)
        command = [sys.executable, "-m", "benchmarks.peer", "hold", str(old), str(BUFFERS)]
        with (
            mmap.mmap(old, BUFFERS) as ours,
            subprocess.Popen(
                command, pass_fds=[old], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as peer,
        ):
            assert peer.stdout is not None
            peer.stdout.readline()
            view = (ctypes.c_char * BUFFERS).from_buffer(ours)
            address = ctypes.addressof(view)
            del view
            began = time.perf_counter()
            if fresh:
                os.posix_fallocate(new, 0, BUFFERS)
            both = mmap.PROT_READ | mmap.PROT_WRITE
            _libc.mmap(address, BUFFERS, both, mmap.MAP_SHARED | _MAP_FIXED, new, 0)
            punch_hole(old, 0, BUFFERS)
            taken = time.perf_counter() - began
        os.close(old)
        os.close(new)
        return taken

    return measure


def _spread(seconds: list[float], unit: float, name: str) -> list[str]:
    return [f"{percentile(seconds, share) * unit:.1f} {name}" for share in (0.5, 0.99, 1.0)]
