"""The records in the rings: msgpack arrays, each of one request, answer, or word in between.

Pure. ``[epoch, number, ...]`` begins every record. From the front end:

    [epoch, number, body]                                a request
    [epoch, number, body, start, length]                 with a buffer
    [epoch, number, body, [start, length, ...]]          with several
    [epoch, number, body, start, length, send, receive]  with a stream of so many bytes each way,
                                                         through a chunk of buffer memory
    [epoch, -number, count]                              a data phase of its stream is done
    [epoch, -number]                                     its caller has no use for it any more

From the back end, ``[epoch, number, status, value]``: OK and the result; FAILED and [error, text,
errno, traceback]; CANCELLED and nil; PULL and how many bytes of the stream it wants in the chunk at
most; PUSH and how many bytes of the chunk are the stream's. After a PULL or PUSH comes the front
end's word that it is done, before there is another. A phase moves at least one byte, so a stream
has no more phases than bytes; 0 in the front end's word says that its caller has gone.

Whoever decodes gets bytes that were copied out of shared memory, checks everything, and says
`RemoteProtocolError` for what no correct peer writes.
"""

from __future__ import annotations

import reprlib
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]

from transport.errors import LocalProtocolError, RemoteError, RemoteProtocolError

OK, FAILED, CANCELLED, PULL, PUSH = range(5)
RECORD_LIMIT = 1024  # bytes; a ring holds this much for each slot of its channel
_WORD_LIMIT = 32  # bytes of the other words
_WORDS = 4  # of them beside a request: of either kind, and about the slot's last user
REQUEST_LIMIT = RECORD_LIMIT - _WORDS * _WORD_LIMIT
ANSWER_LIMIT = RECORD_LIMIT - _WORD_LIMIT
_TRACEBACK_LIMIT = 500  # characters, so that an error fits into a record whatever it says
_TEXT_LIMIT = 200
_FED = 1 << 20  # bytes that one unpacker is fed: its buffer grows with what a peer writes at once
_NOT_MSGPACK = (ValueError, TypeError, msgpack.UnpackException, RecursionError)
_OPTIONS: dict[str, Any] = {
    "use_list": False,
    "raw": False,
    "strict_map_key": False,
    "max_array_len": RECORD_LIMIT,  # a header alone makes room for all that it announces
    "max_map_len": RECORD_LIMIT,
}


Pack = Callable[[Any], bytes]
"""Packs a msgpack value."""

packb: Pack = msgpack.packb
"""For any thread."""


def packer() -> Pack:
    """As `packb`, in a third of the time, and for one thread at a time."""
    pack: Pack = msgpack.Packer().pack
    return pack


def pack_request(
    epoch: int,
    number: int,
    body: Any,
    where: tuple[int | Sequence[int], ...] = (),
    pack: Pack = packb,
) -> bytes:
    """A request as a record; ``where`` as above.

    Raises:
        LocalProtocolError: the body is no msgpack value, or too large.
    """
    try:
        record = pack((epoch, number, body, *where) if where else (epoch, number, body))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"a request's body cannot be sent: {error}") from error
    if len(record) > REQUEST_LIMIT:
        raise LocalProtocolError(f"a request has {len(record)} bytes, more than {REQUEST_LIMIT}")
    return record


def pack_phase_done(epoch: int, number: int, count: int) -> bytes:
    """``count`` bytes of the stream were moved."""
    return packb((epoch, -number, count))


def pack_cancel(epoch: int, number: int) -> bytes:
    """The request's caller has no use for it any more."""
    return packb((epoch, -number))


def pack_result(epoch: int, number: int, result: Any, pack: Pack = packb) -> bytes:
    """A good response as a record; one that cannot be sent becomes the error that says so."""
    try:
        record = pack((epoch, number, OK, result))
    except (TypeError, ValueError, OverflowError) as error:
        return pack_error(epoch, number, LocalProtocolError(f"a result cannot be sent: {error}"))
    if len(record) > ANSWER_LIMIT:
        text = f"a result has {len(record)} bytes, more than {ANSWER_LIMIT}"
        return pack_error(epoch, number, LocalProtocolError(text))
    return record


def pack_error(epoch: int, number: int, error: BaseException) -> bytes:
    """An error as a record; long texts are cut."""
    errno = error.errno if isinstance(error, OSError) else None
    trace = _ascii("".join(traceback.format_exception(error)))[-_TRACEBACK_LIMIT:]
    text = _ascii(str(error))[:_TEXT_LIMIT]
    name = _ascii(type(error).__name__)[:_TEXT_LIMIT]
    return packb((epoch, number, FAILED, (name, text, errno, trace)))


def pack_cancelled(epoch: int, number: int) -> bytes:
    """The request was not begun, because of its caller's word."""
    return packb((epoch, number, CANCELLED, None))


def pack_phase(epoch: int, number: int, status: int, count: int) -> bytes:
    """``status``: PULL or PUSH."""
    return packb((epoch, number, status, count))


def _ascii(text: str) -> str:
    """One byte a character, so that cutting it bounds the record."""
    return text.encode("ascii", "backslashreplace").decode()


_Unpacker = tuple[Callable[[bytes], None], Callable[[], Any], Callable[[], int]]

# As many as were ever in use at once, since each takes 41 KiB. One is out of the list while it is
# used, and does not come back if it has failed, for there may be something left in it.
_unpackers: list[_Unpacker] = []


def _new_unpacker() -> _Unpacker:
    unpacker = msgpack.Unpacker(read_size=RECORD_LIMIT, max_buffer_size=0, **_OPTIONS)
    return unpacker.feed, unpacker.unpack, unpacker.tell


def unpack(records: bytes, slots: int) -> list[Any]:
    """The arrays in a run of whole records, which a ring of so many slots can hold.

    Raises:
        RemoteProtocolError: they are not whole records, or so many as no correct peer writes: they
            can be small, and would take many times the ring's memory here.
    """
    most = slots * (1 + _WORDS)
    try:
        unpacker = _unpackers.pop()
    except IndexError:
        unpacker = _new_unpacker()
    feed, unpack_one, tell = unpacker
    end = tell() + len(records)
    try:
        feed(records)
        found = []
        while tell() != end:
            found.append(unpack_one())
            if len(found) > most:
                raise RemoteProtocolError(f"more than {most} records in a ring of {slots} slots")
    except msgpack.OutOfData:
        raise RemoteProtocolError("the last record was published in part") from None
    except _NOT_MSGPACK as error:
        text = f"a record is not msgpack: {type(error).__name__} {error}"  # its repr may be long
        raise RemoteProtocolError(text) from error
    if end < _FED:
        _unpackers.append(unpacker)
    return found


def show(value: Any) -> str:
    """What a peer wrote, for the text of an error: short, however long or deeply nested it is."""
    text = reprlib.repr(value)
    return text if len(text) <= _TEXT_LIMIT else f"{text[:_TEXT_LIMIT]}..."


def error_of(details: Any) -> RemoteError:
    """The exception that a FAILED response describes."""
    match details:
        case (str(error), str(text), int() | None as errno, str(trace)):
            return RemoteError(error, text, errno, trace)
    raise RemoteProtocolError(f"a response's error is {show(details)}")
