"""Every change of the store, for who must not miss one: the lossless face.

The log keeps the last changes, by number and by size. Revisions have no gaps, so a change is at a
place that follows from its revision; each also knows, for the top `_LEVELS` names of its path, the
last change before it below the same node. What happened below a path since a revision is found by
following that chain back, and costs as much as it finds (deeper paths: what is found is sifted, so
that nobody can make a change costly by a path of a thousand names).

Who reads the log comes again with the revision that it has got to, after a reconnect as well as
without one, so it sees every change once, in order. Changes that are gone (`covers`) cannot be had
any more; then it needs the present nodes instead, which is not for the log to give.

For a reader a node is there if it may read it (`seen`): one that becomes readable appears as if it
had been created.

`Followers` says who ought to look into the log: those that follow a path at which, or below which,
something that they may see has changed. Unlike a watch that is no event but only a reason to ask.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from hypervisor.store_errors import StoreError
from hypervisor.store_nodes import Content, Node, find, walk
from hypervisor.store_paths import is_below, prefixes
from hypervisor.store_permissions import Caller, Subject, may_read
from hypervisor.store_quota import exceeds
from hypervisor.store_tree import Change

_LEVELS = 16
_FRAME = 32  # bytes, about, of what is said of a change beside its path and its values


class _Record(NamedTuple):
    change: Change
    earlier: tuple[int, ...]  # for each of the first prefixes of its path: the change before it
    size: int


class Log:
    """The changes after ``revision``, at most so many and of so many bytes."""

    def __init__(self, revision: int, most: int, most_bytes: int) -> None:
        self._records: list[_Record | None] = [None] * most
        self._first = self._last = revision  # what is after _first and up to _last is here
        self._latest: dict[str, int] = {}  # below which node: the last change that is here
        self._most_bytes = most_bytes
        self._bytes = 0

    def __len__(self) -> int:
        return self._last - self._first

    def append(self, change: Change) -> None:
        assert change.revision == self._last + 1, "a revision is missing"
        if len(self) == len(self._records):
            self._drop()
        earlier = []
        for top in prefixes(change.path, _LEVELS):
            earlier.append(self._latest.get(top, 0))
            self._latest[top] = change.revision
        size = _size(change)
        self._records[change.revision % len(self._records)] = _Record(change, tuple(earlier), size)
        self._last = change.revision
        self._bytes += size
        while self._bytes > self._most_bytes:
            self._drop()

    def covers(self, revision: int) -> bool:
        """Whether everything that came after it is here."""
        return self._first <= revision <= self._last

    def since(self, path: str, revision: int) -> list[Change]:
        """The changes at and below ``path`` after that revision, which is covered."""
        tops = prefixes(path, _LEVELS)
        level, at = len(tops) - 1, self._latest.get(tops[-1], 0)
        found = []
        while at > revision:
            record = self._records[at % len(self._records)]
            assert record is not None
            found.append(record.change)
            at = record.earlier[level]
        if tops[-1] != path:
            found = [change for change in found if is_below(change.path, path)]
        return found[::-1]

    def _drop(self) -> None:
        self._first += 1
        place = self._first % len(self._records)
        record = self._records[place]
        assert record is not None
        self._records[place] = None
        self._bytes -= record.size
        for top in prefixes(record.change.path, _LEVELS):
            if self._latest[top] == self._first:
                del self._latest[top]


def _size(change: Change) -> int:
    return len(change.path) + sum(len(c.value) for c in (change.old, change.new) if c)


def upto(changes: list[Change], most_bytes: int) -> list[Change]:
    """The first of them that have no more bytes together, each with its frame, and at least one."""
    total = 0
    for count, change in enumerate(changes):
        total += _FRAME + _size(change)
        if total > most_bytes:
            return changes[: max(1, count)]
    return changes


class Seen(NamedTuple):
    """A change as a reader sees it; None: not there, or not for the reader."""

    revision: int
    path: str
    old: bytes | None
    new: bytes | None
    domid: int


def seen(changes: Iterable[Change], subject: Subject) -> list[Seen]:
    """As ``subject`` sees them; those of which it sees nothing are left out."""
    found = []
    for revision, path, old, new, domid, _ in changes:
        before, after = _readable(old, subject), _readable(new, subject)
        if before is not None or after is not None:
            found.append(Seen(revision, path, before, after, domid))
    return found


def may_see(change: Change, subject: Subject) -> bool:
    return any(c is not None and may_read(c.perms, subject) for c in (change.old, change.new))


def values(root: Node, path: str, subject: Subject) -> dict[str, bytes]:
    """What ``subject`` sees at and below ``path``; a parent comes before its children."""
    top = find(root, path)
    return {
        at: node.content.value
        for at, node in (walk(path, top) if top is not None else ())
        if may_read(node.content.perms, subject)
    }


def _readable(content: Content | None, subject: Subject) -> bytes | None:
    return content.value if content is not None and may_read(content.perms, subject) else None


class Wake(NamedTuple):
    """Something that ``to`` follows has changed: the log has more for it."""

    to: Caller
    token: bytes


class Followers:
    """Who follows what."""

    def __init__(self) -> None:
        self._by_top: dict[str, dict[Wake, None]] = {}
        self._paths: dict[Wake, str] = {}
        self._counts: dict[int, int] = {}

    def add(self, caller: Caller, subject: Subject, path: str, token: bytes) -> None:
        """Raises: StoreError: EEXIST: it uses that token already. ENOSPC: as for watches."""
        wake = Wake(caller, token)
        if wake in self._paths:
            raise StoreError("EEXIST", f"follow: {token!r} is used for {self._paths[wake]}")
        count = self._counts.get(caller.domid, 0) + 1
        if exceeds(count, subject.quota.watches):
            raise StoreError("ENOSPC", f"domain {caller.domid} would follow {count} paths")
        self._counts[caller.domid] = count
        self._paths[wake] = path
        self._by_top.setdefault(_top(path), {})[wake] = None

    def remove(self, caller: Caller, token: bytes) -> None:
        """Raises: StoreError: ENOENT: it does not follow anything by that token."""
        wake = Wake(caller, token)
        if wake not in self._paths:
            raise StoreError("ENOENT", f"unfollow: {token!r} is not used")
        self._forget(wake)

    def drop(self, caller: Caller) -> None:
        for wake in [wake for wake in self._paths if wake.to == caller]:
            self._forget(wake)

    def end_domain(self, domid: int) -> None:
        for wake in [wake for wake in self._paths if wake.to.domid == domid]:
            self._forget(wake)

    def woken(self, changes: Sequence[Change], sees: Callable[[int, Change], bool]) -> list[Wake]:
        """Each at most once."""
        woken: dict[Wake, None] = {}
        if self._paths:
            for change in changes:
                for top in prefixes(change.path, _LEVELS):
                    for wake in self._by_top.get(top, ()):
                        if (
                            wake not in woken
                            and is_below(change.path, self._paths[wake])
                            and sees(wake.to.domid, change)
                        ):
                            woken[wake] = None
        return list(woken)

    def _forget(self, wake: Wake) -> None:
        top = _top(self._paths.pop(wake))
        del self._by_top[top][wake]
        if not self._by_top[top]:
            del self._by_top[top]
        self._counts[wake.to.domid] -= 1
        if not self._counts[wake.to.domid]:
            del self._counts[wake.to.domid]


def _top(path: str) -> str:
    return prefixes(path, _LEVELS)[-1]
