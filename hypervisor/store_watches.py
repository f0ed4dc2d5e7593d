"""Watches, the classic face: who is told that something happened at a path, but not what.

A watch belongs to a connection and has a path and a token; the two together are its name there. It
fires for what happens at the path and below it (down to ``depth`` levels if it has one), with the
path where it happened, and with its own path for a removal of something above it. A watch that was
set with a relative path is told relative paths. It fires once when it is set.

Special watches are for what happens to domains: ``@introduceDomain`` and ``@releaseDomain``. Those
without a depth hear that something happened; one with a depth of 1 hears of which domain, as
``@releaseDomain/5``, and so does one that is set on just that.

Told is who may: the caller of `fire` knows, and is asked for each domain at most once. Events of
one call are in the order in which the watches were set. Finding them costs the depth of the path
and the number of those that fire, never the number of watches.

Corner case: the longest path and a token must fit into one message together, so a longer token is
refused (E2BIG) instead of an event that can never be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from hypervisor.store_errors import StoreError
from hypervisor.store_paths import (
    ABSOLUTE_MAX,
    canonical,
    home,
    is_relative,
    names_below,
    prefixes,
)
from hypervisor.store_permissions import Caller, Subject
from hypervisor.store_quota import exceeds

TOKEN_MAX = 4096 - ABSOLUTE_MAX - 2


class Event(NamedTuple):
    """To be delivered to that connection."""

    to: Caller
    path: str
    token: bytes


@dataclass(frozen=True, slots=True)
class Watch:
    caller: Caller
    path: str
    token: bytes
    depth: int | None
    skip: int  # so much of a path is not told
    number: int

    def event(self, path: str) -> Event:
        return Event(self.caller, path[self.skip :], self.token)


class Watches:
    """All of them."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[int, Watch]] = {}
        self._by_caller: dict[Caller, dict[tuple[str, bytes], Watch]] = {}
        self._counts: dict[int, int] = {}
        self._number = 0

    def __len__(self) -> int:
        return sum(map(len, self._by_caller.values()))

    def count(self, domid: int) -> int:
        return self._counts.get(domid, 0)

    def add(
        self, caller: Caller, subject: Subject, path: str, token: bytes, depth: int | None
    ) -> Event:
        """Set one; returns its first event.

        Raises:
            StoreError: EINVAL: the path, the depth, or a nul in the token. E2BIG: the token.
                EEXIST: it is set already. ENOSPC: the domain has as many as it may have.
        """
        at = canonical(path, caller.domid, special=True)
        if b"\0" in token or (depth is not None and depth < 0):
            raise StoreError("EINVAL", f"watch: {token[:20]!r} is no token, or {depth} no depth")
        if len(token) > TOKEN_MAX:
            raise StoreError("E2BIG", f"watch: a token of {len(token)} bytes")
        if (at, token) in self._by_caller.get(caller, {}):
            raise StoreError("EEXIST", f"watch: {path} with {token!r} is set already")
        count = self.count(caller.domid) + 1
        if exceeds(count, subject.quota.watches):
            raise StoreError("ENOSPC", f"domain {caller.domid} would have {count} watches")
        skip = len(home(caller.domid)) + 1 if is_relative(path) else 0
        self._number += 1
        watch = Watch(caller, at, token, depth, skip, self._number)
        self._by_caller.setdefault(caller, {})[at, token] = watch
        self._by_path.setdefault(at, {})[watch.number] = watch
        self._counts[caller.domid] = count
        return watch.event(at)

    def remove(self, caller: Caller, path: str, token: bytes) -> None:
        """Raises: StoreError: EINVAL: the path. ENOENT: no such watch is set."""
        at = canonical(path, caller.domid, special=True)
        watch = self._by_caller.get(caller, {}).get((at, token))
        if watch is None:
            raise StoreError("ENOENT", f"unwatch: {path} with {token!r} is not set")
        self._forget(watch)

    def drop(self, caller: Caller) -> None:
        """All of a connection."""
        for watch in list(self._by_caller.get(caller, {}).values()):
            self._forget(watch)

    def end_domain(self, domid: int) -> None:
        for caller in [caller for caller in self._by_caller if caller.domid == domid]:
            self.drop(caller)

    def fire(
        self, path: str, may_know: Callable[[int], bool], *, exact: bool = False
    ) -> list[Event]:
        """Something happened at ``path``; ``exact``: only watches on just that are told."""
        tops = [path] if exact else prefixes(path)
        found = [
            watch
            for top in tops
            if top in self._by_path
            for watch in self._by_path[top].values()
            if watch.depth is None or len(names_below(path, top)) <= watch.depth
        ]
        return _told(path, found, may_know) if found else []

    def fire_special(
        self, name: str, domid: int, may_know: Callable[[int], bool], *, plain: bool = True
    ) -> list[Event]:
        """It happened to that domain; not ``plain``: who does not ask to which is not told."""
        events = []
        if plain:
            found = [watch for watch in self._at(name) if watch.depth is None]
            events = _told(name, found, may_know)
        path = f"{name}/{domid}"
        found = [*self._at(path), *(watch for watch in self._at(name) if watch.depth)]
        return events + _told(path, found, may_know)

    def _at(self, path: str) -> Iterable[Watch]:
        return self._by_path.get(path, {}).values()

    def _forget(self, watch: Watch) -> None:
        mine, there = self._by_caller[watch.caller], self._by_path[watch.path]
        del mine[watch.path, watch.token], there[watch.number]
        if not mine:
            del self._by_caller[watch.caller]
        if not there:
            del self._by_path[watch.path]
        domid = watch.caller.domid
        self._counts[domid] -= 1
        if not self._counts[domid]:
            del self._counts[domid]


def _told(path: str, watches: Iterable[Watch], may_know: Callable[[int], bool]) -> list[Event]:
    allowed: dict[int, bool] = {}
    events = []
    for watch in sorted(watches, key=lambda watch: watch.number):
        domid = watch.caller.domid
        if domid not in allowed:
            allowed[domid] = may_know(domid)
        if allowed[domid]:
            events.append(watch.event(path))
    return events
