"""The other process of the raw measurements: ``python -m benchmarks.peer KIND FD...``.

    eventfd FD FD   answers an event on the first by one on the second
    pipe FD         sends back every message of a multiprocessing connection
    hold FD SIZE    maps a memfd and touches every page; says so on standard output

Each ends at the end of its standard input, or (eventfd) with its parent.
"""

from __future__ import annotations

import mmap
import os
import sys
from multiprocessing.connection import Connection


def main(kind: str, *numbers: int) -> None:
    """Be the peer of that kind until the parent has had enough."""
    if kind == "eventfd":
        _eventfd(*numbers)
    elif kind == "pipe":
        _pipe(*numbers)
    elif kind == "hold":
        _hold(*numbers)
    else:
        sys.exit(f"there is no peer {kind!r}")


def _eventfd(asked: int, answered: int) -> None:
    while os.eventfd_read(asked) == 1:  # the parent ends it with a 2
        os.eventfd_write(answered, 1)


def _pipe(number: int) -> None:
    connection: Connection[bytes, bytes] = Connection(number)
    while True:
        try:
            connection.send_bytes(connection.recv_bytes())
        except EOFError:
            return


def _hold(memory: int, size: int) -> None:
    mapping = mmap.mmap(memory, size)
    for place in range(0, size, mmap.PAGESIZE):
        mapping[place] = 1
    print("held", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
