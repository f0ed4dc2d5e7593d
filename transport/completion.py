"""A request as its caller sees it, from its submission to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transport.journal import OnLoss, Reached

if TYPE_CHECKING:
    from actors import Lock
    from transport.buffers import LocalBuffer
    from transport.observing import History
    from transport.stream import Stream


class Completion:
    """A request; after its end it has a result or an error, and exactly one of them.

    Attributes:
        token: whatever was given to `FrontEnd.submit`.
        body, buffers: what was submitted.
        result: the driver's result, when ``error`` is None.
        error: RemoteError, OutcomeUnknown, Cancelled or ChannelClosed, else None.
        done: whether it has ended.
    """

    # What most requests never set is the class's, since one is made for each.
    token: Any = None
    on_loss = OnLoss.SETTLE
    stream: Stream | None = None
    awaited = False  # by its `call`: nobody reaps it
    waiter: Lock | None = None  # locked while its `call` sleeps
    callback: Callable[[Completion], object] | None = None
    number = 0
    submitted = 0.0  # when the channel took it
    history: History | None = None  # None: nobody observes it
    reached = Reached.QUEUED
    cancelled = False
    doubtful = False  # a back end was lost with it, which may have done it
    done = False
    result: Any = None
    error: Exception | None = None

    def __init__(
        self, body: Any, buffers: tuple[LocalBuffer, ...] = (), where: tuple[Any, ...] = ()
    ) -> None:
        self.body = body
        self.buffers = buffers
        self.where = where  # see descriptors.py

    def has_ended(self) -> bool:
        """The same, to be called."""
        return self.done

    @property
    def size(self) -> int:
        """Bytes in its buffers, or what its data phases have moved so far."""
        if self.stream is not None:
            return self.stream.sent + self.stream.received
        if len(self.where) == 1:
            return sum(self.where[0][1::2])
        return self.where[1] if self.where else 0

    @property
    def buffer(self) -> LocalBuffer | None:
        """The first of its buffers."""
        return self.buffers[0] if self.buffers else None
