"""A disk that tells what it does to its image, as it happens, and syncs only when it may.

The system calls themselves are replaced, in the back end's process alone: what is recorded is what
reaches the kernel. Events are lines in a FIFO beside the image, from which the test reads; another
FIFO has a byte for each sync that may happen. The test holds both ends of both open, so that the
death of a back end is no end of file.
"""

from __future__ import annotations

import os
from typing import Any

from examples.block.disk import Disk

EVENTS = ".events"  # behind the image's own name
PERMITS = ".permits"


class RecordingDisk(Disk):
    """Start arguments as `Disk`."""

    def on_start(self, path: str, read_only: bool = False) -> None:
        self._events = os.open(path + EVENTS, os.O_WRONLY | os.O_CLOEXEC)
        self._permits = os.open(path + PERMITS, os.O_RDONLY | os.O_CLOEXEC)
        self._real: dict[str, Any] = {}
        self._replace("pwritev", self._pwritev)
        self._replace("fdatasync", self._fdatasync)
        super().on_start(path, read_only)
        self._tell("start")

    def on_stop(self) -> None:
        super().on_stop()
        os.close(self._events)
        os.close(self._permits)

    def _replace(self, name: str, call: Any) -> None:
        self._real[name] = getattr(os, name)
        setattr(os, name, call)

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


class FailingDisk(Disk):
    """Its first sync fails, and the kernel says that the second is fine."""

    def on_start(self, path: str, read_only: bool = False) -> None:
        self._real: Any = os.fdatasync
        os.fdatasync = self._fail  # type: ignore[assignment]
        super().on_start(path, read_only)

    def _fail(self, _fd: int) -> None:
        os.fdatasync = self._real
        raise OSError(5, "the disk is gone")
