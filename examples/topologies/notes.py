"""The back end of the topologies here: a file of notes, each of 64 bytes.

A request is [number, text], to write a note, or [number, None], to read it; its answer is the note.
A write is in the file before it is answered, so nothing acknowledged is lost with the back end.
"""

from __future__ import annotations

import os
from typing import Any

from transport import BackEnd, Request

SIZE = 64  # bytes of a note, in UTF-8


class Notes(BackEnd):
    """Start argument: the path of the file, which is made if it is not there."""

    idempotent = True  # writing the same note twice is the same as once

    def on_start(self, path: str) -> None:
        self.file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def on_stop(self) -> None:
        os.close(self.file)

    def on_request(self, request: Request) -> Any:
        number, text = request.body
        if text is not None:
            note = text.encode()
            if len(note) > SIZE:
                raise ValueError(f"a note has at most {SIZE} bytes, not {len(note)}")
            os.pwrite(self.file, note.ljust(SIZE, b"\0"), number * SIZE)
        return os.pread(self.file, SIZE, number * SIZE).rstrip(b"\0").decode()


class Overlay(Notes):
    """What is written goes into a file of its own; what was not is read from the notes below.

    Start arguments: the path of that file, and of the one below, which is never changed.
    """

    def on_start(self, path: str, below: str = "") -> None:
        super().on_start(path)
        self.below = os.open(below, os.O_RDONLY | os.O_CREAT, 0o600)

    def on_stop(self) -> None:
        os.close(self.below)
        super().on_stop()

    def on_request(self, request: Request) -> Any:
        number, _ = request.body
        found = super().on_request(request)
        return found or os.pread(self.below, SIZE, number * SIZE).rstrip(b"\0").decode()
