"""A file descriptor as a capability: owned by one object, closed with it, and sendable in messages.

Sending an `Fd` sends a duplicate: the sender keeps its own. The receiver gets an `Fd` that owns
what arrived. An `Fd` that nobody refers to closes itself, so a message that is dropped leaks
nothing.
"""

from __future__ import annotations

import contextlib
import os


class Fd:
    """Owns descriptor ``number`` from now on."""

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        self._number = -1  # so that __del__ works if the next line raises
        if number < 0:
            raise ValueError(f"{number} is no file descriptor")
        self._number = number

    def fileno(self) -> int:
        """The descriptor, still owned here. Raises ValueError once closed or taken."""
        if self._number < 0:
            raise ValueError("this Fd has been closed, or its descriptor taken")
        return self._number

    def take(self) -> int:
        """The descriptor, now owned by the caller. Raises ValueError once closed or taken."""
        number = self.fileno()
        self._number = -1
        return number

    def close(self) -> None:
        """Close the descriptor; nothing if that was done, or it was taken."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __del__(self) -> None:
        # Nobody is left to hear of an error, and EBADF only means that there was nothing to free.
        with contextlib.suppress(OSError):
            self.close()

    def __repr__(self) -> str:
        return f"Fd({self._number})" if self._number >= 0 else "Fd(closed)"
