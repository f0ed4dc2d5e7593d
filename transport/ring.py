"""A single-producer single-consumer byte ring between two memory pages, each written by one side.

Each side has a *page*: a header and a data area that it alone writes and grants read-only (behind
them there is a journal, which is not the ring's business). Its header holds its producer index
(into its own data area), its consumer index (into the peer's) and its event index. A record is any
self-delimiting bytes; how many records there are is nobody's business here. One record's way:

1. `Outgoing.write` copies it into the data area behind what is published already.
2. `Outgoing.publish` moves the producer index: now, and never in part, the peer sees it.
3. If the peer's event index lies in what was just published, `publish` says so: signal the peer.
4. `Incoming.read` copies everything out of shared memory at once, before anybody looks at it: the
   peer may rewrite it at any time. Then it moves the consumer index, which frees the room.
5. Before it sleeps, the consumer calls `Incoming.arm`, which sets its event index and looks again.

Rules and corner cases:
- Indices run freely modulo 2**64 and are masked on access; the area is a power of two.
- Payload before index: x86-64 keeps stores in order, and each index is one aligned 8-byte store.
- Steps 3 and 5 each need a full fence between a store and a load (or both sides could miss each
  other). On x86-64 every locked instruction is one, so taking and releasing an uncontended lock is.
  Claimed for Linux on x86-64 only.
- An index of the peer that cannot be is `RemoteProtocolError`.
"""

from __future__ import annotations

import threading

from transport.errors import LocalProtocolError, RemoteProtocolError
from transport.journal import journal_size

HEADER = 4096
_PRODUCER, _CONSUMER, _EVENT = 0, 8, 16  # in 8-byte words: one cache line each
_MODULUS = 1 << 64

_fence = threading.Lock()  # acquired and released for the fence alone


def page_size(slots: int, record: int) -> int:
    """Bytes of a page for so many records of so many bytes, with its journal (journal.py)."""
    return HEADER + slots * record + journal_size(slots)


def split_page(page: memoryview, slots: int, record: int) -> tuple[memoryview, memoryview]:
    """The ring and the journal of a page.

    Raises:
        RemoteProtocolError: the page is too small for so many.
    """
    if len(page) < page_size(slots, record):
        raise RemoteProtocolError(f"a page of {len(page)} bytes for {slots} slots")
    end = HEADER + slots * record
    return page[:end], page[end:]


def _check_capacity(capacity: int) -> int:
    if capacity < 1 or capacity & (capacity - 1):
        raise ValueError(f"the capacity of a ring is a power of two, not {capacity}")
    return capacity


class Outgoing:
    """The producing end: ``page`` is ours (writable), ``peer`` is the peer's page.

    Args:
        start: where the indices start; both sides must agree (a test starts just under the wrap).
    """

    def __init__(self, page: memoryview, peer: memoryview, *, start: int = 0) -> None:
        self._header = page[:HEADER].cast("Q")
        self._peer = peer[:HEADER].cast("Q")
        self._data = page[HEADER:]
        self._capacity = _check_capacity(len(self._data))
        self._published = self._next = start
        self._header[_PRODUCER] = start

    def room(self) -> int:
        """How many bytes can be written now.

        Raises:
            RemoteProtocolError: the peer claims to have read what was never published.
        """
        used = (self._next - self._peer[_CONSUMER]) % _MODULUS
        if used > self._capacity:
            raise RemoteProtocolError(f"the peer's consumer index leaves {used} bytes in use")
        return self._capacity - used

    def write(self, records: bytes) -> None:
        """Append whole records; the peer does not see them yet.

        Raises:
            LocalProtocolError: there is no room; nothing was written.
        """
        length = len(records)
        if length > self.room():
            raise LocalProtocolError(f"{length} bytes do not fit into the ring")
        at = self._next & (self._capacity - 1)
        end = at + length
        if end <= self._capacity:
            self._data[at:end] = records
        else:
            first = self._capacity - at
            self._data[at:] = records[:first]
            self._data[: length - first] = records[first:]
        self._next = (self._next + length) % _MODULUS

    def publish(self) -> bool:
        """Show the peer what was written; True when the peer wants to be signalled."""
        before, self._published = self._published, self._next
        self._header[_PRODUCER] = self._next
        _fence.acquire()
        _fence.release()
        return (self._peer[_EVENT] - before) % _MODULUS < (self._next - before) % _MODULUS


class Incoming:
    """The consuming end: ``page`` is ours, with our consumer index; ``peer`` the producer's."""

    def __init__(self, page: memoryview, peer: memoryview, *, start: int = 0) -> None:
        self._header = page[:HEADER].cast("Q")
        self._peer = peer[:HEADER].cast("Q")
        self._data = peer[HEADER:]
        self._capacity = _check_capacity(len(self._data))
        self._next = start
        self._header[_CONSUMER] = start
        self._header[_EVENT] = start

    def available(self) -> int:
        """How many published bytes have not been read.

        Raises:
            RemoteProtocolError: the peer claims to have published more than the ring holds.
        """
        length = (self._peer[_PRODUCER] - self._next) % _MODULUS
        if length > self._capacity:
            raise RemoteProtocolError(f"the peer's producer index is {length} bytes ahead")
        return length

    def read(self) -> bytes:
        """Everything that is published, copied out; empty when there is nothing."""
        length = self.available()
        if not length:
            return b""
        at = self._next & (self._capacity - 1)
        records = bytes(self._data[at : at + length])
        if len(records) < length:
            records += self._data[: length - len(records)]
        self._next = (self._next + length) % _MODULUS
        self._header[_CONSUMER] = self._next
        return records

    def arm(self) -> bool:
        """Ask to be signalled at the next record; True when something is there already."""
        self._header[_EVENT] = self._next
        _fence.acquire()
        _fence.release()
        return self.available() > 0
