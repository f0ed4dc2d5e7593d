"""A channel from within: its requests, from their entry to their end, across back ends.

`Channel` keeps every request that has not been answered (pending.py), and the buffer memory
(buffer_memory.py); both outlive the back end. While a `Link` to a back end stands, requests go into
its ring. When the back end dies, `lose` takes the answers that it left, and `take_back` takes the
memory; when the next one is connected, `open` settles what the one before may have begun, and sends
again what is pending, in order, in the new epoch. The life cycle is driven by the endpoint actor
(endpoint.py); what a user calls (`FrontEnd`, frontend.py) never waits for it.

Who wakes whom: the back end signals one eventfd, the same for the channel's whole life. Either an
event loop selects it and reaps; or the endpoint actor does (from the first `future` on); or threads
are in `call`, and take turns at it (waiting.py). One lock guards the state; nobody waits while
holding it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from actors import Fd, Lock, Runtime
from hypervisor import Region, clear_event, new_event, raise_event
from transport import descriptors
from transport.buffer_memory import BufferMemory
from transport.completion import Completion
from transport.descriptors import show
from transport.errors import (
    Cancelled,
    ChannelClosed,
    DeadlineExceeded,
    LocalProtocolError,
    RemoteProtocolError,
)
from transport.journal import Reached
from transport.latency import Latencies
from transport.link import Link
from transport.observing import Watched
from transport.pending import Pending
from transport.waiting import Waiting, wake

_log = logging.getLogger("transport")

_SENT = Reached.SENT  # a member of an enum is slow to look up


class Channel:
    """What there is of a channel whoever uses it.

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
        self._memory = BufferMemory(buffer_bytes)
        self._wake = new_event()
        self._runtime = runtime
        self._now = runtime.now
        self._lock = threading.Lock()  # nobody waits while holding it
        self._waiting = Waiting(self, runtime, self._wake.fileno(), f"answers of {device}", spin)
        self._for_slots: list[Lock] = []  # callers that wait for one
        self._finished: list[Completion] = []
        self._called_back: list[tuple[Callable[[Any], object], Any]] = []  # still to be called
        self._watched: Watched | None = None  # None: nobody observes it
        self._link: Link | None = None
        self._lost: Link | None = None  # the one before, until its journal is final
        self._end: ChannelClosed | None = None
        self._stop: Callable[[], None] = self.end  # the endpoint puts its own orderly stop here
        self._on_busy: Callable[[], None] = lambda: None
        self._on_fault: Callable[[int, str], None] = lambda _epoch, _text: None
        self._on_drive: Callable[[], None] = lambda: None
        self._busy = False
        self._half_closed = False  # nothing new is taken
        self._drains = False  # who drains reaps, and nobody else
        self._ended = self._resent = self._unknown = self._epochs = self._faults = 0
        self._bytes = 0
        self._latencies = Latencies()
        self._revoke_seconds: list[float] = []
        self._unsettled = runtime.lock(f"a back end of {device}")  # until it is open, or has ended
        self._unsettled.acquire()

    # --- requests, from entry to end --------------------------------------------------------------

    def push(self) -> None:
        """Show the back end everything that is queued, with one signal at most."""
        with self._lock:
            if self._link is not None:
                self._show(self._link)

    def _enter(self, request: Completion, *, show: bool) -> bool:
        """Take it in; False: there is no slot. If it raises, nothing is left of it.

        ``show``: as `push` does, under the same lock.
        """
        with self._lock:
            link = self._link
            epoch = 0 if link is None or link.closing else link.epoch
            try:
                if self._end is not None or self._half_closed:
                    raise self._closed()
                for buffer in request.buffers:
                    if buffer.released or buffer.channel is not self:
                        raise LocalProtocolError("a buffer of another channel, or a released one")
                record = self._pending.add(request, epoch)
                if record is None:
                    return False
            except BaseException:
                self._forget(request)
                raise
            for buffer in request.buffers:
                self._memory.hand_over(buffer)
            request.submitted = self._now()
            if self._watched is not None:
                self._watched.entered(request, epoch)
            if link is not None and epoch:
                request.reached = _SENT
                link.queue.append(record)
                if show:
                    self._show(link)
            if self._busy:
                return True
            self._busy = True
        self._on_busy()
        return True

    def _enter_later(self, request: Completion, deadline: float | None) -> None:
        """Take it in as soon as there is a slot."""
        waiter = self._waiting.waiter()
        self.push()  # or what fills the slots may not have been shown to the back end
        try:
            while not self._enter(request, show=True):
                with self._lock:
                    if waiter not in self._for_slots:
                        self._for_slots.append(waiter)
                if not self._waiting.sleep(self._has_slot, waiter, deadline):
                    with self._lock:
                        self._forget(request)
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
        incoming = link.incoming
        try:
            while True:
                records = incoming.read()
                if records:
                    now = self._now()
                    for response in descriptors.unpack(records, self.slots):
                        self._answered(link, response, now)
                    self._latencies.tidy()
                    if link.queue:
                        link.show()
                if not arm or not (records or incoming.arm()):
                    return
        except RemoteProtocolError as error:
            self._fault(link, error)

    def _answered(self, link: Link, response: Any, now: float) -> None:
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
            self._phase(link, request, status, value, now)
            return
        self._finish(request, now)

    def _phase(self, link: Link, request: Completion, status: Any, count: Any, now: float) -> None:
        stream = request.stream
        if stream is None or type(count) is not int or count < 0:
            raise RemoteProtocolError(f"request {request.number} has no phase {show(status)}")
        if status == descriptors.PULL:
            done, direction = stream.pull(count), "pull"
        elif status == descriptors.PUSH:
            done, direction = stream.push(count), "push"
        else:
            raise RemoteProtocolError(f"a response has the status {show(status)}")
        if self._watched is not None:
            self._watched.phase(request, direction, done, now)
        if not link.closing:
            link.queue.append(descriptors.pack_phase_done(link.epoch, request.number, done))

    def _finish(self, request: Completion, now: float) -> None:
        self._pending.end(request)
        self._ended += 1
        request.done = True
        for buffer in request.buffers:
            self._memory.hand_back(buffer)
        if request.stream is not None:
            self._forget(request)
        self._latencies.add(now - request.submitted)
        if request.where:
            self._bytes += request.size
        if self._watched is not None:
            self._called_back += self._watched.ended(request, now)
        if request.awaited:
            if request.waiter is not None:
                wake(request.waiter)
        elif request.callback is not None:
            self._called_back.append((request.callback, request))
        else:
            self._finished.append(request)
        if self._for_slots:
            self._slot_is_free()

    def _end_unknown(self, request: Completion) -> None:
        """It is not sent again, and an earlier back end may have done it."""
        self._unknown += 1
        request.error = self._pending.unknown()
        self._finish(request, self._now())
        self._latencies.tidy()

    def _settle_lost(self, link: Link) -> None:
        for request in self._pending.settle(link.begun):
            self._unknown += 1
            self._finish(request, self._now())
        self._latencies.tidy()

    def _call_back(self) -> None:
        """Not under the lock: callbacks may submit."""
        while self._called_back:
            with self._lock:
                ended, self._called_back = self._called_back, []
            for callback, argument in ended:
                try:
                    callback(argument)
                except Exception:  # noqa: BLE001 - the caller is another one
                    _log.exception("a callback of %s failed", self.device)

    def _forget(self, request: Completion) -> None:
        """Under the lock: nothing of it is left here."""
        if request.stream is not None:
            self._memory.free(request.stream.chunk)

    # --- who waits (waiting.py) -------------------------------------------------------------------

    def look(self, *, arm: bool) -> None:
        """Take what has come; ``arm``: ask to be signalled at the next."""
        with self._lock:
            if self._end is None:
                self._collect(arm=arm)
        if self._called_back:
            self._call_back()

    def clear(self) -> None:
        """The leader has been woken, and is about to look."""
        with self._lock:
            if self._end is None and not self._waiting.driven:
                clear_event(self._wake.fileno())

    def _rouse(self) -> None:
        with self._lock:
            self._rouse_leader()

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
        return self._memory.region

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
            if self._watched is not None:
                self._watched.sent(self._pending, link.epoch)
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
                if self._watched is not None:
                    self._watched.dropped()

    def lose(self) -> None:
        """The back end is gone: take the answers that it left, and settle what it had begun.

        The mapping of its page must stay until the next one is open: `open` settles the rest.
        """
        with self._lock:
            link = self._link
            if link is None:
                return
            link.closing = True
            if self._watched is not None:
                self._watched.dropped()
            self._collect(arm=False)
            self._settle_lost(link)
            self._link, self._lost = None, link
            raise_event(self._wake.fileno())
        self._call_back()

    def take_back(self, spans: list[tuple[int, int]], started: float) -> None:
        """The memory half of the revocation: renew these spans of the buffer memory.

        ``started``: when its first half began.
        """
        with self._lock:
            self._memory.renew(spans)
            self._revoke_seconds.append(self._now() - started)

    def reserve(self) -> None:
        """Have what was taken back allocated anew, once the next back end has been sent what waits:
        it takes long (4 ms for 16 MiB, in which the endpoint reaps for nobody).

        Raises:
            OSError: there is no memory for it.
        """
        self._memory.reserve()

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
                self._finish(request, self._now())
            if self._watched is not None:
                self._called_back += [(each, None) for each in self._watched.observers]
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
        if self._watched is not None and not link.closing:
            self._watched.shown()
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
