"""One NBD client: its socket, what it has sent and not yet got, and its replies. No actor, no
epoll.

The server (server.py) says when to `receive`, `advance` and `send`, and what the socket is to be
watched for follows from the state. Life of a request:

    receive   one system call for as many requests as have arrived, into the scratch memory
    advance   each is judged (transmission.py) and submitted to the channel, with a granted buffer
    answer    its completion adds the reply to `_out`: a header, and the buffer's own pages
    send      one system call for as many replies as there are; a buffer that is out is released

Rules:
1. Nothing blocks. What the channel cannot take now (no credit, no buffer) stays in the scratch
   memory and `advance` says STALLED; nothing more is received until it has gone.
2. What one client can hold is bounded: `share` bytes of buffers and `REPLY_LIMIT` replies. Above
   that it is not served (FULL) until it has read its replies.
3. The payload of a WRITE is received straight into its granted buffer, as far as it was not in the
   scratch memory yet. Behind a large one little else is received with it, so that the next payload
   can go the same way; behind a small one as much as there is, since system calls cost more than
   copies.
4. A request is submitted when all of it has arrived: half a request changes nothing.
5. A client's end (DISC or end of file) is orderly: what was submitted is answered, then the socket
   is closed. An error of the socket or the protocol closes it at once; completions that come later
   only release their buffers.

Specification: doc/proto.md of NetworkBlockDevice/nbd.
"""

from __future__ import annotations

import socket
from typing import Final

from examples.block import nbd
from examples.block import protocol as p
from examples.block.handshake import CLOSE, GREETING, Export, Handshake
from examples.block.transmission import Rules, nbd_error
from transport import (
    BuffersExhausted,
    ChannelClosed,
    ChannelFull,
    Completion,
    FrontEnd,
    LocalBuffer,
    RemoteError,
    RemoteProtocolError,
)

IDLE: Final = "idle"  # everything that had arrived is dealt with
MORE: Final = "more"  # there is more to do, after the others have had their turn
STALLED: Final = "stalled"  # the channel has no room now
FULL: Final = "full"  # this client holds as much as it may, and has to read its replies first

QUANTUM: Final = 32  # requests of one client before the next one's turn
REPLY_LIMIT: Final = 2048  # pieces of replies that one client may leave unread
_SCRATCH: Final = 256 << 10  # bytes
_LARGE: Final = 64 << 10  # bytes of a payload that are worth a system call of their own
_AHEAD: Final = 4096  # bytes received behind such a payload
_PAGE: Final = 4096  # bytes
_IOV_MAX: Final = 1024  # limits.h; pieces for one sendmsg

_OPERATIONS: Final = {  # the commands that carry no data
    nbd.CMD_FLUSH: p.FLUSH,
    nbd.CMD_TRIM: p.TRIM,
    nbd.CMD_CACHE: p.CACHE,
    nbd.CMD_WRITE_ZEROES: p.WRITE_ZEROES,
}

Token = tuple["Connection", int, int, int, int]  # connection, command, cookie, offset, length


def span_of(length: int) -> int:
    """What a buffer takes from the channel's memory: whole pages, a power of two of them."""
    return _PAGE if length <= _PAGE else 1 << (length - 1).bit_length()


