"""Where in a topology's file something was said, so that an error can point to it."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file; ``line`` 0: the file as a whole."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        shown = os.path.relpath(self.file) if os.path.isabs(self.file) else self.file
        shown = self.file if shown.startswith("..") else shown
        return f"{shown}:{self.line}" if self.line else shown


def here() -> Place:
    """The line that is calling into this package."""
    frame = sys._getframe(1)  # noqa: SLF001 - documented; inspect reads the whole stack's sources
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)
