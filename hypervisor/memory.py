"""Memory that others may see and change: memfds, the window through which one looks, mappings.

A `Window` is a range of addresses that stays the same while what stands behind it is exchanged with
MAP_FIXED: the Python mmap object underneath is an anonymous reservation, and memfd pages are laid
over it. So views never dangle: clearing a window lays zero pages over it, and a view that somebody
kept reads zeros instead of faulting. A `Mapping` is what a grantee sees of memory that was granted;
the owner's side is region.py.

What a hostile grantee can do to memory that it may write: anything (write, punch holes, which are
zeros to everybody); and to its own descriptor, which is the very one that we hold, flags (O_APPEND
makes every write by descriptor fail). So shared memory is read and written through mappings alone
(`read_memory`, `write_memory`).

Specifications: memfd_create(2), mmap(2), fallocate(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os

from hypervisor.errors import GrantRevoked

PAGE = mmap.PAGESIZE

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
"""Every memfd that is granted has these; see fcntl(2), "File Sealing"."""
F_SEAL_FUTURE_WRITE = 0x10
"""linux/fcntl.h: nobody can map it writable any more."""
_MAP_NORESERVE = 0x4000  # asm-generic/mman.h
_MAP_FIXED = 0x10  # asm-generic/mman-common.h
_PUNCH_HOLE = 0x01 | 0x02  # linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
_MAP_FAILED = ctypes.c_void_p(-1).value

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    ctypes.c_void_p,
    ctypes.c_size_t,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_int,
    ctypes.c_long,
]
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


def pages_of(start: int, length: int) -> tuple[int, int]:
    """The page-aligned (start, length) that covers ``length`` bytes from ``start``."""
    first = start // PAGE * PAGE
    return first, -(-(start + length - first) // PAGE) * PAGE


def punch_hole(fd: int, start: int, length: int) -> None:
    """Free the pages of ``fd`` in that range: every mapping of them reads zeros from now on."""
    if _libc.fallocate(fd, _PUNCH_HOLE, start, length) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def read_memory(fd: int, start: int, length: int) -> bytes:
    """What is there, whatever flags others have set on the descriptor."""
    first, span = pages_of(start, length)
    with mmap.mmap(fd, span, access=mmap.ACCESS_READ, offset=first) as pages:
        return pages[start - first : start - first + length]


def write_memory(fd: int, start: int, data: bytes | memoryview) -> None:
    """Put it there; see `read_memory`."""
    first, span = pages_of(start, len(data))
    with mmap.mmap(fd, span, offset=first) as pages:
        pages[start - first : start - first + len(data)] = data


def new_memfd(name: str, size: int) -> int:
    """A descriptor of ``size`` bytes of zeros; a page is allocated when it is first touched."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        raise
    return fd


class Window:
    """A fixed range of addresses whose backing can be exchanged under live views."""

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._reservation = mmap.mmap(-1, size, flags=flags)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._reservation))
        self.view = memoryview(self._reservation)

    def lay(self, fd: int, start: int, length: int, offset: int, *, readonly: bool = False) -> None:
        """Put ``length`` bytes of ``fd`` from ``offset`` behind the addresses from ``start``."""
        prot = mmap.PROT_READ if readonly else _READ_WRITE
        self._map(start, length, prot, mmap.MAP_SHARED, fd, offset)

    def clear(self) -> None:
        """Put private zero pages behind the whole window; nothing behind it is referred to."""
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self._map(0, len(self.view), _READ_WRITE, flags, -1, 0)

    def _map(self, start: int, length: int, prot: int, flags: int, fd: int, offset: int) -> None:
        wanted = self._address + start
        got = _libc.mmap(wanted, length, prot, flags | _MAP_FIXED, fd, offset)
        if got == _MAP_FAILED or got != wanted:
            number = ctypes.get_errno()
            raise OSError(number, f"cannot map {length} bytes: {os.strerror(number)}")


class Mapping:
    """A grant as its grantee sees it: ``length`` bytes from ``offset`` of the granter's memfd.

    ``handle``: what the hypervisor calls it. ``usable``: neither closed nor revoked. The descriptor
    is only borrowed. `revoked` and `close` may be called at any time and from any thread, while
    views are exported, too. Views that are kept show zeros after `close`, and after `revoked` what
    the granter left: zeros, or the old snapshot of what was granted read-only (so what was read of
    it was never torn by us).
    """

    def __init__(
        self, fd: int, offset: int, length: int, *, readonly: bool, handle: int = 0
    ) -> None:
        self.handle = handle
        start, span = pages_of(offset, length)
        self._window: Window | None = Window(span)
        self._window.lay(fd, 0, span, start, readonly=readonly)
        view = self._window.view[offset - start : offset - start + length]
        self._view = view.toreadonly() if readonly else view
        self.usable = True

    @property
    def view(self) -> memoryview:
        """The granted bytes.

        Raises:
            GrantRevoked: the mapping was closed, or the granter revoked the grant.
        """
        if not self.usable:
            raise GrantRevoked("this grant was revoked or unmapped")
        return self._view

    def revoked(self) -> None:
        """The granter took it back: `view` raises from now on."""
        self.usable = False

    def close(self) -> None:
        """Unmap. Idempotent."""
        self.usable = False
        window, self._window = self._window, None
        if window is not None:
            window.clear()
