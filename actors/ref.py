"""The reference to an actor: what one may do to it from outside, from any thread.

A `Ref` is a capability: it travels in messages, and only inside the system that it belongs to. It
stays valid when the actor has ended; what is sent then is a counted dead letter (tell) or fails
with `ActorDead` (ask). Two references are equal if they mean the same actor, not the same name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.future import Future
    from actors.message import Message


class Ref:
    """Made by the system; hashable. ``cell`` is the runtime's side of it, not for others."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @property
    def name(self) -> str:
        return self.cell.name

    def is_alive(self) -> bool:
        """Whether it still takes messages; it may have ended by the time that you look."""
        return not self.cell.mailbox.closed

    def tell(self, message: Message, control: bool = False) -> None:
        """Send and go on. ``control``: ahead of all data, and never refused for want of room.

        Raises MailboxFull, and MessageError if the message cannot be sent. A dead actor does not
        raise: the message is counted in `System.dead_letters`.
        """
        self.cell.tell(message, control=control)

    def ask(self, message: Message, timeout: float = 5.0) -> Any:
        """Send, wait for the answer at most ``timeout`` seconds, and return it.

        Raises AskTimeout, ActorDead, RemoteActorError (its handler raised), MailboxFull,
        MessageError; ActorError if an actor asks itself.
        """
        return self.cell.ask(message, timeout).result()

    def ask_future(self, message: Message, timeout: float = 5.0) -> Future:
        """Like `ask`, but returns at once; the future ends by ``timeout`` seconds from now."""
        return self.cell.ask(message, timeout, waits=False)

    def stop(self, timeout: float | None = None) -> None:
        """End it in order: it finishes its current message, stops its children, runs `on_stop`.

        Returns when its thread has been joined; at once if called by that actor or by one under it.
        What is still queued is dropped (dead letters, ActorDead). Nothing if it has ended already.
        Raises StopTimeout if it has not ended within ``timeout`` seconds; it will still end.
        """
        self.cell.stop(timeout)

    def kill(self) -> None:
        """Give it up at once: no more messages, and its exit report (kind "killed") goes out now.

        Python cannot interrupt a thread: what the actor is doing goes on until it returns, then
        `on_stop` runs, and nothing is reported a second time. Its children are told to stop.
        """
        self.cell.kill()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ref) and other.cell is self.cell

    def __hash__(self) -> int:
        return hash(self.cell)

    def __repr__(self) -> str:
        return f"<Ref {self.cell.name}>"
