"""One connection of a back end to one front end, in one epoch.

It checks what comes out of the ring, keeps what is being worked on, and publishes answers, from any
thread: one lock guards what goes out, and what is running. The endpoint actor owns it and decides
when it is over; then it is closed once, answers are dropped, and who waits in a data phase gets
`GrantRevoked`. Work that is running then goes on, for nobody can stop a thread; `idle` says when it
has ended, and until then the same front end is not served again.

Who wakes whom: a worker in `pull` or `push` sleeps on a lock, until the endpoint reads the front
end's word that the phase is done.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from actors import Lock, Runtime
from hypervisor import EventChannel, GrantRevoked, Mapping, Region
from transport import descriptors
from transport.buffers import RemoteBuffer
from transport.descriptors import show
from transport.driver import Request
from transport.errors import Cancelled, LocalProtocolError, RemoteProtocolError
from transport.journal import Journal
from transport.remote_memory import RemoteMemory
from transport.ring import Incoming, Outgoing, split_page


class Connection:
    """See the top of the module."""

    def __init__(
        self,
        front: tuple[int, int],
        epoch: int,
        channel: EventChannel,
        pages: Mapping,
        memory: RemoteMemory,
        ring: Region,
        slots: int,
        runtime: Runtime,
    ) -> None:
        self.front = front
        self.epoch = epoch
        self.channel = channel
        self.pages = pages
        self.memory = memory
        self.ring = ring
        self._slots = slots
        self._runtime = runtime
        ours, journal = split_page(ring.view, slots, descriptors.RECORD_LIMIT)
        theirs, _ = split_page(pages.view, slots, descriptors.RECORD_LIMIT)
        self.incoming = Incoming(ours, theirs)
        self._outgoing = Outgoing(ours, theirs)
        self.journal = Journal(journal, slots)
        self.backlog: deque[Any] = deque()  # records that were read and not looked at
        self.closing = False  # its ring is not looked at any more
        # The runtime's, since a process may be stopped or killed while it signals.
        self._lock = runtime.lock(f"a connection of front end {front}")
        self._open = True
        self._no_phases = False
        self._running: dict[int, Request] = {}

    # --- what comes in ---

    def read(self) -> bool:
        """Take what is in the ring into the backlog; whether there is anything in that.

        Raises:
            RemoteProtocolError: no correct front end wrote that; so for all that reads.
        """
        records = self.incoming.read()
        if records:
            self.backlog += descriptors.unpack(records, self._slots)
        return bool(self.backlog)

    def next(self) -> tuple[int, Request] | None:
        """The next request of the backlog and its number; None: it was another word."""
        record = self.backlog.popleft()
        fields = len(record) if type(record) is tuple else 0
        if fields < 2 or type(record[1]) is not int:
            raise RemoteProtocolError(f"a request is {show(record)}")
        if record[0] != self.epoch:
            raise RemoteProtocolError(f"a word of epoch {show(record[0])} in epoch {self.epoch}")
        number = record[1]
        if number < 0:
            self._word(-number, record[2:])
            return None
        if number in self._running:
            raise RemoteProtocolError(f"request {number} is in flight already")
        if fields == 3:
            return number, Request(record[2])
        if fields == 5:
            return number, Request(record[2], (self._buffer(record[3], record[4]),))
        if fields == 4 and type(record[3]) is tuple and len(record[3]) % 2 == 0:
            spans = record[3]
            pairs = zip(spans[::2], spans[1::2], strict=True)
            return number, Request(record[2], tuple(self._buffer(*pair) for pair in pairs))
        if fields == 7 and all(type(size) is int and size >= 0 for size in record[5:]):
            chunk = self._buffer(record[3], record[4])
            phases = Phases(self, number, chunk, record[5], record[6], self._runtime)
            return number, Request(record[2], (), phases)
        raise RemoteProtocolError(f"a request is {show(record)}")

    def _buffer(self, start: Any, length: Any) -> RemoteBuffer:
        if type(start) is not int or type(length) is not int:
            raise RemoteProtocolError(f"a buffer of {show(length)} bytes at {show(start)}")
        if start < 0 or length < 0 or start + length > self.memory.size:
            raise RemoteProtocolError(f"a buffer of {length} bytes at {start}")
        return RemoteBuffer(self.memory, start, length)

    def _word(self, number: int, rest: tuple[Any, ...]) -> None:
        with self._lock:
            request = self._running.get(number)
            if not rest:
                if request is not None:  # else it has been answered meanwhile
                    request.cancelled = True
                return
            count = rest[0]
            phases = None if request is None else request.phases
            expected = phases is not None and phases.awaited
            if not expected or len(rest) > 1 or type(count) is not int or count < 0:
                raise RemoteProtocolError(f"a data phase of request {number}: {show(rest)}")
            assert phases is not None
            phases.done(count)

    # --- what goes out ---

    def publish(self, records: bytes) -> None:
        """Publish whole records, from any thread; those of a closed connection are dropped.

        Raises:
            RemoteProtocolError: the front end has more requests in flight than it has slots.
        """
        with self._lock:
            self._publish(records)

    def _publish(self, records: bytes) -> None:
        if not self._open:
            return
        try:
            self._outgoing.write(records)
        except LocalProtocolError:
            raise RemoteProtocolError("there are more requests in flight than slots") from None
        if self._outgoing.publish():
            self.channel.send()

    # --- work beside the endpoint ---

    def begin(self, number: int, request: Request) -> None:
        """Its work is offloaded."""
        with self._lock:
            self._running[number] = request
            if request.phases is not None:
                request.phases.allowed = True

    def end(self, number: int, answer: bytes | None) -> bool:
        """Its work is over; None: no answer. Whether it was the last of a closed connection."""
        with self._lock:
            del self._running[number]
            if answer is not None:
                self._publish(answer)
            return not self._open and not self._running

    @property
    def is_open(self) -> bool:
        """Whether anybody wants its answers."""
        return self._open

    @property
    def idle(self) -> bool:
        """Nothing is running."""
        return not self._running

    @property
    def wants_phases(self) -> bool:
        """Whether anybody would answer to one."""
        return self._open and not self._no_phases

    @property
    def wants_errors(self) -> bool:
        """Whether an error would be the driver's: nothing was taken from under it."""
        return self.memory.usable and not self._no_phases

    def phase(self, phases: Phases, status: int, count: int) -> int:
        """Have the front end move bytes, and wait for that; returns how many."""
        with self._lock:
            if not self.wants_phases:
                raise GrantRevoked("the connection is over")
            phases.awaited = True
            self._publish(descriptors.pack_phase(self.epoch, phases.number, status, count))
        phases.arrived.acquire()
        with self._lock:
            if not self.wants_phases:
                raise GrantRevoked("the connection is over")
            return phases.moved

    def end_phases(self) -> None:
        """Nobody waits for the front end any more, or begins to."""
        with self._lock:
            self._no_phases = True
            for request in self._running.values():
                if request.phases is not None and request.phases.awaited:
                    request.phases.done(0)

    def close(self) -> None:
        """No answer goes out any more, and nobody waits any more."""
        with self._lock:
            self._open = False
        self.end_phases()


