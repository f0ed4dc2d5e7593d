"""Hypercalls that no guest method would make, by name. Every one of them is to be refused.

They run wherever the hostile domain is. `Facts` are what it has found out or guessed.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors import Fd, Message
from hypervisor import Guest, Region
from hypervisor import hypercalls as hc

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
HUGETLB = 0x0004  # linux/memfd.h: MFD_HUGETLB
SIZE = 4096
HUGE = 2 << 20
NOBODY = 1 << 40


@dataclass(frozen=True)
class Facts:
    """What is true while a hostile hypercall is made.

    Attributes:
        memory: of its own, one page, writable, granted as ``gref`` to itself to be granted on.
        stranger: another domain, with ``theirs``, which is granted as ``received`` to the hostile
            one, read-only, and as ``secret`` to itself.
    """

    memory: int
    gref: int
    stranger: int
    theirs: int
    received: int
    secret: int


def memfd(seals: int = SEALS, flags: int = 0, size: int = SIZE) -> Fd:
    fd = Fd(os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags))
    os.ftruncate(fd.fileno(), size)
    fcntl.fcntl(fd.fileno(), fcntl.F_ADD_SEALS, seals)
    return fd


def reopened(flags: int) -> Fd:
    whole = memfd()
    return Fd(os.open(f"/proc/self/fd/{whole.fileno()}", flags))


def pipe() -> Fd:
    reader, writer = os.pipe()
    os.close(writer)
    return Fd(reader)


def what_was_received(guest: Guest, facts: Facts) -> Any:
    granted = guest.hypercall(hc.MapGrantRef(facts.stranger, facts.received, None))
    try:
        size = os.fstat(granted.memory.fileno()).st_size
        return guest.hypercall(hc.PopulateMemory(granted.memory, size))
    finally:
        guest.hypercall(hc.UnmapGrantRef(granted.handle))


def read_only_of_what_is_not(guest: Guest, facts: Facts) -> Any:
    return guest.hypercall(hc.GrantTransitive(0, guest.domid, facts.gref, 0, SIZE, 1))


def the_same_twice(guest: Guest, _: Facts) -> Any:
    region = Region(SIZE)
    try:
        guest.grant_access(guest.domid, region)
        again = Fd(os.open(f"/proc/self/fd/{region.fd}", os.O_RDWR))
        return guest.hypercall(hc.PopulateMemory(again, SIZE))
    finally:
        guest.release(region)


POPULATE: dict[str, tuple[Callable[[], Fd], int]] = {
    "a file": (lambda: Fd(os.open(__file__, os.O_RDONLY)), SIZE),
    "a pipe": (pipe, SIZE),
    "an unsealed memfd": (lambda: memfd(0), SIZE),
    "what can be sealed further": (lambda: memfd(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW), SIZE),
    "what nobody can write": (lambda: memfd(SEALS | fcntl.F_SEAL_WRITE), SIZE),
    "what is open for reading": (lambda: reopened(os.O_RDONLY), SIZE),
    "what is open for writing": (lambda: reopened(os.O_WRONLY), SIZE),
    "what is hardly open": (lambda: reopened(os.O_PATH), SIZE),
    "huge pages": (lambda: memfd(flags=HUGETLB, size=HUGE), HUGE),
    "more than there is": (memfd, 2 * SIZE),
    "less than nothing": (memfd, -SIZE),
    "half a page": (lambda: memfd(size=SIZE // 2), SIZE // 2),
    "nothing": (lambda: memfd(size=0), 0),
}


def _own_and(offset: int, to: int, length: int) -> Callable[[Facts], Message]:
    return lambda it: hc.GrantCopy(hc.OwnSide(it.memory, offset), hc.OwnSide(it.memory, to), length)


CALLS: dict[str, Callable[[Facts], Message]] = {
    # what is somebody else's, or nobody's
    "release another's": lambda it: hc.ReleaseMemory(it.theirs),
    "release a negative": lambda _: hc.ReleaseMemory(-1),
    "release a huge": lambda _: hc.ReleaseMemory(1 << 63),
    "release what is granted": lambda it: hc.ReleaseMemory(it.memory),
    "grant another's": lambda it: hc.GrantAccess(0, it.theirs, 0, SIZE, 0),
    "grant a negative": lambda _: hc.GrantAccess(0, -1, 0, SIZE, 0),
    "grant to nobody": lambda it: hc.GrantAccess(NOBODY, it.memory, 0, SIZE, 0),
    "revoke pages of another's": lambda it: hc.RevokePages(it.theirs, 0, SIZE),
    "end another's": lambda it: hc.EndAccess(it.secret + NOBODY),
    "query another's": lambda it: hc.QueryGrant(it.secret + NOBODY),
    "map a stranger's": lambda it: hc.MapGrantRef(it.stranger, it.secret, None),
    "map a negative": lambda it: hc.MapGrantRef(it.stranger, -1, None),
    "map of a negative": lambda _: hc.MapGrantRef(-1, 8, None),
    "map of nobody": lambda _: hc.MapGrantRef(NOBODY, 8, None),
    "map writable": lambda it: hc.MapGrantRef(it.stranger, it.received, False),
    "unmap what is not": lambda _: hc.UnmapGrantRef(NOBODY),
    "unmap a negative": lambda _: hc.UnmapGrantRef(-1),
    "grant on a stranger's": lambda it: hc.GrantTransitive(0, it.stranger, it.secret, 0, SIZE, 0),
    "grant on what may not be": lambda it: hc.GrantTransitive(
        0, it.stranger, it.received, 0, SIZE, 1
    ),
    "grant on of nobody": lambda _: hc.GrantTransitive(0, NOBODY, 8, 0, SIZE, 1),
    "transfer another's": lambda it: hc.Transfer(it.theirs, 0, 8),
    "transfer what is not": lambda _: hc.Transfer(-1, 0, 8),
    "transfer what is granted": lambda it: hc.Transfer(it.memory, 0, 8),
    "accept nothing": lambda _: hc.AcceptTransfer(0, 0),
    "accept a negative": lambda _: hc.AcceptTransfer(0, -1),
    "accept too much": lambda _: hc.AcceptTransfer(0, 1 << 62),
    "accept of nobody": lambda _: hc.AcceptTransfer(NOBODY, SIZE),
    "usage of another": lambda it: hc.QueryUsage(it.stranger),
    "usage of a negative": lambda _: hc.QueryUsage(-1),
    # ranges and rights
    "grant before it": lambda it: hc.GrantAccess(0, it.memory, -SIZE, SIZE, 0),
    "grant behind it": lambda it: hc.GrantAccess(0, it.memory, SIZE, SIZE, 0),
    "grant far behind it": lambda it: hc.GrantAccess(0, it.memory, 1 << 63, SIZE, 0),
    "grant more": lambda it: hc.GrantAccess(0, it.memory, 0, 1 << 63, 0),
    "grant less than nothing": lambda it: hc.GrantAccess(0, it.memory, 0, -SIZE, 0),
    "grant half a page": lambda it: hc.GrantAccess(0, it.memory, 0, SIZE // 2, 0),
    "grant negative rights": lambda it: hc.GrantAccess(0, it.memory, 0, SIZE, -1),
    "grant rights unheard of": lambda it: hc.GrantAccess(0, it.memory, 0, SIZE, 1 << 4),
    "grant rights without end": lambda it: hc.GrantAccess(0, it.memory, 0, SIZE, 1 << 63),
    "grant read-only, unsealed": lambda it: hc.GrantAccess(0, it.memory, 0, SIZE, 1),
    "revoke pages before it": lambda it: hc.RevokePages(it.memory, -1, SIZE),
    "revoke pages without end": lambda it: hc.RevokePages(it.memory, 0, 1 << 63),
    # copies
    "copy a stranger's": lambda it: hc.GrantCopy(
        hc.GrantSide(it.stranger, it.secret, 0), hc.OwnSide(it.memory, 0), 1
    ),
    "copy another's": lambda it: hc.GrantCopy(
        hc.OwnSide(it.theirs, 0), hc.OwnSide(it.memory, 0), 1
    ),
    "copy to what is read-only": lambda it: hc.GrantCopy(
        hc.OwnSide(it.memory, 0), hc.GrantSide(it.stranger, it.received, 0), 1
    ),
    "copy from behind a grant": lambda it: hc.GrantCopy(
        hc.GrantSide(it.stranger, it.received, SIZE), hc.OwnSide(it.memory, 0), 1
    ),
    "copy from before it": _own_and(-1, 0, 1),
    "copy to behind it": _own_and(0, SIZE, 1),
    "copy nothing": _own_and(0, 0, 0),
    "copy less than nothing": _own_and(0, 0, -1),
    "copy too much at once": _own_and(0, 0, (1 << 20) + 1),
    "copy without end": _own_and(0, 0, 1 << 63),
    "copy of no sides": lambda _: hc.GrantCopy(hc.Revoke(1), hc.ResetPorts(), 1),
    "copy to a descriptor": lambda it: hc.GrantCopy(
        hc.OwnSide(it.memory, 0), hc.PopulateMemory(memfd(), SIZE), 1
    ),
    # what is no hypercall
    "an answer": lambda _: hc.Refused("QuotaExceeded", "says who?"),
    "an order": lambda _: hc.Kill("please"),
    "another's hypercall": lambda _: hc.Hypercall(0, hc.ResetPorts()),
}


def _populate(make: Callable[[], Fd], size: int) -> Callable[[Guest, Facts], Any]:
    return lambda guest, _: guest.hypercall(hc.PopulateMemory(make(), size))


def _call(make: Callable[[Facts], Message]) -> Callable[[Guest, Facts], Any]:
    return lambda guest, facts: guest.hypercall(make(facts))


HOSTILE: dict[str, Callable[[Guest, Facts], Any]] = {
    **{f"populate {name}": _populate(*row) for name, row in POPULATE.items()},
    "populate what was received": what_was_received,
    "populate the same twice": the_same_twice,
    "grant on read-only, unsealed": read_only_of_what_is_not,
    **{name: _call(make) for name, make in CALLS.items()},
}
