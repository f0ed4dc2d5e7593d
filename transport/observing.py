"""What an observer of a channel learns: one record of each request that has ended.

Tracing, spans and whatever else wants to see single requests are built on it (`FrontEnd.observe`).
While nobody observes, nothing is kept and a request pays one look at an attribute where it enters,
is shown and ends. An observer is called by whoever reaps, not under the channel's lock, after the
request has its result: it must not wait, nor raise. What it gets comes in about the order of the
ends, each request once; None is the last: the channel has ended.

What is known is what the front end sees. The data phases of what is in no buffer (``send``,
``receive``) pass through it, so each is there with its time. Buffers are seen by the back end
itself: of those there are only their bytes, and neither which of them were used nor when.

Corner cases: a request that was there before its observer is not recorded. The record is of the
request, not of the call: a caller whose deadline has passed is gone, and the request ends later, in
"ok" or "cancelled". A request of very many phases keeps the first `PHASES`, and counts the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from transport.completion import Completion
from transport.errors import Cancelled, ChannelClosed, OutcomeUnknown

PHASES = 256
"""Data phases of one request that are kept."""

_OUTCOMES: dict[type[Exception], str] = {
    OutcomeUnknown: "unknown",
    Cancelled: "cancelled",
    ChannelClosed: "closed",
}
OUTCOMES = ("ok", "failed", *_OUTCOMES.values())
"""How a request can end: with its result; in the driver's error; in `OutcomeUnknown`; in
`Cancelled`; in `ChannelClosed`."""


@dataclass(frozen=True)
class Phase:
    """A data phase of a request.

    Attributes:
        direction: "pull" (to the back end) or "push" (from it).
        size: bytes.
        time: when the front end had moved them.
        epoch: the connection that it belongs to; after a back end was lost they begin anew.
    """

    direction: str
    size: int
    time: float
    epoch: int


@dataclass(frozen=True)
class RequestRecord:
    """A request that has ended. Times are seconds of the machine's clock (`System.now`).

    Attributes:
        device, number, body: which, and what was asked.
        size: bytes in its buffers, or what its data phases have moved.
        submitted: when the channel took it.
        pushed: when it was shown to the back end that had it last; None: to none.
        phases: its data phases, as far as they are known: see the module's text.
        left_out: how many more there were than are kept.
        ended: when its answer, or the error that took its place, was there.
        epoch: the connection in which it was shown last; 0: in none.
        attempts: to how many back ends it was shown.
        outcome: one of `OUTCOMES`.
        error: what went wrong, None if nothing has.
    """

    device: str
    number: int
    body: Any
    size: int
    submitted: float
    pushed: float | None
    phases: tuple[Phase, ...]
    left_out: int
    ended: float
    epoch: int
    attempts: int
    outcome: str
    error: Exception | None

    @property
    def seconds(self) -> float:
        """From its submission to its end."""
        return self.ended - self.submitted


Observer = Callable[[RequestRecord | None], object]


class History:
    """What is kept of a request that is observed, until its end."""

    __slots__ = ("attempts", "epoch", "left_out", "phases", "pushed")

    def __init__(self) -> None:
        self.attempts = 0
        self.epoch = 0
        self.pushed: float | None = None
        self.phases: list[Phase] = []
        self.left_out = 0


class Watched:
    """What a channel does for its observers; under its lock."""

    def __init__(self, device: str, now: Callable[[], float]) -> None:
        self.observers: tuple[Observer, ...] = ()
        self._device = device
        self._now = now
        self._queued: list[tuple[History, int]] = []  # not shown yet; the epoch of each

    def entered(self, request: Completion, epoch: int) -> None:
        """It was taken; ``epoch``: by which it goes, 0 while there is no back end."""
        request.history = History()
        if epoch:
            self.sent([request], epoch)

    def sent(self, requests: Iterable[Completion], epoch: int) -> None:
        """They are queued for the back end of that epoch."""
        for request in requests:
            if request.history is not None:
                self._queued.append((request.history, epoch))

    def shown(self) -> None:
        """What is queued is in the ring."""
        now = self._now()
        for history, epoch in self._queued:
            history.pushed = now
            history.epoch = epoch
            history.attempts += 1
        self._queued.clear()

    def dropped(self) -> None:
        """What is queued will not be shown to that back end."""
        self._queued.clear()

    def phase(self, request: Completion, direction: str, size: int, now: float) -> None:
        """A data phase of it was moved."""
        history = request.history
        if history is None:
            return
        if len(history.phases) < PHASES:
            history.phases.append(Phase(direction, size, now, history.epoch))
        else:
            history.left_out += 1

    def ended(self, request: Completion, now: float) -> list[tuple[Observer, RequestRecord]]:
        """It has its result or error: who is to be called with what."""
        history, error = request.history, request.error
        if history is None:
            return []
        record = RequestRecord(
            self._device,
            request.number,
            request.body,
            request.size,
            request.submitted,
            history.pushed,
            tuple(history.phases),
            history.left_out,
            now,
            history.epoch,
            history.attempts,
            outcome_of(error),
            error,
        )
        return [(observer, record) for observer in self.observers]


def outcome_of(error: Exception | None) -> str:
    """The one of `OUTCOMES` that a request with that error has come to."""
    if error is None:
        return "ok"
    return next((word for kind, word in _OUTCOMES.items() if isinstance(error, kind)), "failed")
