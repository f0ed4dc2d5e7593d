"""The verdict on a domain that was asked for a sign of life and gave none in time. Pure.

Wall time alone says nothing: on an overloaded machine a healthy process is not scheduled, and its
deadline passes. So the verdict looks at what the process had of the machine meanwhile (`Signs`,
taken when the question was asked and at each deadline). One that progressed, or waits for a
processor, gets one more period; one that is stopped, or of which nothing moved, is hung.

Rules, the first that fits:

    ``MOST_PERIODS`` have passed    hung, whatever it does: a hostile one could go on talking
    something of it lies unread     more time: we are late ourselves
    stopped, not by the machine     hung (SIGSTOP or a debugger; a paused domain is never asked)
    it ran ``ENOUGH`` periods       hung: of processor time, since it was asked
    a thread is runnable            more time: it waits for a processor, or computes
    it ran, or waited to run        more time
    it was paged in from a disk     more time
    none of these                   hung: it is blocked, its answering thread too

Corner case: a driver inside a C call that holds the interpreter's lock (a long regular expression,
a sum of a huge range) cannot answer, and cannot be told from one that will never end. It has the
processor for ``ENOUGH`` periods, however long it takes to get that; what needs more belongs into a
process of its own, or into smaller pieces. A deadlocked domain of which another thread runs now and
then lives to ``MOST_PERIODS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

MOST_PERIODS = 100
"""Watchdog periods that a domain may go without an answer, whatever it does."""

ENOUGH = 10
"""Watchdog periods for which it may have had a processor without answering."""

_STOPPED = frozenset("TtZX")  # proc_pid_stat(5): stopped, traced, ended


class Signs(NamedTuple):
    """What could be seen of a process at one moment; see vitals.py for where it is from.

    ``states``: a letter for each state that one of its threads is in. ``ran`` and ``delayed``:
    nanoseconds that its living threads had a processor, and waited for one while they could run.
    ``faults``: page faults that had to wait for a disk. ``spoke``: a frame of it waits to be read.
    """

    states: frozenset[str]
    ran: int
    delayed: int
    faults: int
    spoke: bool = False


NO_SIGNS = Signs(frozenset(), 0, 0, 0)
"""Of a process that has gone."""


class Verdict(NamedTuple):
    """``hung``: end it; else give it one more period. ``why``: for people."""

    hung: bool
    why: str


class _Case(NamedTuple):
    was: Signs
    now: Signs
    periods: int
    had: float  # periods of processor time since it was asked


_RULES: tuple[tuple[Callable[[_Case], bool], Verdict], ...] = (
    (lambda case: case.periods >= MOST_PERIODS, Verdict(True, "whatever it does, it was too long")),
    (lambda case: case.now.spoke, Verdict(False, "what it said is not read yet")),
    (lambda case: case.now.states <= _STOPPED, Verdict(True, "it is stopped, and not by us")),
    (lambda case: case.had >= ENOUGH, Verdict(True, "it had the processor for long enough")),
    (lambda case: "R" in case.now.states, Verdict(False, "it can run")),
    # Not "more than": the figures of a thread go when it ends, and that is progress too.
    (lambda case: case.now.ran != case.was.ran, Verdict(False, "it ran")),
    (lambda case: case.now.delayed != case.was.delayed, Verdict(False, "it waited to run")),
    (lambda case: case.now.faults != case.was.faults, Verdict(False, "it is being paged in")),
)
_BLOCKED = Verdict(True, "all its threads are blocked, and none of them ran")


def judge(asked: Signs, was: Signs, now: Signs, periods: int, period: float) -> Verdict:
    """What the signs ``now`` mean.

    Args:
        asked: the signs when it was asked; ``was``: at the last look.
        periods: how many have passed since it was asked, each of ``period`` seconds.
    """
    case = _Case(was, now, periods, (now.ran - asked.ran) / (period * 1e9))
    return next((verdict for fits, verdict in _RULES if fits(case)), _BLOCKED)
