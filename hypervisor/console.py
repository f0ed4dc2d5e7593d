"""The console of a process domain: what it writes to its standard output and error, as a log.

`Lines` is pure: bytes in, lines out, the same ones however the bytes were cut into reads. A line
is bounded (``LINE_LIMIT`` bytes; what is longer comes as several), so what is kept of an unfinished
one is too. What does not print is escaped: a domain cannot write to the terminal of whoever reads
its log.

`Console` reads the two pipes, never waits, and passes each line to the logger
``xenidc.domain.NAME``: INFO for the output, WARNING for the error. Whoever owns it watches the
pipes and calls `read` when there is something: a little at a time, so that a domain that floods its
log is slowed down by its full pipe, and takes no memory here and its turn among what else its actor
waits for. While it lives nothing is dropped. `drain` takes what is left after its end.

Corner cases: processes that outlive the domain may hold its pipes and go on writing, and a domain
may enlarge its pipe; so `drain` reads a bounded part, and says so if there was more. A spare's
imports may have written before it became a domain; those lines are the domain's.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

from actors import Fd

LINE_LIMIT = 1024
"""Bytes of one line."""

_CHUNK = 1 << 13  # bytes at once: every one may be a line
_PIPE = 2 << 16  # bytes left at the end: twice what a pipe holds, unless it was enlarged


class Lines:
    """Turns the bytes of one stream into lines."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that are complete now."""
        *complete, rest = (self._rest + data).split(b"\n")
        lines = [piece for line in complete for piece in _pieces(line)]
        *more, self._rest = _pieces(rest)
        return [_readable(line) for line in (*lines, *more)]

    def end(self) -> list[str]:
        """The last line, if no newline ended it."""
        rest, self._rest = self._rest, b""
        return [_readable(rest)] if rest else []


def _pieces(line: bytes) -> list[bytes]:
    return [line[at : at + LINE_LIMIT] for at in range(0, len(line), LINE_LIMIT)] or [b""]


def _readable(line: bytes) -> str:
    text = line.removesuffix(b"\r").decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(
        letter
        if letter.isprintable() or letter == "\t"
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


@dataclass
class Stream:
    """One of the two pipes."""

    pipe: Fd
    level: int
    lines: Lines = field(default_factory=Lines)


class Console:
    """The log of domain ``name``; ``keep`` gets the lines of each read."""

    def __init__(
        self, name: str, stdout: Fd, stderr: Fd, keep: Callable[[list[str]], object]
    ) -> None:
        self.streams = (Stream(stdout, logging.INFO), Stream(stderr, logging.WARNING))
        self._log = logging.getLogger(f"xenidc.domain.{name}")
        self._keep = keep

    def read(self, stream: Stream) -> bool:
        """Read once, if there is something; False at the end of the pipe: watch it no longer."""
        return self._read(stream) != b""

    def drain(self) -> None:
        """Read what is left, and close both pipes."""
        for stream in self.streams:
            left = _PIPE
            while left > 0 and (data := self._read(stream)):
                left -= len(data)
            self._pass_on(stream, stream.lines.end())
            if left <= 0:
                self._pass_on(stream, ["(what followed at the end of the domain was not read)"])
            stream.pipe.close()

    def _read(self, stream: Stream) -> bytes | None:
        """What one read gives: b"" at the end, None if nothing is there."""
        try:
            data = os.read(stream.pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return None
        self._pass_on(stream, stream.lines.feed(data))
        return data

    def _pass_on(self, stream: Stream, lines: list[str]) -> None:
        if not lines:
            return
        self._keep(lines)
        for line in lines:
            self._log.log(stream.level, "%s", line)
