"""Metrics by HTTP: an actor that accepts, and one for each scrape, which answers and ends.

Nothing polls, which is why this is not prometheus_client's own server. Of HTTP (RFC 9112) there is
what a scrape needs: GET of ``/metrics``, in the format that its Accept header asks for; every
answer closes the connection. There are at most `_SCRAPES` at a time: one more takes the place of
the oldest, so who says nothing keeps nobody else out.
"""

from __future__ import annotations

import contextlib
import socket

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from actors import Actor, Exit, Message, Ref, System
from hypervisor import HypervisorError
from xenidc.errors import FaceError

_SCRAPES = 16
_HEAD = 16 << 10  # bytes of a request, at most
_CHUNK = 4096
_LAST_PORT = 65535
_PATHS = ("/metrics", "/")


def serve(system: System, registry: CollectorRegistry, address: str) -> str:
    """See `xenidc.serve_metrics`."""
    host, colon, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    right = port.isascii() and port.isdigit() and int(port) <= _LAST_PORT
    if not colon or not host or not right:
        raise FaceError(f"metrics are served at HOST:PORT, not {address!r:.80}")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, int(port)), family=family)
    except OSError as error:
        text = error.strerror or str(error)
        raise FaceError(f"metrics cannot be served at {address}: {text}") from error
    try:
        listener.setblocking(False)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{listener.getsockname()[1]}/metrics"
        system.start(_Scrapes, registry, listener, name="metrics")
    except BaseException:
        listener.close()
        raise
    return url


class _Scrapes(Actor):
    def __init__(self, registry: CollectorRegistry, listener: socket.socket) -> None:
        super().__init__()
        self._registry = registry
        self._listener = listener
        self._scrapes: list[Ref] = []

    def on_start(self) -> None:
        self.watch(self._listener.fileno(), self._accept)

    def on_stop(self) -> None:
        self.unwatch(self._listener.fileno())
        self._listener.close()

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, Exit)
        if message.ref in self._scrapes:
            self._scrapes.remove(message.ref)

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            peer, _ = self._listener.accept()
            peer.setblocking(False)
            if len(self._scrapes) == _SCRAPES:
                self.end_child(self._scrapes.pop(0))
            self._scrapes.append(self.start_child(_Scrape, self._registry, peer))


class _Scrape(Actor):
    def __init__(self, registry: CollectorRegistry, peer: socket.socket) -> None:
        super().__init__()
        self._registry = registry
        self._peer = peer
        self._in = bytearray()
        self._out = bytearray()

    def on_start(self) -> None:
        self.watch(self._peer.fileno(), self._receive)

    def on_stop(self) -> None:
        self.unwatch(self._peer.fileno())
        self._peer.close()

    def _receive(self) -> None:
        try:
            data = self._peer.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        head, ended, _ = bytes(self._in).partition(b"\r\n\r\n")
        if ended:
            self._out += self._answer(head.decode("latin-1"))
            self.watch(self._peer.fileno(), None, self._flush)
        elif not data or len(self._in) > _HEAD:
            self.exit()

    def _flush(self) -> None:
        try:
            del self._out[: self._peer.send(self._out)]
        except BlockingIOError:
            return
        except OSError:
            self._out.clear()
        if not self._out:
            self.exit()

    def _answer(self, head: str) -> bytes:
        first, *lines = head.split("\r\n")
        method, _, rest = first.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        if method != "GET":
            return _response("405 Method Not Allowed", "text/plain", b"only GET\n")
        if path not in _PATHS:
            return _response("404 Not Found", "text/plain", b"there is /metrics\n")
        fields = (line.partition(":") for line in lines)
        accept = next((value for name, _, value in fields if name.lower() == "accept"), "")
        encode, kind = choose_encoder(accept.strip())
        try:
            return _response("200 OK", kind, encode(self._registry))
        except HypervisorError as error:
            return _response("503 Service Unavailable", "text/plain", f"{error}\n".encode())


def _response(status: str, kind: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body