class Connection:
    """A connected client of ``export``, served through ``channel``.

    Attributes:
        number: for messages about it.
        socket: non-blocking.
        in_flight: requests that are submitted and not completed.
        held: bytes of granted buffers that this client holds, as the channel counts them.
        handshaking: nothing can be asked yet.
        ending: no more requests are taken.
        closed: the socket is closed.
    """

    def __init__(
        self, number: int, connected: socket.socket, export: Export, channel: FrontEnd
    ) -> None:
        self.number = number
        self.socket = connected
        self.in_flight = 0
        self.held = 0
        self.handshaking = True
        self.ending = False
        self.closed = False
        self.watched = (False, False)  # the server's note: for reading, for writing
        self._channel = channel
        self._export = export
        self._handshake: Handshake | None = Handshake(export)
        self._rules = Rules(export, structured=False, block_status=False)
        self._scratch = memoryview(bytearray(4096))
        self._start = self._end = 0  # what is received and not dealt with
        self._out: list[bytes | memoryview] = [GREETING]
        self._owners: list[LocalBuffer | None] = [None]  # what each of them is the memory of
        self._payload: tuple[LocalBuffer, int, int, int] | None = None  # + cookie, offset, flags
        self._filled = 0  # bytes of the payload
        self._skip = 0  # bytes of a refused payload that are still to come

    # --- what the server asks ---------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Something waits to be sent."""
        return bool(self._out)

    @property
    def done(self) -> bool:
        """Everything that this client will ever get has been sent."""
        return self.ending and not self.in_flight and not self._out

    def full(self, share: int) -> bool:
        """This client holds as much as it may: ``share`` bytes of buffers, or too many replies."""
        return self.held >= share or len(self._out) >= REPLY_LIMIT

    # --- input ------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Receive what has arrived, with one system call.

        Raises:
            OSError: the connection is lost.
        """
        scratch = self._scratch
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            rest = self._end - self._start
            scratch[:rest] = scratch[self._start : self._end]
            self._start, self._end = 0, rest
        try:
            if self._payload is None:
                count = self.socket.recv_into(scratch[self._end :])
            else:
                missing = self._payload[0].view[self._filled :]
                room = scratch[: _AHEAD if len(missing) >= _LARGE else len(scratch)]
                count = self.socket.recvmsg_into([missing, room])[0]
                into_payload = min(count, len(missing))
                self._filled += into_payload
                self._end += count - into_payload
                missing.release()
                if count:
                    return
        except (BlockingIOError, InterruptedError):
            return
        if not count:
            self.finish()
        self._end += count

    def finish(self) -> None:
        """Take no more requests from this client; what is in flight is still answered."""
        self.ending = True
        self._start = self._end = 0
        if self._payload is not None:
            buffer = self._payload[0]
            self._payload = None
            self._release(buffer)

    def advance(self, share: int) -> str:
        """Deal with what has been received, a fair part of it: IDLE, MORE, STALLED or FULL.

        Raises:
            RemoteProtocolError: these are no requests. Close the connection.
        """
        if self._handshake is not None:
            self._negotiate(self._handshake)
            if self._handshake is not None:
                return IDLE
        try:
            return self._requests(share)
        except (BuffersExhausted, ChannelFull):
            return STALLED

    def _negotiate(self, handshake: Handshake) -> None:
        answer = handshake.receive(self._scratch[self._start : self._end])
        self._start = self._end = 0
        if answer:
            self._reply(answer)
        if handshake.outcome == CLOSE:
            self.finish()
        elif handshake.outcome is not None:
            self._handshake = None
            self.handshaking = False
            self._rules = Rules(
                self._export,
                structured=handshake.structured,
                block_status=handshake.block_status,
            )
            leftover = handshake.leftover
            self._scratch = memoryview(bytearray(max(_SCRATCH, len(leftover))))
            self._scratch[: len(leftover)] = leftover
            self._end = len(leftover)

    def _requests(self, share: int) -> str:
        # The hot path: one turn of the loop is one request. `_start` moves only when a request has
        # been dealt with, so that an exception of the channel leaves it to be tried again.
        channel, scratch, rules, end = self._channel, self._scratch, self._rules, self._end
        header, size = nbd.REQUEST.unpack_from, nbd.REQUEST.size
        for _ in range(QUANTUM):
            if self._payload is not None:
                if not self._submit_payload():
                    return IDLE
                end = self._end
            if self._skip:
                skipped = min(self._skip, end - self._start)
                self._skip -= skipped
                self._start += skipped
            start = self._start
            if end - start < size:
                return IDLE
            if self.full(share):
                return FULL
            magic, flags, command, cookie, offset, length = header(scratch, start)
            if magic != nbd.REQUEST_MAGIC:
                raise RemoteProtocolError(f"{magic:#010x} is not the beginning of a request")
            error = rules.refusal(command, flags, offset, length)
            if error:
                if command == nbd.CMD_WRITE:
                    self._skip = length
                self._reply(rules.failure(cookie, error, "the request is not valid here"))
                self._start = start + size
            elif command == nbd.CMD_READ and length:
                buffer = channel.buffer(length)
                try:
                    channel.submit(
                        (p.READ, offset, length, 0), buffer, (self, command, cookie, offset, length)
                    )
                except ChannelFull:
                    buffer.release()
                    raise
                self.held += span_of(length)
                self.in_flight += 1
                self._start = start + size
            elif command == nbd.CMD_WRITE and length:
                if not channel.credits:
                    return STALLED
                buffer = channel.buffer(length)
                self.held += span_of(length)
                self._payload = (buffer, cookie, offset, flags)
                start += size
                self._filled = min(end - start, length)
                buffer.view[: self._filled] = scratch[start : start + self._filled]
                self._start = start + self._filled
            elif command == nbd.CMD_DISC:
                self.finish()
                return IDLE
            else:
                self._other(command, flags, cookie, offset, length)
                self._start = start + size
        return MORE

    def _submit_payload(self) -> bool:
        """Submit the WRITE whose payload is complete; False when it is not."""
        assert self._payload is not None
        buffer, cookie, offset, flags = self._payload
        length = len(buffer.view)
        if self._filled < length:
            return False
        body = (p.WRITE, offset, length, p.FUA if flags & nbd.CMD_FLAG_FUA else 0)
        self._channel.submit(body, buffer, (self, nbd.CMD_WRITE, cookie, offset, length))
        self._payload = None
        self.in_flight += 1
        return True

    def _other(self, command: int, flags: int, cookie: int, offset: int, length: int) -> None:
        """Every request that is neither READ nor WRITE, and those that are about no bytes."""
        token = (self, command, cookie, offset, length)
        if command == nbd.CMD_BLOCK_STATUS:
            buffer = self._channel.buffer(p.EXTENT_BYTES)
            one = p.ONE_EXTENT if flags & nbd.CMD_FLAG_REQ_ONE else 0
            try:
                self._channel.submit((p.BLOCK_STATUS, offset, length, one), buffer, token)
            except ChannelFull:
                buffer.release()
                raise
            self.held += p.EXTENT_BYTES
            self.in_flight += 1
        elif length or command == nbd.CMD_FLUSH:
            ours = 0
            if flags & nbd.CMD_FLAG_FUA:
                ours |= p.FUA
            if flags & nbd.CMD_FLAG_NO_HOLE:
                ours |= p.NO_HOLE
            if flags & nbd.CMD_FLAG_FAST_ZERO:
                ours |= p.FAST_ZERO
            self._channel.submit((_OPERATIONS[command], offset, length, ours), None, token)
            self.in_flight += 1
        elif command == nbd.CMD_READ:
            self._reply(self._rules.data(cookie, offset, 0))
        else:
            self._reply(self._rules.success(cookie))

    # --- output -----------------------------------------------------------------------------------

    def answer(self, completion: Completion) -> None:
        """Turn the completion of one of our requests into its reply, to be sent by `send`."""
        _, command, cookie, offset, length = completion.token
        buffer, error = completion.buffer, completion.error
        self.in_flight -= 1
        if self.closed:
            if buffer is not None:
                self._release(buffer)
        elif error is not None:
            if buffer is not None:
                self._release(buffer)
            self._reply(self._failure(cookie, error))
        elif buffer is None:
            self._reply(self._rules.success(cookie))
        elif command == nbd.CMD_READ:
            self._out += (self._rules.data(cookie, offset, length), buffer.view)
            self._owners += (None, buffer)
        elif command == nbd.CMD_WRITE:
            self._release(buffer)
            self._reply(self._rules.success(cookie))
        else:
            extents = buffer.view[: completion.result * p.EXTENT.size]
            self._out += (self._rules.extents(cookie, len(extents)), extents)
            self._owners += (None, buffer)

    def _failure(self, cookie: int, error: Exception) -> bytes:
        match error:
            case RemoteError():
                return self._rules.failure(cookie, nbd_error(error.errno), str(error))
            case ChannelClosed():
                return self._rules.failure(cookie, nbd.ESHUTDOWN, str(error))
        return self._rules.failure(cookie, nbd.EIO, str(error))

    def _reply(self, reply: bytes) -> None:
        self._out.append(reply)
        self._owners.append(None)

    def send(self) -> None:
        """Send as much as the client takes now.

        Raises:
            OSError: the connection is lost.
        """
        while self._out:
            batch = self._out[:_IOV_MAX]
            try:
                sent = self.socket.sendmsg(batch)
            except (BlockingIOError, InterruptedError):
                return
            count = len(batch)
            if sent == sum(map(len, batch)):
                sent = 0
            else:
                count = 0
                while sent >= len(batch[count]):
                    sent -= len(batch[count])
                    count += 1
            for owner in self._owners[:count]:
                if owner is not None:
                    self._release(owner)
            del self._out[:count], self._owners[:count]
            if sent:
                self._out[0] = memoryview(self._out[0])[sent:]

    def close(self) -> None:
        """Close the socket at once and release what is not in flight. Idempotent."""
        if self.closed:
            return
        self.finish()
        self.closed = True
        self.socket.close()
        self._out.clear()
        for owner in self._owners:
            if owner is not None:
                self._release(owner)
        self._owners.clear()

    def _release(self, buffer: LocalBuffer) -> None:
        self.held -= span_of(len(buffer.view))
        buffer.release()
