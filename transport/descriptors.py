"""The records in the rings: one request or one response, as a msgpack array.

Pure. A request is ``[epoch, id, body]``, or ``[epoch, id, body, start, length]`` with a buffer. A
response is ``[epoch, id, OK, result]`` or ``[epoch, id, FAILED, [error, text, errno, traceback]]``.
Whoever decodes gets bytes that were copied out of shared memory, checks everything, and says
`RemoteProtocolError` for what no correct peer writes.
"""

from __future__ import annotations

import traceback
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]

from transport.errors import LocalProtocolError, RemoteError, RemoteProtocolError

OK, FAILED = 0, 1
RECORD_LIMIT = 1024  # bytes of a record; a ring holds this much for each slot of its channel
_TRACEBACK_LIMIT = 500  # characters, so that an error fits into a record whatever it says
_TEXT_LIMIT = 200
_NIL = msgpack.packb(None)


def pack_request(epoch: int, number: int, body: Any, span: tuple[int, int] | None) -> bytes:
    """A request as a record.

    Raises:
        LocalProtocolError: the body is no msgpack value, or too large.
    """
    try:
        if span is None:
            record = msgpack.packb((epoch, number, body))
        else:
            record = msgpack.packb((epoch, number, body, *span))
    except (TypeError, ValueError, OverflowError) as error:
        raise LocalProtocolError(f"a request's body cannot be sent: {error}") from error
    if len(record) > RECORD_LIMIT:
        raise LocalProtocolError(f"a request has {len(record)} bytes, more than {RECORD_LIMIT}")
    return bytes(record)


def pack_result(epoch: int, number: int, result: Any) -> bytes:
    """A good response as a record; one that cannot be sent becomes the error that says so."""
    try:
        record = bytes(msgpack.packb((epoch, number, OK, result)))
    except (TypeError, ValueError, OverflowError) as error:
        return pack_error(epoch, number, LocalProtocolError(f"a result cannot be sent: {error}"))
    if len(record) > RECORD_LIMIT:
        text = f"a result has {len(record)} bytes, more than {RECORD_LIMIT}"
        return pack_error(epoch, number, LocalProtocolError(text))
    return record


def pack_error(epoch: int, number: int, error: BaseException) -> bytes:
    """An error as a record; long texts are cut."""
    errno = error.errno if isinstance(error, OSError) else None
    trace = _ascii("".join(traceback.format_exception(error)))[-_TRACEBACK_LIMIT:]
    text = _ascii(str(error))[:_TEXT_LIMIT]
    name = _ascii(type(error).__name__)[:_TEXT_LIMIT]
    return bytes(msgpack.packb((epoch, number, FAILED, (name, text, errno, trace))))


def _ascii(text: str) -> str:
    """One byte a character, so that cutting it bounds the record."""
    return text.encode("ascii", "backslashreplace").decode()


def unpack(records: bytes) -> list[Any]:
    """The arrays in a run of whole records.

    msgpack does not tell whether its input ended within a value, so a nil is put behind the
    records: only if it comes out as the last value was the last record whole.
    """
    unpacker = msgpack.Unpacker(use_list=False, raw=False, strict_map_key=False)
    unpacker.feed(records)
    unpacker.feed(_NIL)
    try:
        found = list(unpacker)
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise RemoteProtocolError(f"a record is not msgpack: {error!r}") from error
    if not found or found.pop() is not None:
        raise RemoteProtocolError("the last record was published in part")
    return found


def error_of(details: Any) -> RemoteError:
    """The exception that a FAILED response describes."""
    match details:
        case (str(error), str(text), int() | None as errno, str(trace)):
            return RemoteError(error, text, errno, trace)
    raise RemoteProtocolError(f"a response's error is {details!r:.80}")
