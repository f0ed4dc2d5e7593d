"""The control socket of a running machine: JSON lines on a unix socket that is its owner's alone.

A request is one line, and so is its answer: ``{"ok": value}`` or ``{"error": text}``, in the order
of the requests. What may be asked is a table (requests.py). After the answer to some a line follows
whenever something happens (streams.py): ``{"item": value}``, and at its end ``{"end": text}``. Such
a connection takes no other request: its client ends it, by closing it.

One actor accepts, and each connection is an actor of its own, so that a request that takes its time
(the restart of a domain) keeps nobody else waiting. Both wait on their socket and their mailbox
together.

Rules: a line that is too long, or no JSON, ends its connection, alone. A client that does not read
its answers is not read from any more until it does. There are at most `_CONNECTIONS` at a time;
who comes then is closed at once. What is streamed to a slow reader is bounded by its source.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
from functools import partial
from typing import Any

from actors import Actor, ActorError, Exit, Message
from hypervisor import HypervisorError, StoreError, UnixListener
from xenidc.errors import ControlError, FaceError
from xenidc.requests import answer, stream
from xenidc.running import Running
from xenidc.streams import News, Source

_CHUNK = 64 << 10  # bytes to receive at a time
_LINE = 64 << 10  # bytes of a request, at most
_CONNECTIONS = 16
_TURN = 64  # pieces that are sent to one client, before its mailbox has its turn


def control_directory() -> str:
    """Where the control sockets of this user's machines are; made if it is not there.

    Raises:
        ControlError: somebody else could put something there.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    user = os.getuid()
    path = (
        os.path.join(runtime, "xenidc")
        if runtime
        else os.path.join(tempfile.gettempdir(), f"xenidc-{user}")
    )
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        found = os.lstat(path)
    except OSError as error:
        raise ControlError(f"{path}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user or found.st_mode & 0o077:
        raise ControlError(f"{path} has to be a folder that is yours alone (mode 0700)")
    return path


class ControlSocket(Actor):
    """Answers what is asked about ``running`` at ``path``.

    Raises, as the cause of StartFailed: SocketInUse, NotASocket, OSError (see `UnixListener`).
    """

    def __init__(self, running: Running, path: str) -> None:
        super().__init__()
        self._running = running
        self._path = path
        self._connections = 0

    def on_start(self) -> None:
        self._listener = UnixListener(self._path, mode=0o600)
        self.watch(self._listener.socket.fileno(), self._accept)

    def on_stop(self) -> None:
        self.unwatch(self._listener.socket.fileno())
        self._listener.close()

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, Exit)
        self._connections -= 1

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            peer, _ = self._listener.socket.accept()
            if self._connections == _CONNECTIONS:
                peer.close()
                return
            peer.setblocking(False)
            self._connections += 1
            self.start_child(_Connection, self._running, peer)


class _Connection(Actor):
    def __init__(self, running: Running, peer: socket.socket) -> None:
        super().__init__()
        self._running = running
        self._peer = peer
        self._in = bytearray()
        self._out = bytearray()
        self._source: Source | None = None
        self._over = False  # what is in `_out` is the last

    def on_start(self) -> None:
        self._watch()

    def on_receive(self, message: Message) -> None:  # noqa: ARG002 - each says the same
        """There is something to be sent."""
        self._flush()

    def on_stop(self) -> None:
        if self._source is not None:
            self._source.close()
        self.unwatch(self._peer.fileno())
        self._peer.close()

    def _watch(self) -> None:
        """For requests, or for room while there are answers that were not read."""
        reads, writes = partial(self._receive), partial(self._flush)
        self.watch(self._peer.fileno(), None if self._out else reads, writes if self._out else None)

    def _receive(self) -> None:
        try:
            data = self._peer.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._in += data
        endless = b"\n" not in self._in and len(self._in) > _LINE
        if not data or endless:
            self.exit()
            return
        *lines, rest = bytes(self._in).split(b"\n")
        self._in[:] = rest
        for line in lines:
            try:
                request = json.loads(line)
            except ValueError:
                self.exit()
                return
            if self._source is not None:
                self.exit()
                return
            self._say(self._reply(request))
        self._flush()

    def _reply(self, request: Any) -> dict[str, Any]:
        try:
            begun = stream(self._running, request, self.ref)
            if begun is not None:
                self._source = begun
                return {"ok": None}
            return {"ok": answer(self._running, request)}
        except (FaceError, HypervisorError, StoreError, ActorError, ValueError) as error:
            return {"error": " ".join(str(error).split())}

    def _say(self, line: dict[str, Any]) -> None:
        self._out += json.dumps(line).encode() + b"\n"

    def _flush(self) -> None:
        try:
            for _ in range(_TURN):
                if not (self._out or self._take()):
                    break
                del self._out[: self._peer.send(self._out)]
            else:
                self.ref.tell(News())  # after what else is in the mailbox
        except BlockingIOError:
            pass
        except OSError:
            self.exit()
            return
        if self._over and not self._out:
            self.exit()
        else:
            self._watch()

    def _take(self) -> bool:
        """What the source has, while nothing else is to be sent; whether there was anything."""
        if self._source is None or self._over:
            return False
        items = self._source.take()
        for item in items:
            self._over = "end" in item
            self._say(item if self._over else {"item": item})
        return bool(items)
