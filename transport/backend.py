"""The back end: a driver, and the endpoint actor that serves requests with it.

`BackEnd` is what a driver author subclasses; it knows no actor and no ring. `BackEndActor` runs one
instance of it in a domain. Its one thread waits on its mailbox (peer states, shutdown) and on the
event channel of every connection, so a request costs one wake-up; answers are published in small
batches and signalled only when the front end sleeps. Work that blocks goes to worker threads
(`BackEnd.offload`), which answer by themselves, under the connection's lock.

Nothing of an ended connection runs on: its memory mapping is closed, and a worker that finishes
later finds the link closed and drops its answer. When either side is closing, what lies in the ring
at that moment is served still, once, and the ring is not looked at again; an orderly end also waits
for the workers before it says Closed. What a front end sends later it will send to our successor.

A front end that breaks the protocol loses its connection, alone.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

from actors import Actor, Message
from hypervisor import (
    EventChannel,
    Guest,
    HypervisorError,
    IllegalTransition,
    Mapping,
    PeerState,
    PortBound,
    PortClosed,
    Region,
    StaleEpoch,
    XenbusState,
    raise_event,
)
from transport import descriptors
from transport.buffers import RemoteBuffer
from transport.errors import RemoteProtocolError
from transport.lifecycle import BACK, CLOSED, CLOSING, CONNECTED, INIT_WAIT
from transport.ring import Incoming, Outgoing, page_size

_log = logging.getLogger("transport")

_BATCH = 8  # answers that are published together: small enough to keep both sides busy at once
_ROUNDS = 4  # ring readings before the mailbox gets its turn


class Request:
    """One request as the driver sees it: its msgpack body, and its buffer or None."""

    __slots__ = ("body", "buffer")

    def __init__(self, body: Any, buffer: RemoteBuffer | None) -> None:
        self.body = body
        self.buffer = buffer


class Offloaded:
    """Work for a worker thread; made by `BackEnd.offload`."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments


class BackEnd:
    """Base of drivers. Override `on_request`, and the two others where there is something to do.

    Attributes:
        workers: how many threads run offloaded work.
    """

    runner: ClassVar[str] = "transport.backend:BackEndActor"
    workers: ClassVar[int] = 4

    def on_start(self, *args: Any, **kwargs: Any) -> None:
        """Open what the driver needs; the arguments are those of `Machine.start`.

        An exception here means that the domain could not start.
        """

    def on_stop(self) -> None:
        """Close it again. Called at an orderly end only: never count on it."""

    def on_request(self, request: Request) -> Any:
        """Serve one request; returns the result, any msgpack value, or `offload`.

        Runs in the endpoint's thread: what takes long belongs into `offload`. An exception is the
        answer to this request alone: the caller gets it as `RemoteError`. After a crash of the back
        end, requests that were not answered are served again by its successor.
        """
        raise NotImplementedError(f"{type(self).__name__} serves no requests")

    def offload(self, function: Callable[..., Any], *arguments: Any) -> Offloaded:
        """To be returned by `on_request`: a worker thread calls ``function(*arguments)``, and what
        that returns or raises is the answer. Other requests are served meanwhile.
        """
        return Offloaded(function, arguments)


class _Link:
    """One connection, in one epoch."""

    def __init__(
        self,
        front: tuple[int, int],
        epoch: int,
        channel: EventChannel,
        mapped: list[tuple[int, Mapping]],
        ring: Region,
        ring_gref: int,
    ) -> None:
        self.front = front
        self.epoch = epoch
        self.channel = channel
        self.mapped = mapped
        self.memory = mapped[1][1]
        self.memory_size = len(self.memory.view)
        self.ring = ring
        self.ring_gref = ring_gref
        peer = mapped[0][1].view
        self.incoming = Incoming(ring.view, peer)
        self.outgoing = Outgoing(ring.view, peer)
        self.lock = threading.Lock()
        self.open = True
        self.closing = False  # its ring is not looked at any more

    def answer(self, records: bytes) -> None:
        """Publish answers, from any thread; those of a closed link are dropped.

        Raises:
            RemoteProtocolError: the front end has more requests in flight than it has slots.
        """
        with self.lock:
            if not self.open:
                return
            if len(records) > self.outgoing.room():
                raise RemoteProtocolError("there are more requests in flight than slots")
            self.outgoing.write(records)
            if self.outgoing.publish():
                self.channel.send()


