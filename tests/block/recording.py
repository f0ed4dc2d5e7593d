"""A disk that tells what it does to its image, as it happens, and syncs only when it may.

The system calls themselves are replaced, in the back end's process alone: what is recorded is what
reaches the kernel. Events are lines in a FIFO that the test reads; it holds both ends open, so that
the death of a back end is no end of file.
"""

from __future__ import annotations

import os
from typing import Any

from examples.block import disk


class RecordingDisk(disk.Disk):
    """Start arguments: the image, the FIFO for events, the FIFO that has a byte for each sync."""

    def on_start(self, path: str, events: str = "", permits: str = "") -> None:  # type: ignore[override]
        self._events = os.open(events, os.O_WRONLY | os.O_CLOEXEC)
        self._permits = os.open(permits, os.O_RDONLY | os.O_CLOEXEC)
        self._real: Any = {name: getattr(os, name) for name in ("pwritev", "fdatasync")}
        os.pwritev, os.fdatasync = self._pwritev, self._fdatasync
        super().on_start(path)
        self._tell("start")

    def on_stop(self) -> None:
        super().on_stop()
        os.pwritev, os.fdatasync = self._real["pwritev"], self._real["fdatasync"]
        os.close(self._events)
        os.close(self._permits)

    def _tell(self, event: str) -> None:
        os.write(self._events, f"{event}\n".encode())  # short enough to be one piece

    def _pwritev(self, fd: int, buffers: list[memoryview], offset: int, flags: int = 0) -> int:
        count: int = self._real["pwritev"](fd, buffers, offset, flags)
        self._tell(f"write {offset}")
        return count

    def _fdatasync(self, fd: int) -> None:
        self._tell("sync begins")
        os.read(self._permits, 1)
        self._real["fdatasync"](fd)
        self._tell("sync ends")
