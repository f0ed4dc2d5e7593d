"""A driver that takes what it is granted by system calls, and lets go of nothing."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import socket
from collections.abc import Callable
from typing import Any

from actors import Fd
from hypervisor import Guest, punch_hole
from hypervisor import hypercalls as hc
from transport import BackEnd, BackEndActor, Request

PAGE = mmap.PAGESIZE
WRITE = mmap.PROT_READ | mmap.PROT_WRITE
MADV_REMOVE = 9  # asm-generic/mman-common.h
F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h
_libc = ctypes.CDLL(None, use_errno=True)


class Loot:
    """One grant: the descriptor that came with it, the same opened again, and a mapping."""

    def __init__(self, guest: Guest, granter: int, gref: int) -> None:
        granted = guest.hypercall(hc.MapGrantRef(granter, gref, None))
        self.handle: int = granted.handle
        self.fd: Fd = granted.memory
        self.readonly: bool = granted.readonly
        self.size = os.fstat(self.fd.fileno()).st_size
        self.again = Fd(os.open(f"/proc/self/fd/{self.fd.fileno()}", os.O_RDWR))
        prot = mmap.PROT_READ if self.readonly else WRITE
        self.pages = mmap.mmap(self.fd.fileno(), self.size, prot=prot)
        self.view = memoryview(self.pages)

    def command(self, what: str, data: bytes = b"") -> bytes:
        """What both the process and its child do; the bytes are of the first page."""
        if what == "look":
            return bytes(self.view[: len(data)])
        if what == "look anew":  # by a mapping made now, of the descriptor opened again
            with mmap.mmap(self.again.fileno(), self.size, prot=mmap.PROT_READ) as pages:
                return pages[: len(data)]
        if what == "write everywhere":
            for at in range(0, self.size, PAGE):
                self.view[at : at + len(data)] = data
            for fd in (self.fd, self.again):
                os.pwrite(fd.fileno(), data, 0)
            return b""
        raise ValueError(what)


def fallocate(fd: int, mode: int, start: int, length: int) -> None:
    if _libc.fallocate(fd, mode, ctypes.c_long(start), ctypes.c_long(length)):
        raise OSError(ctypes.get_errno(), "fallocate")


def remap_writable(loot: Loot) -> None:
    """A mapping that was made read-only, made writable."""
    import numpy as np  # here, as in grant_programs

    with mmap.mmap(loot.fd.fileno(), PAGE, prot=mmap.PROT_READ) as pages:
        address = np.frombuffer(pages, dtype=np.uint8).ctypes.data
        if _libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(PAGE), WRITE):
            raise OSError(ctypes.get_errno(), "mprotect")


def advise_away(loot: Loot) -> None:
    loot.pages.madvise(MADV_REMOVE)


RESIZE: dict[str, Callable[[Loot], object]] = {
    "shrink": lambda it: os.ftruncate(it.fd.fileno(), 0),
    "shrink, opened again": lambda it: os.ftruncate(it.again.fileno(), PAGE // 2),
    "grow": lambda it: os.ftruncate(it.again.fileno(), 1 << 30),
    "grow by allocation": lambda it: os.posix_fallocate(it.fd.fileno(), it.size, PAGE),
    "allocate behind the end": lambda it: fallocate(it.fd.fileno(), 0x01, it.size, PAGE),
    "write behind the end": lambda it: os.pwrite(it.fd.fileno(), b"x", it.size),
    "cut a piece out": lambda it: fallocate(it.fd.fileno(), 0x08, 0, PAGE),
    "put a piece in": lambda it: fallocate(it.fd.fileno(), 0x20, 0, PAGE),
    "seal it against writing": lambda it: fcntl.fcntl(
        it.fd.fileno(), fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE
    ),
    "seal it for its owner alone": lambda it: fcntl.fcntl(
        it.again.fileno(), fcntl.F_ADD_SEALS, F_SEAL_FUTURE_WRITE
    ),
}
"""What cannot be done to any granted memory."""

WRITE_ANYWAY: dict[str, Callable[[Loot], object]] = {
    "map it writable": lambda it: mmap.mmap(it.fd.fileno(), PAGE, prot=WRITE),
    "map it writable, opened again": lambda it: mmap.mmap(it.again.fileno(), PAGE, prot=WRITE),
    "make a mapping writable": remap_writable,
    "write": lambda it: os.pwrite(it.fd.fileno(), b"evil", 0),
    "write, opened again": lambda it: os.pwrite(it.again.fileno(), b"evil", 0),
    "punch a hole": lambda it: punch_hole(it.fd.fileno(), 0, PAGE),
    "punch a hole, opened again": lambda it: punch_hole(it.again.fileno(), 0, PAGE),
    "advise it away": advise_away,
    "zero it": lambda it: fallocate(it.again.fileno(), 0x10, 0, PAGE),
    "receive a file into it": lambda it: os.copy_file_range(
        os.open(__file__, os.O_RDONLY), it.fd.fileno(), 4, 0, 0
    ),
    "splice into it": lambda it: splice(it.fd.fileno()),
}
"""What cannot be done to memory that was granted read-only, besides."""


def splice(fd: int) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"evil")
    os.splice(reader, fd, 4, offset_dst=0)


class Hostile(BackEnd):
    """Every request is a crime; its answer is what came of it."""

    idempotent = True

    runner = "tests.hypervisor.hostile_programs:HostileActor"
    guest: Guest

    def on_start(self) -> None:
        self.loot: list[Loot] = []

    def on_request(self, request: Request) -> Any:
        match request.body:
            case ["domid"]:
                return self.guest.domid
            case ["take", granter, gref]:
                self.loot.append(Loot(self.guest, granter, gref))
                return self.loot[-1].handle
            case ["resize", number]:
                return {name: how(crime, self.loot[number]) for name, crime in RESIZE.items()}
            case ["write anyway", number]:
                return {name: how(crime, self.loot[number]) for name, crime in WRITE_ANYWAY.items()}
            case ["punch", number]:
                return punch_hole(self.loot[number].again.fileno(), 0, PAGE)
            case ["append", number]:
                return fcntl.fcntl(self.loot[number].fd.fileno(), fcntl.F_SETFL, os.O_APPEND)
            case ["bytes that it has", number]:
                return os.fstat(self.loot[number].fd.fileno()).st_blocks * 512
            case ["say unmapped", number]:
                return self.guest.hypercall(hc.UnmapGrantRef(self.loot[number].handle))
            case ["fork", path]:
                return fork(self.loot[0], path)
            case [what, number, data]:
                return self.loot[number].command(what, data)
        raise ValueError(request.body)


class HostileActor(BackEndActor):
    """Gives the driver its guest."""

    def __init__(self, guest: Guest, program: type[Hostile], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        driver = self._driver
        assert isinstance(driver, Hostile)
        driver.guest = guest


def how(crime: Callable[[Loot], object], loot: Loot) -> str:
    """The name of the errno with which it failed; "done" if it did not."""
    try:
        crime(loot)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def fork(loot: Loot, path: str) -> int:
    """Leave a child that has the loot, and does what the socket at ``path`` says; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as orders:
            orders.connect(path)
            orders.send(b"here")
            while order := orders.recv(PAGE):
                what, _, data = order.partition(b":")
                orders.send(loot.command(what.decode(), data) or b"done")
    finally:
        os._exit(0)