class BackEndActor(Actor):
    """Runs ``program``, a `BackEnd` subclass, in the domain of ``guest``."""

    def __init__(self, guest: Guest, program: type[BackEnd], args: list[Any]) -> None:
        super().__init__()
        self._guest = guest
        self._driver = program()
        self._args = args
        self._states: dict[tuple[int, int], XenbusState] = {}  # Closed, unless it is here
        self._links: dict[tuple[int, int], _Link] = {}
        self._workers: ThreadPoolExecutor | None = None

    def on_start(self) -> None:
        self._driver.on_start(*self._args)
        for front, epoch in self._guest.advertise(self._guest.name):
            self._states[front] = INIT_WAIT
            self._say(front, epoch, INIT_WAIT)

    def on_stop(self) -> None:
        orderly = self.exit_reason.kind in ("normal", "shutdown")
        if orderly:
            for link in self._links.values():
                self._say(link.front, link.epoch, CLOSING)
            for link in list(self._links.values()):
                self._finish(link)
        if self._workers is not None:
            self._workers.shutdown(wait=True)
        for link in list(self._links.values()):
            self._drop(link.front)
            if orderly:
                self._say(link.front, link.epoch, CLOSED, "its back end has ended")
        if orderly:
            self._driver.on_stop()

    def on_receive(self, message: Message) -> None:
        if isinstance(message, PortBound | PortClosed):
            return  # the bus says it too
        if not isinstance(message, PeerState):
            raise TypeError(f"a back end does not take {type(message).__name__}")
        front = (message.front_domid, message.channel)
        state, actions = BACK[self._states.get(front, CLOSED), XenbusState(message.state)]
        if state is not CLOSED:
            self._states[front] = state
        for action in actions:
            if action == "wait":
                self._say(front, message.epoch, INIT_WAIT)
            elif action == "accept":
                self._accept(front, message)
            elif action == "finish" and front in self._links:
                self._finish(self._links[front])
            elif action == "drop":
                self._drop(front)

    def _say(
        self, front: tuple[int, int], epoch: int, state: XenbusState, details: Any = None
    ) -> None:
        try:
            self._guest.switch(front, epoch, state, details)
        except StaleEpoch:  # what ended it is in our mailbox, or is our own end
            _log.info("front end %s was gone before %s", front, state.label)

    def _accept(self, front: tuple[int, int], message: PeerState) -> None:
        details = message.details
        ring_gref, memory_gref = details["ring-ref"], details["buffer-ref"]
        port, slots = details["event-channel"], details["slots"]
        port_epoch = details["event-channel-epoch"]
        guest, peer = self._guest, message.peer
        ring = Region(
            page_size(slots * descriptors.RECORD_LIMIT), name="xenidc-ring", readonly_to_peers=True
        )
        mapped: list[tuple[int, Mapping]] = []
        channel: EventChannel | None = None
        try:
            mapped.append((ring_gref, guest.map_grant_ref(peer, ring_gref)))
            mapped.append((memory_gref, guest.map_grant_ref(peer, memory_gref)))
            channel = guest.bind_interdomain(peer, port, port_epoch)
            gref = guest.grant_access(peer, ring, readonly=True)
            link = _Link(front, message.epoch, channel, mapped, ring, gref)
            self._links[front] = link
            guest.switch(front, message.epoch, CONNECTED, {"ring-ref": gref}, grants=[gref])
        except IllegalTransition:
            raise
        except HypervisorError as error:  # it died while it connected; its CLOSED is on its way
            _log.info("front end %s went away while it connected: %s", front, error)
            if front in self._links:
                self._close(self._links.pop(front))
            else:
                for _, mapping in mapped:
                    mapping.close()
                if channel is not None:
                    guest.close_port(channel)
                ring.close()
            return
        self.watch(channel.fileno(), lambda: self._on_event(link))

    def _finish(self, link: _Link) -> None:
        """Serve what lies in its ring, once, and look no more."""
        self._stop_watching(link)
        try:
            records = link.incoming.read()
            if records:
                self._serve(link, descriptors.unpack(records))
        except RemoteProtocolError as error:
            self._refuse(link, error)

    def _stop_watching(self, link: _Link) -> None:
        if not link.closing:
            link.closing = True
            self.unwatch(link.channel.fileno())

    def _drop(self, front: tuple[int, int]) -> None:
        self._states.pop(front, None)
        link = self._links.pop(front, None)
        if link is not None:
            self._stop_watching(link)
            self._close(link)

    def _close(self, link: _Link) -> None:
        with link.lock:
            link.open = False
        for gref, mapping in link.mapped:
            self._guest.unmap_grant_ref(link.front[0], gref, mapping)
        self._guest.close_port(link.channel)
        self._guest.revoke(link.ring_gref)
        link.ring.close()

    def _on_event(self, link: _Link) -> None:
        link.channel.consume()
        try:
            for _ in range(_ROUNDS):
                records = link.incoming.read()
                if records:
                    self._serve(link, descriptors.unpack(records))
                elif not link.incoming.arm():
                    return
        except RemoteProtocolError as error:
            self._refuse(link, error)
            return
        raise_event(link.channel.fileno())  # there may be more, after the mailbox had its turn

    def _refuse(self, link: _Link, error: RemoteProtocolError) -> None:
        _log.error("front end %s broke the protocol: %s", link.front, error)
        self._drop(link.front)
        self._say(link.front, link.epoch, CLOSED, ["refused", str(error)])

    def _serve(self, link: _Link, requests: list[Any]) -> None:
        epoch, memory, size = link.epoch, link.memory, link.memory_size
        on_request = self._driver.on_request
        answers: list[bytes] = []
        for record in requests:
            said, number, body, buffer = _checked(record, memory, size)
            if said != epoch:
                raise RemoteProtocolError(f"a request of epoch {said!r:.80} in epoch {epoch}")
            try:
                result = on_request(Request(body, buffer))
            except Exception as error:  # noqa: BLE001 - the driver's, for the caller
                answers.append(descriptors.pack_error(epoch, number, error))
            else:
                if type(result) is Offloaded:
                    self._pool().submit(_work, link, number, result)
                    continue
                answers.append(descriptors.pack_result(epoch, number, result))
            if len(answers) == _BATCH:
                link.answer(b"".join(answers))
                answers.clear()
        if answers:
            link.answer(b"".join(answers))

    def _pool(self) -> ThreadPoolExecutor:
        if self._workers is None:
            self._workers = ThreadPoolExecutor(self._driver.workers, thread_name_prefix="worker")
        return self._workers


def _checked(record: Any, memory: Mapping, size: int) -> tuple[Any, int, Any, RemoteBuffer | None]:
    """The parts of a request; plain comparisons, because every request passes here."""
    fields = len(record) if type(record) is tuple else 0
    if fields not in (3, 5) or type(record[1]) is not int:
        raise RemoteProtocolError(f"a request is {record!r:.80}")
    if fields == 3:
        return (*record, None)
    said, number, body, start, length = record
    if type(start) is not int or type(length) is not int:
        raise RemoteProtocolError(f"a request is {record!r:.80}")
    if start < 0 or length < 0 or start + length > size:
        raise RemoteProtocolError(f"a buffer of {length} bytes at {start}")
    return said, number, body, RemoteBuffer(memory, start, length)


def _work(link: _Link, number: int, work: Offloaded) -> None:
    try:
        record = descriptors.pack_result(link.epoch, number, work.function(*work.arguments))
    except BaseException as error:  # noqa: BLE001 - a worker thread has nobody else to tell
        record = descriptors.pack_error(link.epoch, number, error)
    try:
        link.answer(record)
    except RemoteProtocolError as error:
        _log.error("front end %s broke the protocol: %s", link.front, error)
