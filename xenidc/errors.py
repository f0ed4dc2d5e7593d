"""What can be wrong with a topology, or with what somebody asks of a running one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from xenidc.place import Place


class Problem(NamedTuple):
    """One thing that is wrong, and where it was said."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


class FaceError(Exception):
    """Base of every error that this package raises."""


class TopologyError(FaceError):
    """The topology cannot be run; nothing was started.

    Attributes:
        problems: all that was found, in the order of their lines; the text is the first.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = sorted(problems)
        more = len(self.problems) - 1
        super().__init__(str(self.problems[0]) + (f" (and {more} more)" if more else ""))


class WorkloadFailed(FaceError):
    """A workload of the topology raised an error, which is the cause of this one."""


class ControlError(FaceError):
    """A running machine cannot be asked, or has refused; the text says why."""


class MachineEnded(ControlError):
    """The machine that was asked has ended."""
