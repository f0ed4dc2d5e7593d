"""What the fuzzers call: a run of bytes in the hands of each piece that a hostile peer can reach.

Each target takes any bytes, and raises only if a promise is broken: whatever the peer writes, the
piece goes on, or says RemoteProtocolError and can be established again. Used by hypothesis
(test_fuzz_records.py) and, guided by coverage, by `make stress` (test_fuzz_coverage.py), which runs
this file as a program: ``python -m tests.transport.fuzz_targets NAME ARGUMENTS OF LIBFUZZER``.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]

from actors.threads import Threads
from transport import (
    FrontEnd,
    Incoming,
    LocalMemory,
    OnLoss,
    Outgoing,
    RemoteProtocolError,
    descriptors,
)
from transport.handshake import Acceptance
from transport.link import Link
from transport.ring import HEADER, page_size, split_page
from transport.serving import Connection

SLOTS = 4
EPOCH = 7
ACCEPTED = Acceptance(8, False, 1, frozenset())
MEMORY = 1 << 14  # bytes of buffer memory
CAPACITY = SLOTS * descriptors.RECORD_LIMIT
RUNTIME = Threads()


def page() -> memoryview:
    return memoryview(bytearray(page_size(SLOTS, descriptors.RECORD_LIMIT)))


def ring_of(whole: memoryview) -> memoryview:
    return split_page(whole, SLOTS, descriptors.RECORD_LIMIT)[0]


class Changing:
    """The words of a page that its owner rewrites between any two looks at it."""

    def __init__(self, words: list[int]) -> None:
        self._words = words
        self.looks = 0

    def __getitem__(self, _index: int) -> int:
        self.looks += 1
        return self._words[self.looks % len(self._words)] if self._words else 0


def words_of(data: bytes) -> list[int]:
    """Small ones and large ones."""
    words = struct.iter_unpack("<Q", data[: len(data) // 8 * 8])
    return [word >> (word & 63) for (word,) in words]


def unpack(records: bytes) -> list[Any]:
    """As of a ring whose slots are not what matters."""
    return descriptors.unpack(records, 1 << 16)


def ring(data: bytes) -> None:
    """Both ends of a ring whose peer page is rewritten at any time: our page stays ours."""
    ours, theirs = ring_of(page()), ring_of(page())
    theirs[HEADER : HEADER + len(data[:CAPACITY])] = data[:CAPACITY]
    for start in (0, (1 << 64) - 8):
        incoming = Incoming(ours, theirs, start=start)
        outgoing = Outgoing(ours, theirs, start=start)
        words: Any = Changing([(start + word) % (1 << 64) for word in words_of(data)])
        incoming._peer = outgoing._peer = words
        before = bytes(ours[HEADER:])
        for _ in range(8):
            read_at, looks = incoming._next, words.looks
            with contextlib.suppress(RemoteProtocolError):
                found = incoming.read()
                assert words.looks == looks + 1, "an index is looked at once"
                assert len(found) <= CAPACITY
                assert (incoming._next - read_at) % (1 << 64) == len(found)
            with contextlib.suppress(RemoteProtocolError):
                incoming.arm()
            assert bytes(ours[HEADER:]) == before, "reading writes no data"
            with contextlib.suppress(RemoteProtocolError):
                room = outgoing.room()
                assert 0 <= room <= CAPACITY
            outgoing.publish()
        assert outgoing._header[0] == outgoing._next


def connection_to(theirs: memoryview) -> tuple[Connection, memoryview]:
    ours = page()
    unused: Any = SimpleNamespace(view=theirs)
    mine: Any = SimpleNamespace(view=ours)
    memory = LocalMemory(MEMORY)
    channel: Any = SimpleNamespace(send=lambda: None)
    return Connection((0, 1), EPOCH, channel, unused, memory, mine, SLOTS, RUNTIME), ours


def requests(data: bytes) -> None:
    """A back end's connection, and what lies in its front end's ring."""
    theirs = page()
    connection, ours = connection_to(theirs)
    writer = Outgoing(ring_of(theirs), ring_of(ours))
    writer.write(data[:CAPACITY])
    writer.publish()
    said = ""
    try:
        connection.read()
        while connection.backlog:
            found = connection.next()
            if found is not None:
                number, request = found
                assert type(number) is int
                assert number >= 0
                for buffer in request.buffers:
                    assert 0 <= buffer.start <= buffer.start + buffer.length <= MEMORY
                    with buffer.map() as pages:
                        assert len(pages) == buffer.length
                if not connection.idle:
                    continue
                connection.begin(number, request)  # so that words about it find it
    except RemoteProtocolError as error:
        said = str(error)
    assert len(said) < 1000
    connection.close()


def answers(data: bytes) -> None:
    """A front end, what its back end writes, and the next, honest back end after that."""
    front = FrontEnd("fuzzed", SLOTS, MEMORY, RUNTIME, 0.0)
    try:
        ended: list[Any] = []
        kinds = (OnLoss.SETTLE, OnLoss.REISSUE, OnLoss.FAIL)
        for kind in kinds:
            front.submit(kind.value, on_loss=kind)
        front.submit("stream", send=b"x" * 100, receive=bytearray(50))
        theirs = open_link(front, EPOCH)[0]
        theirs.write(data[:CAPACITY])
        theirs.publish()
        ended += front.reap()
        front.progress()
        assert front.statistics().faults <= 1
        front.lose()
        ended += front.reap()
        honest, incoming = open_link(front, EPOCH + 1)
        for record in unpack(incoming.read()):
            assert record[0] == EPOCH + 1
            if len(record) > 2 and record[1] > 0:
                honest.write(descriptors.pack_result(EPOCH + 1, record[1], "honest"))
        honest.publish()
        later = front.reap()
        assert all(request.result == "honest" and request.error is None for request in later)
        assert len({id(request) for request in [*ended, *later]}) == len(ended) + len(later) == 4
        assert front.statistics().in_flight == 0
        assert front.statistics().free_bytes == MEMORY
        assert front.credits == SLOTS
    finally:
        front.end()
        front.dispose(failed=False)


def open_link(front: FrontEnd, epoch: int) -> tuple[Outgoing, Incoming]:
    """Connect a back end whose part the caller plays."""
    ours, theirs = page(), page()
    region: Any = SimpleNamespace(view=ours)
    mapping: Any = SimpleNamespace(view=theirs)
    channel: Any = SimpleNamespace(send=lambda: None)
    outgoing = Outgoing(ring_of(theirs), ring_of(ours))
    incoming = Incoming(ring_of(theirs), ring_of(ours))
    front.open(Link(epoch, region, channel, mapping, SLOTS, ACCEPTED))
    return outgoing, incoming


TARGETS: dict[str, Callable[[bytes], None]] = {
    "ring": ring,
    "requests": requests,
    "answers": answers,
}

SEEDS: dict[str, list[bytes]] = {
    "ring": [bytes(16), struct.pack("<4Q", 8, 16, 1 << 40, (1 << 64) - 1)],
    "requests": [
        msgpack.packb([EPOCH, 5, "body"]),
        msgpack.packb([EPOCH, 5, "body", 0, 100]),
        msgpack.packb([EPOCH, 5, "body", [0, 10, 4096, 10]]),
        msgpack.packb([EPOCH, 5, "body", 0, 100, 10, 20]) + msgpack.packb([EPOCH, -5, 10]),
        msgpack.packb([EPOCH, 5, "body"]) + msgpack.packb([EPOCH, -5]),
        b"\x91" * 1000 + b"\xc0",
        b"\xdd\x05\xf5\xe0\xff",
        b"\xda\x05\x00" + b"\xff" * 0x500,
        msgpack.packb([[[[["x" * 9] * 6] * 6] * 6], 5, "body"]),
    ],
    "answers": [
        *(msgpack.packb([EPOCH, n, 0, "result"]) for n in range(4, 8)),
        msgpack.packb([EPOCH, 4, 1, ["OSError", "text", 5, "trace"]]),
        msgpack.packb([EPOCH, 7, 3, 100]) + msgpack.packb([EPOCH, 7, 4, 50]),
        msgpack.packb([EPOCH, 5, 2, None]),
        b"\x94\x07" + b"\x91" * 1000 + b"\xc0\x00\x00",
        b"".join(msgpack.packb([EPOCH, n, 0, "result"]) for n in range(4, 8)),
    ],
}
"""Where a fuzzer may begin: what correct peers write, and what was wrong once."""


def main(argv: list[str]) -> None:
    """Have libFuzzer call one target, and look at the code of the channels only."""
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    for module in ("ring", "descriptors", "serving", "frontend", "pending", "stream"):
        found = sys.modules[f"transport.{module}"]
        for value in list(vars(found).values()):
            if getattr(value, "__module__", None) == found.__name__:
                _instrument(atheris, value)
    atheris.Setup([argv[0], *argv[2:]], TARGETS[argv[1]])
    atheris.Fuzz()


def _instrument(atheris: Any, value: Any) -> None:
    functions = vars(value).values() if isinstance(value, type) else [value]
    for function in functions:
        if callable(function) and hasattr(function, "__code__"):
            atheris.instrument_func(function)


if __name__ == "__main__":
    main(sys.argv)
