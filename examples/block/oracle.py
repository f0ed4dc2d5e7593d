"""What a disk must contain, from nothing but what was asked of it and what was acknowledged.

Owns a copy of the image and the requests in flight. It knows no channel and no back end, so that it
cannot be wrong in the way that they are. Rules:

1. A write counts from its acknowledgement on; until then its range belongs to nobody.
2. Requests that overlap, one of them a write, are never in flight together (`admits`): the disk may
   take those in any order, and then there would be no one right answer.
3. Every request ends exactly once. One that ended in an error, or never, is lost; one that ended
   twice, or that nobody asked for, is wrong.
4. A read is wrong if any byte differs. So is a stretch of the final comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

READ = "read"
WRITE = "write"
FLUSH = "flush"


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: its kind, its range in bytes (empty for a flush), and what a write writes."""

    kind: str
    offset: int = 0
    length: int = 0
    data: bytes = b""

    def conflicts(self, other: Asked) -> bool:
        """Whether the two must not be in flight together."""
        return (
            WRITE in (self.kind, other.kind)
            and self.offset < other.offset + other.length
            and other.offset < self.offset + self.length
        )


class Oracle:
    """The model of one disk.

    Attributes:
        contents: what the disk must contain, ranges with a write in flight aside.
        requests, bytes_read, bytes_written: what was acknowledged and right.
        failed: requests that ended in an error.
        wrong: reads with wrong bytes, and ends that nobody waited for.
        notes: what the first few of these were, a line each.
    """

    NOTES = 10

    def __init__(self, contents: bytes | bytearray) -> None:
        self.contents = bytearray(contents)
        self.requests = self.bytes_read = self.bytes_written = 0
        self.failed = self.wrong = 0
        self.notes: list[str] = []
        self._in_flight: dict[int, Asked] = {}

    @property
    def in_flight(self) -> int:
        """How many requests have not ended."""
        return len(self._in_flight)

    @property
    def lost(self) -> int:
        """Requests that ended in an error or, if nothing more is to come, never."""
        return self.failed + len(self._in_flight)

    def admits(self, request: Asked) -> bool:
        """Whether ``request`` may be in flight beside those that are."""
        return not any(map(request.conflicts, self._in_flight.values()))

    def begin(self, number: int, request: Asked) -> None:
        """``request`` is in flight from now on, as ``number``.

        Raises:
            ValueError: the number is in use, the range is outside of the disk, or a request in
                flight conflicts.
        """
        if number in self._in_flight:
            raise ValueError(f"request {number} is in flight already")
        if not 0 <= request.offset <= request.offset + request.length <= len(self.contents):
            raise ValueError(f"request {number} is outside of the disk: {_range(request)}")
        if request.kind == WRITE and len(request.data) != request.length:
            raise ValueError(f"request {number} writes {len(request.data)} bytes into a range")
        if not self.admits(request):
            raise ValueError(f"request {number} overlaps one in flight: {_range(request)}")
        self._in_flight[number] = request

    def end(
        self, number: int, found: memoryview | bytes = b"", error: Exception | None = None
    ) -> None:
        """Request ``number`` was answered: a read with what it ``found``, or with an ``error``."""
        request = self._in_flight.pop(number, None)
        if request is None:
            self.wrong += 1
            self._note(f"request {number} ended, and nobody waited for it")
            return
        if error is not None:
            self.failed += 1
            self._note(f"{request.kind} {_range(request)} failed: {error}")
            return
        start, stop = request.offset, request.offset + request.length
        if request.kind == WRITE:
            self.contents[start:stop] = request.data
            self.bytes_written += request.length
        elif request.kind == READ:
            # As bytes: they compare with memcmp, a memoryview item by item.
            if bytes(self.contents[start:stop]) != bytes(found):
                self.wrong += 1
                self._note(f"read {_range(request)}: {_difference(self.contents, start, found)}")
                return
            self.bytes_read += request.length
        self.requests += 1

    def _note(self, text: str) -> None:
        if len(self.notes) < self.NOTES:
            self.notes.append(text)


def _range(request: Asked) -> str:
    return f"{request.length} bytes at {request.offset}"


def _difference(contents: bytearray, start: int, found: memoryview | bytes) -> str:
    expected = contents[start : start + len(found)]
    places = [place for place, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b]
    if not places:
        return f"{len(found)} bytes came"
    return f"{len(places)} bytes differ, the first at {start + places[0]}"
