"""The NBD server: one actor, one thread, for the listening socket, every client and the channel.

Owns the clients (connection.py). The channel and the listening socket are the starter's; the
socket is closed early when the server drains. Who wakes whom, all through the one place where the
actor waits:

    a client's socket is readable -> receive all that has arrived, and have a turn
    the channel has completions   -> reap, send to each client that got some, and have a turn
    a client's socket is writable -> send the rest, and have a turn
    the listening socket, the stop descriptor, `Drain`, deadlines

Rules:
1. A turn serves the clients that have requests one after another, a quantum each, until all are
   idle or the channel is full. Then the client that could not go on stays first in line, so that a
   big request is not overtaken for ever by small ones. Nobody in line is read from.
2. All requests of a turn become visible to the back end by one push, so by at most one signal.
3. No client can stop another: what each may hold is bounded by its share, one that holds
   everything without reading is closed after `STALL_SECONDS` while others wait, and one that does
   not get through its handshake after `HANDSHAKE_SECONDS`.
4. A client's error ends that client alone. The channel's end ends the server, with the reason in
   its exit report, after what can still be sent has been sent.
"""

from __future__ import annotations

import logging
import os
import socket
from collections import deque
from functools import partial
from typing import Any, Final

from actors import Actor, ExitReason, Message, Timer
from examples.block import protocol as p
from examples.block.connection import FULL, MORE, STALLED, Connection
from examples.block.handshake import Export
from examples.door import Door
from transport import ChannelClosed, ChannelFull, FrontEnd, RemoteProtocolError

CLIENT_LIMIT: Final = 128
HANDSHAKE_SECONDS: Final = 30.0
STALL_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 5.0
_SOCKET_BUFFER: Final = 1 << 20  # bytes; so that a large reply is one system call, not five

_log = logging.getLogger("examples.block")


class Drain(Message):
    """Take no more requests, answer those in flight, flush, and end."""


class _HandshakeDeadline(Message):
    client: int


class _StallDeadline(Message):
    pass


class _DrainDeadline(Message):
    pass


