"""What nobody could receive any more, counted: nothing is dropped in silence."""

from __future__ import annotations

import threading
from collections import Counter


class DeadLetters:
    """Counts by kind of message; an answer that came too late has the kind "reply"."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, kind: str) -> None:
        with self._lock:
            self._counts[kind] += 1

    @property
    def by_kind(self) -> dict[str, int]:
        """A copy of the counts so far."""
        with self._lock:
            return dict(self._counts)

    @property
    def total(self) -> int:
        with self._lock:
            return self._counts.total()
