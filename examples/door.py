"""The listening sockets of a server that is one actor: who comes in, and when nobody can.

The server owns the clients and closes the sockets. The door looks at the sockets while there is
room: it shuts by itself when the last place is taken, or when the kernel has no descriptor or
memory for another client, and the server opens it again whenever a client has gone; meanwhile the
others wait in the backlog. Who comes in gets a socket that does not wait, and over TCP neither
delays small packets nor outlives a client that is gone without a word.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence, Sized
from functools import partial

from actors import Actor

Welcome = Callable[[socket.socket], object]
"""Called with the socket of who has come in, which is the server's from then on."""


class Door:
    """``listeners``, each with what becomes of who connects there.

    Args:
        server: the actor that looks at them.
        clients: all that have come in and not gone.
        limit: of those.
    """

    def __init__(
        self,
        server: Actor,
        listeners: Sequence[tuple[socket.socket, Welcome]],
        clients: Sized,
        limit: int,
        log: logging.Logger,
    ) -> None:
        self._server = server
        self._listeners = listeners
        self._clients = clients
        self._limit = limit
        self._log = log
        self._open = False

    def open(self) -> None:
        """Let clients in."""
        if not self._open:
            for listener, welcome in self._listeners:
                self._server.watch(listener.fileno(), partial(self._on_connect, listener, welcome))
            self._open = True

    def shut(self) -> None:
        """Let nobody in; who connects meanwhile waits outside."""
        if self._open:
            for listener, _ in self._listeners:
                self._server.unwatch(listener.fileno())
            self._open = False

    def _on_connect(self, listener: socket.socket, welcome: Welcome) -> None:
        try:
            connected, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptor, no memory: better when a client has gone
            if not len(self._clients):
                raise
            self._log.warning("no client can connect now: %s", error)
            self.shut()
            return
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        welcome(connected)
        if len(self._clients) >= self._limit:
            self.shut()
