"""Several queues to one device, so that threads do not share one: `connect_queues`.

Each queue is a whole channel: a ring of its own each way, an event channel, slots, buffer memory,
and an epoch. Nothing is shared between two threads on two queues but the back end, which serves its
connections in turn; so one thread's requests neither wait behind another's nor take its lock, and
its answers wake it alone.

A thread gets a queue at its first use, the next one in turn, and keeps it. A request that carries
buffers goes by the queue that they are of, whoever submits it.

Corner case: between requests on different queues there is no order, also not after a restart.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

from hypervisor import Machine
from transport.buffers import BufferPart, LocalBuffer
from transport.endpoint import connect
from transport.errors import LocalProtocolError
from transport.frontend import FrontEnd, Submitted


def connect_queues(machine: Machine, device: str, queues: int, **options: Any) -> Queues:
    """Open ``queues`` channels to ``device``; ``options`` are those of `connect`, for each.

    Raises:
        ValueError: there is at least one.
        Exception: as `connect`; none is left open then.
    """
    if queues < 1:
        raise ValueError(f"there is at least one queue, not {queues}")
    with ExitStack() as opened:
        channels = [
            opened.enter_context(connect(machine, device, **options)) for _ in range(queues)
        ]
        opened.pop_all()
    return Queues(channels)


class Queues:
    """Thread-safe; iterating gives the channels; a context manager that closes them all."""

    def __init__(self, channels: list[FrontEnd]) -> None:
        self._channels = channels
        self._turns = itertools.cycle(channels)
        self._lock = threading.Lock()
        self._own = threading.local()

    def __iter__(self) -> Iterator[FrontEnd]:
        return iter(self._channels)

    @property
    def mine(self) -> FrontEnd:
        """The calling thread's queue."""
        channel: FrontEnd | None = getattr(self._own, "channel", None)
        if channel is None:
            with self._lock:
                channel = self._own.channel = next(self._turns)
        return channel

    def buffer(self, size: int) -> LocalBuffer:
        """A buffer of the calling thread's queue; see `FrontEnd.buffer`."""
        return self.mine.buffer(size)

    def call(self, body: Any, buffer: Submitted = None, **options: Any) -> Any:
        """As `FrontEnd.call`, on the queue of the buffers, or else on the calling thread's.

        Raises:
            LocalProtocolError: the buffers are of different queues; and as `FrontEnd.call`.
        """
        if buffer is None:
            return self.mine.call(body, **options)
        several = (buffer,) if isinstance(buffer, LocalBuffer | BufferPart) else tuple(buffer)
        channels = {each.owner.channel for each in several} or {self.mine}
        if len(channels) > 1:
            raise LocalProtocolError("a request's buffers are of one queue")
        return channels.pop().call(body, several, **options)

    def drain(self, timeout: float | None = None) -> None:
        """As `FrontEnd.drain`, one queue after the other; ``timeout`` is for each."""
        for channel in self._channels:
            channel.drain(timeout)

    def close(self) -> None:
        """End all of them. Idempotent."""
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
