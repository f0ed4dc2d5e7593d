"""The front end: what a user of a device holds, from any thread.

`FrontEnd` keeps every request that has not been answered, in the order of submission, and the
buffer memory; both outlive the back end. While a `_Link` to a back end stands, requests go into
its ring. When the back end dies, `reset` takes the memory back; when the next one is connected,
`open` sends everything that is pending again, in order, in the new epoch. The life cycle is driven
by the endpoint actor in endpoint.py; the face here never waits for it.

Who wakes whom: the back end signals one eventfd, the same for the channel's whole life (`fileno`).
Either an event loop selects it and calls `reap`; or threads are in `call`: the first of them
becomes the leader, which waits on the eventfd and reaps for all, and when its own answer is there
it wakes another to lead. A request's answer therefore costs its caller one wake-up. One lock guards
the state; nobody waits while holding it.

Corner case: once an event loop drives the channel (`fileno` was called), nobody else waits on the
eventfd: callers in other threads are woken by the loop's `reap`, and the loop itself must not
`call`.
"""

from __future__ import annotations

import itertools
import select
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from actors import Fd
from hypervisor import EventChannel, Mapping, Region, clear_event, new_event, raise_event
from transport import descriptors
from transport.buffers import LocalBuffer
from transport.errors import (
    ChannelClosed,
    ChannelFull,
    DeadlineExceeded,
    RemoteProtocolError,
)
from transport.pool import Pool
from transport.ring import Incoming, Outgoing

DEFAULT_SLOTS = 512
DEFAULT_BUFFER_BYTES = 16 << 20


class Completion:
    """A request, from its submission to its end; after the end it has a result or an error.

    Attributes:
        token: whatever was given to `submit`.
        body, buffer: what was submitted.
        result: the driver's result, when ``error`` is None.
        error: RemoteError or ChannelClosed, else None.
    """

    __slots__ = ("abandoned", "body", "buffer", "caller", "done", "error", "result", "token")

    def __init__(
        self, body: Any, buffer: LocalBuffer | None, token: Any, caller: threading.Lock | None
    ) -> None:
        self.body = body
        self.buffer = buffer
        self.token = token
        self.caller = caller  # locked while its `call` waits; None for submitted requests
        self.done = False
        self.abandoned = False
        self.result: Any = None
        self.error: Exception | None = None


@dataclass(frozen=True)
class Statistics:
    """What a channel has done so far.

    Attributes:
        requests: ended requests.
        resent: requests that were sent again to a new back end.
        epochs: connections that were opened.
        in_flight: requests that have not ended.
        revoke_seconds: for each back end that went, how long taking the memory back took.
        faults: back ends that broke the protocol.
    """

    requests: int
    resent: int
    epochs: int
    in_flight: int
    revoke_seconds: list[float]
    faults: int


class Link:
    """One connection to one back end, in one epoch."""

    def __init__(self, epoch: int, ring: Region, channel: EventChannel, peer_page: Mapping) -> None:
        self.epoch = epoch
        self.channel = channel
        self.incoming = Incoming(ring.view, peer_page.view)
        self.outgoing = Outgoing(ring.view, peer_page.view)
        self.queue: list[bytes] = []
        self.closing = False  # nothing more goes into its ring


