"""A unix socket to listen on whose file is never left behind and never stolen.

`UnixListener` owns the listening socket, its file, and a janitor process (socket_janitor.py) that
removes the file when this process ends, also by SIGKILL. Rules:

1. A path on which somebody listens is refused (`SocketInUse`); the socket file of a dead server is
   taken over; anything that is not a socket is left alone (`NotASocket`).
2. Looking, removing the old file, binding and listening happen under an exclusive flock on the
   directory; the janitor looks and removes under the same. So two servers that start at once
   cannot both take over, and a janitor never removes its successor's socket.
3. The file is known by what it is (`socket_janitor.identity`), not by its name.

Corner cases: a live server whose backlog is full refuses with EAGAIN, not ECONNREFUSED: in use.
Whoever can read the directory can also hold its lock and keep us waiting: choose one that you
trust.

Specifications: unix(7), flock(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from hypervisor import socket_janitor
from hypervisor.errors import NotASocket, SocketInUse


class UnixListener:
    """Listen on a unix stream socket at ``path``.

    Args:
        path: where the file is to be.
        backlog: as for listen(2).
        mode: permissions of the file, less the umask.

    Attributes:
        socket: the listening socket, non-blocking.
        path: absolute.

    Raises:
        SocketInUse: a live server listens there.
        NotASocket: something else stands there.
        OSError: no such directory, no permission, path too long.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, backlog: int = 128, mode: int = 0o777
    ) -> None:
        self.path = os.path.abspath(path)
        with _locked(os.path.dirname(self.path)):
            _clear(self.path)
            self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            try:
                os.fchmod(self.socket.fileno(), mode)  # before bind: nobody comes in between
                self.socket.bind(self.path)
            except OSError:
                self.socket.close()
                raise
            self._identity = socket_janitor.identity(os.lstat(self.path))
            try:
                self.socket.listen(backlog)
                self._janitor = _start_janitor(self.path, self._identity)
            except BaseException:
                self.socket.close()
                os.unlink(self.path)
                raise

    def close(self) -> None:
        """Stop listening and remove the file; returns when it is gone. Idempotent."""
        self.socket.close()
        if self._janitor.returncode is not None:
            return
        assert self._janitor.stdin is not None
        self._janitor.stdin.close()
        self._janitor.wait()
        socket_janitor.remove(self.path, self._identity)  # should somebody have killed the janitor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _start_janitor(path: str, guarded: tuple[int, ...]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", socket_janitor.__file__]
    return subprocess.Popen(
        [*command, path, *map(str, guarded)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # a pipe that somebody reads to its end must not wait for us
        stderr=subprocess.DEVNULL,
        cwd="/",
        start_new_session=True,
    )


def _clear(path: str) -> None:
    """Make room at ``path``, or raise."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise NotASocket(f"{path} exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # nobody listens: its server is dead
        except OSError as error:
            raise SocketInUse(f"socket {path} cannot be taken over: {error.strerror}") from error
        else:
            raise SocketInUse(f"a live server listens on socket {path}")


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
