"""The descriptors behind the grant tables, and the effects that the tables ask for.

`Granting` is the hypervisor actor's half of grants; the rules are in grants.py. It holds one
descriptor for all memory that is known, under a number that is never used again. What a call
withdraws from its caller goes back in the answer: the caller exchanges his own pages. For a dead
owner nobody can do that, so the hole is punched here.

What it believes of nobody: memory must be a memfd that can neither shrink nor grow nor be unsealed
(or its owner could make who maps it fault), of ordinary pages, open for reading and writing, and
what is granted read-only must be sealed against writing (or who has the descriptor could map it
writable). Everybody's descriptor is the same open file, whose flags anybody may change; so memory
is read and written by mappings. A transfer hands over a copy, since the giver may go on mapping
what it gave. What the machine has no memory or descriptor for is refused before anything changes.

Who maps nothing of a grant is not told of its end: nobody can be sent news by whomever he never
dealt with.

Corner case: memory that is read-only to peers cannot be written by descriptor, by us as little as
by anybody. So it is no destination of a copy; its owner has a view of it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from actors import Fd, Message
from hypervisor import hypercalls as hc
from hypervisor.errors import HypercallError, NotPermitted
from hypervisor.grant_effects import (
    Effect,
    Forget,
    GrantGone,
    GrantRef,
    LastMappingGone,
    Overdrawn,
    OwnMemory,
    Revoked,
    Rights,
    StillReachable,
    Withdraw,
)
from hypervisor.grant_quota import GrantQuota
from hypervisor.grants import Grants
from hypervisor.memory import (
    F_SEAL_FUTURE_WRITE,
    PAGE,
    SEALS,
    new_memfd,
    punch_hole,
    read_memory,
    write_memory,
)
from hypervisor.port_effects import CONTROL_DOMAIN

COPY_LIMIT = 1 << 20
"""Bytes that one hypercall copies; more would hold up everybody."""
TRANSFER_LIMIT = 16 << 20
"""Bytes that can be transferred at once, as that is a copy."""


@dataclass
class _Memory:
    fd: Fd
    inode: tuple[int, int]
    size: int
    readonly: bool


class Granting:
    """Every hypercall about grants.

    Args:
        tell: takes a domid and what its door shall hear.
        overdrawn: takes the domid that holds more revoked memory than it may, and the limit.
    """

    def __init__(
        self, tell: Callable[[int, Message], None], overdrawn: Callable[[int, int], None]
    ) -> None:
        self._grants: Grants[int] = Grants(page=PAGE)
        self._memory: dict[int, _Memory] = {}
        self._numbers: dict[tuple[int, int], int] = {}
        self._owed: dict[tuple[int, int], list[tuple[int, int, int]]] = {}  # see `take`
        self._domids: set[int] = set()
        self._last = 0
        self._tell = tell
        self._overdrawn = overdrawn
        self.overdrawn = self._grants.overdrawn
        self.orphans = self._grants.orphans

    def handlers(self) -> dict[type[Message], Callable[[int, Any], Any]]:
        """What serves each hypercall: called with the calling domid and the hypercall."""
        grants = self._grants
        return {
            hc.PopulateMemory: self._populate,
            hc.ReleaseMemory: self._release,
            hc.GrantAccess: self._grant_access,
            hc.GrantTransitive: self._grant_transitive,
            hc.EndAccess: lambda domid, call: grants.end_access(domid, call.gref),
            hc.Revoke: self._revoke,
            hc.RevokePages: lambda domid, call: self._taken(
                grants.revoke_pages(domid, call.memory, call.offset, call.length)
            ),
            hc.MapGrantRef: self._map_grant_ref,
            hc.UnmapGrantRef: lambda domid, call: self._perform(
                grants.unmap_grant_ref(domid, call.handle), self._punch
            ),
            hc.GrantCopy: self._copy,
            hc.AcceptTransfer: lambda domid, call: grants.accept_transfer(
                domid, call.giver, call.size
            ),
            hc.Transfer: self._transfer,
            hc.QueryGrant: self._query,
            hc.QueryUsage: self._usage,
        }

    def domain_created(self, domid: int, quota: GrantQuota) -> None:
        """There is a domain of that number; numbers only grow."""
        self._grants.add_domain(domid, quota)
        self._domids.add(domid)

    def domain_died(self, domid: int) -> None:
        """All that it had, granted and mapped is over; the others are told."""
        for key in [key for key in self._owed if key[0] == domid]:
            del self._owed[key]
        self._domids.discard(domid)
        self._perform(self._grants.domain_died(domid), self._punch)

    def take(self, granter: int, gref: int) -> None:
        """Revoke a grant in the name of ``granter``, who learns by `GrantGone` and takes his half,
        the pages, when he revokes it himself.
        """
        if granter in self._domids and (spans := self._revoke(granter, hc.Revoke(gref)).spans):
            self._owed[granter, gref] = spans

    # --- memory ---

    def _populate(self, domid: int, call: hc.PopulateMemory) -> int:
        fd = call.memory.fileno()
        try:
            seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        except OSError as error:
            raise HypercallError("populate: that descriptor is not of a memfd") from error
        if seals & SEALS != SEALS:
            raise HypercallError("populate: it is not sealed against shrink, grow and unsealing")
        if seals & fcntl.F_SEAL_WRITE:
            raise HypercallError("populate: it is sealed against its owner's writing, too")
        if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
            raise HypercallError("populate: that descriptor is not open for reading and writing")
        if os.fstatvfs(fd).f_bsize != PAGE:
            raise HypercallError(f"populate: its pages are not of {PAGE} bytes")
        about = os.fstat(fd)
        if about.st_size != call.size:
            raise HypercallError(f"populate: it has {about.st_size} bytes, not {call.size}")
        inode = (about.st_dev, about.st_ino)
        if inode in self._numbers:
            raise HypercallError("populate: that memory is somebody's already")
        with _unless_short_of_anything("populate"):
            kept = Fd(os.dup(fd))
        number = self._last + 1
        self._grants.populate(domid, number, call.size)
        self._last = number
        self._numbers[inode] = number
        readonly = bool(seals & F_SEAL_FUTURE_WRITE)
        self._memory[number] = _Memory(kept, inode, call.size, readonly)
        return number

    def _release(self, domid: int, call: hc.ReleaseMemory) -> None:
        self._grants.release(domid, call.memory)
        self._forget(call.memory)

    def _forget(self, number: int) -> None:
        memory = self._memory.pop(number)
        del self._numbers[memory.inode]
        memory.fd.close()

    def _punch(self, withdraw: Withdraw[int]) -> None:
        memory = self._memory[withdraw.memory]
        if not memory.readonly:
            punch_hole(memory.fd.fileno(), withdraw.offset, withdraw.length)

    # --- grants ---

    def _grant_access(self, domid: int, call: hc.GrantAccess) -> int:
        rights = _rights(call.rights)
        self._refuse_unsealed(call.memory, rights)
        return self._grants.grant_access(
            domid, call.grantee, call.memory, call.offset, call.length, rights
        )

    def _grant_transitive(self, domid: int, call: hc.GrantTransitive) -> int:
        rights = _rights(call.rights)
        gref = self._grants.grant_transitive(
            domid, call.grantee, call.granter, call.gref, call.offset, call.length, rights
        )
        try:  # only now is it known that the caller may know whose memory it is
            self._refuse_unsealed(self._grants.query(domid, gref).memory, rights)
        except HypercallError:
            self._grants.end_access(domid, gref)
            raise
        return gref

    def _refuse_unsealed(self, number: int, rights: Rights) -> None:
        memory = self._memory.get(number)
        if memory is None or not rights.mappable or rights.readonly == memory.readonly:
            return
        if rights.readonly:
            raise HypercallError("a read-only grant needs memory that is sealed against writing")
        raise HypercallError("memory that is sealed against writing can be granted read-only")

    def _map_grant_ref(self, domid: int, call: hc.MapGrantRef) -> Message:
        mapped = self._grants.map_grant_ref(domid, call.granter, call.gref, readonly=call.readonly)
        return hc.Granted(
            mapped.handle,
            self._memory[mapped.memory].fd,
            mapped.offset,
            mapped.length,
            mapped.readonly,
        )

    def _copy(self, domid: int, call: hc.GrantCopy) -> None:
        if call.length > COPY_LIMIT:
            raise HypercallError(f"copy: {call.length} bytes; at most {COPY_LIMIT} at once")
        copy = self._grants.copy(domid, _side(call.source), _side(call.dest), call.length)
        if self._memory[copy.dest].readonly:
            raise HypercallError("copy: memory that is sealed against writing is no destination")
        source, dest = self._memory[copy.source].fd, self._memory[copy.dest].fd
        with _unless_short_of_anything("copy"):
            data = read_memory(source.fileno(), copy.source_offset, copy.length)
            write_memory(dest.fileno(), copy.dest_offset, data)

    def _transfer(self, domid: int, call: hc.Transfer) -> None:
        given = self._memory.get(call.memory)
        if given is None:
            raise HypercallError(f"transfer: there is no memory {call.memory}")
        if given.size > TRANSFER_LIMIT:
            raise HypercallError(f"transfer: {given.size} bytes; at most {TRANSFER_LIMIT} at once")
        with _unless_short_of_anything("transfer"):
            copy = _copy_of(given)
        self._grants.transfer(domid, call.memory, call.receiver, call.gref)
        self._replace(call.memory, copy)
        said = hc.Transferred(call.gref, call.memory, copy, given.size, domid)
        self._tell(call.receiver, said)

    def _replace(self, number: int, copy: Fd) -> None:
        """``copy`` is that memory now; who maps what it was keeps only zeros."""
        given = self._memory[number]
        if not given.readonly:
            punch_hole(given.fd.fileno(), 0, given.size)
        given.fd.close()
        del self._numbers[given.inode]
        about = os.fstat(copy.fileno())
        inode = (about.st_dev, about.st_ino)
        self._numbers[inode] = number
        self._memory[number] = _Memory(copy, inode, given.size, readonly=False)

    # --- looking ---

    def _query(self, domid: int, call: hc.QueryGrant) -> Message:
        state = self._grants.query(domid, call.gref)
        return hc.GrantIs(
            state.grantee,
            state.memory,
            state.offset,
            state.length,
            state.rights.flags,
            state.parent,
            list(state.children),
            state.mapped_by,
        )

    def _usage(self, domid: int, call: hc.QueryUsage) -> Message:
        if call.of != domid != CONTROL_DOMAIN:
            raise NotPermitted(f"only domain {CONTROL_DOMAIN} may ask what others have")
        usage = self._grants.usage(call.of)
        return hc.UsageIs(
            usage.memory,
            usage.grants,
            usage.mapped,
            usage.mappings,
            usage.orphans,
            usage.regions,
        )

    # --- effects ---

    def _revoke(self, domid: int, call: hc.Revoke) -> hc.Withdrawn:
        taken = self._taken(self._grants.revoke(domid, call.gref))
        return hc.Withdrawn([*self._owed.pop((domid, call.gref), []), *taken.spans])

    def _taken(self, effects: list[Effect[int]]) -> hc.Withdrawn:
        """Perform them; what the caller must exchange is the answer."""
        spans: list[tuple[int, int, int]] = []
        self._perform(
            effects, lambda taken: spans.append((taken.memory, taken.offset, taken.length))
        )
        return hc.Withdrawn(spans)

    def _perform(
        self, effects: list[Effect[int]], withdraw: Callable[[Withdraw[int]], None]
    ) -> None:
        for effect in effects:
            match effect:
                case Withdraw():
                    withdraw(effect)
                case Forget(memory=number):
                    self._forget(number)
                case Overdrawn(domid, limit):
                    self._overdrawn(domid, limit)
                case Revoked(domid, granter, gref, handles) if handles:
                    self._tell(domid, hc.MappingRevoked(granter, gref, list(handles)))
                case GrantGone(domid, gref):
                    self._tell(domid, hc.GrantGone(gref))
                case LastMappingGone(domid, gref):
                    self._tell(domid, hc.LastMappingGone(gref))
                case StillReachable(domid, number, offset, length, holder):
                    self._tell(domid, hc.StillReachable(number, offset, length, holder))


def _copy_of(given: _Memory) -> Fd:
    copy = Fd(new_memfd("transferred", given.size))
    os.posix_fallocate(copy.fileno(), 0, given.size)  # or a write might end in the middle
    for offset in range(0, given.size, COPY_LIMIT):
        count = min(COPY_LIMIT, given.size - offset)
        os.pwrite(copy.fileno(), read_memory(given.fd.fileno(), offset, count), offset)
    fcntl.fcntl(copy.fileno(), fcntl.F_ADD_SEALS, SEALS)
    return copy


def _rights(flags: int) -> Rights:
    rights = Rights.of(flags)
    if rights.flags != flags:
        raise HypercallError(f"{flags} are no rights")
    return rights


@contextmanager
def _unless_short_of_anything(what: str) -> Iterator[None]:
    """Descriptors, memory, addresses: the machine's lack of them is a refusal, not its end."""
    try:
        yield
    except OSError as error:
        raise HypercallError(f"{what}: the machine cannot: {error.strerror}") from error


def _side(side: Message) -> OwnMemory[int] | GrantRef:
    match side:
        case hc.OwnSide(memory, offset):
            return OwnMemory(memory, offset)
        case hc.GrantSide(granter, gref, offset):
            return GrantRef(granter, gref, offset)
    raise HypercallError(f"copy: {type(side).__name__} is no side of a copy")
