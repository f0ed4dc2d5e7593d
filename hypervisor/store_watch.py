"""Being told of changes in the store: a `Watch` says where to look again, a `Follower` what it was.

Both are made by a `StoreClient`, hold what has come and not been taken, and are woken by whatever
brings the domain's events (`fire`), which never waits. Who wants to know either waits in `get`, or
iterates, or is an actor that is told a message (``to``).

Rules: a watch leaves out an event while an equal one still waits, as the store does. A follower
gives each change once; what it is told is only a reason to ask the store for more, and
`Follower.revision` is the one to go on from, with another follower, after whatever was given.

Corner cases: what is closed by its owner ends an iteration, and has `get` raise `WatchClosed`; the
end of the domain raises `DomainDead` in both, after what has come before it. A `Compacted` error
does not end a follower: its snapshot takes the place of what was missed, and the changes after it
follow. One thread at a time uses a watch or a follower; any may close it.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from actors import Message, Ref
from hypervisor.errors import DomainDead, HypervisorError, WatchClosed
from hypervisor.store_errors import Compacted
from hypervisor.store_log import Seen

_T = TypeVar("_T")


class WatchEvent(Message):
    """To an actor: `Watch.number` has fired; ``path`` is where."""

    watch: int
    path: str


class StoreChanged(Message):
    """To an actor: `Follower.number` has something. `Follower.take` until it gives nothing."""

    follower: int


class _Listener(ABC, Generic[_T]):
    """What both share: a number, who is told, and an end."""

    def __init__(self, number: int, to: Ref | None, remove: Callable[[], None]) -> None:
        self.number = number
        self._to = to
        self._remove = remove
        self._state = threading.Condition()
        self._over: HypervisorError | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> _T:
        try:
            found = self.get()
        except WatchClosed:
            raise StopIteration from None
        assert found is not None
        return found

    @abstractmethod
    def get(self, timeout: float | None = None) -> _T | None:
        """The next one, None if none came within so many seconds (None: however long)."""

    @abstractmethod
    def fire(self, path: str) -> None:
        """For who brings the events."""

    def close(self) -> None:
        """No more of it. Idempotent, and nothing when the domain has ended."""
        self._end(WatchClosed("it was closed"))
        with suppress(DomainDead):
            self._remove()

    def end(self, text: str) -> None:
        """For who brings the events: nothing comes any more."""
        self._end(DomainDead(text))

    def _end(self, error: HypervisorError) -> None:
        with self._state:
            self._over = self._over or error
            self._state.notify_all()


class Watch(_Listener[str]):
    """A queue of paths at which something has happened; see `StoreClient.watch`.

    Attributes:
        number: of this watch in its domain.
        path: as it was given.
    """

    def __init__(self, number: int, path: str, to: Ref | None, remove: Callable[[], None]) -> None:
        super().__init__(number, to, remove)
        self.path = path
        self._paths: dict[str, None] = {}

    def get(self, timeout: float | None = None) -> str | None:
        """The next path, None if none came within so many seconds (None: however long).

        Raises:
            WatchClosed, DomainDead: none will come.
        """
        with self._state:
            self._state.wait_for(lambda: self._paths or self._over, timeout)
            if self._paths and not isinstance(self._over, WatchClosed):
                path = next(iter(self._paths))
                del self._paths[path]
                return path
            if self._over is not None:
                raise self._over
            return None

    def fire(self, path: str) -> None:
        if self._to is not None:
            self._to.tell(WatchEvent(self.number, path), control=True)
            return
        with self._state:
            self._paths[path] = None
            self._state.notify_all()


class Follower(_Listener[Seen]):
    """The changes after a revision; see `StoreClient.follow`.

    Attributes:
        number: of this follower in its domain.
        revision: where it has got to: whoever follows from here misses nothing after what was given
            out, and gets none of it again.
    """

    def __init__(
        self,
        number: int,
        to: Ref | None,
        fetch: Callable[[int], tuple[int, list[Seen], bool]],
        remove: Callable[[], None],
    ) -> None:
        super().__init__(number, to, remove)
        self.revision = 0
        self._fetch = fetch
        self._reached = 0
        self._fetched: deque[Seen] = deque()
        self._news = False

    def start(self, revision: int) -> None:
        """For who has made it: this is where it begins."""
        self.revision = self._reached = revision
        self.fire("")

    def get(self, timeout: float | None = None) -> Seen | None:
        """The next change, None if none came within so many seconds (None: however long).

        Raises:
            Compacted: some changes are gone; it goes on after the snapshot of the error.
            WatchClosed, DomainDead: none will come.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self._fetched:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            with self._state:
                if not self._state.wait_for(lambda: self._news or self._over, left):
                    return None
                if self._over is not None:
                    raise self._over
            self._fetch_more()
        change = self._fetched.popleft()
        self.revision = change.revision if self._fetched else self._reached
        return change

    def take(self) -> list[Seen]:
        """The next changes that are there now, without waiting; nothing: there are no more.

        Raises:
            Compacted, WatchClosed, DomainDead: as `get`.
        """
        if not self._fetched:
            if self._over is not None:
                raise self._over
            self._fetch_more()
        taken = list(self._fetched)
        self._fetched.clear()
        self.revision = self._reached
        return taken

    def fire(self, path: str) -> None:  # noqa: ARG002 - for a follower there is none
        with self._state:
            told, self._news = self._news, True
            self._state.notify_all()
        if self._to is not None and not told:
            self._to.tell(StoreChanged(self.number), control=True)

    def _fetch_more(self) -> None:
        """Until there is something, or nothing more."""
        more = True
        while more and not self._fetched:
            with self._state:
                self._news = False  # what happens from now on is news, whatever is fetched
            try:
                self._reached, changes, more = self._fetch(self._reached)
            except Compacted as error:
                self.revision = self._reached = error.revision
                raise
            except BaseException:
                self._again()
                raise
            self._fetched.extend(changes)
        if more:
            self._again()

    def _again(self) -> None:
        with self._state:
            self._news = True
