"""An answer that is given later: what `Actor.reply_later` returns.

Any thread may answer, once. If the actor ends first the asker gets ActorDead; if the `Reply` is
dropped unanswered the asker gets RemoteActorError "NoAnswer" at once, instead of waiting for its
deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actors.codec import encode_value
from actors.errors import ActorError, RemoteActorError
from actors.signals import ExitReason

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.future import Future


class Reply:
    """For one ask. For a tell nobody waits, and answering it does nothing (`wanted` is False)."""

    __slots__ = ("_cell", "_future")

    def __init__(self, cell: Cell, future: Future | None) -> None:
        self._cell = cell
        self._future = future
        if future is not None:
            cell.pending[future] = None

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return self._future is not None and not self._future.settled

    def send(self, value: Any) -> None:
        """Answer with None, any msgpack value or a Message.

        Raises MessageError if it cannot be sent; the asker still waits then. If the asker has given
        up, the answer is dropped and counted as a dead letter of kind "reply".
        """
        if self._future is not None:
            packet = None if value is None else encode_value(value)
            answer(self._cell, self._forget(), packet)

    def fail(self, exception: BaseException) -> None:
        """Answer with an error: errors of this package as they are, others as RemoteActorError."""
        if self._future is not None:
            if not isinstance(exception, ActorError):
                exception = remote(self._cell, exception)
            if not self._forget().settle(None, exception):
                self._cell.system.dead_letters.add("reply", self._cell, None, "late")

    def _forget(self) -> Future:
        future = self._future
        assert future is not None
        self._cell.pending.pop(future, None)
        return future

    def __del__(self) -> None:
        if self.wanted:
            reason = ExitReason("error", "NoAnswer", "the request was dropped without an answer")
            self._forget().settle(None, RemoteActorError(self._cell.name, reason))


def answer(cell: Cell, future: Future, packet: Any) -> None:
    """Settle ``future``, or count and close an answer that came too late."""
    if not future.settle(packet):
        if packet is not None:
            packet.close()
        cell.system.dead_letters.add("reply", cell, None, "late")


def remote(cell: Cell, exception: BaseException) -> RemoteActorError:
    """What an asker gets when the handler raised ``exception``."""
    error = RemoteActorError(cell.name, ExitReason.of(exception))
    error.__cause__ = exception
    return error
