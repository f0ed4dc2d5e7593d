"""The least that two processes need, and what Python has for it, as contestants (trips.py).

The limits: an eventfd each way is two wake-ups and nothing said; a word of shared memory each way,
which both sides look at all the time, is one change of two cache lines; the same with 64 bytes
copied into and out of shared memory on both sides. A `multiprocessing.Pipe` is what people take.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from benchmarks.apart import Apart, apart
from benchmarks.trips import BODY, Measure, ahead, flooded, served

_PAGE = mmap.PAGESIZE
_ASKED, _ANSWERED = 0, 64  # words of 8 bytes: each in a cache line of its own, and far apart
_THERE, _BACK = 64, 1024  # where the bytes are that are copied

Serve = Callable[[int], None]


@contextmanager
def eventfd() -> Iterator[Measure]:
    """Two wake-ups."""
    asked, answered = os.eventfd(0, 0), os.eventfd(0, 0)
    ends = (asked, answered)
    with apart("benchmarks.raw:eventfd_server", *ends, descriptors=ends) as server:

        def trip() -> None:
            os.eventfd_write(asked, 1)
            os.eventfd_read(answered)

        yield served(server, trip)
    for end in ends:
        os.close(end)


@contextmanager
def eventfd_server(asked: int, answered: int) -> Iterator[Serve]:
    """Answers each event with one."""

    def serve(count: int) -> None:
        for _ in range(count):
            os.eventfd_read(asked)
            os.eventfd_write(answered, 1)

    yield serve


@contextmanager
def spin(*, copies: bool) -> Iterator[Measure]:
    """Two words of memory; ``copies``: and 64 bytes."""
    memory = os.memfd_create("spin")
    os.ftruncate(memory, _PAGE)
    with (
        apart("benchmarks.raw:spin_server", memory, copies=copies, descriptors=[memory]) as server,
        mmap.mmap(memory, _PAGE) as page,
        memoryview(page) as area,
        area.cast("Q") as words,
    ):
        number = 0

        def trip() -> None:
            nonlocal number
            number += 1
            words[_ASKED] = number
            while words[_ANSWERED] != number:
                pass

        def copying() -> None:
            nonlocal number
            number += 1
            area[_THERE : _THERE + 64] = BODY
            words[_ASKED] = number
            while words[_ANSWERED] != number:
                pass
            bytes(area[_BACK : _BACK + 64])

        yield served(server, copying if copies else trip)
    os.close(memory)


@contextmanager
def spin_server(memory: int, *, copies: bool) -> Iterator[Serve]:
    """Looks at the one word, and writes the other."""
    with mmap.mmap(memory, _PAGE) as page, memoryview(page) as area, area.cast("Q") as words:

        def serve(count: int) -> None:
            for number in range(words[_ANSWERED] + 1, words[_ANSWERED] + 1 + count):
                while words[_ASKED] != number:
                    pass
                if copies:
                    area[_BACK : _BACK + 64] = bytes(area[_THERE : _THERE + 64])
                words[_ANSWERED] = number

        yield serve


@contextmanager
def pipe() -> Iterator[Measure]:
    """A Pipe of multiprocessing."""
    with _pipe() as (ours, server):

        def trip() -> None:
            ours.send_bytes(BODY)
            ours.recv_bytes()

        yield served(server, trip)


@contextmanager
def pipe_in_flight() -> Iterator[Callable[[int], float]]:
    """The same, `DEPTH` messages ahead."""
    with _pipe() as (ours, server):
        yield flooded(ahead(partial(ours.send_bytes, BODY), ours.recv_bytes), server)


@contextmanager
def _pipe() -> Iterator[tuple[Connection[bytes, bytes], Apart]]:
    ours, theirs = Pipe()
    number = theirs.fileno()
    with ours, apart("benchmarks.raw:pipe_server", number, descriptors=[number]) as server:
        theirs.close()
        yield ours, server


@contextmanager
def pipe_server(number: int) -> Iterator[Serve]:
    """Sends every message back."""
    connection: Connection[bytes, bytes]
    with Connection(number) as connection:

        def serve(count: int) -> None:
            for _ in range(count):
                connection.send_bytes(connection.recv_bytes())

        yield serve
