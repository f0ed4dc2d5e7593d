"""The reference to an actor: what one may do to it from outside, from any thread.

A `Ref` is a capability: it travels in messages, and only inside the system that it belongs to. It
stays valid when the actor has ended; what is sent then is a counted dead letter (tell) or fails
with `ActorDead` (ask). Two references are equal if they mean the same actor, not the same name.

A `NamedRef` means whoever is registered under its name at the moment of sending: the next
incarnation of a supervised actor too. Between two incarnations nobody is, and what is sent then
ends as with a dead actor.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from zlib import crc32

from actors.errors import AskTimeout
from actors.statistics import Statistics

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.future import Future
    from actors.message import Message
    from actors.system import System


class Ref:
    """Made by the system; hashable. ``cell`` is the runtime's side of it, not for others."""

    __slots__ = ("cell",)

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    @property
    def name(self) -> str:
        """The actor's; it stays when the actor has ended."""
        return self.cell.name

    @property
    def system(self) -> System:
        """The one that it means something in."""
        return self.cell.system

    def is_alive(self) -> bool:
        """Whether it still takes messages; it may have ended by the time that you look."""
        return not self.cell.mailbox.closed

    def tell(self, message: Message, control: bool = False, reply_to: Ref | None = None) -> None:
        """Send and go on. ``control``: ahead of all data, and never refused for want of room.

        ``reply_to``: what the receiver finds as its `Actor.sender`; the sending actor unless given.

        Raises MailboxFull if there is no room (and its class does not say to wait for some, or to
        drop the oldest message), MessageError if the message cannot be sent. A dead actor does
        not raise: the message is counted in `System.dead_letters`.
        """
        self.cell.tell(message, control, None if reply_to is None else reply_to.cell)

    def ask(self, message: Message, timeout: float = 5.0) -> Any:
        """Send, wait for the answer at most ``timeout`` seconds, and return it.

        If the actor is pooled and rests, its handler runs in the calling thread: that is several
        times faster than to have another thread do it, and why such a handler must not block.

        Raises AskTimeout, ActorDead, RemoteActorError (its handler raised), MailboxFull,
        MessageError; ActorError if an actor asks itself, WouldBlock if a pooled actor asks.
        """
        return self.cell.ask(message, timeout).result()

    def ask_future(self, message: Message, timeout: float = 5.0) -> Future:
        """Like `ask`, but returns at once; the future ends by ``timeout`` seconds from now.

        Only if there is no room, and its class says to wait for some, does it wait for that.
        """
        return self.cell.ask(message, timeout, waits=False)

    async def ask_async(self, message: Message, timeout: float = 5.0) -> Any:
        """Like `ask`, for coroutines of any event loop, which goes on meanwhile.

        It never waits for room in the mailbox. If its task is cancelled nobody wants the answer any
        more: it is dropped, and counted as a dead letter of kind "reply".
        """
        future = self.cell.ask(message, timeout, waits=False, patience=0.0)
        try:
            return await future.result_async()
        except asyncio.CancelledError:
            future.settle(None, AskTimeout(f"whoever has asked {self.name} has given up"))
            raise

    def stop(self, timeout: float | None = None, drain: bool = False) -> None:
        """End it in order: it finishes its current message, stops its children, runs `on_stop`.

        ``drain``: it takes no more messages, but first handles those that are queued. Otherwise
        these are dropped (dead letters, ActorDead).

        Returns when its `on_stop` has ended and its thread, if it has one of its own, is joined; at
        once if called by that actor or by one under it. Nothing if it has ended already.
        Raises StopTimeout if it has not ended within ``timeout`` seconds (None: however long); it
        will still end. WouldBlock if a pooled actor calls it: tell a `Shutdown`, by control.
        """
        self.cell.stop(timeout, drain=drain)

    def kill(self) -> None:
        """Give it up at once: no more messages, and its exit report (kind "killed") goes out now.

        Python cannot interrupt a thread: what the actor is doing goes on until it returns, then
        `on_stop` runs, and nothing is reported a second time. Its children are told to stop.
        """
        self.cell.kill()

    def statistics(self) -> Statistics:
        """What it has done so far, and what waits for it now."""
        return Statistics.of(self.cell)

    def __eq__(self, other: object) -> bool:
        return type(other) is Ref and other.cell is self.cell

    def __hash__(self) -> int:  # not by address: a set is to have the same order in each run
        return int.from_bytes(self.cell.identity, "big")

    def __repr__(self) -> str:
        return f"<Ref {self.cell.name}>"


class NamedRef(Ref):
    """Made by `System.named`; equal to another one of the same name and system."""

    __slots__ = ("_system", "registered_name")

    def __init__(self, system: System, name: str) -> None:
        self._system = system
        self.registered_name = name

    @property
    def cell(self) -> Cell:  # type: ignore[override] # looked up each time: that is the point
        """The runtime's side of whoever has the name now, or of nobody."""
        return self._system.cell_named(self.registered_name)

    @property
    def name(self) -> str:
        """The one that is looked up."""
        return self.registered_name

    @property
    def system(self) -> System:
        return self._system

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NamedRef)
            and other.registered_name == self.registered_name
            and other._system is self._system
        )

    def __hash__(self) -> int:
        return crc32(self.registered_name.encode("utf-8", "surrogatepass"))

    def __repr__(self) -> str:
        return f"<NamedRef {self.registered_name}>"
