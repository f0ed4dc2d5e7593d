"""A driver that does a little of everything, for the tests of what a channel can do."""

from __future__ import annotations

import os
import signal
import threading
import zlib
from typing import Any

from hypervisor import GrantRevoked
from transport import BackEnd, Cancelled, Offloaded, Request

BLOCK = 512


class Device(BackEnd):
    """Body: a name, or a name with arguments."""

    workers: int = 2
    version: int = 3
    features: frozenset[str] = frozenset({"discard", "flush"})

    def on_start(self, directory: str = "") -> None:
        self.directory = directory
        self.blocks = bytearray(8 * BLOCK)
        self.served: list[Any] = []

    def is_idempotent(self, body: Any) -> bool:
        return isinstance(body, tuple) and bool(body) and str(body[0]).startswith("again-")

    def on_request(self, request: Request) -> Any:
        match request.body:
            case "pid":
                return os.getpid()
            case "served":
                return self.served
            case "sum":
                return [zlib.crc32(bytes(each)) for each in read_all(request)]
            case "fill":
                for buffer in request.buffers:
                    with buffer.map(fill=False) as pages:
                        pages[:] = (bytes(range(256)) * (len(pages) // 256 + 1))[: len(pages)]
                return None
            case "upper":
                for buffer in request.buffers:
                    with buffer.map() as pages:
                        pages[:] = bytes(pages).upper()
                return None
            case "peek":
                assert request.buffer is not None
                with request.buffer.map(readonly=True) as pages:
                    return bytes(pages[:64])
            case ("raise", str(text)):
                raise PermissionError(13, text)
            case ("note", what):
                self.served.append(what)
                return what
            case ("drain-in", int(limit)):
                return self.offload(drain_in, request, limit)
            case ("flood-out", int(count), int(piece)):
                return self.offload(flood_out, request, count, piece)
            case ("mirror", int(piece)):
                return self.offload(mirror, request, piece)
            case ("in place", int(piece)):
                return mirror(request, piece)
            case ("push", bytes(data)):
                return request.push(data)
            case ("scsi", command):
                return self.offload(self.scsi, request, command)
            case ("hold", str(name)):
                self.served.append(name)
                return self.offload(hold, request, self.directory, name)
            case ("die" | "again-die", str(flag)):
                return once(os.path.join(self.directory, flag))
            case ("again-die-in-stream", str(flag)):
                return self.offload(die_in_stream, request, os.path.join(self.directory, flag))
            case ("offloaded-die", str(flag)):
                return Offloaded(once, (os.path.join(self.directory, flag),))
        return request.body

    def scsi(self, request: Request, command: tuple[Any, ...]) -> tuple[int, int]:
        """Command, data-out or data-in, status: (status, bytes moved)."""
        operation, number, count = command
        first, size = number * BLOCK, count * BLOCK
        if first + size > len(self.blocks):
            return (2, 0)  # CHECK CONDITION
        if operation == "WRITE":
            moved = 0
            while moved < size and len(piece := request.pull(min(BLOCK, size - moved))):
                self.blocks[first + moved : first + moved + len(piece)] = piece
                moved += len(piece)
            return (0, moved)
        if operation == "READ":
            request.push(self.blocks[first : first + size])
            return (0, size)
        # COMPARE AND WRITE: half of the data is compared with, half is written, what was is told.
        expected = bytes(request.pull(BLOCK))
        found = bytes(self.blocks[first : first + BLOCK])
        request.push(found)
        if found != expected:
            return (2, BLOCK)
        self.blocks[first : first + BLOCK] = request.pull(BLOCK)
        return (0, 2 * BLOCK)


class Spinner(Device):
    """Looks at its rings without being signalled."""

    spin: float = 5.0


class Older(Device):
    """Of another version, with fewer features."""

    version: int = 2
    features: frozenset[str] = frozenset({"flush"})


def read_all(request: Request) -> list[bytes]:
    """The contents of each buffer."""
    found = []
    for buffer in request.buffers:
        with buffer.map(readonly=True) as pages:
            found.append(bytes(pages))
    return found


def drain_in(request: Request, limit: int) -> tuple[int, int]:
    total = checksum = 0
    while len(piece := request.pull(limit or None)):
        total += len(piece)
        checksum = zlib.crc32(piece, checksum)
    return total, checksum


def flood_out(request: Request, count: int, piece: int) -> int:
    pattern = bytes(range(251)) * (piece // 251 + 1)
    sent = 0
    while sent < count:
        part = pattern[: min(piece, count - sent)]
        request.push(part)
        sent += len(part)
    return zlib.crc32(pattern[: min(piece, count)])


def mirror(request: Request, piece: int) -> int:
    """Every piece goes back at once, in upper case: phases in both directions by turns."""
    moved = 0
    while len(part := request.pull(piece)):
        request.push(bytes(part).upper())
        moved += len(part)
    return moved


def hold(request: Request, directory: str, name: str) -> str:
    """Says on one FIFO that it runs, and goes on when the other is opened; tells what it saw."""
    with open(os.path.join(directory, f"{name}.runs"), "wb"):
        pass
    with open(os.path.join(directory, f"{name}.go"), "rb"):
        pass
    if request.phases is not None:
        try:
            request.pull()
        except (Cancelled, GrantRevoked) as error:
            with open(os.path.join(directory, f"{name}.saw"), "wb") as file:
                file.write(type(error).__name__.encode())
            raise
    return "cancelled" if request.cancelled else "held"


def once(path: str) -> str:
    """The first to come kills its process; later ones answer."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "the second time"
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()
    return "unreachable"


def die_in_stream(request: Request, path: str) -> tuple[int, int]:
    """Dies after some of the data, the first time."""
    if not os.path.exists(path):
        request.pull()
        request.push(b"wrong" * 1000)
        request.pull()
        once(path)
    request.push(b"right" * 1000)
    return drain_in(request, 0)
