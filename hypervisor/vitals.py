"""What the kernel says of a domain's process: signs of progress, and what it uses.

Read from /proc at the moment of the call (proc_pid_stat(5), proc_pid_smaps(5)); nothing is
kept. Corner cases: a process or thread that ends meanwhile has no more figures, which is no error;
its pid stays its own until the machine has reaped it. CPU time counts threads that have ended, but
not child processes of the domain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hypervisor.watchdog import Signs

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")  # per second, of the times in /proc/PID/stat
_KIB = 1024

# Fields of /proc/PID/stat after the command, which is in parentheses and may hold anything.
_STATE, _MAJOR_FAULTS, _USER_TIME, _SYSTEM_TIME = 0, 9, 11, 12


@dataclass(frozen=True)
class Usage:
    """What a process has of the machine.

    Attributes:
        rss: bytes of memory that it has in use, shared pages counted in full.
        pss: bytes, each shared page divided by how many processes map it; None where the kernel
            does not tell us.
        cpu_seconds: processor time since its start; as a spare, too.
        cpus: the processors that it may run on.
    """

    rss: int
    pss: int | None
    cpu_seconds: float
    cpus: frozenset[int]


def signs_of(pid: int, *, spoke: bool = False) -> Signs:
    """For `judge`; all zero for a process that has gone."""
    states, ran, delayed, faults = set(), 0, 0, 0
    for task in _tasks(pid):
        try:
            stat, times = _stat(task), (task / "schedstat").read_text().split()
        except (FileNotFoundError, ProcessLookupError):  # that thread has ended
            continue
        states.add(stat[_STATE])
        faults += int(stat[_MAJOR_FAULTS])
        ran += int(times[0])
        delayed += int(times[1])
    return Signs(frozenset(states), ran, delayed, faults, spoke)


def usage_of(pid: int) -> Usage | None:
    """What the process uses now; None if it has gone."""
    process = Path(f"/proc/{pid}")
    try:
        stat = _stat(process)
        return Usage(
            int((process / "statm").read_text().split()[1]) * _PAGE,
            _pss(process),
            (int(stat[_USER_TIME]) + int(stat[_SYSTEM_TIME])) / _TICKS,
            frozenset(os.sched_getaffinity(pid)),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None


def _pss(process: Path) -> int | None:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    return next((int(line.split()[1]) * _KIB for line in lines if line.startswith("Pss:")), None)


def _tasks(pid: int) -> Iterator[Path]:
    try:
        yield from Path(f"/proc/{pid}/task").iterdir()
    except (FileNotFoundError, ProcessLookupError):
        return


def _stat(directory: Path) -> list[str]:
    return (directory / "stat").read_text().rpartition(")")[2].split()
