"""The store on a unix socket: for `xenstore-ls`, `xenstore-watch` and other people's clients.

Whoever can open the socket is domain 0, so its file is its owner's alone (mode 0600). Each client
is a connection of its own to the store's actor, and all of them are served by one thread, which
waits on their sockets and its mailbox together.

Rules: a client that sends what cannot be understood is closed, alone. One that does not read its
replies and events is not read from any more when `_OUT_LIMIT` bytes wait for it, and closed when
events make that twice as many: nobody else waits for it, and it costs a bounded amount of memory.
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial

from actors import Actor, Message, Ref
from hypervisor.socketfile import UnixListener
from hypervisor.store_calls import CloseStore, OpenStore, StoreCall, StoreEvent, StoreRequest
from hypervisor.xs_wire import Frames, WireError, watch_event

_CHUNK = 64 << 10  # bytes to receive at a time
_OUT_LIMIT = 1 << 20  # bytes that may wait for a client that does not read


class _Client:
    """One client: its socket, what it has sent, and what it has not read yet."""

    def __init__(self, peer: socket.socket, connection: int) -> None:
        self.peer = peer
        self.connection = connection
        self.frames = Frames()
        self.out = bytearray()


class StoreSocket(Actor):
    """Serves ``store`` on ``path``.

    Raises, as the cause of StartFailed: SocketInUse, NotASocket, OSError (see `UnixListener`).
    """

    def __init__(self, store: Ref, path: str) -> None:
        super().__init__()
        self._store = store
        self._path = path
        self._clients: dict[int, _Client] = {}

    def on_start(self) -> None:
        self._listener = UnixListener(self._path, mode=0o600)
        self.watch(self._listener.socket.fileno(), self._accept)

    def on_stop(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client)
        self.unwatch(self._listener.socket.fileno())
        self._listener.close()

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, StoreEvent)
        client = self._clients.get(message.connection)
        if client is None:
            return  # it has gone meanwhile
        client.out += watch_event(message.path, message.token)
        self._flush(client)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            peer, _ = self._listener.socket.accept()
            peer.setblocking(False)
            client = _Client(peer, self._store.ask(OpenStore(0, self.ref)))
            self._clients[client.connection] = client
            self._watch(client)

    def _watch(self, client: _Client) -> None:
        """For what it sends, unless it has too much to read first; and for room, if it has."""
        reads = len(client.out) < _OUT_LIMIT
        self.watch(
            client.peer.fileno(),
            partial(self._receive, client) if reads else None,
            partial(self._flush, client) if client.out else None,
        )

    def _receive(self, client: _Client) -> None:
        try:
            data = client.peer.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.frames.feed(data)
        try:
            while (request := client.frames.take()) is not None:
                call = StoreCall(client.connection, StoreRequest(request.encode()))
                client.out += self._store.ask(call)
        except WireError:
            self._drop(client)
        else:
            self._flush(client)

    def _flush(self, client: _Client) -> None:
        try:
            while client.out:
                del client.out[: client.peer.send(client.out)]
        except BlockingIOError:
            if len(client.out) >= 2 * _OUT_LIMIT:
                self._drop(client)
                return
        except OSError:
            self._drop(client)
            return
        self._watch(client)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.connection, None) is not None:
            self.unwatch(client.peer.fileno())
            client.peer.close()
            self._store.tell(CloseStore(client.connection))
