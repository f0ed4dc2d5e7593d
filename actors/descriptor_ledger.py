"""Which descriptors a simulated process has opened: at a SIGKILL the kernel would close them.

Everything of a simulation has one table of descriptors. What is new in it after a stretch of the
process's own code is the process's; what has vanished, it has closed. `close` takes them all away,
as the end of a process does, so that files, locks and sockets are free for its successor.

Corner case: a killed process leaves Python objects behind (a stack that cannot be thrown away, a
file object in a cycle) that close *their* number once more, later. So a number is not given back
before the simulation is over: until then /dev/null is behind it.

What is sent in a message has a new owner: it is packed outside of such stretches.
"""

from __future__ import annotations

import os

_Identity = tuple[int, int]


class DescriptorLedger:
    """Of one process. Stretches of its code may nest; of two stacks they do not overlap."""

    def __init__(self) -> None:
        self._mine: dict[int, _Identity] = {}
        self._before: frozenset[int] = frozenset()
        self._depth = 0
        self._parked: list[int] = []
        self._closed = False

    def enter(self) -> None:
        """The process's own code runs from here."""
        self._depth += 1
        if self._depth == 1 and not self._closed:
            self._before = _open_now()

    def leave(self) -> None:
        """To here."""
        self._depth -= 1
        if self._depth == 0 and not self._closed:
            self._take_stock()

    def pause(self) -> int:
        """Out of all stretches that this stack is in; what `resume` wants to know."""
        depth = self._depth
        if depth and not self._closed:
            self._take_stock()
        self._depth = 0
        return depth

    def resume(self, depth: int) -> None:
        """Into them again: here is the same stack."""
        self._depth = depth
        if depth and not self._closed:
            self._before = _open_now()

    def close(self) -> None:
        """Take them all away; the numbers stay taken."""
        if self._depth:
            self._take_stock()
        self._closed = True
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for number, identity in sorted(self._mine.items()):
            if _identity(number) == identity:
                os.dup2(null, number, inheritable=False)
                self._parked.append(number)
        os.close(null)

    def release(self) -> None:
        """Give the numbers back."""
        null = os.stat(os.devnull)
        for number in self._parked:
            if _identity(number) == (null.st_dev, null.st_ino):
                os.close(number)
        self._parked.clear()

    def _take_stock(self) -> None:
        now = _open_now()
        for number in self._before - now:
            self._mine.pop(number, None)
        for number in now - self._before:
            identity = _identity(number)
            assert identity is not None
            self._mine[number] = identity


def _open_now() -> frozenset[int]:
    listed = set(map(int, os.listdir("/proc/self/fd")))
    own = os.eventfd(0)  # it gets the lowest number that is free, as the listing's own did
    os.close(own)
    return frozenset(listed - {own})


def _identity(number: int) -> _Identity | None:
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino
