"""Back ends that the channel tests start by name, in threads and in processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from hypervisor import Guest
from transport import BackEnd, BackEndActor, Request


class Echo(BackEnd):
    """Answers with the body; some bodies do more."""

    def on_start(self, log: str = "") -> None:
        self._log = log

    idempotent = True

    def on_request(self, request: Request) -> Any:
        match request.body:
            case "pid":
                return os.getpid()
            case ("raise", str(text)):
                raise FileNotFoundError(2, text)
            case "large":
                return "x" * 100_000
            case "unsendable":
                return object()
            case ("slow", str(path)):
                return self.offload(wait_for_reader, path)
            case "upper" if request.buffer is not None:
                with request.buffer.map() as pages:
                    pages[:] = bytes(pages).upper()
                    return len(pages)
            case ("once", str(path)):
                return once(path)
        return request.body


class SpinningEcho(Echo):
    """Looks at its rings for long after each request."""

    spin = 1.0


class Relay(BackEnd):
    """Asks ``device`` everything that it is asked, with its buffer's bytes, and its own pid."""

    idempotent = True

    def on_start(self, device: str) -> None:
        self._channel = self.connect(device, slots=16, buffer_bytes=1 << 16)

    def on_request(self, request: Request) -> Any:
        if request.body == "relay's pid":
            return os.getpid()
        if request.buffer is None:
            return self._channel.call(request.body)
        with request.buffer.map() as pages, self._channel.buffer(len(pages)) as buffer:
            buffer.view[:] = pages
            answer = self._channel.call(request.body, buffer)
            pages[:] = buffer.view
        return answer


class Writer(Relay):
    """Writes what it is asked into the store, below its own domain, and then asks its device."""

    def on_request(self, request: Request) -> Any:
        self.store.write("data/asked", request.body)
        return super().on_request(request)


class OffloadingRelay(Relay):
    """The same, in worker threads."""

    def on_request(self, request: Request) -> Any:
        return self.offload(super().on_request, request)


def wait_for_reader(path: str) -> str:
    """Blocks until somebody opens the FIFO for reading."""
    with open(path, "wb"):
        return "slow"


def once(path: str) -> str:
    """The first to come kills its process before it answers; later ones answer."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "served again"
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()
    return "unreachable"


class Broken(BackEnd):
    """Cannot start."""

    def on_start(self, path: str = "") -> None:
        raise IsADirectoryError(21, "cannot open", path)


class StartsOnce(BackEnd):
    """Starts the first time only."""

    def on_start(self, path: str) -> None:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))

    def on_request(self, request: Request) -> Any:
        return request.body


class Zombie(BackEnd):
    """Dies at its first request, and leaves a stopped copy of itself, mappings and all."""

    idempotent = True

    def on_start(self, pid_file: str, fifo: str) -> None:
        self._pid_file = pid_file
        self._fifo = fifo

    def on_request(self, request: Request) -> Any:
        assert request.buffer is not None
        with request.buffer.map() as pages:
            if os.path.exists(self._pid_file):
                pages[:] = b"good" * (len(pages) // 4)
                return "good"
            zombie = os.fork()
            if zombie:
                os.waitpid(zombie, os.WUNTRACED)
                with open(self._pid_file, "w") as file:
                    file.write(str(zombie))
                os.kill(os.getpid(), signal.SIGKILL)
            os.setsid()  # else its parent's death sends it SIGHUP, as an orphan that is stopped
            os.kill(os.getpid(), signal.SIGSTOP)
            pages[:] = b"evil" * (len(pages) // 4)
        with open(self._fifo, "wb") as woken:
            woken.write(b"written")
        return "evil"


class Leaver(BackEnd):
    """Ends in an orderly way when it is told to, after the request in hand."""

    runner = "tests.transport.drivers:LeaverActor"
    leave: Callable[[], None]

    def on_request(self, request: Request) -> Any:
        match request.body:
            case ("leave", str(begun), str(end)):
                wait_for_reader(begun)
                wait_for_reader(end)
                self.leave()
                return "left"
        return request.body


class LeaverActor(BackEndActor):
    """Gives the driver its own end."""

    def __init__(self, guest: Guest, program: type[Leaver], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        assert isinstance(self._driver, Leaver)
        self._driver.leave = self.exit


class Counting(BackEnd):
    """Notes what it serves, in which order; in the test's own process."""

    served: ClassVar[list[Any]] = []
    gates: ClassVar[list[threading.Event]] = []

    def on_request(self, request: Request) -> Any:
        if request.body == "gate":
            self.gates[0].wait()
        self.served.append(request.body)


class Lasting(BackEnd):
    """Every request lasts until nobody wants its answer any more; an orderly end leaves a file."""

    def on_start(self, path: str) -> None:
        self._path = path
        self._over = self.runtime.lock("nobody")
        self._over.acquire()

    def on_request(self, request: Request) -> Any:
        return self.offload(self._over.acquire)

    def on_abandoned(self) -> None:
        if self._over.locked():
            self._over.release()

    def on_stop(self) -> None:
        with open(self._path, "w", encoding="ascii"):
            pass
