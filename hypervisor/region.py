"""Memory that can be granted, and taken back without asking.

A `Region` is a memfd, mapped shared, with its pages allocated when it is made. Rules:

1. Its addresses never change and its views never dangle (memory.py).
2. It is sealed against shrink, grow and further seals before anybody gets its descriptor: no peer
   can make us fault (SIGBUS). ``readonly_to_peers`` adds F_SEAL_FUTURE_WRITE: the kernel then
   refuses every new writable mapping, also through /proc/self/fd.
3. `Region.renew` is the memory half of a revocation. Fresh pages are laid under our views, then a
   hole is punched in the old memfd: whoever still maps it holds zero pages that touch no one. For
   a region that is read-only to its peers the hole is not permitted (nor needed for our safety):
   the peer keeps the old snapshot. Part of a region can be renewed by itself: then several memfds
   (`Backing`) lie under one window, and a grant must be within one of them.
4. Nothing is allocated before the peer is cut off but what is kept: that takes twice as long as all
   the rest, and to take memory back must not need any. The rest is allocated by `reserve`
   afterwards; whoever is quicker has his page allocated by his touch, and if the machine has no
   memory at all at that moment, the kernel ends him.

What a hostile grantee keeps afterwards: what it had read, the old snapshot of what is read-only,
orphan pages, and pages that it pinned in the kernel with what they held at the revocation. None of
those is ours any more.

Corner case: a buffer that its holder may be writing at this very moment cannot be copied without
tearing. Such ranges are named ``held`` in `renew`: they keep their old pages until the holder
hands them over (`settle`), which is when it is known not to write.
"""

from __future__ import annotations

import fcntl
import os
import weakref
from collections.abc import Iterable
from typing import Self

from hypervisor.memory import (
    F_SEAL_FUTURE_WRITE,
    PAGE,
    SEALS,
    Window,
    new_memfd,
    pages_of,
    punch_hole,
    write_memory,
)

Span = tuple[int, int]
"""(start, length) in bytes."""


class Backing:
    """One memfd, which lies under the addresses of its region from ``start`` on.

    Attributes:
        fd: the descriptor, which this closes.
        start: where in the region its first byte is.
        size: bytes.
        memory: the hypervisor's number for it, once it has one.
    """

    def __init__(self, region: Region, fd: int, start: int, size: int) -> None:
        self._region = weakref.ref(region)
        self.fd = fd
        self.start = start
        self.size = size
        self.memory: int | None = None
        self._users = 1

    @property
    def region(self) -> Region | None:
        """Whose memory it is; None once that is garbage."""
        return self._region()

    def share(self) -> Self:
        """One more part of a region shows it."""
        self._users += 1
        return self

    def drop(self) -> None:
        """One part less; after the last one it is closed."""
        self._users -= 1
        if self._users == 0:
            os.close(self.fd)


