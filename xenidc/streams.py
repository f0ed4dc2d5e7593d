"""What a connection of the control socket is sent without asking again, as a table: name -> what
makes its source.

A source holds what has come and was not sent yet, tells the connection's actor when there is
something after a time without (`News`, or the store's `StoreChanged`), and gives it in batches.
What a slow reader costs is bounded: requests that find `LIMIT` of them waiting are lost, and the
next line says how many; changes of the store wait in the store's own log, and a reader who is later
than that reaches is given the present nodes instead, and told so.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from actors import ActorError, Message, Ref
from hypervisor import Compacted, HypervisorError, Seen
from transport import OUTCOMES, ChannelClosed, FrontEnd, RequestRecord
from xenidc.errors import ControlError
from xenidc.operation import operation_of
from xenidc.running import Running

LIMIT = 4096
"""Requests that wait to be sent, for each reader."""
_BATCH = 64
_TEXT = 200  # characters of a body, or of an error

Item = dict[str, Any]


class News(Message):
    """To a connection: its source has something."""


class Source(ABC):
    """See the module's text."""

    @abstractmethod
    def take(self) -> list[Item]:
        """What comes next, without waiting; nothing: a message will come when there is more.

        ``{"end": text}`` is the last.
        """

    @abstractmethod
    def close(self) -> None:
        """Nobody takes any more. Idempotent."""


class Requests(Source):
    """The requests of a channel that end from now on.

    Args:
        wanted: which of them.
        now: the clock of the channel's machine.
        wake: who is told.

    Raises:
        ChannelClosed: it has ended.
    """

    def __init__(
        self,
        channel: FrontEnd,
        name: str,
        wanted: Callable[[RequestRecord], bool],
        now: Callable[[], float],
        wake: Ref,
    ) -> None:
        self._name = name
        self._wanted = wanted
        self._wake = wake
        self._lock = threading.Lock()
        self._waiting: deque[RequestRecord | Item] = deque()
        self._lost = 0
        self._told = False
        self._now = now
        self._ignore = channel.observe(self._ended)

    def take(self) -> list[Item]:
        with self._lock:
            count = min(_BATCH, len(self._waiting))
            taken = [self._waiting.popleft() for _ in range(count)]
            if not self._waiting and self._lost:
                taken.append({"lost": self._lost})
                self._lost = 0
            self._told = bool(taken)  # who is given something asks again
        name, now = self._name, self._now()
        return [
            request_item(name, each, now) if isinstance(each, RequestRecord) else each
            for each in taken
        ]

    def close(self) -> None:
        self._ignore()

    def _ended(self, record: RequestRecord | None) -> None:
        """Called by whoever reaps."""
        if record is not None and not self._wanted(record):
            return
        with self._lock:
            if record is None:
                self._put({"end": f"channel {self._name!r} has ended"})
            elif len(self._waiting) >= LIMIT:
                self._lost += 1
            else:
                self._put(record)
            told, self._told = self._told, True
        if not told:
            with suppress(ActorError):  # it ends just now
                self._wake.tell(News(), control=True)

    def _put(self, item: RequestRecord | Item) -> None:
        if self._lost:
            self._waiting.append({"lost": self._lost})
            self._lost = 0
        self._waiting.append(item)


class StoreChanges(Source):
    """Every change at and below a path of the store.

    Raises:
        StoreError: the store refuses that path.
    """

    def __init__(self, running: Running, path: str, since: int | None, wake: Ref) -> None:
        self._follower = running.machine.store.follow(path, since, to=wake)

    def take(self) -> list[Item]:
        try:
            return [change_item(change) for change in self._follower.take()]
        except Compacted as error:
            nodes = [
                {"revision": error.revision, "path": path, "value": _text(value), "snapshot": True}
                for path, value in error.snapshot.items()
            ]
            return [{"missed": True, "revision": error.revision, "nodes": len(nodes)}, *nodes]
        except HypervisorError as error:
            return [{"end": str(error)}]

    def close(self) -> None:
        with suppress(HypervisorError):
            self._follower.close()


def request_item(channel: str, record: RequestRecord, now: float) -> Item:
    """A request that has ended, as a line says it. ``now``: by the clock of its times."""
    return {
        "channel": channel,
        "device": record.device,
        "number": record.number,
        "operation": operation_of(record.body),
        "body": repr(record.body)[:_TEXT],
        "bytes": record.size,
        "time": time.time() - (now - record.submitted),
        "submitted": record.submitted,
        "pushed": record.pushed,
        "phases": [
            {
                "direction": phase.direction,
                "bytes": phase.size,
                "time": phase.time,
                "epoch": phase.epoch,
            }
            for phase in record.phases
        ],
        "phases_left_out": record.left_out,
        "ended": record.ended,
        "seconds": record.seconds,
        "epoch": record.epoch,
        "attempts": record.attempts,
        "outcome": record.outcome,
        "error": None if record.error is None else _one_line(record.error),
    }


def change_item(change: Seen) -> Item:
    """A change of the store, as a line says it; ``value`` None: the node was removed."""
    return {
        "revision": change.revision,
        "domid": change.domid,
        "path": change.path,
        "old": _text(change.old),
        "value": _text(change.new),
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_TEXT]


def _trace(
    running: Running, wake: Ref, channel: str, operation: str, outcome: str, slower: str
) -> Source:
    front = running.channels.get(channel)
    if front is None:
        known = ", ".join(running.channels) or "none"
        text = f"there is no channel {channel!r} of the machine's own; there are: {known}"
        raise ControlError(text)
    outcomes = frozenset(outcome.split(",")) if outcome else frozenset(OUTCOMES)
    if not outcomes <= frozenset(OUTCOMES):
        raise ControlError(f"an outcome is one of {', '.join(OUTCOMES)}, not {outcome!r:.80}")
    least = _number(slower, float, "a duration is seconds") if slower else 0.0

    def wanted(record: RequestRecord) -> bool:
        return (
            record.outcome in outcomes
            and record.seconds >= least
            and (not operation or operation_of(record.body) == operation)
        )

    try:
        return Requests(front, channel, wanted, running.machine.system.now, wake)
    except ChannelClosed as error:
        raise ControlError(f"channel {channel!r} has ended: {error}") from error


def _watch(running: Running, wake: Ref, path: str, since: str) -> Source:
    start = _number(since, int, "a revision is a number") if since else None
    return StoreChanges(running, path, start, wake)


def _number(text: str, kind: Callable[[str], Any], what: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise ControlError(f"{what}, not {text!r:.80}") from None


STREAMS: dict[str, tuple[Callable[..., Source], tuple[str, ...]]] = {
    "trace": (_trace, ("channel", "operation", "outcome", "slower")),
    "store-watch": (_watch, ("path", "since")),
}
"""Name -> (what makes its source, the names of its fields, each "" for what is not given)."""
