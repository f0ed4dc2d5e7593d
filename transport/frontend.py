"""The front end: what a user of a device holds, from any thread.

`FrontEnd` is the channel (channel.py) with its user's calls: blocking (`call`), by an event loop
(`submit`, `push`, `fileno`, `reap`), by futures, or to an actor's mailbox (`tell`).

Corner case: once somebody drives the channel (`fileno` or `future` was called), nobody else waits
on the eventfd: callers in other threads are woken by the driver's `reap`, and the driver itself
may `call` by polling alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self

from actors import Future, Message, Ref, Runtime
from hypervisor import clear_event, raise_event
from transport import descriptors
from transport.buffers import BufferPart, Bytes, LocalBuffer, bytes_of
from transport.channel import Channel
from transport.completion import Completion
from transport.errors import Cancelled, ChannelFull, DeadlineExceeded, LocalProtocolError
from transport.journal import OnLoss, Reached
from transport.observing import Observer, Watched
from transport.statistics import Statistics
from transport.stream import CHUNK, Stream

Submitted = LocalBuffer | BufferPart | Iterable[LocalBuffer | BufferPart] | None
"""What a request can carry: a buffer, a part of one, several, or none."""

DEFAULT_SLOTS = 512
DEFAULT_SPIN = 50e-6
DEFAULT_BUFFER_BYTES = 16 << 20


class FrontEnd(Channel):
    """A channel to a device; made by `connect`. Thread-safe; a context manager that closes it.

    Its attributes and `push` are those of `Channel`.
    """

    def __init__(
        self, device: str, slots: int, buffer_bytes: int, runtime: Runtime, spin: float | None
    ) -> None:
        super().__init__(device, slots, buffer_bytes, runtime, spin)
        self._drives = runtime.readable(self._wake.fileno(), f"answers of {device}")
        self._endpoint_drives = False
        self._reaper: int | None = None  # the thread that last reaped for an event loop

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
            return self._memory.take(self, size)

    def release(self, buffer: LocalBuffer) -> None:
        """See `LocalBuffer.release`."""
        with self._lock:
            self._memory.release(buffer)

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
        polls = wait == "poll" and self._waiting.polls
        if self._waiting.driven and not polls and self._reaper == threading.get_ident():
            text = "would wait for itself: `submit`, or wait by 'poll'"
            raise LocalProtocolError(f"the event loop that drives {self.device!r} {text}")
        deadline = None if timeout is None else self._now() + timeout
        request = self._request(body, buffer, send, receive)
        request.on_loss = on_loss
        request.awaited = True
        if not self._enter(request, show=True):
            self._enter_later(request, deadline)
        if polls:
            in_time = self._waiting.poll(request.has_ended, deadline)
        else:
            spun = wait == "spin" and self._waiting.spin(request.has_ended)
            in_time = spun or self._sleep(request, deadline)
        if not in_time:
            self._abandon(request)
        if request.error is not None:
            raise request.error
        return request.result

    def _sleep(self, request: Completion, deadline: float | None) -> bool:
        """Until it has ended. False: the deadline came first."""
        waiter = self._waiting.waiter()
        with self._lock:
            request.waiter = waiter
        return self._waiting.sleep(request.has_ended, waiter, deadline)

    def _abandon(self, request: Completion) -> None:
        """Its caller's deadline has passed."""
        with self._lock:
            if request.done:
                return
            if request.stream is not None:
                request.stream.abandon()
        self.cancel(request)
        raise DeadlineExceeded(f"{self.device!r} did not answer in time")

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
        request = self._request(body, buffer, send, receive)
        request.token, request.on_loss, request.callback = token, on_loss, callback
        if not self._enter(request, show=False):
            with self._lock:
                self._forget(request)
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
            self._waiting.take_over(self._rouse)
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
                self._finish(request, self._now())
                self._latencies.tidy()
                self._rouse_leader()  # he may wait for the slot
            elif link is None:
                self._end_unknown(request)
            elif not link.closing:
                link.queue.append(descriptors.pack_cancel(link.epoch, request.number))
        self.push()
        self._call_back()

    def reap(self, *, arm: bool = True) -> list[Completion]:
        """Every submitted request that has ended since the last time; never waits.

        Args:
            arm: afterwards `fileno` becomes readable when the next one has ended. A loop that polls
                needs no such signal, and spares the back end the making of it; before it sleeps
                it reaps once more, armed. In a simulated machine nothing moves while it polls.
        """
        self._reaper = threading.get_ident()
        with self._lock:
            if self._end is None and not self._drains:
                if arm:
                    clear_event(self._wake.fileno())
                self._collect(arm=arm)
            finished, self._finished = self._finished, []
        if self._called_back:
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
        number = self._wake.fileno()
        self._waiting.take_over(lambda: raise_event(number))  # the loop has a first look, too
        return number

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until `fileno` is readable, or ``timeout`` seconds have passed: then False.

        For an event loop that has nothing else to wait for. One thread at a time.
        """
        if not self._waiting.driven:
            self.fileno()
        self._reaper = threading.get_ident()
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
                self._memory.free_bytes(),
                list(self._revoke_seconds),
                self._faults,
                self._bytes,
                self._latencies.value(),
            )

    def observe(self, observer: Observer) -> Callable[[], None]:
        """Have ``observer`` called with a `RequestRecord` of each request that has ended, from
        those on that are made now, and with None at the channel's end.

        It must not wait, nor raise; it may be called by several threads (see observing.py).

        Returns what ends that; a call of the observer may be on its way then. Idempotent.

        Raises:
            ChannelClosed: the channel has ended.
        """
        with self._lock:
            if self._end is not None:
                raise self._closed()
            if self._watched is None:
                self._watched = Watched(self.device, self._runtime.now)
            self._watched.observers += (observer,)
        return lambda: self._ignore(observer)

    def _ignore(self, observer: Observer) -> None:
        with self._lock:
            if self._watched is not None:
                left = [each for each in self._watched.observers if each is not observer]
                self._watched.observers = tuple(left)
                if not left:
                    self._watched = None

    def drain(self, timeout: float | None = None) -> None:
        """Half close: nothing new is taken, what is in flight ends, and then the channel is closed.

        From any thread, an event loop's too: what is submitted and ends meanwhile is for `reap`.

        Args:
            timeout: seconds; None: as long as it takes.

        Raises:
            DeadlineExceeded: not everything has ended. Nothing new is taken still.
            ValueError: it is being drained already.
        """
        deadline = None if timeout is None else self._now() + timeout
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
        sleeper = self._runtime.readable(number, f"the last answer of {self.device}")
        self._waiting.take_over(self._rouse)
        try:
            while True:
                self.look(arm=True)
                if not len(self._pending):
                    break
                left = None if deadline is None else max(0.0, deadline - self._now())
                if not sleeper.wait(left):
                    raise DeadlineExceeded(f"{len(self._pending)} requests have not ended in time")
                with self._lock:
                    if self._end is None:
                        clear_event(self._wake.fileno())
        finally:
            with self._lock:
                self._drains = False
                self._rouse_leader()  # or who reaped before
            if not driven:
                self._waiting.give_back()
        self.close()

    def close(self) -> None:
        """End the channel: what is in flight ends with `ChannelClosed`. Idempotent."""
        self._stop()

    def _request(
        self, body: Any, buffer: Submitted, send: Bytes | None, receive: Bytes | None
    ) -> Completion:
        if send is not None or receive is not None:
            if buffer is not None:
                raise ValueError("a request has buffers, or sends and receives, not both")
            outward, inward = bytes_of(send), bytes_of(receive, writable=True)
            chunk = self.buffer(min(max(len(outward), len(inward)), CHUNK, self.buffer_limit))
            stream = Stream(outward, inward, chunk)
            where = (chunk.start, chunk.size, len(outward), len(inward))
            request = Completion(body, (chunk,), where)
            request.stream = stream
            return request
        if buffer is None:
            return Completion(body)
        if isinstance(buffer, (LocalBuffer, BufferPart)):
            return Completion(body, (buffer.owner,), (buffer.start, buffer.size))
        several = tuple(buffer)
        spans = [at for each in several for at in (each.start, each.size)]
        owners = tuple(each.owner for each in several)
        return Completion(body, owners, (spans,))
