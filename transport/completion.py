"""A request as its caller sees it, from its submission to its end."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transport.journal import OnLoss, Reached

if TYPE_CHECKING:
    from actors import Lock
    from transport.buffers import LocalBuffer
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

    __slots__ = (
        "body",
        "buffers",
        "callback",
        "cancelled",
        "done",
        "doubtful",
        "error",
        "number",
        "on_loss",
        "reached",
        "result",
        "stream",
        "token",
        "waiter",
        "where",
    )

    def __init__(
        self,
        body: Any,
        buffers: tuple[LocalBuffer, ...] = (),
        where: tuple[Any, ...] = (),
        *,
        token: Any = None,
        on_loss: OnLoss = OnLoss.SETTLE,
        stream: Stream | None = None,
        waiter: Lock | None = None,
        callback: Callable[[Completion], object] | None = None,
    ) -> None:
        self.body = body
        self.buffers = buffers
        self.where = where  # see descriptors.py
        self.token = token
        self.on_loss = on_loss
        self.stream = stream
        self.waiter = waiter  # locked while its `call` waits; None for others
        self.callback = callback
        self.number = 0
        self.reached = Reached.QUEUED
        self.cancelled = False
        self.doubtful = False  # a back end was lost with it, which may have done it
        self.done = False
        self.result: Any = None
        self.error: Exception | None = None

    def has_ended(self) -> bool:
        """The same, to be called."""
        return self.done

    @property
    def buffer(self) -> LocalBuffer | None:
        """The first of its buffers."""
        return self.buffers[0] if self.buffers else None
