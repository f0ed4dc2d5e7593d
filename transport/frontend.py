"""The front end: what a user of a device holds, from any thread.

`FrontEnd` keeps every request that has not been answered (pending.py), and the buffer memory; both
outlive the back end. While a `Link` to a back end stands, requests go into its ring. When the back
end dies, `lose` takes the answers that it left, and `take_back` takes the memory; when the next one
is connected, `open` settles what the one before may have begun, and sends again what is pending, in
order, in the new epoch. The life cycle is driven by the endpoint actor in endpoint.py; the face
here never waits for it.

Who wakes whom: the back end signals one eventfd, the same for the channel's whole life (`fileno`).
Either an event loop selects it and calls `reap`; or the endpoint actor does (from the first
`future` on); or threads are in `call`, and take turns at it (waiting.py). One lock guards the
state; nobody waits while holding it.

Corner case: once somebody drives the channel (`fileno` or `future` was called), nobody else waits
on the eventfd: callers in other threads are woken by the driver's `reap`, and the driver itself
must not `call`, but by polling.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from actors import Fd, Future, Lock, Message, Ref, Runtime
from hypervisor import EventChannel, Mapping, Region, clear_event, new_event, raise_event
from transport import descriptors
from transport.buffers import BufferPart, Bytes, LocalBuffer, bytes_of
from transport.completion import Completion
from transport.descriptors import show
from transport.errors import (
    Cancelled,
    ChannelClosed,
    ChannelFull,
    DeadlineExceeded,
    LocalProtocolError,
    RemoteProtocolError,
)
from transport.handshake import Acceptance
from transport.journal import Journal, OnLoss, Reached
from transport.pending import Pending
from transport.pool import Pool
from transport.ring import Incoming, Outgoing, split_page
from transport.stream import CHUNK, Stream
from transport.waiting import Waiting, wake

Submitted = LocalBuffer | BufferPart | Iterable[LocalBuffer | BufferPart] | None
"""What a request can carry: a buffer, a part of one, several, or none."""

_log = logging.getLogger("transport")

DEFAULT_SLOTS = 512
DEFAULT_SPIN = 50e-6
DEFAULT_BUFFER_BYTES = 16 << 20


@dataclass(frozen=True)
class Statistics:
    """What a channel has done so far.

    Attributes:
        requests: ended requests.
        resent: requests that were sent again to a new back end.
        unknown: requests that ended in `OutcomeUnknown`.
        epochs: connections that were opened.
        in_flight: requests that have not ended.
        free_bytes: of buffer memory.
        revoke_seconds: for each back end that went, how long taking the memory back took.
        faults: back ends that broke the protocol.
    """

    requests: int
    resent: int
    unknown: int
    epochs: int
    in_flight: int
    free_bytes: int
    revoke_seconds: list[float]
    faults: int


class Link:
    """One connection to one back end, in one epoch."""

    def __init__(
        self,
        epoch: int,
        ring: Region,
        channel: EventChannel,
        peer_page: Mapping,
        slots: int,
        accepted: Acceptance,
    ) -> None:
        self.epoch = epoch
        self.channel = channel
        self.accepted = accepted
        ours, _ = split_page(ring.view, slots, descriptors.RECORD_LIMIT)
        theirs, journal = split_page(peer_page.view, slots, descriptors.RECORD_LIMIT)
        self.incoming = Incoming(ours, theirs)
        self.outgoing = Outgoing(ours, theirs)
        self._journal = Journal(journal, slots)
        self.queue: list[bytes] = []
        self.closing = False  # nothing more goes into its ring
        self.broken = False  # and nothing that comes out of it is believed

    def begun(self, number: int) -> bool:
        """Whether that request may have been begun, and may not be done twice."""
        return not self.accepted.idempotent and (self.broken or self._journal.begun(number))

    def show(self) -> None:
        """Show the back end what is queued, with one signal at most.

        Raises:
            RemoteProtocolError: it has more of us unread than there can be.
        """
        if self.queue and not self.closing:
            records = b"".join(self.queue)
            if len(records) > self.outgoing.room():
                raise RemoteProtocolError("the back end does not read, and answers")
            self.outgoing.write(records)
            self.queue.clear()
            if self.outgoing.publish():
                self.channel.send()


class FrontEnd:
    """A channel to a device; made by `connect`. Thread-safe; a context manager that closes it.

    Attributes:
        slots: how many requests may be in flight.
        buffer_limit: bytes of the largest buffer.
        version: the back end's; 0 while there has been none.
        features: what both sides have, as the last back end had it.

    Raises:
        ValueError: no channel has so many slots or bytes.
    """

    def __init__(
        self, device: str, slots: int, buffer_bytes: int, runtime: Runtime, spin: float | None
    ) -> None:
        self.device = device
        self.slots = slots
        self.buffer_limit = buffer_bytes // 4
        self.version = 0
        self.features: frozenset[str] = frozenset()
        self._pending = Pending(device, slots)
        self._pool = Pool(buffer_bytes)
        self._memory = Region(buffer_bytes, name="xenidc-buffers")
        self._wake = new_event()
        self._runtime = runtime
        self._drives = runtime.readable(self._wake.fileno(), f"answers of {device}")
        self._lock = threading.Lock()  # nobody waits while holding it
        self._waiting = Waiting(self, runtime, self._wake.fileno(), f"answers of {device}", spin)
        self._for_slots: list[Lock] = []  # callers that wait for one
        self._finished: list[Completion] = []
        self._called_back: list[Completion] = []  # ended; their callbacks are still to be called
        self._buffers: dict[int, LocalBuffer] = {}  # by where they start
        self._link: Link | None = None
        self._lost: Link | None = None  # the one before, until its journal is final
        self._end: ChannelClosed | None = None
        self._stop: Callable[[], None] = self.end  # the endpoint puts its own orderly stop here
        self._on_busy: Callable[[], None] = lambda: None
        self._on_fault: Callable[[int, str], None] = lambda _epoch, _text: None
        self._on_drive: Callable[[], None] = lambda: None
        self._busy = False
        self._endpoint_drives = False
        self._half_closed = False  # nothing new is taken
        self._drains = False  # who drains reaps, and nobody else
        self._ended = self._resent = self._unknown = self._epochs = self._faults = 0
        self._revoke_seconds: list[float] = []
        self._unsettled = runtime.lock(f"a back end of {device}")  # until it is open, or has ended
        self._unsettled.acquire()

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
        return self._pending.credits

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
                raise self._closed()
            start = self._pool.take(size)
            buffer = LocalBuffer(self, start, size, self._memory.view[start : start + size])
            self._buffers[start] = buffer
            return buffer

    def release(self, buffer: LocalBuffer) -> None:
        """See `LocalBuffer.release`."""
        with self._lock:
            if not buffer.released:
                buffer.released = True
                if buffer.in_flight == 0:
                    self._free(buffer)

    def call(
        self,
        body: Any,
        buffer: Submitted = None,
        *,
        send: Bytes | None = None,
        receive: Bytes | None = None,
        timeout: float | None = None,
        wait: str = "spin",
        on_loss: OnLoss = OnLoss.SETTLE,
    ) -> Any:
        """Make a request and wait for its result; restarts of the back end go unnoticed.

        Args:
            body: any msgpack value, up to about 900 bytes.
            buffer: whose pages the driver gets to see; or several, in order.
            send, receive: memory of any size that is not in a buffer, for the driver to pull from
                and to push to in data phases. It is copied. With either there is no ``buffer``.
            timeout: seconds; None waits as long as the supervisor keeps restarting the back end.
                The driver is told when the caller has gone.
            wait: "sleep" at once; "spin" for a moment before, if answers have come so quickly
                lately; or "poll": never sleep, which signals nobody and is for short operations.
            on_loss: what shall become of the request if its back end is lost.

        Raises:
            RemoteError: the driver's error.
            OutcomeUnknown: the back end was lost, and the request was not sent again.
            DeadlineExceeded: the request may or may not be done later.
            BuffersExhausted: there is no memory for a stream's chunk.
            ChannelClosed, LocalProtocolError: see there.
        """
        if wait not in ("sleep", "spin", "poll"):
            raise ValueError(f"one waits by 'sleep', 'spin' or 'poll', not {wait!r}")
        waiting = self._waiting
        deadline = None if timeout is None else self._runtime.now() + timeout
        waiter = waiting.waiter()
        request = self._request(body, buffer, send, receive, on_loss=on_loss, waiter=waiter)
        done = request.has_ended
        if not self._enter(request, show=True):
            self._enter_later(request, waiter, deadline)
        if wait == "poll":
            in_time = waiting.poll(done, waiter, deadline)
        else:
            in_time = (wait == "spin" and waiting.spin(done)) or waiting.sleep(
                done, waiter, deadline
            )
        if not in_time:
            self._abandon(request)
        if request.error is not None:
            raise request.error
        return request.result

    def submit(
        self,
        body: Any,
        buffer: Submitted = None,
        token: Any = None,
        *,
        send: Bytes | None = None,
        receive: Bytes | None = None,
        on_loss: OnLoss = OnLoss.SETTLE,
        callback: Callable[[Completion], object] | None = None,
    ) -> Completion:
        """Queue a request, whose end `reap` will return. `push` shows it to the back end.

        Args:
            callback: is called with it by who reaps, instead. It must not wait, nor raise.

        Raises:
            ChannelFull: no slot is free.
            BuffersExhausted: there is no memory for a stream's chunk.
            ChannelClosed, LocalProtocolError: see there.
        """
        request = self._request(
            body, buffer, send, receive, token=token, on_loss=on_loss, callback=callback
        )
        if not self._enter(request, show=False):
            with self._lock:
                self._give_up(request)
            raise ChannelFull(f"all {self.slots} slots of {self.device!r} are taken")
        return request

    def future(
        self,
        body: Any,
        buffer: Submitted = None,
        *,
        send: Bytes | None = None,
        receive: Bytes | None = None,
        on_loss: OnLoss = OnLoss.SETTLE,
    ) -> Future:
        """Make a request; its answer is the future's: `result`, or ``await`` its `result_async`.

        From the first one on the channel's endpoint reaps for all.

        Raises:
            ChannelFull: no slot is free.
            ChannelClosed, LocalProtocolError: see there.
        """
        future = Future(f"{self.device!r}", runtime=self._runtime)

        def settle(request: Completion) -> None:
            if request.error is not None:
                future.settle(None, request.error)
            else:
                future.set(request.result)

        self._have_driven()
        self.submit(body, buffer, send=send, receive=receive, on_loss=on_loss, callback=settle)
        self.push()
        return future

    def tell(
        self,
        actor: Ref,
        message: Callable[[Completion], Message],
        body: Any,
        buffer: Submitted = None,
        *,
        send: Bytes | None = None,
        receive: Bytes | None = None,
        on_loss: OnLoss = OnLoss.SETTLE,
    ) -> Completion:
        """Make a request at whose end ``actor`` is told ``message(completion)``.

        From the first one on the channel's endpoint reaps for all, as with `future`. The message
        has the control lane, so it is not refused for want of room: there are at most ``slots``.

        Raises:
            ChannelFull: no slot is free.
            ChannelClosed, LocalProtocolError: see there.
        """
        self._have_driven()
        request = self.submit(
            body,
            buffer,
            send=send,
            receive=receive,
            on_loss=on_loss,
            callback=lambda ended: actor.tell(message(ended), control=True),
        )
        self.push()
        return request

    def _have_driven(self) -> None:
        if not self._waiting.driven:
            self._endpoint_drives = True
            self._waiting.make_way(driven=True)
            with self._lock:
                self._rouse_leader()  # he makes way, and the endpoint arms the ring
            self._on_drive()

    def cancel(self, request: Completion) -> None:
        """Its result is of no use any more: tell the driver so.

        The request ends as it would, or, if its offloaded work has not begun, in `Cancelled`. One
        that a back end was lost with, and that is not sent again yet, ends in `OutcomeUnknown`.
        """
        with self._lock:
            if request.done or request.cancelled:
                return
            request.cancelled = True
            link = self._link
            if request.reached is Reached.QUEUED:
                request.error = Cancelled("it was cancelled before it was sent")
                self._finish(request)
                self._rouse_leader()  # he may wait for the slot
            elif link is None:
                self._end_unknown(request)
            elif not link.closing:
                link.queue.append(descriptors.pack_cancel(link.epoch, request.number))
        self.push()
        self._call_back()

    def push(self) -> None:
        """Show the back end everything that is queued, with one signal at most."""
        with self._lock:
            if self._link is not None:
                self._show(self._link)

    def reap(self) -> list[Completion]:
        """Every submitted request that has ended since the last time; never waits.

        Afterwards `fileno` becomes readable when the next one has ended.
        """
        with self._lock:
            if self._end is None and not self._drains:
                clear_event(self._wake.fileno())
                self._collect(arm=True)
            finished, self._finished = self._finished, []
        self._call_back()
        return finished

    def fileno(self) -> int:
        """The descriptor to select for reading; the same until `close`.

        From now on an event loop drives the channel: it calls `reap` whenever this is readable. In
        a simulated machine it sleeps by `wait` alone: nothing else happens while it polls.

        Raises:
            ValueError: its endpoint drives it, since `future` was called.
        """
        if self._endpoint_drives:
            raise ValueError("a channel with futures is driven by its endpoint")
        self._waiting.make_way(driven=True)
        raise_event(self._wake.fileno())  # a leader makes way, and the loop has a first look
        return self._wake.fileno()

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until `fileno` is readable, or ``timeout`` seconds have passed: then False.

        For an event loop that has nothing else to wait for. One thread at a time.
        """
        if not self._waiting.driven:
            self.fileno()
        return self._drives.wait(timeout)

    def statistics(self) -> Statistics:
        """Figures since the channel was made."""
        with self._lock:
            return Statistics(
                self._ended,
                self._resent,
                self._unknown,
                self._epochs,
                len(self._pending),
                self._pool.free_bytes(),
                list(self._revoke_seconds),
                self._faults,
            )

    def drain(self, timeout: float | None = None) -> None:
        """Half close: nothing new is taken, what is in flight ends, and then the channel is closed.

        From any thread, an event loop's too: what is submitted and ends meanwhile is for `reap`.

        Args:
            timeout: seconds; None: as long as it takes.

        Raises:
            DeadlineExceeded: not everything has ended. Nothing new is taken still.
            ValueError: it is being drained already.
        """
        deadline = None if timeout is None else self._runtime.now() + timeout
        with self._lock:
            if self._end is not None:
                return
            if self._drains:
                raise ValueError(f"the channel to {self.device!r} is being drained already")
            self._half_closed = self._drains = True
            number = self._wake.fileno()
            while self._for_slots:
                self._slot_is_free()  # there will be none for them
        self.push()
        driven = self._waiting.driven
        self._waiting.make_way(driven=True)
        sleeper = self._runtime.readable(number, f"the last answer of {self.device}")
        with self._lock:
            self._rouse_leader()
        try:
            while True:
                self.look(arm=True)
                if not len(self._pending):
                    break
                left = None if deadline is None else max(0.0, deadline - self._runtime.now())
                if not sleeper.wait(left):
                    raise DeadlineExceeded(f"{len(self._pending)} requests have not ended in time")
                with self._lock:
                    if self._end is None:
                        clear_event(self._wake.fileno())
        finally:
            with self._lock:
                self._drains = False
                self._rouse_leader()  # or who reaped before
            self._waiting.make_way(driven=driven)
        self.close()

    def close(self) -> None:
        """End the channel: what is in flight ends with `ChannelClosed`. Idempotent."""
        self._stop()

    # --- requests, from entry to end --------------------------------------------------------------

    def _request(
        self,
        body: Any,
        buffer: Submitted,
        send: Bytes | None,
        receive: Bytes | None,
        **options: Any,
    ) -> Completion:
        if send is not None or receive is not None:
            if buffer is not None:
                raise ValueError("a request has buffers, or sends and receives, not both")
            outward, inward = bytes_of(send), bytes_of(receive, writable=True)
            chunk = self.buffer(min(max(len(outward), len(inward)), CHUNK, self.buffer_limit))
            stream = Stream(outward, inward, chunk)
            where = (chunk.start, chunk.size, len(outward), len(inward))
            return Completion(body, (chunk,), where, stream=stream, **options)
        match buffer:
            case None:
                return Completion(body, **options)
            case LocalBuffer() | BufferPart():
                span = (buffer.start, buffer.size)
                return Completion(body, (buffer.owner,), span, **options)
        several = tuple(buffer)
        spans = [at for each in several for at in (each.start, each.size)]
        owners = tuple(each.owner for each in several)
        return Completion(body, owners, (spans,), **options)

    def _enter(self, request: Completion, *, show: bool) -> bool:
        """Take it in; False: there is no slot. If it raises, nothing is left of it.

        ``show``: as `push` does, under the same lock.
        """
        with self._lock:
            link = self._link
            try:
                if self._end is not None or self._half_closed:
                    raise self._closed()
                for buffer in request.buffers:
                    if buffer.released or buffer.channel is not self:
                        raise LocalProtocolError("a buffer of another channel, or a released one")
                if not self._pending.credits:
                    return False
                record = self._pending.add(request, 0 if link is None else link.epoch)
            except BaseException:
                self._give_up(request)
                raise
            for buffer in request.buffers:
                if buffer.moved:
                    self._settle(buffer)
                    buffer.moved = False
                buffer.in_flight += 1
            if link is not None and not link.closing:
                request.reached = Reached.SENT
                link.queue.append(record)
                if show:
                    self._show(link)
            if self._busy:
                return True
            self._busy = True
        self._on_busy()
        return True

    def _enter_later(self, request: Completion, waiter: Lock, deadline: float | None) -> None:
        """Take it in as soon as there is a slot."""
        self.push()  # or what fills the slots may not have been shown to the back end
        try:
            while not self._enter(request, show=True):
                with self._lock:
                    if waiter not in self._for_slots:
                        self._for_slots.append(waiter)
                if not self._waiting.sleep(self._has_slot, waiter, deadline):
                    with self._lock:
                        self._give_up(request)
                    raise DeadlineExceeded(f"no slot of {self.device!r} was free in time")
        finally:
            with self._lock:
                if waiter in self._for_slots:
                    self._for_slots.remove(waiter)
                elif self._has_slot():
                    self._slot_is_free()  # it was told of one, and may not have taken it

    def _has_slot(self) -> bool:
        return self._end is not None or self._half_closed or self._pending.credits > 0

    def _closed(self) -> ChannelClosed:
        """Why nothing is taken, in an error of each caller's own."""
        if self._end is None:
            return ChannelClosed(f"the channel to {self.device!r} is being closed")
        return type(self._end)(str(self._end))

    def _slot_is_free(self) -> None:
        if self._for_slots:
            wake(self._for_slots.pop(0))

    def _collect(self, *, arm: bool) -> None:
        """Under the lock: take every answer from the ring, and ask to be signalled at the next."""
        link = self._link
        if link is None or link.broken:
            return
        try:
            while True:
                records = link.incoming.read()
                if records:
                    for response in descriptors.unpack(records):
                        self._answered(link, response)
                    link.show()
                elif not arm or not link.incoming.arm():
                    return
        except RemoteProtocolError as error:
            self._fault(link, error)

    def _answered(self, link: Link, response: Any) -> None:
        if type(response) is not tuple or len(response) != 4:
            raise RemoteProtocolError(f"a response is {show(response)}")
        epoch, number, status, value = response
        if epoch != link.epoch:
            raise RemoteProtocolError(f"an answer of epoch {show(epoch)} in epoch {link.epoch}")
        request = self._pending.find(number)
        if status == descriptors.OK:
            request.result = value
        elif status == descriptors.FAILED:
            request.error = descriptors.error_of(value)
        elif status == descriptors.CANCELLED and request.cancelled:
            if request.doubtful:
                self._end_unknown(request)
                return
            request.error = Cancelled(f"{self.device!r} had not begun it")
        else:
            self._phase(link, request, status, value)
            return
        self._finish(request)

    def _phase(self, link: Link, request: Completion, status: Any, count: Any) -> None:
        stream = request.stream
        if stream is None or type(count) is not int or count < 0:
            raise RemoteProtocolError(f"request {request.number} has no phase {show(status)}")
        if status == descriptors.PULL:
            done = stream.pull(count)
        elif status == descriptors.PUSH:
            done = stream.push(count)
        else:
            raise RemoteProtocolError(f"a response has the status {show(status)}")
        if not link.closing:
            link.queue.append(descriptors.pack_phase_done(link.epoch, request.number, done))

    def _finish(self, request: Completion) -> None:
        self._pending.end(request)
        self._ended += 1
        request.done = True
        for buffer in request.buffers:
            buffer.in_flight -= 1
            if buffer.released and buffer.in_flight == 0:
                self._free(buffer)
        if request.stream is not None:
            self._free(request.stream.chunk)
        if request.waiter is not None:
            wake(request.waiter)
        elif request.callback is not None:
            self._called_back.append(request)
        else:
            self._finished.append(request)
        self._slot_is_free()

    def _end_unknown(self, request: Completion) -> None:
        """It is not sent again, and an earlier back end may have done it."""
        self._unknown += 1
        request.error = self._pending.unknown()
        self._finish(request)

    def _settle_lost(self, link: Link) -> None:
        for request in self._pending.settle(link.begun):
            self._unknown += 1
            self._finish(request)

    def _call_back(self) -> None:
        """Not under the lock: callbacks may submit."""
        while self._called_back:
            with self._lock:
                ended, self._called_back = self._called_back, []
            for request in ended:
                assert request.callback is not None
                try:
                    request.callback(request)
                except Exception:  # noqa: BLE001 - the caller is another one
                    _log.exception("a callback of %s failed", self.device)

    def _give_up(self, request: Completion) -> None:
        """Under the lock: it will never be taken in."""
        if request.stream is not None:
            self._free(request.stream.chunk)

    def _free(self, buffer: LocalBuffer) -> None:
        if self._buffers.pop(buffer.start, None) is not None:
            if buffer.moved:
                self._settle(buffer)
            self._pool.give(buffer.start, buffer.size)

    def _settle(self, buffer: LocalBuffer) -> None:
        self._memory.settle(buffer.start, max(1, buffer.size))

    def _abandon(self, request: Completion) -> None:
        """Its caller's deadline has passed."""
        with self._lock:
            if request.done:
                return
            if request.stream is not None:
                request.stream.abandon()
        self.cancel(request)
        raise DeadlineExceeded(f"{self.device!r} did not answer in time")

    # --- who waits (waiting.py) -------------------------------------------------------------------

    def look(self, *, arm: bool) -> None:
        """Take what has come; ``arm``: ask to be signalled at the next."""
        with self._lock:
            if self._end is None:
                self._collect(arm=arm)
        self._call_back()

    def clear(self) -> None:
        """The leader has been woken, and is about to look."""
        with self._lock:
            if self._end is None and not self._waiting.driven:
                clear_event(self._wake.fileno())

    def _rouse_leader(self) -> None:
        """Under the lock: whoever sleeps on the eventfd is to look."""
        if self._end is None:
            raise_event(self._wake.fileno())

    def rouse(self, waiter: Lock) -> None:
        """He who sleeps on it is to look for himself."""
        with self._lock:
            wake(waiter)

    # --- what the endpoint actor calls ------------------------------------------------------------

    def attach(
        self,
        stop: Callable[[], None],
        on_busy: Callable[[], None],
        on_fault: Callable[[int, str], None],
        on_drive: Callable[[], None],
    ) -> None:
        """The endpoint: how to close in order, and what it wants to hear."""
        self._stop = stop
        self._on_busy = on_busy
        self._on_fault = on_fault
        self._on_drive = on_drive

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
        """A back end is connected: send it everything that is pending, in order.

        Only now is the journal of the one before final: if it lives, and only its memory was taken
        back, it went on with what it had read, until it said InitWait.
        """
        with self._lock:
            if self._end is not None:
                return
            if self._lost is not None:
                self._settle_lost(self._lost)
                self._lost = None
            self._link = link
            self.version, self.features = link.accepted.version, link.accepted.features
            self._epochs += 1
            if self._epochs > 1:
                self._resent += len(self._pending)
            link.queue += self._pending.records(link.epoch)
        self._call_back()
        self.push()
        raise_event(self._wake.fileno())  # a leader must look at the new ring, and arm it
        self._settled()

    def is_settled_within(self, seconds: float) -> bool:
        """Whether it is open for the first time, or has ended, within that time. Once."""
        return self._unsettled.acquire(timeout=max(0.0, seconds))

    def signal_again(self) -> None:
        """Nothing has come back for long: both sides are to look, whatever became of signals."""
        with self._lock:
            if self._link is not None:
                self._link.channel.send()
                raise_event(self._wake.fileno())

    def on_signal(self) -> None:
        """The endpoint drives the channel, and `wake` is readable."""
        if not self._drains:
            clear_event(self._wake.fileno())
            self.look(arm=True)

    def hold(self) -> None:
        """The back end is closing: it answers what is in its ring, and nothing more goes there.

        What comes meanwhile is pending until the next one is open, or the channel's end.
        """
        with self._lock:
            if self._link is not None:
                self._link.closing = True
                self._link.queue.clear()

    def lose(self) -> None:
        """The back end is gone: take the answers that it left, and settle what it had begun.

        The mapping of its page must stay until the next one is open: `open` settles the rest.
        """
        with self._lock:
            link = self._link
            if link is None:
                return
            link.closing = True
            self._collect(arm=False)
            self._settle_lost(link)
            self._link, self._lost = None, link
            raise_event(self._wake.fileno())
        self._call_back()

    def take_back(self, spans: list[tuple[int, int]], started: float) -> None:
        """The memory half of the revocation: renew these spans of the buffer memory.

        ``started``: when its first half began.

        What is in flight keeps its contents. A buffer in its holder's hands keeps its pages until
        it is handed over, because the holder may be writing to it now.
        """
        with self._lock:
            keep, held = [], []
            for buffer in self._buffers.values() if spans else ():
                span = (buffer.start, max(1, buffer.size))
                if buffer.in_flight and not buffer.moved:
                    keep.append(span)
                else:
                    held.append(span)
                    buffer.moved = True
            self._memory.renew(spans, keep, held)
            self._revoke_seconds.append(self._runtime.now() - started)

    def progress(self) -> tuple[int, int, int] | None:
        """A value that changes whenever the back end does something; None when nothing is due."""
        with self._lock:
            link = self._link
            if not len(self._pending):
                self._busy = False
                return None
            if link is None or link.broken:
                return (0, self._ended, 0)
            try:
                return (link.epoch, self._ended, link.incoming.available())
            except RemoteProtocolError as error:
                self._fault(link, error)
                return (0, self._ended, 0)

    def end(self, error: ChannelClosed | None = None) -> None:
        """End every request and the channel; the memory is given back. Idempotent."""
        with self._lock:
            if self._end is not None:
                return
            if self._link is not None:
                self._link.closing = True
                self._collect(arm=False)  # an answer that is there already counts
            self._end = error or ChannelClosed(f"the channel to {self.device!r} was closed")
            self._link = self._lost = None
            for request in list(self._pending):
                request.error = self._closed()
                self._finish(request)
            raise_event(self._wake.fileno())
        self._call_back()
        self._settled()

    def dispose(self, *, failed: bool) -> None:
        """Give back memory and descriptors; buffers read zeros from now on.

        After a failure the eventfd stays, readable, until the channel is garbage: nobody told the
        event loop that selects it.
        """
        with self._lock:
            self._memory.close()
            if not failed:
                self._wake.close()

    def count_fault(self) -> None:
        """A back end broke the protocol before there was a link to it."""
        with self._lock:
            self._faults += 1

    def _settled(self) -> None:
        with self._lock:
            wake(self._unsettled)

    def _show(self, link: Link) -> None:
        try:
            link.show()
        except RemoteProtocolError as error:
            self._fault(link, error)

    def _fault(self, link: Link, error: RemoteProtocolError) -> None:
        """The back end is broken: stop listening to it, and have it replaced."""
        if not link.broken:
            self._faults += 1
            link.broken = link.closing = True
            self._on_fault(link.epoch, str(error))
