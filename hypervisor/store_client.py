"""What code inside a domain uses of the store: XenStore's operations as methods.

A `StoreClient` speaks for one domain, over one connection, and any thread of the domain may use it.
It says the messages of the XenStore protocol (xs_wire.py), and for the lossless face those of
store_calls.py; how they get to the store is the business of ``call``. What the domain may do is
judged there. Paths without a slash in front are relative to the domain's home.

Every method raises `StoreError` when the store refuses it, by the name of an errno value (EACCES,
ENOENT, ENOSPC for a quota, ...), and `DomainDead` when the domain may not call any more.

Who wakes whom: whatever brings the domain's events calls `deliver`, which wakes the `Watch` or the
`Follower` that they are for, and never waits.

Corner case: a directory that is too large for one message is fetched in parts in a transaction of
its own, so that the list is one that was there at some moment, however many write to it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from actors import Message, Ref
from hypervisor.store import Snapshot
from hypervisor.store_calls import (
    Changes,
    Follow,
    MoreNodes,
    Nodes,
    Since,
    StoreRefused,
    StoreRequest,
    TakeSnapshot,
    Unfollow,
)
from hypervisor.store_errors import Compacted, StoreError
from hypervisor.store_log import Seen
from hypervisor.store_watch import Follower, Watch
from hypervisor.xs_wire import PAYLOAD_MAX, Op, Packet, pack, parse, unpack

_T = TypeVar("_T")


class StoreOperations:
    """What can be done in a transaction and outside of one."""

    def __init__(self, call: Callable[[Message], Any], tx: int) -> None:
        self._call = call
        self._tx = tx

    def read(self, path: str) -> bytes:
        """The value of a node."""
        return self._ask(Op.READ, _parts(path))

    def write(self, path: str, value: bytes | bytearray | memoryview) -> None:
        """Set the value of a node, which is created if it is not there.

        Raises:
            TypeError: the value is not bytes; a text is to be encoded, in UTF-8 by custom.
        """
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError(f"the value of a node is bytes, not {type(value).__name__}")
        self._ask(Op.WRITE, _parts(path) + value)

    def mkdir(self, path: str) -> None:
        """Create an empty node; nothing if it is there."""
        self._ask(Op.MKDIR, _parts(path))

    def rm(self, path: str) -> None:
        """Remove a node and all below it; nothing if it is not there, but its parent is."""
        self._ask(Op.RM, _parts(path))

    def exists(self, path: str) -> bool:
        """Whether there is such a node."""
        try:
            self.get_perms(path)
        except StoreError as error:
            if error.errno == "ENOENT":
                return False
            raise
        return True

    def directory(self, path: str) -> list[str]:
        """The names of a node's children, sorted; however many."""
        try:
            packed = self._ask(Op.DIRECTORY, _parts(path))
        except StoreError as error:
            if error.errno != "E2BIG":
                raise
            packed = self._large_directory(path)
        return [name.decode("ascii") for name in unpack(packed)]

    def get_perms(self, path: str) -> list[str]:
        """As ``["n0", "r7"]``: the owner and what all others may, then who may what else."""
        return [entry.decode("ascii") for entry in unpack(self._ask(Op.GET_PERMS, _parts(path)))]

    def set_perms(self, path: str, perms: Iterable[str]) -> None:
        """Only the owner may; see `get_perms`."""
        self._ask(Op.SET_PERMS, _parts(path, *perms))

    def _large_directory(self, path: str) -> bytes:
        found, ended = b"", False
        while not ended:  # nobody can change it: this is a transaction
            part = self._ask(Op.DIRECTORY_PART, _parts(path, str(len(found))))
            names = part[part.index(b"\0") + 1 :]
            ended = names == b"\0" or names.endswith(b"\0\0")
            found += names[: len(names) - ended]
        return found

    def _ask(self, op: Op, payload: bytes) -> bytes:
        if len(payload) > PAYLOAD_MAX:
            raise StoreError("E2BIG", f"{op.name} with {len(payload)} bytes")
        packet = Packet(op, 0, self._tx, payload).encode()
        reply = parse(self._call(StoreRequest(packet)))
        if reply.type == Op.ERROR:
            about = payload.partition(b"\0")[0].decode("latin-1")
            raise StoreError(unpack(reply.payload)[0].decode("ascii"), f"{op.name} {about[:80]}")
        return reply.payload