class Phases:
    """The data phases of one request whose bulk data is not in the channel's memory.

    The front end's half is in stream.py.
    """

    def __init__(
        self,
        connection: Connection,
        number: int,
        chunk: RemoteBuffer,
        send: int,
        receive: int,
        runtime: Runtime,
    ) -> None:
        self.number = number
        self.allowed = False  # it may wait
        self.awaited = False  # the front end's word that one is done
        self.moved = 0
        self.arrived: Lock = runtime.lock(f"a data phase of request {number}")
        self.arrived.acquire()
        self._connection = connection
        self._chunk = chunk
        self._left = [send, receive]
        self._gone = False

    def done(self, count: int) -> None:
        """Under the connection's lock: the front end has moved so many bytes."""
        self.moved = count
        self.awaited = False
        self.arrived.release()

    def pull(self, limit: int | None) -> memoryview:
        """See `Request.pull`."""
        wanted = min(self._chunk.length, self._left[0], self._left[0] if limit is None else limit)
        if wanted <= 0:
            return memoryview(b"")
        self._may_wait()
        self._move(descriptors.PULL, wanted)
        self._left[0] -= wanted
        return self._chunk.read(0, wanted)

    def push(self, data: memoryview) -> None:
        """See `Request.push`."""
        if len(data) > self._left[1]:
            raise LocalProtocolError(f"{len(data)} bytes, and room for {self._left[1]}")
        while len(data):
            count = min(len(data), self._chunk.length)
            self._may_wait()
            self._chunk.write(0, data[:count])
            self._move(descriptors.PUSH, count)
            self._left[1] -= count
            data = data[count:]

    def _may_wait(self) -> None:
        if not self.allowed:
            raise LocalProtocolError("this waits for the front end: do it in offloaded work")

    def _move(self, status: int, count: int) -> None:
        """Have the front end move so many bytes."""
        if not self._gone:
            moved = self._connection.phase(self, status, count)
            if moved not in (0, count):
                raise RemoteProtocolError(f"{moved} bytes were moved instead of {count}")
            self._gone = moved == 0
        if self._gone:
            raise Cancelled("the caller has gone, and his data with him")
