"""The machine's store as an actor: requests in, answers out, and watch events to whoever watches.

It owns the one `Store` and every connection to it, and never blocks. A connection belongs to a
domain, for which the opener vouches (the machine for those on its socket, the hypervisor for a
guest's hypercalls), and to a door: the actor that is told its `StoreEvent` messages. The answer to
a request always comes before the events that the request caused on the same connection.

Rules: only who opens a connection can use it, since its number is known to no one else's door; a
connection ends when its door does. What the machine itself writes (`Put`, `Remove`, `Deliver`) it
writes as domain 0, and a refusal of that is a bug and raises.

The words of the bus pass through here (`Deliver`): each is written, and only then told, with the
revision that it got. So whoever has heard a word finds it in the log, and whoever has missed one
finds it there too (`Since`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from actors import Actor, Down, Message, Ref
from hypervisor.hypercalls import PeerState
from hypervisor.store import Effect, Store
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Wake
from hypervisor.store_permissions import Caller, parse
from hypervisor.store_quota import Quota
from hypervisor.xs_requests import answer
from hypervisor.xs_wire import Frames

MACHINE = Caller(0)


class OpenStore(Message):
    """A connection of domain ``domid``, whose events go to ``door``. Answered by its number."""

    domid: int
    door: Ref


class CloseStore(Message):
    """That connection is over, with its watches and transactions."""

    connection: int


class StoreRequest(Message):
    """One message of the XenStore wire protocol. Answered by the bytes of the reply."""

    connection: int
    packet: bytes


class StoreEvent(Message):
    """To a door: a watch of that connection has fired.

    Without a path: something that the connection follows in the log has changed.
    """

    connection: int
    path: str
    token: bytes


class Since(Message):
    """What that connection may see of the changes at and below ``path`` after ``revision``.

    Answered by `Changed`; by `Present` if the log does not reach back so far, or the domain has
    not been there so long.
    """

    connection: int
    path: str
    revision: int


class Changed(Message):
    """``revision`` is where to go on; each of ``changes`` the fields of a store_log.Seen."""

    revision: int
    changes: list[Any]


class Present(Message):
    """What is there now at and below the path, at ``revision``, where to go on."""

    revision: int
    values: dict[str, bytes]


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


class StoreActor(Actor):
    """See the top of the module."""

    pooled = True
    fails_on_ask = False  # a request that hits a bug is answered with it, and the others go on

    def __init__(self, quota: Quota | None = None) -> None:
        super().__init__()
        self._store = Store(quota)
        self._doors: dict[int, tuple[Caller, Ref, int]] = {}
        self._numbers = itertools.count(1)

    def on_receive(self, message: Message) -> Any:
        match message:
            case StoreRequest(connection, packet):
                return self._request(connection, packet)
            case OpenStore(domid, door):
                number = next(self._numbers)
                self._doors[number] = (Caller(domid, number), door, self.monitor(door))
                return number
            case CloseStore(connection):
                self._close(connection)
            case Down(ref=ref):
                for number in [n for n, (_, door, _) in self._doors.items() if door == ref]:
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
            case Since(connection, path, revision):
                caller, _, _ = self._doors[connection]
                try:
                    now, changes = self._store.since(caller, path, revision)
                except Compacted as gone:
                    return Present(gone.revision, dict(gone.snapshot))
                return Changed(now, [list(change) for change in changes])
            case Remove(paths):
                for path in paths:
                    self._remove(path)
            case _:
                return super().on_receive(message)
        return None

    def _request(self, connection: int, packet: bytes) -> bytes:
        caller, _, _ = self._doors[connection]
        frames = Frames()
        frames.feed(packet)
        request = frames.take()
        if request is None or len(frames):
            raise ValueError("a store request is exactly one message")
        answered = answer(self._store, caller, request)
        self._deliver(answered.effects)
        return answered.reply

    def _close(self, connection: int) -> None:
        caller, door, monitor = self._doors.pop(connection)
        self.demonitor(door, monitor)
        self._store.disconnect(caller)

    def _introduce(self, domid: int, values: dict[str, str]) -> None:
        home = f"/local/domain/{domid}"
        if domid != 0:
            self._deliver(self._store.introduce(domid))
        self._put({f"{home}/{name}": value for name, value in values.items()}, [domid])

    def _release(self, domid: int) -> None:
        if domid == 0:
            return  # the machine itself ends, and its store with it
        self._deliver(self._store.release(domid, remove_nodes=True))
        for number in [n for n, (caller, _, _) in self._doors.items() if caller.domid == domid]:
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
            if number in self._doors:
                path = "" if isinstance(effect, Wake) else effect.path
                event = StoreEvent(number, path, effect.token)
                self._doors[number][1].tell(event, control=True)