class StoreTransaction(StoreOperations):
    """Made by `StoreClient.transaction`; its operations see, and change, a version of their own.

    As a context manager it commits, or aborts if its block raises.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.commit()
        else:
            self.abort()

    def commit(self) -> None:
        """End it, and do to the store what it has done.

        Raises:
            StoreError: EAGAIN: what it has looked at has changed since; nothing was done.
        """
        self._ask(Op.TRANSACTION_END, _parts("T"))

    def abort(self) -> None:
        """End it, and nothing has happened."""
        self._ask(Op.TRANSACTION_END, _parts("F"))


class StoreClient(StoreOperations):
    """See the module's text. ``call`` makes a call of store_calls.py and returns its answer."""

    def __init__(self, call: Callable[[Message], Any]) -> None:
        super().__init__(lambda said: _accepted(call(said)), 0)
        self._listeners: dict[bytes, Watch | Follower] = {}
        self._numbers = itertools.count(1)
        self._parts_lock = threading.Lock()  # what comes in parts is fetched by one at a time

    def get_domain_path(self, domid: int) -> str:
        """Where the relative paths of that domain begin."""
        return unpack(self._ask(Op.GET_DOMAIN_PATH, _parts(str(domid))))[0].decode("ascii")

    def is_domain_introduced(self, domid: int) -> bool:
        """Whether the store knows it; domain 0 may ask, others get EACCES."""
        return self._ask(Op.IS_DOMAIN_INTRODUCED, _parts(str(domid))) == b"T\0"

    def transaction(self) -> StoreTransaction:
        """Start one: ``with store.transaction() as t: t.write(...)``."""
        number = int(unpack(self._ask(Op.TRANSACTION_START, b"\0"))[0])
        return StoreTransaction(self._call, number)

    def atomically(self, function: Callable[[StoreOperations], _T], attempts: int = 100) -> _T:
        """Call ``function`` with a transaction, again and again, until that can be committed.

        Raises:
            StoreError: EAGAIN: others were quicker, ``attempts`` times.
        """
        for _ in range(attempts - 1):
            try:
                with self.transaction() as transaction:
                    return function(transaction)
            except StoreError as error:
                if error.errno != "EAGAIN":
                    raise
        with self.transaction() as transaction:
            return function(transaction)

    def watch(self, path: str, *, depth: int | None = None, to: Ref | None = None) -> Watch:
        """Be told that something has happened at or below ``path``: look again.

        It says so once at the beginning.

        Args:
            path: also ``@introduceDomain`` or ``@releaseDomain``.
            depth: how many levels below the path count; None: all.
            to: an actor that is told `WatchEvent` messages; without one the `Watch` is a queue.
        """
        number = next(self._numbers)
        watch = Watch(number, path, to, lambda: self._unwatch(path, number))
        parts = _parts(path, str(number)) + (b"" if depth is None else b"%d\0" % depth)
        self._listen(watch, lambda: self._ask(Op.WATCH, parts))
        return watch

    def follow(self, path: str, since: int | None = None, *, to: Ref | None = None) -> Follower:
        """Every change at and below ``path`` after revision ``since``, in order, exactly once.

        Args:
            since: where somebody has got to (`Follower.revision`), or that of a `snapshot`; None:
                from now on.
            to: an actor that is told `StoreChanged` when there is something to `Follower.take`.
        """
        number = next(self._numbers)
        follower = Follower(
            number, to, lambda at: self._since(path, at), lambda: self._unfollow(number)
        )
        now = self._listen(follower, lambda: self._call(Follow(path, b"%d" % number)))
        follower.start(now if since is None else since)
        return follower

    def snapshot(self, path: str) -> Snapshot:
        """Every node at or below ``path`` that this domain may read, all at one revision."""
        with self._parts_lock:
            return self._snapshot(self._call(TakeSnapshot(path)))

    def deliver(self, events: Iterable[tuple[str, bytes]]) -> None:
        """For who brings the events: (path, token) of each."""
        for path, token in events:
            listener = self._listeners.get(token)
            if listener is not None:  # else it was closed while the event was on its way
                listener.fire(path)

    def end(self, text: str) -> None:
        """For who brings the events: none will come any more."""
        for listener in list(self._listeners.values()):
            listener.end(text)

    def _listen(self, listener: Watch | Follower, begin: Callable[[], _T]) -> _T:
        token = b"%d" % listener.number
        self._listeners[token] = listener  # its first event may be here before the answer
        try:
            return begin()
        except BaseException:
            del self._listeners[token]
            raise

    def _unwatch(self, path: str, number: int) -> None:
        if self._listeners.pop(b"%d" % number, None) is not None:
            self._ask(Op.UNWATCH, _parts(path, str(number)))

    def _unfollow(self, number: int) -> None:
        if self._listeners.pop(b"%d" % number, None) is not None:
            self._call(Unfollow(b"%d" % number))

    def _since(self, path: str, revision: int) -> tuple[int, list[Seen], bool]:
        with self._parts_lock:
            answer = self._call(Since(path, revision))
            if isinstance(answer, Nodes):
                raise Compacted(path, *self._snapshot(answer))
            assert isinstance(answer, Changes)
            return answer.revision, [Seen(*change) for change in answer.changes], answer.more

    def _snapshot(self, part: Nodes) -> Snapshot:
        values = dict(part.nodes)
        while part.more:
            part = self._call(MoreNodes())
            values.update(part.nodes)
        return Snapshot(part.revision, values)

    def _large_directory(self, path: str) -> bytes:
        transaction = self.transaction()
        try:
            return transaction._large_directory(path)  # noqa: SLF001 - one of our own
        finally:
            transaction.abort()


def _accepted(answer: Any) -> Any:
    if isinstance(answer, StoreRefused):
        raise StoreError(answer.errno, answer.text)
    return answer


def _parts(*texts: str) -> bytes:
    """Raises: StoreError: EINVAL: there is a nul inside."""
    if any("\0" in text for text in texts):
        raise StoreError("EINVAL", "a nul cannot be part of an argument")
    return pack(text.encode("utf-8", "surrogatepass") for text in texts)
