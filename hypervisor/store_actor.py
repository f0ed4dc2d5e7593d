"""The machine's store as an actor: requests in, answers out, and watch events to whoever watches.

It owns the one `Store` and every connection to it, and never blocks. A connection belongs to a
domain, for which the opener vouches (the machine for those on its socket, the domain's own actor
for a guest's hypercalls), and to a door: the actor that is told its `StoreEvent` messages. The
answer to a request always comes before the events that the request caused on the same connection.

Rules: only who opens a connection can use it, since nobody else is told its number, and what a
domain says (store_calls.py) does not have one; a connection ends when its owner does, or its
domain. What the machine itself writes (`Put`, `Remove`, `Deliver`) it writes as domain 0, and a
refusal of that is a bug and raises.

The words of the bus pass through here (`Deliver`): each is written, and only then told, with the
revision that it got. So whoever has heard a word finds it in the log, and whoever has missed one
finds it there too (`Since`).

Corner cases: whatever a domain says over its connection is answered, by a refusal if it makes no
sense. What is left of a snapshot is kept for the connection until it is fetched, another one is
taken, or the connection ends: at most one for each.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors import Actor, Down, Message, Ref
from hypervisor import hypercalls as hc
from hypervisor.hypercalls import PeerState
from hypervisor.store import Effect, Store
from hypervisor.store_calls import (
    PART_BYTES,
    Changes,
    CloseStore,
    Follow,
    MoreNodes,
    Nodes,
    OpenStore,
    Since,
    StoreCall,
    StoreEvent,
    StoreRefused,
    StoreRequest,
    TakeSnapshot,
    Unfollow,
)
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Wake
from hypervisor.store_permissions import Caller, parse
from hypervisor.store_quota import Quota
from hypervisor.xs_requests import answer
from hypervisor.xs_wire import WireError
from hypervisor.xs_wire import parse as parse_packet

MACHINE = Caller(0)

_FRAME = 16  # bytes, about, of a node in a message beside its path and its value


class Introduce(Message):
    """There is a domain of that number; ``values`` are written into its home."""

    domid: int
    values: dict[str, str]


class Release(Message):
    """That domain is gone, and its nodes with it."""

    domid: int


class Put(Message):
    """Write these values (path -> text) in one transaction, each readable by ``readers``."""

    values: dict[str, str]
    readers: list[int]


class Deliver(Message):
    """Write as `Put` does; then tell ``door`` the word, with the revision of the last value."""

    values: dict[str, str]
    readers: list[int]
    door: Ref
    word: PeerState


class Remove(Message):
    """Remove these paths and all below them; nothing if they are not there."""

    paths: list[str]


@dataclass
class _Snapshot:
    """What is left of one."""

    revision: int
    nodes: list[tuple[str, bytes]]  # the last first


@dataclass
class _Connection:
    caller: Caller
    door: Ref
    owner: Ref
    monitor: int
    snapshot: _Snapshot | None = None


class StoreActor(Actor):
    """See the top of the module."""

    pooled = True
    fails_on_ask = False  # a request that hits a bug is answered with it, and the others go on

    def __init__(self, quota: Quota | None = None) -> None:
        super().__init__()
        self._store = Store(quota)
        self._connections: dict[int, _Connection] = {}
        self._numbers = itertools.count(1)

    def on_receive(self, message: Message) -> Any:
        match message:
            case StoreCall(number, call):
                return self._call(number, call)
            case OpenStore(domid, door, owner):
                number, owner = next(self._numbers), owner or door
                caller = Caller(domid, number)
                self._connections[number] = _Connection(caller, door, owner, self.monitor(owner))
                return number
            case CloseStore(connection):
                self._close(connection)
            case Down(ref=ref):
                for number in [n for n, c in self._connections.items() if c.owner == ref]:
                    self._close(number)
            case Introduce(domid, values):
                self._introduce(domid, values)
            case Release(domid):
                self._release(domid)
            case Put(values, readers):
                self._put(values, readers)
            case Deliver(values, readers, door, word):
                self._put(values, readers)
                door.tell(replace(word, revision=self._store.revision), control=True)
            case Remove(paths):
                for path in paths:
                    self._remove(path)
            case _:
                return super().on_receive(message)
        return None

    def _call(self, number: int, call: Message) -> Any:
        connection = self._connections.get(number)
        if connection is None:
            return hc.Refused("DomainDead", "its connection to the store has ended")
        try:
            return self._perform(connection, call)
        except StoreError as error:
            return StoreRefused(error.errno, error.args[1])
        except WireError as error:
            return hc.Refused("HypercallError", str(error))

    def _perform(self, connection: _Connection, call: Message) -> Any:
        caller, store = connection.caller, self._store
        match call:
            case StoreRequest(packet):
                answered = answer(store, caller, parse_packet(packet))
                self._deliver(answered.effects)
                return answered.reply
            case Follow(path, token):
                store.follow(caller, path, token)
                return store.revision
            case Unfollow(token):
                return store.unfollow(caller, token)
            case Since(path, revision):
                try:
                    reached, changes = store.since(caller, path, revision, PART_BYTES)
                except Compacted as error:
                    return _begin(connection, error.revision, error.snapshot)
                said = [(c.revision, c.path, c.old, c.new, c.domid) for c in changes]
                return Changes(reached, said, reached < store.revision)
            case TakeSnapshot(path):
                return _begin(connection, *store.snapshot(caller, path))
            case MoreNodes():
                return _next(connection)
        return hc.Refused("HypercallError", f"{type(call).__name__} is not for the store")

    def _close(self, number: int) -> None:
        closed = self._connections.pop(number)
        self.demonitor(closed.owner, closed.monitor)
        self._store.disconnect(closed.caller)

    def _introduce(self, domid: int, values: dict[str, str]) -> None:
        home = f"/local/domain/{domid}"
        if domid != 0:
            self._deliver(self._store.introduce(domid))
        self._put({f"{home}/{name}": value for name, value in values.items()}, [domid])

    def _release(self, domid: int) -> None:
        if domid == 0:
            return  # the machine itself ends, and its store with it
        self._deliver(self._store.release(domid, remove_nodes=True))
        for number in [n for n, c in self._connections.items() if c.caller.domid == domid]:
            self._close(number)

    def _put(self, values: dict[str, str], readers: Iterable[int]) -> None:
        transaction = self._store.transaction_start(MACHINE)
        permissions = parse(["n0", *(f"r{domid}" for domid in readers if domid != 0)])
        for path, value in values.items():
            self._store.write(MACHINE, path, value.encode(), transaction)
            self._store.set_perms(MACHINE, path, permissions, transaction)
        self._deliver(self._store.transaction_end(MACHINE, transaction, commit=True))

    def _remove(self, path: str) -> None:
        try:
            self._deliver(self._store.rm(MACHINE, path))
        except StoreError as error:
            if error.errno != "ENOENT":
                raise

    def _deliver(self, effects: list[Effect]) -> None:
        for effect in effects:
            number = effect.to.connection
            if number in self._connections:
                path = "" if isinstance(effect, Wake) else effect.path
                event = StoreEvent(number, path, effect.token)
                self._connections[number].door.tell(event, control=True)


def _begin(connection: _Connection, revision: int, values: Mapping[str, bytes]) -> Nodes:
    connection.snapshot = _Snapshot(revision, [*values.items()][::-1])
    return _next(connection)


def _next(connection: _Connection) -> Nodes:
    """Raises: StoreError: EINVAL: there is nothing left of a snapshot."""
    snapshot = connection.snapshot
    if snapshot is None:
        raise StoreError("EINVAL", "there is no snapshot to go on with")
    left, part, total = snapshot.nodes, list[tuple[str, bytes]](), 0
    while left and total < PART_BYTES:
        path, value = left.pop()
        part.append((path, value))
        total += _FRAME + len(path) + len(value)
    if not left:
        connection.snapshot = None
    return Nodes(snapshot.revision, part, bool(left))
