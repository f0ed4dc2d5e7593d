"""What a device is connected to in the world outside: a descriptor each, and how it is used.

Owns the descriptors of a `Line`: where a function's input comes from, and where its output goes.

Rules: nothing waits. Output that its reader does not take is dropped, as by a serial line on which
nobody listens. The end of the input is only the end of the input. A pty stays open at our own end
of it, so that people may open and close it as they like.

Corner case: a regular file cannot be watched (epoll_ctl(2), EPERM); its first piece is its input.

Specification: pty(7).
"""

from __future__ import annotations

import contextlib
import os
import tty
from dataclasses import dataclass
from typing import Final, Self

_PIECE: Final = 4096  # bytes


@dataclass
class Line:
    """The world at function ``function`` of a device.

    Attributes:
        input: descriptor to be read, or None.
        output: descriptor to be written, or None; what is said then is dropped.
        path: what a person opens, of a pty.
    """

    function: int
    input: int | None = None
    output: int | None = None
    path: str = ""
    _held: int | None = None  # the other end of a pty

    @classmethod
    def pty(cls, function: int) -> Self:
        """A pseudo-terminal in raw mode."""
        ours, theirs = os.openpty()
        tty.setraw(theirs)
        os.set_blocking(ours, False)
        return cls(function, ours, ours, os.ttyname(theirs), theirs)

    def read(self) -> bytes:
        """What has come in, a piece of it; empty at the end of the input."""
        assert self.input is not None
        return os.read(self.input, _PIECE)

    def write(self, data: bytes) -> None:
        """Say it to the world."""
        if self.output is not None:
            with contextlib.suppress(BlockingIOError):
                os.write(self.output, data)

    def close(self) -> None:
        """Close a pty; descriptors that were given stay open."""
        if self._held is not None:
            os.close(self._held)
            assert self.output is not None
            os.close(self.output)