class Region:
    """Grantable memory of the owner: ``size`` bytes (rounded up to whole pages) in a memfd.

    Args:
        size: bytes, at least 1.
        name: shown in ``/proc/PID/maps`` as ``memfd:name``.
        readonly_to_peers: nobody but the owner can ever map it writable (enforced by the kernel).
        fd: a sealed memfd of ``size`` bytes to take over, in place of a fresh one.

    Raises:
        ValueError: a size below 1.
        OSError: no memory or no descriptor for it.
    """

    def __init__(
        self,
        size: int,
        *,
        name: str = "region",
        readonly_to_peers: bool = False,
        fd: int | None = None,
    ) -> None:
        if size < 1:
            raise ValueError(f"a region has at least 1 byte, not {size}")
        self.size = -(-size // PAGE) * PAGE
        self.readonly_to_peers = readonly_to_peers
        self._name = name
        self._held: dict[Span, Backing] = {}
        self._closed = False
        self._window = Window(self.size)
        whole = (0, self.size)
        self._extents: list[tuple[Span, Backing]] = []
        if fd is not None:
            self._window.lay(fd, 0, self.size, 0)
            self._extents.append((whole, Backing(self, fd, 0, self.size)))
            return
        self._extents.append((whole, self._fresh(whole, [], [])))
        try:
            self.reserve()
        except OSError:
            self.close()
            raise

    @property
    def fd(self) -> int:
        """The descriptor of the memfd behind the whole region. It changes with every `renew`.

        Raises:
            ValueError: the region is closed, or parts of it were renewed by themselves.
        """
        return self.backing(0, self.size).fd

    @property
    def view(self) -> memoryview:
        """All bytes, writable; the same view across `renew`, and zeros after `close`."""
        return self._window.view

    def backing(self, start: int, length: int) -> Backing:
        """The memfd behind that range.

        Raises:
            ValueError: the region is closed, or more than one memfd is behind it, because parts of
                it were renewed by themselves: `renew` all of it.
        """
        if self._closed:
            raise ValueError("the region is closed")
        for (first, size), backing in self._extents:
            if first <= start and start + length <= first + size:
                return backing
        raise ValueError(f"{length} bytes from {start} of the region are not in one memfd")

    def pieces(self, start: int, length: int) -> list[tuple[Backing, Span]]:
        """Every memfd behind that range, and which part of it.

        Raises:
            ValueError: the region is closed, or that is not a range of it.
        """
        if self._closed:
            raise ValueError("the region is closed")
        if start < 0 or length < 1 or start + length > self.size:
            raise ValueError(f"{length} bytes from {start} are not in a region of {self.size}")
        return [
            (backing, part)
            for extent, backing in self._extents
            for part in _clip([(start, length)], extent)
        ]

    def backings(self) -> list[Backing]:
        """Every memfd behind the region, each once."""
        return list(dict.fromkeys(backing for _, backing in self._extents))

    def reserve(self) -> None:
        """Have every page allocated now, rather than when it is first touched.

        It is so from the beginning; after a `renew` this is to be called again, when there is time
        for it (0.25 ms for each MiB). Who is short of memory learns it here, and not by a signal
        in the middle of his work.

        Raises:
            OSError: there is no memory for them.
        """
        for (start, length), backing in self._extents:
            os.posix_fallocate(backing.fd, start - backing.start, length)

    def renew(
        self,
        spans: Iterable[Span] | None = None,
        keep: Iterable[Span] = (),
        held: Iterable[Span] = (),
    ) -> None:
        """Take the memory back from everybody who maps it, whatever they do.

        Memory that was granted is first withdrawn from the tables: `Guest.revoke` does both.

        Args:
            spans: disjoint (start, length) of whole pages to take back; None: all of the region.
            keep: (start, length) whose contents the owner needs; all else becomes zeros.
            held: those whose holder may be writing right now; see `settle`.

        Raises:
            ValueError: the region is closed, or these are not whole pages of it.
            OSError: no memory for what is kept; the pages of that span are not taken back yet.

        Time: about 0.25 ms for each MiB, as much for each MiB that is kept; then see `reserve`.
        """
        if self._closed:
            raise ValueError("the region is closed")
        taken = [(0, self.size)] if spans is None else sorted(spans)
        waiting = {pages_of(*span) for span in held}
        if waiting and self.readonly_to_peers:
            raise ValueError("a region that is read-only to its peers has no held spans")
        for start, length in taken:
            _refuse_unless_pages(start, length, self.size)
        keep = list(keep)
        for span in taken:
            inside = sorted(part for part in waiting if _overlap(part, span))
            self._exchange(span, self._fresh(span, _clip(keep, span), inside), inside)

    def settle(self, start: int, length: int) -> None:
        """Move a held span, with its contents, to the pages that are granted now.

        The caller vouches that nobody writes to the span meanwhile. Does nothing when not held.
        """
        settled = pages_of(start, length)
        for span in [part for part in self._held if _overlap(part, settled)]:
            old = self._held.pop(span)
            for extent, now in self._extents:
                for at, count in _clip([span], extent):
                    write_memory(now.fd, at - now.start, self.view[at : at + count])
                    self._window.lay(now.fd, at, count, at - now.start)
            punch_hole(old.fd, span[0] - old.start, span[1])
            old.drop()

    def close(self) -> None:
        """Give the memory back. Idempotent; views that are left read zeros.

        Whoever still maps it is left with zeros too, unless it is read-only to him.
        """
        if self._closed:
            return
        self._closed = True
        self._window.clear()
        for span, backing in [*self._extents, *self._held.items()]:
            if backing.memory is not None and not self.readonly_to_peers:
                punch_hole(backing.fd, span[0] - backing.start, span[1])
            backing.drop()
        self._extents.clear()
        self._held.clear()

    def _exchange(self, taken: Span, fresh: Backing, waiting: list[Span]) -> None:
        """``fresh`` is what lies under that span now; what did is cut off from who maps it."""
        extents = [(taken, fresh)]
        for extent, old in self._extents:
            extents += [(part, old.share()) for part in _gaps([taken], extent)]
            for part in _clip([taken], extent):
                for holding in _clip(waiting, part):
                    for new in _gaps(sorted(self._held), holding):
                        self._held[new] = old.share()  # the rest shows an earlier epoch's pages
                for start, length in [] if self.readonly_to_peers else _gaps(waiting, part):
                    punch_hole(old.fd, start - old.start, length)
            old.drop()
        self._extents = sorted(extents, key=lambda extent: extent[0])

    def _fresh(self, span: Span, keep: Iterable[Span], around: Iterable[Span]) -> Backing:
        first, size = span
        fd = new_memfd(self._name, size)
        try:
            for start, length in keep:
                os.posix_fallocate(fd, start - first, length)  # or to write would be a SIGBUS
                write_memory(fd, start - first, self.view[start : start + length])
            for start, length in _gaps(around, span):
                self._window.lay(fd, start, length, start - first)
            extra = F_SEAL_FUTURE_WRITE if self.readonly_to_peers else 0
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS | extra)  # after our own writable mapping
        except OSError:
            os.close(fd)
            raise
        return Backing(self, fd, first, size)


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same bytes in as few spans as possible, sorted."""
    whole: list[Span] = []
    for start, length in sorted(spans):
        if whole and start <= whole[-1][0] + whole[-1][1]:
            first, size = whole[-1]
            whole[-1] = (first, max(size, start + length - first))
        else:
            whole.append((start, length))
    return whole


def _refuse_unless_pages(start: int, length: int, size: int) -> None:
    if start % PAGE or length % PAGE or start < 0 or length < 1 or start + length > size:
        raise ValueError(f"{length} bytes from {start} are not whole pages of a region of {size}")


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[0] + other[1] and other[0] < one[0] + one[1]


def _clip(spans: Iterable[Span], within: Span) -> list[Span]:
    """The parts of the spans that are in ``within``."""
    first, end = within[0], within[0] + within[1]
    cut = [(max(start, first), min(start + length, end)) for start, length in spans]
    return [(start, stop - start) for start, stop in cut if start < stop]


def _gaps(spans: Iterable[Span], within: Span) -> list[Span]:
    """What of ``within`` the sorted, disjoint spans leave free."""
    free, at = [], within[0]
    end = within[0] + within[1]
    for start, length in _clip(spans, within):
        if start > at:
            free.append((at, start - at))
        at = start + length
    if at < end:
        free.append((at, end - at))
    return free