class NbdServer(Actor):
    """Serves ``export`` through ``channel`` to whoever connects to ``listener``.

    ``share_of`` is the channel's buffer memory in bytes that the clients divide among them. When
    ``stop`` (a descriptor) becomes readable the server drains; once more, and it does not wait for
    its clients to read any longer.
    """

    def __init__(
        self,
        listener: socket.socket,
        channel: FrontEnd,
        export: Export,
        share_of: int,
        stop: int | None = None,
    ) -> None:
        super().__init__()
        self._listener = listener
        self._channel = channel
        self._export = export
        self._share_of = share_of
        self._stop_fd = stop
        self._clients: dict[int, Connection] = {}
        self._door = Door(self, [(listener, self._on_connect)], self._clients, CLIENT_LIMIT, _log)
        self._deadlines: dict[int, Timer] = {}
        self._numbers = 0
        self._ready: deque[Connection] = deque()  # in line for a turn
        self._full: set[Connection] = set()  # may go on when they hold less
        self._draining = False
        self._flushing = False
        self._stall: Timer | None = None

    def on_start(self) -> None:
        self._door.open()
        self.watch(self._channel.fileno(), self._on_completions)
        if self._stop_fd is not None:
            self.watch(self._stop_fd, self._on_stop_signal)

    def on_stop(self) -> None:
        for client in self._clients.values():
            client.close()
        self._clients.clear()

    def on_receive(self, message: Message) -> Any:
        match message:
            case Drain():
                self._drain()
            case _HandshakeDeadline(number):
                client = self._clients.get(number)
                if client is not None and client.handshaking:
                    self._drop(client, "it did not finish its handshake in time")
            case _StallDeadline():
                self._stall = None
                if self._ready and self._clients:
                    holder = max(self._clients.values(), key=lambda client: client.held)
                    self._drop(holder, "it does not read its replies while others wait")
                    self._turn()
            case _DrainDeadline():
                self._abandon_clients()

    # --- clients come and go ----------------------------------------------------------------------

    def _on_connect(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        self._numbers += 1
        client = Connection(self._numbers, connected, self._export, self._channel)
        self._clients[client.number] = client
        deadline = self.after(HANDSHAKE_SECONDS, _HandshakeDeadline(client.number))
        self._deadlines[client.number] = deadline
        self._send(client)

    def _drop(self, client: Connection, reason: str) -> None:
        _log.warning("client %d is disconnected: %s", client.number, reason)
        self._forget(client)

    def _forget(self, client: Connection) -> None:
        """Close the client; what it has in flight comes back to it and goes nowhere."""
        if client.closed:
            return
        if client.watched != (False, False):
            self.unwatch(client.socket.fileno())
        client.close()
        client.watched = (False, False)
        del self._clients[client.number]
        self._deadlines.pop(client.number).cancel()
        self._full.discard(client)
        if client in self._ready:
            self._ready.remove(client)
        if not self._draining:
            self._door.open()

    def _look_at(self, client: Connection) -> None:
        """Watch the client's socket for what its state can use now."""
        if client.closed:
            return
        reading = not (client.ending or client in self._ready or client in self._full)
        wanted = (reading, client.pending)
        if wanted != client.watched:
            fd = client.socket.fileno()
            if wanted == (False, False):
                self.unwatch(fd)
            else:
                self.watch(
                    fd,
                    partial(self._on_readable, client) if reading else None,
                    partial(self._on_writable, client) if client.pending else None,
                )
            client.watched = wanted

    # --- the work ---------------------------------------------------------------------------------

    def _on_readable(self, client: Connection) -> None:
        if not client.watched[0]:
            return  # the event is older than our decision not to look
        try:
            client.receive()
        except OSError as error:
            self._drop(client, f"its connection is lost: {error}")
        else:
            if client.ending:
                self._send(client)
            else:
                self._ready.append(client)
        self._turn()  # also for the others: they may have waited for what a lost client held

    def _on_writable(self, client: Connection) -> None:
        self._send(client)
        self._turn()

    def _on_completions(self) -> None:
        answered = set()
        for completion in self._channel.reap():
            if completion.token is None:
                self._flushed(completion.error)
                return
            client = completion.token[0]
            client.answer(completion)
            answered.add(client)
        for client in answered:
            self._send(client)
        if self._channel.failure is not None:
            self._fail(str(self._channel.failure))
            return
        self._turn()

    def _turn(self) -> None:
        """Let the clients in line submit what the channel has room for."""
        try:
            while self._round():
                pass
        except ChannelClosed as error:
            self._fail(str(error))
            return
        self._watch_for_a_stall()
        if self._draining:
            self._flush_when_drained()

    def _round(self) -> bool:
        """Go down the line until it is empty or the channel full; True when another is worth it."""
        ready, touched, stalled = self._ready, [], False
        while ready and not stalled:
            client = ready[0]
            try:
                outcome = client.advance(self._share())
            except RemoteProtocolError as error:
                self._drop(client, str(error))
                continue
            touched.append(client)
            stalled = outcome == STALLED
            if not stalled:
                ready.popleft()
            if outcome == MORE:
                ready.append(client)
            elif outcome == FULL:
                self._full.add(client)
        self._channel.push()
        for client in {*touched, *ready}:
            self._send(client)  # which may put a client that was full back in line
        return bool(ready) and not stalled

    def _share(self) -> int:
        """Bytes of buffers that each client may hold: room for one more client stays free."""
        return self._share_of // (len(self._clients) + 1)

    def _send(self, client: Connection) -> None:
        """Send what waits, then see what the client can do next."""
        if client.closed:
            return
        try:
            client.send()
        except OSError as error:
            self._drop(client, f"its connection is lost: {error}")
            return
        if client.done:
            self._forget(client)
        elif client in self._full and not client.full(self._share()):
            self._full.remove(client)
            self._ready.append(client)
        self._look_at(client)

    def _watch_for_a_stall(self) -> None:
        """Start the deadline when only clients that do not read can free what others wait for."""
        stuck = bool(self._ready) and not any(c.in_flight for c in self._clients.values())
        if stuck and self._stall is None:
            self._stall = self.after(STALL_SECONDS, _StallDeadline())
        elif not stuck and self._stall is not None:
            self._stall.cancel()
            self._stall = None

    # --- the end ----------------------------------------------------------------------------------

    def _on_stop_signal(self) -> None:
        assert self._stop_fd is not None
        os.read(self._stop_fd, 4096)
        if self._draining:
            self._abandon_clients()
        else:
            self._drain()

    def _drain(self) -> None:
        if self._draining:
            return
        self._door.shut()
        self._draining = True
        self._listener.close()
        self._ready.clear()
        self._full.clear()
        for client in list(self._clients.values()):
            client.finish()
            self._send(client)
        self.after(DRAIN_SECONDS, _DrainDeadline())
        self._flush_when_drained()

    def _abandon_clients(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client, "it does not read its replies, and the server ends")
        self._flush_when_drained()

    def _flush_when_drained(self) -> None:
        if self._clients or self._flushing:
            return
        self._flushing = True
        try:
            self._channel.submit((p.FLUSH, 0, 0, 0))
            self._channel.push()
        except ChannelFull:  # of requests of clients that we abandoned; one of them will end
            self._flushing = False
        except ChannelClosed as error:
            self._fail(str(error))

    def _flushed(self, error: Exception | None) -> None:
        if error is None:
            self.exit()
        else:
            self._fail(f"the last flush failed: {error}")

    def _fail(self, text: str) -> None:
        for client in list(self._clients.values()):
            self._send(client)
        self.exit(ExitReason("error", "ServerFailed", text, ""))
