"""The store's events that wait for a domain which takes them in its own time.

Pure. They leave in batches, and one batch is out at a time: the next may go when the domain has
`taken` it. So a domain that is slow gets its events later, but all of them, and what is out always
fits into its socket. Events say "look again", so one is left out while an equal one still waits.

Corner case: what waits is bounded (`WAITING_MAX`); who has more waiting does not read any more.
"""

from __future__ import annotations

_BATCH_BYTES = 16 << 10
WAITING_MAX = 1 << 20  # bytes

_FRAME = 16  # bytes, about, of an event beside its path and its token

StoreNews = tuple[str, bytes]
"""The path and the token of an event."""


class Outbox:
    """For one connection."""

    def __init__(self) -> None:
        self._waiting: dict[StoreNews, None] = {}
        self._bytes = 0
        self._out = False

    def put(self, news: StoreNews) -> bool:
        """It is to be sent. False: there is too much already."""
        if news not in self._waiting:
            self._waiting[news] = None
            self._bytes += _size(news)
        return self._bytes <= WAITING_MAX

    def batch(self) -> list[StoreNews]:
        """What is to be sent now, in order; nothing while a batch is out."""
        found: list[StoreNews] = []
        if not self._out:
            total = 0
            while self._waiting and total < _BATCH_BYTES:
                news = next(iter(self._waiting))
                del self._waiting[news]
                found.append(news)
                total += _size(news)
            self._bytes -= total
            self._out = bool(found)
        return found

    def taken(self) -> None:
        """The batch that was out has arrived."""
        self._out = False


def _size(news: StoreNews) -> int:
    path, token = news
    return _FRAME + len(path) + len(token)
