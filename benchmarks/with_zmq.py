"""ZeroMQ as a contestant (trips.py): a pair of sockets over a unix socket."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import zmq

from benchmarks.apart import Apart, apart
from benchmarks.trips import BODY, Measure, ahead, flooded, served


@contextmanager
def round_trip() -> Iterator[Measure]:
    """Blocking."""
    with _connected() as (ours, server):

        def trip() -> None:
            ours.send(BODY)
            ours.recv()

        yield served(server, trip)


@contextmanager
def in_flight() -> Iterator[Callable[[int], float]]:
    """The same, `DEPTH` messages ahead."""
    with _connected() as (ours, server):
        yield flooded(ahead(partial(ours.send, BODY), ours.recv), server)


@contextmanager
def server(address: str) -> Iterator[Callable[[int], None]]:
    """Sends every message back."""
    with _socket() as socket:
        socket.connect(address)

        def serve(count: int) -> None:
            for _ in range(count):
                socket.send(socket.recv())

        yield serve


@contextmanager
def _connected() -> Iterator[tuple[Any, Apart]]:
    with tempfile.TemporaryDirectory(prefix="xenidc-bench-") as folder, _socket() as ours:
        address = f"ipc://{os.path.join(folder, 'socket')}"
        ours.bind(address)
        with apart("benchmarks.with_zmq:server", address) as other:
            yield ours, other


@contextmanager
def _socket() -> Iterator[Any]:
    with zmq.Context() as context, context.socket(zmq.PAIR) as socket:
        yield socket
