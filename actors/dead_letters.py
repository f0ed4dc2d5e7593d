"""What nobody could receive any more: counted, and told to whoever wants to know of each.

Nothing is dropped in silence. Subscribers get a `DeadLetter` for each (data lane, so a slow one
is not buried: what its mailbox refuses is counted in `missed`, and nobody waits for room in it). A
subscriber that has ended is forgotten, and no dead letter is made of what it was to be told.
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

from actors.errors import MailboxFull
from actors.ref import Ref
from actors.signals import DeadLetter

if TYPE_CHECKING:
    from actors.cell import Cell


class DeadLetters:
    """Counts by kind of message; an answer that came too late has the kind "reply"."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._subscribers: list[Ref] = []
        self._missed = 0
        self._lock = threading.Lock()

    def add(self, kind: str, to: Cell, sender: Cell | None, why: str) -> None:
        """One more. See `DeadLetter` for what the arguments mean."""
        if kind == DeadLetter.__kind__:
            if why == "overflow":
                with self._lock:
                    self._missed += 1
            return
        with self._lock:
            self._counts[kind] += 1
            self._reasons[why] += 1
            subscribers = self._subscribers
        if subscribers:
            letter = DeadLetter(kind, to.name, "" if sender is None else sender.name, why)
            for ref in subscribers:
                if type(ref) is Ref and not ref.is_alive():  # a name may be somebody's again
                    self.unsubscribe(ref)
                    continue
                try:
                    ref.cell.tell(letter, patience=0.0)
                except MailboxFull:
                    with self._lock:
                        self._missed += 1

    def subscribe(self, ref: Ref) -> None:
        """Tell ``ref`` of every dead letter from now on, until it ends. Twice is once."""
        with self._lock:
            if ref not in self._subscribers:
                self._subscribers = [*self._subscribers, ref]

    def unsubscribe(self, ref: Ref) -> None:
        """Tell it no more; nothing if it is not subscribed."""
        with self._lock:
            self._subscribers = [other for other in self._subscribers if other != ref]

    @property
    def by_kind(self) -> dict[str, int]:
        """A copy of the counts so far."""
        with self._lock:
            return dict(self._counts)

    @property
    def by_reason(self) -> dict[str, int]:
        """The same, by why: see `DeadLetter`."""
        with self._lock:
            return dict(self._reasons)

    @property
    def total(self) -> int:
        """How many there were."""
        with self._lock:
            return self._counts.total()

    @property
    def missed(self) -> int:
        """How many a subscriber was not told of, because its mailbox was full."""
        with self._lock:
            return self._missed
