"""Memory that can be granted, and taken back without asking: regions, windows, mappings.

A `Region` is a memfd, mapped shared, with its pages allocated up front. A `Mapping` is what a
grantee sees of one. Both look through a `Window`: a range of addresses that stays the same while
what stands behind it is exchanged with MAP_FIXED. Rules:

1. A region's addresses never change and its views never dangle: the Python mmap object underneath
   is an anonymous reservation, and memfd pages are laid over it. Closing lays zero pages over it,
   so that a view that somebody kept reads zeros instead of faulting.
2. A region is sealed against shrink, grow and further seals before anybody gets its descriptor: no
   peer can make us fault (SIGBUS). ``readonly_to_peers`` adds F_SEAL_FUTURE_WRITE: the kernel then
   refuses every new writable mapping, also through /proc/self/fd.
3. `Region.renew` is the memory half of a revocation. Fresh pages are laid under our views, then a
   hole is punched in the old memfd: whoever still maps it holds zero pages that touch no one. For
   a region that is read-only to its peers the hole is not permitted (nor needed for our safety):
   the peer keeps the old snapshot.

Corner case: a buffer that its holder may be writing at this very moment cannot be copied without
tearing. Such ranges are named ``held`` in `renew`: they keep their old pages until the holder
hands them over (`settle`), which is when it is known not to write.

Specifications: memfd_create(2), fcntl(2) "File Sealing", mmap(2), fallocate(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from collections.abc import Iterable

from hypervisor.errors import GrantRevoked

PAGE = mmap.PAGESIZE

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_F_SEAL_FUTURE_WRITE = 0x10  # linux/fcntl.h
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


class _Pages:
    """One memfd and how many parts of its region's window still show it."""

    def __init__(self, name: str, size: int) -> None:
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self.users = 1
        try:
            os.ftruncate(self.fd, size)
            os.posix_fallocate(self.fd, 0, size)
        except OSError:
            os.close(self.fd)
            raise

    def seal(self, *, readonly_to_peers: bool) -> None:
        extra = _F_SEAL_FUTURE_WRITE if readonly_to_peers else 0
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, _SEALS | extra)

    def drop(self) -> None:
        self.users -= 1
        if self.users == 0:
            os.close(self.fd)


class Region:
    """Grantable memory of the owner: ``size`` bytes (rounded up to whole pages) in a memfd.

    Args:
        size: bytes, at least 1.
        name: shown in /proc/*/maps as ``memfd:name``.
        readonly_to_peers: nobody but the owner can ever map it writable (enforced by the kernel).

    Raises:
        ValueError: a size below 1.
        OSError: no memory or no descriptor for it.
    """

    def __init__(self, size: int, *, name: str = "region", readonly_to_peers: bool = False) -> None:
        if size < 1:
            raise ValueError(f"a region has at least 1 byte, not {size}")
        self.size = -(-size // PAGE) * PAGE
        self.readonly_to_peers = readonly_to_peers
        self._name = name
        self._held: dict[tuple[int, int], _Pages] = {}
        self._closed = False
        self._window = Window(self.size)
        self._pages = self._fresh([])

    @property
    def fd(self) -> int:
        """The descriptor of the memfd that is granted now. It changes with every `renew`."""
        if self._closed:
            raise ValueError("the region is closed")
        return self._pages.fd

    @property
    def view(self) -> memoryview:
        """All bytes, writable; the same view across `renew`, and zeros after `close`."""
        return self._window.view

    def renew(
        self,
        keep: Iterable[tuple[int, int]] = (),
        held: Iterable[tuple[int, int]] = (),
    ) -> None:
        """Take the memory back from everybody who maps it, whatever they do.

        Args:
            keep: (start, length) spans whose contents the owner needs; all else becomes zeros.
            held: spans whose holder may be writing right now; see `settle`.

        Time: about 0.5 ms for each MiB of the region (allocation, then the hole in the old pages).
        """
        waiting = {pages_of(*span) for span in held}
        if waiting and self.readonly_to_peers:
            raise ValueError("a region that is read-only to its peers has no held spans")
        old, self._pages = self._pages, self._fresh(keep, sorted(waiting))
        for span in waiting:
            if span not in self._held:  # one that is held since an earlier epoch stays there
                self._held[span] = old
                old.users += 1
        if not self.readonly_to_peers:
            for start, length in _gaps(sorted(waiting), self.size):
                punch_hole(old.fd, start, length)
        old.drop()

    def settle(self, start: int, length: int) -> None:
        """Move a held span, with its contents, to the pages that are granted now.

        The caller vouches that nobody writes to the span meanwhile. Does nothing when not held.
        """
        span = pages_of(start, length)
        old = self._held.pop(span, None)
        if old is None:
            return
        start, length = span
        os.pwrite(self._pages.fd, self.view[start : start + length], start)
        self._window.lay(self._pages.fd, start, length, start)
        punch_hole(old.fd, start, length)
        old.drop()

    def close(self) -> None:
        """Give the memory back. Idempotent; views that are left read zeros."""
        if self._closed:
            return
        self._closed = True
        self._window.clear()
        for pages in self._held.values():
            pages.drop()
        self._held.clear()
        self._pages.drop()

    def _fresh(
        self, keep: Iterable[tuple[int, int]], around: Iterable[tuple[int, int]] = ()
    ) -> _Pages:
        pages = _Pages(self._name, self.size)
        try:
            for start, length in keep:
                os.pwrite(pages.fd, self.view[start : start + length], start)
            for start, length in _gaps(around, self.size):
                self._window.lay(pages.fd, start, length, start)
            pages.seal(readonly_to_peers=self.readonly_to_peers)  # after our own writable mapping
        except OSError:
            pages.drop()
            raise
        return pages


class Mapping:
    """A grant as its grantee sees it: ``length`` bytes from ``offset`` of the granter's memfd.

    The descriptor is only borrowed. `close` may be called at any time, also while views are
    exported: they read zeros afterwards.
    """

    def __init__(self, fd: int, offset: int, length: int, *, readonly: bool) -> None:
        start, span = pages_of(offset, length)
        self._window: Window | None = Window(span)
        self._window.lay(fd, 0, span, start, readonly=readonly)
        view = self._window.view[offset - start : offset - start + length]
        self._view = view.toreadonly() if readonly else view

    @property
    def view(self) -> memoryview:
        """The granted bytes.

        Raises:
            GrantRevoked: the mapping was closed, or the granter revoked the grant.
        """
        if self._window is None:
            raise GrantRevoked("this grant was revoked or unmapped")
        return self._view

    def close(self) -> None:
        """Unmap. Idempotent."""
        if self._window is not None:
            self._window.clear()
            self._window = None


def _gaps(spans: Iterable[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    """What of [0, size) the sorted, disjoint (start, length) spans leave free."""
    free, at = [], 0
    for start, length in spans:
        if start > at:
            free.append((at, start - at))
        at = start + length
    if at < size:
        free.append((at, size - at))
    return free
