"""The first phase of an NBD connection: from the greeting to a chosen export. Pure, no I/O.

Owns what one client has negotiated. The connection around it sends `GREETING`, feeds every byte
that arrives to `Handshake.receive` and sends what that returns, until `outcome` is set.

    greeting -> client flags -> (option -> replies)* -> TRANSMISSION   by GO or EXPORT_NAME
                                                     -> CLOSE          by ABORT, or an export that
                                                                       EXPORT_NAME cannot have

Rules:
1. An option that we do not know is answered (ERR_UNSUP), one that is malformed too (ERR_INVALID),
   and haggling goes on. Only bytes that are no option at all end it: `RemoteProtocolError`.
2. What a client may make us remember is bounded: an option's data by `OPTION_LIMIT`.
3. Bytes behind the option that ends the handshake are the first requests: `leftover`.

Corner cases: EXPORT_NAME cannot be answered by an error, so an unknown name closes the connection.
The empty name is the default export, which is ours whatever name it has. A metadata context counts
for the export that it was chosen for; all names that we accept mean the same export.

Specification: doc/proto.md of NetworkBlockDevice/nbd, "Handshake" and "Option types".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from examples.block import nbd
from examples.block.protocol import PREFERRED
from transport import RemoteProtocolError

OPTION_LIMIT: Final = 64 << 10  # bytes
TRANSMISSION: Final = "transmission"
CLOSE: Final = "close"

SERVER_FLAGS: Final = nbd.FLAG_FIXED_NEWSTYLE | nbd.FLAG_NO_ZEROES
GREETING: Final = nbd.GREETING.pack(nbd.INIT_MAGIC, nbd.OPTION_MAGIC, SERVER_FLAGS)


@dataclass(frozen=True)
class Export:
    """What is served. ``size`` and ``request_limit`` (the largest READ or WRITE) are in bytes."""

    name: str
    size: int
    read_only: bool
    request_limit: int

    def flags(self, *, structured: bool) -> int:
        """The transmission flags.

        Multi-conn may be said: all connections share one channel, one back end and one page cache,
        so a flush on any of them covers what was answered on all of them.
        """
        flags = nbd.HAS_FLAGS | nbd.SEND_FLUSH | nbd.SEND_FUA | nbd.SEND_CACHE | nbd.CAN_MULTI_CONN
        if structured:
            flags |= nbd.SEND_DF
        if self.read_only:
            return flags | nbd.READ_ONLY
        return flags | nbd.SEND_TRIM | nbd.SEND_WRITE_ZEROES | nbd.SEND_FAST_ZERO


class _Malformed(Exception):
    """The data of an option are not what the option wants; the text goes to the client."""


class Handshake:
    """One client's option haggling about one export."""

    def __init__(self, export: Export) -> None:
        self.export = export
        self.outcome: str | None = None
        self.structured = False
        self.block_status = False
        self._input = bytearray()
        self._flags: int | None = None

    @property
    def leftover(self) -> bytes:
        """What arrived behind the end of the handshake."""
        return bytes(self._input)

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take in what has arrived; returns what is to be sent.

        Raises:
            RemoteProtocolError: the client does not speak this protocol. Close its connection.
        """
        self._input += data
        output: list[bytes] = []
        while self.outcome is None and self._advance(output):
            pass
        return b"".join(output)

    def _advance(self, output: list[bytes]) -> bool:
        """Handle one complete item of the input; False when there is none yet."""
        if self._flags is None:
            if len(self._input) < nbd.CLIENT_FLAGS.size:
                return False
            (flags,) = nbd.CLIENT_FLAGS.unpack_from(self._input)
            if flags & ~SERVER_FLAGS:
                raise RemoteProtocolError(f"client flags {flags:#x} have bits that we do not know")
            self._flags = flags
            del self._input[: nbd.CLIENT_FLAGS.size]
            return True
        if len(self._input) < nbd.OPTION.size:
            return False
        magic, option, length = nbd.OPTION.unpack_from(self._input)
        if magic != nbd.OPTION_MAGIC:
            raise RemoteProtocolError(f"{magic:#x} is not the beginning of an option")
        if length > OPTION_LIMIT:
            raise RemoteProtocolError(f"option {option} has {length} bytes, {OPTION_LIMIT} allowed")
        end = nbd.OPTION.size + length
        if len(self._input) < end:
            return False
        data = bytes(self._input[nbd.OPTION.size : end])
        del self._input[:end]
        try:
            output += self._answer(option, data)
        except _Malformed as error:
            output.append(_reply(option, nbd.REP_ERR_INVALID, str(error).encode()))
        return True

    def _answer(self, option: int, data: bytes) -> list[bytes]:
        match option:
            case nbd.OPT_EXPORT_NAME:
                return self._export_name(data)
            case nbd.OPT_ABORT:
                self.outcome = CLOSE
                return [_reply(option, nbd.REP_ACK)]
            case nbd.OPT_LIST:
                _expect_none(data)
                name = self.export.name.encode()
                entry = len(name).to_bytes(4, "big") + name
                return [_reply(option, nbd.REP_SERVER, entry), _reply(option, nbd.REP_ACK)]
            case nbd.OPT_INFO | nbd.OPT_GO:
                return self._info(option, data)
            case nbd.OPT_STRUCTURED_REPLY:
                _expect_none(data)
                self.structured = True
                return [_reply(option, nbd.REP_ACK)]
            case nbd.OPT_LIST_META_CONTEXT | nbd.OPT_SET_META_CONTEXT:
                return self._meta_context(option, data)
        return [_reply(option, nbd.REP_ERR_UNSUP, b"this server does not know that option")]

    def _export_name(self, data: bytes) -> list[bytes]:
        if not self._is_ours(data):
            self.outcome = CLOSE
            return []
        self.outcome = TRANSMISSION
        flags = self.export.flags(structured=self.structured)
        answer = nbd.EXPORT_REPLY.pack(self.export.size, flags)
        assert self._flags is not None
        if not self._flags & nbd.FLAG_NO_ZEROES:
            answer += bytes(nbd.EXPORT_PADDING)
        return [answer]

    def _info(self, option: int, data: bytes) -> list[bytes]:
        name, at = _string(data, 0)
        wanted, at = _number(data, at, 2)
        if len(data) != at + 2 * wanted:
            raise _Malformed("the information requests do not fill the option")
        if not self._is_ours(name):
            return [_reply(option, nbd.REP_ERR_UNKNOWN, b"no export has that name")]
        export = self.export
        flags = export.flags(structured=self.structured)
        size = nbd.INFO_EXPORT_DATA.pack(nbd.INFO_EXPORT, export.size, flags)
        # Always sent, asked for or not: who does not know it must ignore it.
        blocks = nbd.INFO_BLOCK_SIZE_DATA.pack(
            nbd.INFO_BLOCK_SIZE, 1, PREFERRED, export.request_limit
        )
        if option == nbd.OPT_GO:
            self.outcome = TRANSMISSION
        return [
            _reply(option, nbd.REP_INFO, size),
            _reply(option, nbd.REP_INFO, blocks),
            _reply(option, nbd.REP_ACK),
        ]

    def _meta_context(self, option: int, data: bytes) -> list[bytes]:
        if option == nbd.OPT_SET_META_CONTEXT:
            self.block_status = False  # each SET replaces the one before, also when it fails
        if not self.structured:
            raise _Malformed("structured replies have to be negotiated first")
        name, at = _string(data, 0)
        count, at = _number(data, at, 4)
        queries: list[bytes] = []
        while at < len(data) and len(queries) < count:
            query, at = _string(data, at)
            queries.append(query)
        if at != len(data) or len(queries) != count:
            raise _Malformed("the queries do not fill the option")
        if not self._is_ours(name):
            return [_reply(option, nbd.REP_ERR_UNKNOWN, b"no export has that name")]
        context = nbd.META_CONTEXT.encode()
        chosen = context in queries
        if option == nbd.OPT_LIST_META_CONTEXT:  # here no query, or its namespace, means all
            chosen = chosen or not queries or b"base:" in queries
            number = 0
        else:
            self.block_status = chosen
            number = nbd.META_CONTEXT_ID
        replies = [_reply(option, nbd.REP_ACK)]
        if chosen:
            entry = number.to_bytes(4, "big") + context
            replies.insert(0, _reply(option, nbd.REP_META_CONTEXT, entry))
        return replies

    def _is_ours(self, name: bytes) -> bool:
        return name in (b"", self.export.name.encode())


def _reply(option: int, kind: int, data: bytes = b"") -> bytes:
    return nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, option, kind, len(data)) + data


def _expect_none(data: bytes) -> None:
    if data:
        raise _Malformed("this option has no data")


def _number(data: bytes, at: int, width: int) -> tuple[int, int]:
    """The unsigned number at ``at`` and where it ends."""
    if len(data) - at < width:
        raise _Malformed("the option ends too early")
    return int.from_bytes(data[at : at + width], "big"), at + width


def _string(data: bytes, at: int) -> tuple[bytes, int]:
    """The counted string at ``at`` and where it ends."""
    length, at = _number(data, at, 4)
    if length > nbd.STRING_LIMIT:
        raise _Malformed(f"a string has at most {nbd.STRING_LIMIT} bytes")
    if len(data) - at < length:
        raise _Malformed("the option ends too early")
    return data[at : at + length], at + length
