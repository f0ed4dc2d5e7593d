"""The base class of all actors: what an actor's own code may do, in its own thread.

Everything here but the class attributes is for the actor itself: from outside there is only its
`Ref`. An actor is made by `System.start` or by its parent's `start_child`, and its `__init__`,
`on_start`, `on_receive`, callbacks and `on_stop` all run in one thread, one at a time. What any
of them raises ends the actor, and so does an error in answering an ask unless ``fails_on_ask`` is
False.

It is a `pykka.Actor`: pykka's `actor_ref` tells, asks and stops it through the same mailbox, with
declared messages. Not taken over from pykka: the global registry, proxies, and its `start` (there
is no actor without a System here). `on_failure` runs before `on_stop`, not instead of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import pykka

from actors.cell import Cell, here
from actors.errors import ActorError, WrongType
from actors.future import Future
from actors.message import Message
from actors.ref import Ref
from actors.reply import Reply
from actors.signals import NORMAL, ExitReason
from actors.timers import Timer
from actors.waiting import Watch

if TYPE_CHECKING:
    from actors.life import Life
    from actors.system import System

_PYKKA_STOP = "_ActorStop"  # pykka has no public name for it


class Actor(pykka.Actor):
    """Override `on_start`, `on_receive` and `on_stop`; arguments of `start` go to `__init__`."""

    mailbox_count: ClassVar[int] = 10_000
    """Data messages that may be queued; one more raises MailboxFull at its sender."""

    mailbox_bytes: ClassVar[int] = 16 << 20
    """Bytes of payload that may be queued."""

    fails_on_ask: ClassVar[bool] = True
    """Whether an exception in answering an ask also ends the actor, as one in a tell does."""

    exit_reason: ExitReason
    """Why it ends; set before `on_failure` and `on_stop`."""

    _life: Life

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        life, here.birth = here.birth, None
        if life is None:
            raise ActorError(f"start it with System.start({cls.__name__}, ...)")
        actor = super().__new__(cls)
        actor._life = life
        return actor

    def __init__(self) -> None:
        super().__init__()
        inbox = self.actor_inbox
        assert isinstance(inbox, _PykkaInbox)
        inbox.cell = self._life.cell
        self._life.cell.bind(self.actor_stopped)

    # --- to override ------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Before the first message; `System.start` returns when this has."""

    def on_receive(self, message: Message) -> Any:
        """Handle one message; the result answers an ask: None, a msgpack value or a Message."""
        raise TypeError(f"{type(self).__name__} does not take {type(message).__name__}")

    def on_stop(self) -> None:
        """On every end after a successful `on_start`, when all children have ended."""

    # --- for its own code -------------------------------------------------------------------------

    @property
    def system(self) -> System:
        return self._life.cell.system

    @property
    def ref(self) -> Ref:
        return Ref(self._life.cell)

    @property
    def name(self) -> str:
        return self._life.cell.name

    @property
    def parent(self) -> Ref | None:
        parent = self._life.cell.parent
        return None if parent is None else Ref(parent)

    def start_child(
        self,
        actor_class: type[Actor],
        *args: Any,
        name: str | None = None,
        shutdown: float | None = 5.0,
        **kwargs: Any,
    ) -> Ref:
        """Start an actor under this one, and return when its `on_start` has.

        When it ends, this actor gets an `Exit` (control lane). When this one ends, its children are
        stopped first, the last started first; each gets ``shutdown`` seconds before it is killed
        (None: for ever; 0: killed at once). Raises StartFailed; no `Exit` follows then.
        """
        return self.system.launch(actor_class, args, kwargs, name, self._life.cell, shutdown)

    def after(self, seconds: float, message: Message) -> Timer:
        """Deliver ``message`` to this actor in so many seconds. Ends with the actor."""
        return self._life.set_timer(seconds, message)

    def watch(
        self,
        fd: int,
        on_read: Callable[[], object] | None = None,
        on_write: Callable[[], object] | None = None,
    ) -> None:
        """Call ``on_read`` whenever ``fd`` is readable, ``on_write`` whenever it is writable.

        Level-triggered; also called when the descriptor is in error or hung up. Watching it again
        replaces what was there. Unwatch it before you close it. Raises OSError for a descriptor
        that cannot be waited for (a regular file), ValueError without a callback.
        """
        if on_read is None and on_write is None:
            raise ValueError("watch needs on_read or on_write")
        self._life.watch(Watch(fd, on_read, on_write))

    def unwatch(self, fd: int) -> None:
        """Watch ``fd`` no longer; nothing if it is not watched."""
        self._life.unwatch(fd)

    def reply_later(self) -> Reply:
        """Take over the answer to the message in hand; the result of `on_receive` is ignored."""
        return self._life.reply_later()

    def exit(self, reason: ExitReason | None = None) -> None:
        """End after the current message or callback; "normal" unless a reason is given."""
        self._life.ending = reason or NORMAL

    def stop_order(self) -> list[Cell]:
        """Which child to stop first, second, ...; for a supervisor to override."""
        return list(reversed(self._life.cell.children))

    # --- pykka's hooks for a new type of actor ----------------------------------------------------

    @staticmethod
    def _create_actor_inbox() -> _PykkaInbox:
        return _PykkaInbox()

    @staticmethod
    def _create_future() -> Future:
        return Future()

    def _start_actor_loop(self) -> None:
        self._life.live()


class _PykkaInbox:
    """Where pykka's ActorRef puts its envelopes: into the actor's own mailbox."""

    cell: Cell

    def put(self, envelope: Any) -> None:
        message, future = envelope.message, envelope.reply_to
        if isinstance(future, Future):
            future.system = self.cell.system
        if isinstance(message, Message):
            self.cell.post(message, future)
        elif type(message).__name__ == _PYKKA_STOP:
            self.cell.request_shutdown(future)
        else:
            raise WrongType(f"a declared Message expected, not {type(message).__name__}")

    def get(self) -> NoReturn:
        raise ActorError("only the actor's own loop takes from its mailbox")

    def empty(self) -> bool:
        return not (self.cell.mailbox.control or self.cell.mailbox.data)
