"""What a dead back end had begun: the journal, and what becomes of each request by it.

Pure. The journal is an area at the end of the back end's page (ring.py), which it alone writes and
the front end maps; so it outlives the back end, as the answers in its ring do. Each slot of the
channel has one 8-byte word in it: the number of the request that was begun last.

1. A request gets a number, whose remainder by the slots is its slot (pending.py); none comes twice.
2. Before the back end begins an operation that may not be done twice, it stores the number:
   `Journal.begin`. What may be repeated is not recorded, and costs nothing.
3. The answer goes into the ring. That is the end of the request, whether anybody is awake or not.
4. When the back end is lost, the front end takes the answers that are left in the ring, and settles
   the requests that had begun: `SETTLE`. The others are settled when the next one is connected, and
   not before: a back end that lives (only its memory was taken back) begins what it had read
   already, until it says InitWait again. A dead one is fenced, and begins nothing.

Corner cases: a request that is sent again keeps its number; the page of the next back end is a new
one. A back end that broke the protocol is not believed: nothing is read of its page, and all that
it had been sent counts as begun. The store is one aligned 8-byte store, made before the first
instruction of the operation; a process that is killed in between has still made it.
"""

from __future__ import annotations

from enum import Enum

WORD = 8
SLOT_LIMIT = 1 << 16
"""Slots of a channel at most."""


def journal_size(slots: int) -> int:
    """Bytes of the journal of a channel."""
    return slots * WORD


class Journal:
    """``area`` has `journal_size` bytes; the back end writes it, the front end reads it."""

    def __init__(self, area: memoryview, slots: int) -> None:
        self._words = area[: journal_size(slots)].cast("Q")
        self._mask = slots - 1

    def begin(self, number: int) -> None:
        """The operation of request ``number`` begins, and may not be done twice."""
        self._words[number & self._mask] = number

    def begun(self, number: int) -> bool:
        """Whether it has begun; asked when who writes it is dead."""
        return self._words[number & self._mask] == number


class OnLoss(Enum):
    """What shall become of a request whose back end is lost."""

    SETTLE = "settle"
    """Sent again unless it may have been done already; then `OutcomeUnknown`."""
    REISSUE = "reissue"
    """Sent again in any case: the caller knows that it may be done twice."""
    FAIL = "fail"
    """Never sent twice: `OutcomeUnknown` if it was sent once."""


class Reached(Enum):
    """How far a request got with a back end that is lost."""

    QUEUED = "queued"
    SENT = "sent"
    BEGUN = "begun"


SEND, UNKNOWN = "send", "unknown"

SETTLE: dict[tuple[OnLoss, Reached], str] = {
    (OnLoss.SETTLE, Reached.QUEUED): SEND,
    (OnLoss.SETTLE, Reached.SENT): SEND,
    (OnLoss.SETTLE, Reached.BEGUN): UNKNOWN,
    (OnLoss.REISSUE, Reached.QUEUED): SEND,
    (OnLoss.REISSUE, Reached.SENT): SEND,
    (OnLoss.REISSUE, Reached.BEGUN): SEND,
    (OnLoss.FAIL, Reached.QUEUED): SEND,
    (OnLoss.FAIL, Reached.SENT): UNKNOWN,
    (OnLoss.FAIL, Reached.BEGUN): UNKNOWN,
}
"""What is done with a request that was not answered."""
