"""A verified load on a channel to a disk, with faults in its midst: an event loop, no threads.

`Load` submits what the plan says as long as there is room, keeps the oracle informed, and sleeps on
the channel's one descriptor until something has ended. It is a user of the channel and knows no
machine: what a fault is, is a callable that it is given.

How a recovery is timed: from the moment of the fault to the end of the next request that was
submitted after it. Answers that the dying back end had already given do not count, and neither
does what it may still answer in its last microseconds: a new epoch must have begun.

The only deadline here is the caller's ``patience``: when nothing at all has ended for so long, the
load gives up, and what is in flight counts as lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from examples.block import protocol as p
from examples.block.oracle import FLUSH, READ, WRITE, Asked, Oracle
from examples.block.plan import LARGEST, Step
from transport import BuffersExhausted, FrontEnd, LocalBuffer

DEPTH = 16  # requests in flight

_OPERATIONS = {READ: p.READ, WRITE: p.WRITE, FLUSH: p.FLUSH}


@dataclass
class Recovery:
    """A fault that happened, and how long it took until requests were answered again."""

    kind: str
    seconds: float


@dataclass
class Load:
    """One run against one disk.

    Attributes:
        channel: open, to a block back end.
        oracle: knows what the disk contains.
        patience: seconds without any answer after which to give up.
        recoveries: one for each fault that was recovered from.
        stuck: nothing was answered within ``patience``.
    """

    channel: FrontEnd
    oracle: Oracle
    patience: float = 30.0
    recoveries: list[Recovery] = field(default_factory=list)
    stuck: bool = False
    _submitted: int = 0
    _fault: tuple[str, float, int, int] | None = None  # kind, when, epochs and requests before it

    def run(
        self,
        steps: Iterator[Step],
        faults: list[tuple[int, str]],
        strike: Callable[[str], None],
        *,
        seconds: float,
        progress: Callable[[float], None],
    ) -> None:
        """Run ``steps`` until every fault was recovered from and ``seconds`` have passed.

        Args:
            faults: (requests after the recovery before, kind), in order.
            strike: makes a fault of that kind happen now.
            progress: told the share that is done, 0 to 1.
        """
        began = time.monotonic()
        waiting: Step | None = None
        struck = 0
        due = faults[0][0] if faults else 0
        while not self.stuck:
            elapsed = time.monotonic() - began
            done = len(self.recoveries)
            progress(min(elapsed / seconds if seconds else 1.0, _share(done, len(faults))))
            if done == len(faults) and elapsed >= seconds:
                break
            if done == struck < len(faults) and self._submitted >= due:
                self._begin_fault(faults[struck][1], strike)
                struck += 1
            waiting = self._fill(waiting, steps)
            self._wait()
            if struck < len(faults) and done < len(self.recoveries) == struck:
                due = self._submitted + faults[struck][0]
        self.drain()

    def drain(self) -> None:
        """Wait for everything in flight to end."""
        while self.oracle.in_flight and not self.stuck:
            self._wait()

    def verify(self, progress: Callable[[float], None]) -> None:
        """Read the whole disk and let the oracle compare it."""
        size = len(self.oracle.contents)
        pieces = (
            Step(Asked(READ, offset, min(LARGEST, size - offset)))
            for offset in range(0, size, LARGEST)
        )
        step = next(pieces, None)
        while step is not None and not self.stuck:
            step = self._fill(step, pieces)
            self._wait()
            progress(1.0 if step is None else step.request.offset / size)
        self.drain()

    def _begin_fault(self, kind: str, strike: Callable[[str], None]) -> None:
        epochs = self.channel.statistics().epochs
        strike(kind)
        self._fault = (kind, time.monotonic(), epochs, self._submitted)

    def _fill(self, step: Step | None, steps: Iterator[Step]) -> Step | None:
        """Submit while there is room; returns the step that did not fit (None: no more steps).

        The step that has to wait is the next one to go: the order is the plan's, whatever happens.
        """
        # One more while a fault lasts: its end is told by a request that came after it.
        depth = DEPTH + (self._fault is not None)
        while self.oracle.in_flight < depth and self.channel.credits:
            step = step or next(steps, None)
            if step is None or not self._submit(step):
                break
            step = None
        self.channel.push()
        return step or next(steps, None)

    def _submit(self, step: Step) -> bool:
        request = step.request
        if not self.oracle.admits(request):
            return False
        buffer: LocalBuffer | None = None
        if request.length:
            try:
                buffer = self.channel.buffer(request.length)
            except BuffersExhausted:
                return False
            if request.kind == WRITE:
                buffer.view[:] = request.data
        flags = p.FUA if step.fua else 0
        self.oracle.begin(self._submitted, request)
        body = (_OPERATIONS[request.kind], request.offset, request.length, flags)
        self.channel.submit(body, buffer, self._submitted)
        self._submitted += 1
        return True

    def _wait(self) -> None:
        """Sleep until something has ended, and take it in."""
        if not self.oracle.in_flight:
            return
        if not self.channel.wait(self.patience):
            self.stuck = True
            return
        for completion in self.channel.reap():
            buffer = completion.buffer
            self.oracle.end(completion.token, buffer.view if buffer else b"", completion.error)
            if buffer is not None:
                buffer.release()
            if self._fault is not None:
                self._look_for_recovery(completion.token)

    def _look_for_recovery(self, number: int) -> None:
        assert self._fault is not None
        kind, when, epochs, before = self._fault
        if number >= before and self.channel.statistics().epochs > epochs:
            self.recoveries.append(Recovery(kind, time.monotonic() - when))
            self._fault = None


def _share(done: int, total: int) -> float:
    return done / total if total else 1.0
