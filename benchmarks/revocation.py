"""What it costs to take 16 MiB back from a process that does not co-operate.

Each contestant starts a process that maps the memory and touches every page, and is timed from
then on: the bare system calls, alone and with the fresh pages allocated, and our own
revocation through the hypervisor, up to where the holder is cut off and with the fresh pages, of
memory whose contents nobody needs or of all of them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from benchmarks.apart import apart
from benchmarks.report import interleave
from hypervisor import Guest, Machine, Region, punch_hole

SIZE = 16 << 20
BARE = "mmap(MAP_FIXED) + punch hole"
BARE_FRESH = "the same + allocating the fresh pages"

_MAP_FIXED = 0x10  # asm-generic/mman-common.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [
    *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)
]


def measure(rounds: int) -> dict[str, list[float]]:
    """Seconds of each contestant, by its name; those of one round are measured in turns."""
    with Machine(spares=0) as machine:
        guest = machine.guest
        contestants: dict[str, Callable[[], float]] = {
            BARE: partial(_bare, fresh=False),
            BARE_FRESH: partial(_bare, fresh=True),
            "Guest.withdraw + Region.renew": partial(_ours, guest, fresh=False, keep=False),
            "Guest.revoke": partial(_ours, guest, fresh=True, keep=False),
            "Guest.revoke, contents kept": partial(_ours, guest, fresh=True, keep=True),
        }
        return interleave(contestants, rounds)


def _bare(*, fresh: bool) -> float:
    old = os.memfd_create("old")
    new = os.memfd_create("new")
    os.posix_fallocate(old, 0, SIZE)
    os.ftruncate(new, SIZE)
    with mmap.mmap(old, SIZE) as ours, _held(old):
        view = (ctypes.c_char * SIZE).from_buffer(ours)
        address = ctypes.addressof(view)
        del view
        began = time.perf_counter()
        both = mmap.PROT_READ | mmap.PROT_WRITE
        _libc.mmap(address, SIZE, both, mmap.MAP_SHARED | _MAP_FIXED, new, 0)
        punch_hole(old, 0, SIZE)
        if fresh:
            os.posix_fallocate(new, 0, SIZE)
        taken = time.perf_counter() - began
    os.close(old)
    os.close(new)
    return taken


def _ours(guest: Guest, *, fresh: bool, keep: bool) -> float:
    region = Region(SIZE)
    gref = guest.grant_access(guest.domid, region)
    mapping = guest.map_grant_ref(guest.domid, gref)  # so that the tables know of one
    with _held(region.fd):
        began = time.perf_counter()
        if fresh:
            guest.revoke(gref, keep=None if keep else ())
        else:
            for _, span in guest.withdraw(gref):
                region.renew([span])
        taken = time.perf_counter() - began
    guest.unmap_grant_ref(mapping)
    guest.release(region)
    return taken


@contextmanager
def _held(fd: int) -> Iterator[None]:
    """While another process maps all of it, and has touched every page."""
    with apart("benchmarks.revocation:holder", fd, SIZE, descriptors=[fd]):
        yield


@contextmanager
def holder(fd: int, size: int) -> Iterator[None]:
    """That process."""
    with mmap.mmap(fd, size) as mapping:
        for place in range(0, size, mmap.PAGESIZE):
            mapping[place] = 1
        yield
