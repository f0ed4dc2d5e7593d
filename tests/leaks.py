"""What a test may leave behind: nothing. A snapshot before, a comparison after.

Counted are the file descriptors of this process (with what they point at), its Python threads, its
children (a zombie counts: somebody did not wait for it), its mappings of memfds, and the entries of
/dev/shm. The comparison happens at once: teardown has to be synchronous, so there is no second
look, no sleep. One gc.collect() is granted when something is left, because a descriptor whose owner
is garbage in a cycle is not a leak.

/dev/shm belongs to the whole machine. What another process has open is that one's; should it be a
child of ours, it is reported itself.

Threads are those of the threading module. The kernel's own list is no use here: a thread that has
been joined may be seen there for a few microseconds more.
"""

from __future__ import annotations

import gc
import os
import re
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_MEMFD_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ (\S+ \d+) +(/memfd:.*)")


@dataclass(frozen=True)
class Snapshot:
    """Everything in this process that could outlive a test; compare with `leaked_since`."""

    descriptors: frozenset[tuple[int, str]]
    threads: frozenset[threading.Thread]
    children: frozenset[tuple[int, str]]
    mappings: Counter[str]
    folder: str
    shm: frozenset[str]


def snapshot(folder: str = "/dev/shm") -> Snapshot:
    """Look at this process now; ``folder``: where shared memory has names."""
    return Snapshot(
        frozenset(_descriptors()),
        frozenset(threading.enumerate()),
        frozenset(_children()),
        _mappings(),
        folder,
        frozenset(f"{folder}/{name}" for name in os.listdir(folder)),
    )


def leaked_since(before: Snapshot) -> list[str]:
    """Say, a line each, what is there now and was not there ``before``; empty if nothing is."""
    if _compare(before, snapshot(before.folder)):
        gc.collect()
        return _compare(before, snapshot(before.folder))
    return []


def _compare(before: Snapshot, after: Snapshot) -> list[str]:
    lines = [f"descriptor {fd} -> {to}" for fd, to in after.descriptors - before.descriptors]
    lines += [f"thread {thread.name!r}" for thread in after.threads - before.threads]
    lines += [f"child process {pid} ({what})" for pid, what in after.children - before.children]
    lines += [
        f"{size} bytes mapped of {name}"
        for name, size in (after.mappings - before.mappings).items()
    ]
    lines += [entry for entry in after.shm - before.shm if not _is_open_elsewhere(entry)]
    return sorted(lines)


def _descriptors() -> list[tuple[int, str]]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:  # the descriptor that the listing itself used
            continue
    return found


def _is_open_elsewhere(path: str) -> bool:
    for process in os.listdir("/proc"):
        if not process.isdecimal() or int(process) == os.getpid():
            continue
        try:
            for name in os.listdir(f"/proc/{process}/fd"):
                if os.readlink(f"/proc/{process}/fd/{name}") == path:
                    return True
        except (FileNotFoundError, PermissionError):  # it has ended, or is another user's
            continue
    return False


def _children() -> list[tuple[int, str]]:
    pids: list[int] = []
    for task in os.listdir("/proc/self/task"):
        try:
            pids += map(int, Path(f"/proc/self/task/{task}/children").read_text().split())
        except FileNotFoundError:  # that thread has ended since; its children are now another's
            continue
    return [(pid, _command(pid)) for pid in pids]


def _command(pid: int) -> str:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "gone"
    # The state is left out: a child that was running before and is a zombie now is the same child.
    return status[status.index("(") + 1 : status.rindex(")")]


def _mappings() -> Counter[str]:
    """Bytes mapped of each memfd; by inode, since neighbours merge and split as they please."""
    sizes: Counter[str] = Counter()
    lines = [line for line in Path("/proc/self/maps").read_text().split("\n") if "/memfd:" in line]
    for start, end, inode, name in _MEMFD_MAPPING.findall("\n".join(lines)):
        sizes[f"{name} (inode {inode})"] += int(end, 16) - int(start, 16)
    return sizes