class FrontEnd:
    """A channel to a device; made by `connect`. Thread-safe; a context manager that closes it.

    Attributes:
        slots: how many requests may be in flight.
        buffer_limit: bytes of the largest buffer.
    """

    def __init__(self, device: str, slots: int, buffer_bytes: int) -> None:
        self.device = device
        self.slots = slots
        self.buffer_limit = buffer_bytes // 4
        self._pool = Pool(buffer_bytes)
        self._memory = Region(buffer_bytes, name="xenidc-buffers")
        self._wake = new_event()
        self._lock = threading.Lock()
        self._leader = threading.Lock()
        self._numbers = itertools.count(1)
        self._pending: dict[int, Completion] = {}
        self._finished: list[Completion] = []
        self._buffers: set[LocalBuffer] = set()
        self._link: Link | None = None
        self._end: ChannelClosed | None = None
        self._stop: Callable[[], None] = self.end  # the endpoint puts its own orderly stop here
        self._on_busy: Callable[[], None] = lambda: None
        self._on_fault: Callable[[int, str], None] = lambda _epoch, _text: None
        self._busy = False
        self._driven = False  # an event loop reaps, so callers do not
        self._ended = self._resent = self._epochs = self._faults = 0
        self._revoke_seconds: list[float] = []
        self.settled = threading.Event()  # set when it is first open, or has ended

    # --- what a user calls ------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def credits(self) -> int:
        """How many more requests can be submitted now."""
        return self.slots - len(self._pending)

    def buffer(self, size: int) -> LocalBuffer:
        """A buffer of ``size`` bytes in memory that the back end sees.

        Raises:
            ValueError: ``size`` is below 0 or above ``buffer_limit``.
            BuffersExhausted: nothing is free just now; it never waits.
            ChannelClosed: the channel has ended.
        """
        if not 0 <= size <= self.buffer_limit:
            raise ValueError(f"a buffer has 0 to {self.buffer_limit} bytes, not {size}")
        with self._lock:
            if self._end is not None:
                raise self._end
            start = self._pool.take(size)
            buffer = LocalBuffer(self, start, size, self._memory.view[start : start + size])
            self._buffers.add(buffer)
            return buffer

    def release(self, buffer: LocalBuffer) -> None:
        """See `LocalBuffer.release`."""
        with self._lock:
            if not buffer.released:
                buffer.released = True
                if buffer.in_flight == 0:
                    self._free(buffer)

    def call(
        self, body: Any, buffer: LocalBuffer | None = None, *, timeout: float | None = None
    ) -> Any:
        """Make a request and wait for its result; restarts of the back end go unnoticed.

        Args:
            timeout: seconds; None waits as long as the supervisor keeps restarting the back end.

        Raises:
            RemoteError: the driver's error.
            ChannelClosed, ChannelFull, DeadlineExceeded, LocalProtocolError: see there.
        """
        caller = threading.Lock()
        caller.acquire()
        request = Completion(body, buffer, None, caller)
        self._enter(request)
        self.push()
        self._wait(request, None if timeout is None else time.monotonic() + timeout)
        if request.error is not None:
            raise request.error
        return request.result

    def submit(self, body: Any, buffer: LocalBuffer | None = None, token: Any = None) -> None:
        """Queue a request, whose end `reap` will return. `push` shows it to the back end.

        Raises:
            ChannelFull: no slot is free.
            ChannelClosed, LocalProtocolError: see there.
        """
        self._enter(Completion(body, buffer, token, None))

    def push(self) -> None:
        """Show the back end everything that is queued, with one signal at most."""
        with self._lock:
            link = self._link
            if link is not None and link.queue:
                records = b"".join(link.queue)
                link.queue.clear()
                try:
                    link.outgoing.write(records)
                    if link.outgoing.publish():
                        link.channel.send()
                except RemoteProtocolError as error:
                    self._fault(link, error)

    def reap(self) -> list[Completion]:
        """Every submitted request that has ended since the last time; never waits.

        Afterwards `fileno` becomes readable when the next one has ended.
        """
        with self._lock:
            if self._end is None:
                clear_event(self._wake.fileno())
                self._collect()
            finished, self._finished = self._finished, []
            return finished

    def fileno(self) -> int:
        """The descriptor to select for reading; the same until `close`.

        From now on an event loop drives the channel: it calls `reap` whenever this is readable.
        """
        with self._lock:
            self._driven = True
            raise_event(self._wake.fileno())  # a leader makes way, and the loop has a first look
        return self._wake.fileno()

    def statistics(self) -> Statistics:
        """Figures since the channel was made."""
        with self._lock:
            return Statistics(
                self._ended,
                self._resent,
                self._epochs,
                len(self._pending),
                list(self._revoke_seconds),
                self._faults,
            )

    def close(self) -> None:
        """End the channel: what is in flight ends with `ChannelClosed`. Idempotent."""
        self._stop()

    # --- requests, from entry to end --------------------------------------------------------------

    def _enter(self, request: Completion) -> None:
        with self._lock:
            if self._end is not None:
                raise self._end
            if len(self._pending) >= self.slots:
                raise ChannelFull(f"all {self.slots} slots of {self.device!r} are taken")
            link, buffer = self._link, request.buffer
            number = next(self._numbers)
            record = _record(0 if link is None else link.epoch, number, request)
            if buffer is not None:
                if buffer.moved:
                    self._memory.settle(buffer.start, max(1, buffer.size))
                    buffer.moved = False
                buffer.in_flight += 1
            self._pending[number] = request
            if link is not None and not link.closing:
                link.queue.append(record)
            if self._busy:
                return
            self._busy = True
        self._on_busy()

    def _collect(self) -> None:
        """Take every answer from the ring, and ask to be signalled at the next."""
        link = self._link
        if link is None:
            return
        try:
            while True:
                records = link.incoming.read()
                if records:
                    for response in descriptors.unpack(records):
                        self._complete(link, response)
                elif not link.incoming.arm():
                    return
        except RemoteProtocolError as error:
            self._fault(link, error)

    def _complete(self, link: Link, response: Any) -> None:
        if type(response) is not tuple or len(response) != 4 or type(response[1]) is not int:
            raise RemoteProtocolError(f"a response is {response!r:.80}")
        epoch, number, status, value = response
        request = self._pending.get(number)
        if epoch != link.epoch or request is None:
            raise RemoteProtocolError(f"an answer to request {number} of epoch {epoch!r:.80}")
        if status == descriptors.OK:
            request.result = value
        else:
            request.error = descriptors.error_of(value)
        del self._pending[number]
        self._finish(request)

    def _finish(self, request: Completion) -> None:
        self._ended += 1
        request.done = True
        buffer, caller = request.buffer, request.caller
        if buffer is not None:
            buffer.in_flight -= 1
            if buffer.released and buffer.in_flight == 0:
                self._free(buffer)
        if caller is None:
            self._finished.append(request)
        elif not request.abandoned:
            _wake(caller)

    def _free(self, buffer: LocalBuffer) -> None:
        if buffer in self._buffers:
            self._buffers.discard(buffer)
            if buffer.moved:
                self._memory.settle(buffer.start, max(1, buffer.size))
            self._pool.give(buffer.start, buffer.size)

    def _wait(self, request: Completion, deadline: float | None) -> None:
        caller = request.caller
        assert caller is not None
        while not request.done:
            if not self._driven and self._leader.acquire(blocking=False):
                try:
                    self._lead(request, deadline)
                finally:
                    self._leader.release()
                    self._promote()
            elif not caller.acquire(timeout=-1 if deadline is None else _left(deadline)):
                self._abandon(request)

    def _lead(self, request: Completion, deadline: float | None) -> None:
        poller = select.poll()
        poller.register(self._wake.fileno(), select.POLLIN)
        while True:
            with self._lock:
                if self._end is None:
                    self._collect()
                if request.done or self._driven:
                    return
            if not poller.poll(None if deadline is None else _left(deadline) * 1000):
                self._abandon(request)
            with self._lock:
                if self._end is None and not self._driven:
                    clear_event(self._wake.fileno())

    def _promote(self) -> None:
        with self._lock:
            for request in self._pending.values():
                if request.caller is not None and not request.abandoned:
                    _wake(request.caller)
                    return

    def _abandon(self, request: Completion) -> None:
        with self._lock:
            if request.done:
                return
            request.abandoned = True
        raise DeadlineExceeded(f"{self.device!r} did not answer in time")

    # --- what the endpoint actor calls ------------------------------------------------------------

    def attach(
        self,
        stop: Callable[[], None],
        on_busy: Callable[[], None],
        on_fault: Callable[[int, str], None],
    ) -> None:
        """The endpoint: how to close in order, and what it wants to hear."""
        self._stop = stop
        self._on_busy = on_busy
        self._on_fault = on_fault

    @property
    def memory(self) -> Region:
        """The buffer memory."""
        return self._memory

    @property
    def wake(self) -> Fd:
        """The eventfd that every epoch's port signals."""
        return self._wake

    @property
    def failure(self) -> ChannelClosed | None:
        """Why the channel has ended, or None while it has not."""
        return self._end

    def open(self, link: Link) -> None:
        """A back end is connected: send it everything that is pending, in order."""
        with self._lock:
            if self._end is not None:
                return
            self._link = link
            self._epochs += 1
            if self._epochs > 1:
                self._resent += len(self._pending)
            for number, request in self._pending.items():
                link.queue.append(_record(link.epoch, number, request))
        self.push()
        raise_event(self._wake.fileno())  # a leader must look at the new ring, and arm it
        self.settled.set()

    def hold(self) -> None:
        """The back end is closing: it answers what is in its ring, and nothing more goes there.

        What comes meanwhile is pending until the next one is open, or the channel's end.
        """
        with self._lock:
            if self._link is not None:
                self._link.closing = True
                self._link.queue.clear()

    def detach(self) -> None:
        """The back end is gone: nothing goes into or comes out of its rings any more.

        An answer that is there already counts: what it has finished is not sent again.
        """
        with self._lock:
            self._collect()
            self._link = None
            raise_event(self._wake.fileno())  # who selects it has not seen what that has ended

    def take_back(self, started: float) -> None:
        """The memory half of the revocation; ``started``: `time.perf_counter` of its first half.

        What is in flight keeps its contents. A buffer in its holder's hands keeps its pages until
        it is handed over, because the holder may be writing to it now.
        """
        with self._lock:
            keep, held = [], []
            for buffer in self._buffers:
                span = (buffer.start, max(1, buffer.size))
                if buffer.in_flight and not buffer.moved:
                    keep.append(span)
                else:
                    held.append(span)
                    buffer.moved = True
            self._memory.renew(keep, held)
            self._revoke_seconds.append(time.perf_counter() - started)

    def progress(self) -> tuple[int, int, int] | None:
        """A value that changes whenever the back end does something; None when nothing is due."""
        with self._lock:
            link = self._link
            if not self._pending:
                self._busy = False
                return None
            if link is None:
                return (0, self._ended, 0)
            try:
                return (link.epoch, self._ended, link.incoming.available())
            except RemoteProtocolError as error:
                self._fault(link, error)
                return (0, self._ended, 0)

    def end(self, error: ChannelClosed | None = None) -> None:
        """End every request and the channel; the memory is given back. Idempotent.

        An answer that is there already counts.
        """
        with self._lock:
            if self._end is not None:
                return
            self._collect()
            self._end = error or ChannelClosed(f"the channel to {self.device!r} was closed")
            self._link = None
            pending, self._pending = self._pending, {}
            for request in pending.values():
                request.error = self._end
                self._finish(request)
            raise_event(self._wake.fileno())
        self.settled.set()

    def dispose(self, *, failed: bool) -> None:
        """Give back memory and descriptors; buffers read zeros from now on.

        After a failure the eventfd stays, readable, until the channel is garbage: nobody told the
        event loop that selects it.
        """
        with self._lock:
            self._memory.close()
            if not failed:
                self._wake.close()

    def _fault(self, link: Link, error: RemoteProtocolError) -> None:
        """The back end is broken: stop listening to it, and have it replaced."""
        self._faults += 1
        self._link = None
        self._on_fault(link.epoch, str(error))


def _record(epoch: int, number: int, request: Completion) -> bytes:
    buffer = request.buffer
    span = None if buffer is None else (buffer.start, buffer.size)
    return descriptors.pack_request(epoch, number, request.body, span)


def _wake(caller: threading.Lock) -> None:
    """Under the channel's lock: let the waiting caller go on, now or when it comes to wait."""
    if caller.locked():
        caller.release()


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())
