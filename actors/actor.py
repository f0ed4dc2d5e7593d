"""The base class of all actors: what an actor's own code may do, where it runs.

Everything here but the class attributes is for the actor itself: from outside there is only its
`Ref`. An actor is made by `System.start` or by its parent's `start_child`, and its `__init__`,
`on_start`, `on_receive`, callbacks and `on_stop` run one at a time: all in one thread, or, if it is
``pooled``, in whichever thread has time. What any of them raises ends the actor, and so does an
error in answering an ask unless ``fails_on_ask`` is False.

`on_start`, `on_receive` and `on_stop` may be coroutines; the actor then has an event loop in its
thread, and its messages are still handled one at a time.

It is a `pykka.Actor`: pykka's `actor_ref` tells, asks and stops it through the same mailbox, with
declared messages. Not taken over from pykka: the global registry, proxies, and its `start` (there
is no actor without a System here). `on_failure` runs before `on_stop`, not instead of it. What
pykka keeps in each actor (URN, inbox, flag, reference) is made when somebody asks for it.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

import pykka

from actors.cell import Cell
from actors.errors import ActorError, UnknownRef, WrongType
from actors.future import Future
from actors.here import here
from actors.message import Message
from actors.ref import Ref
from actors.reply import Reply
from actors.signals import NORMAL, ExitReason
from actors.timers import Timer
from actors.waiting import Watch

if TYPE_CHECKING:
    from actors.life import Life
    from actors.system import System

_POLICIES = ("reject", "block", "drop_oldest")
_PYKKA_STOP = "_ActorStop"  # pykka has no public name for it


class Actor(pykka.Actor):
    """Override `on_start`, `on_receive` and `on_stop`; arguments of `start` go to `__init__`."""

    pooled: ClassVar[bool] = False
    """Whether it shares a few threads with all other pooled actors of its system, instead of having
    one of its own. Its code must not block then: what would wait for another actor raises
    WouldBlock, and it cannot watch descriptors. Such an actor costs about 2 KiB, and an ask of it
    takes a tenth of the time."""

    mailbox_count: ClassVar[int] = 10_000
    """Data messages that may be queued."""

    mailbox_bytes: ClassVar[int] = 16 << 20
    """Bytes of payload that may be queued."""

    mailbox_policy: ClassVar[str] = "reject"
    """What happens to one message more: "reject" (MailboxFull at its sender), "block" (its sender
    waits ``mailbox_patience`` seconds for room, then MailboxFull; a pooled sender does not wait,
    nor does an actor for itself), or "drop_oldest" (the oldest one is a dead letter; its asker gets
    MailboxFull). What is larger than ``mailbox_bytes`` is refused under each."""

    mailbox_patience: ClassVar[float] = 5.0
    """Seconds that a sender waits for room; an ask not beyond its own deadline."""

    fails_on_ask: ClassVar[bool] = True
    """Whether an exception in answering an ask also ends the actor, as one in a tell does."""

    traps_exits: ClassVar[bool] = False
    """Whether the end of a linked actor is a message (`Exit`), instead of ending this one too."""

    default_shutdown: ClassVar[float | None] = 5.0
    """Seconds that its supervisor gives it to end in order, unless its spec says otherwise."""

    supervises: ClassVar[bool] = False
    """Whether it starts its children again: faults that are injected strike only such children."""

    uses_loop: ClassVar[bool] = False
    """Whether it has an event loop: set where a handler is a coroutine function, or by the class
    itself if it returns coroutines in another way."""

    exit_reason: ExitReason
    """Why it ends; set before `stop_order`, `on_failure` and `on_stop`."""

    _life: Life

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.mailbox_policy not in _POLICIES:
            raise ValueError(f"mailbox_policy is one of {_POLICIES}, not {cls.mailbox_policy!r}")
        handlers = (cls.on_start, cls.on_receive, cls.on_stop)
        if any(inspect.iscoroutinefunction(handler) for handler in handlers):
            cls.uses_loop = True
        if cls.uses_loop and cls.pooled:
            raise TypeError(f"{cls.__name__} is pooled: its handlers cannot be coroutines")

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        life, here.birth = here.birth, None
        if life is None:
            raise ActorError(f"start it with System.start({cls.__name__}, ...)")
        actor = super().__new__(cls)
        actor._life = life
        return actor

    def __init__(self) -> None:  # pykka's would make what is made on demand here
        pass

    # --- to override ------------------------------------------------------------------------------

    def on_start(self) -> Any:
        """Before the first message; `System.start` returns when this has."""

    def on_receive(self, message: Message) -> Any:
        """Handle one message; the result answers an ask: None, a msgpack value or a Message."""
        raise TypeError(f"{type(self).__name__} does not take {type(message).__name__}")

    def on_stop(self) -> Any:
        """On every end after a successful `on_start`, when all children have ended."""

    # --- for its own code -------------------------------------------------------------------------

    @property
    def system(self) -> System:
        """The one that it runs in."""
        return self._life.cell.system

    @property
    def ref(self) -> Ref:
        """To itself, for others."""
        return Ref(self._life.cell)

    @property
    def name(self) -> str:
        """As it was started with: not unique, unless it is registered."""
        return self._life.cell.name

    @property
    def parent(self) -> Ref | None:
        """Who has started it; None at the top of the tree."""
        parent = self._life.cell.parent
        return None if parent is None else Ref(parent)

    @property
    def sender(self) -> Ref | None:
        """Who told or asked the message in hand; None outside of actors, or for a timer.

        Raises ActorError outside of `on_receive`.
        """
        sender = self._life.envelope.sender
        return None if sender is None else Ref(sender)

    @property
    def trace(self) -> int:
        """The number that the message in hand shares with what caused it, and with what it causes.

        A message from outside of actors begins a new one, and so does a descriptor that is ready; a
        birth belongs to what has caused it.
        """
        return self._life.cell.trace

    def start_child(
        self,
        actor_class: type[Actor],
        *args: Any,
        name: str | None = None,
        shutdown: float | None = 5.0,
        registered: bool = False,
        **kwargs: Any,
    ) -> Ref:
        """Start an actor under this one, and return when its `on_start` has.

        When it ends, this actor gets an `Exit` (control lane). When this one ends, its children are
        stopped first, the last started first; each gets ``shutdown`` seconds before it is killed
        (None: for ever; 0: killed at once). ``registered``: see `System.start`.

        Raises StartFailed, and no `Exit` follows then; NameTaken; WouldBlock if this actor is
        pooled and the child is not (`begin_child`).
        """
        return self.system.launch(
            actor_class, args, kwargs, name, self._life.cell, shutdown, registered=registered
        )

    def begin_child(
        self,
        actor_class: type[Actor],
        *args: Any,
        name: str | None = None,
        shutdown: float | None = 5.0,
        registered: bool = False,
        restarts: int = 0,
        **kwargs: Any,
    ) -> Ref:
        """Like `start_child`, without waiting: this actor gets `Started`, or `Exit` if it fails.

        ``restarts``: how many predecessors it has had, for the statistics.
        """
        return self.system.launch(
            actor_class,
            args,
            kwargs,
            name,
            self._life.cell,
            shutdown,
            registered=registered,
            announced=True,
            restarts=restarts,
        )

    def end_child(self, child: Ref) -> None:
        """Have a child end in order, and do not wait: its `Exit` follows."""
        child.cell.request_shutdown()

    def start_later(self) -> None:
        """In `on_start`: whoever starts this actor waits until it calls `has_started`.

        Until then it takes control messages and timers only. If it ends before, it has failed to
        start.
        """
        self._life.start_later()

    def has_started(self) -> None:
        """See `start_later`. Nothing if it has started already."""
        self._life.has_started()

    def after(self, seconds: float, message: Message) -> Timer:
        """Deliver ``message`` to this actor in so many seconds. Ends with the actor."""
        return self._life.set_timer(seconds, message, every=False)

    def every(self, seconds: float, message: Message) -> Timer:
        """Deliver ``message`` to this actor every so many seconds, until cancelled.

        It does not drift; periods that passed while the actor was busy are left out. Raises
        ValueError unless ``seconds`` is positive, WrongType if the message holds descriptors.
        """
        return self._life.set_timer(seconds, message, every=True)

    def stash(self) -> None:
        """Put the message in hand aside; an ask stays unanswered. It counts for the mailbox.

        Once for each message, and not together with `reply_later`. What is still put aside when the
        actor ends is treated as still queued.
        """
        self._life.stash()

    def unstash(self) -> int:
        """Take all that was put aside up again, in its order, before what is queued; how many."""
        return self._life.unstash()

    def monitor(self, target: Ref) -> int:
        """Have this actor get one `Down` when ``target`` has ended; at once if it has already.

        Returns a number that the `Down` carries, for `demonitor`. Twice is two `Down`.
        """
        return self.system.monitor(target, self.ref)

    def demonitor(self, target: Ref, monitor: int) -> None:
        """Send no `Down` for that monitor; one that is in the mailbox already still comes."""
        target.cell.demonitor(self._life.cell, monitor)

    def link(self, other: Ref) -> None:
        """Tie this actor's end to the other's, in both directions.

        When one ends with "error" or "killed" the other ends with error "LinkedExit", when one ends
        with "shutdown" the other is shut down, "normal" does nothing; one that has ``traps_exits``
        gets an `Exit` in all these cases instead.
        """
        mine, theirs = self._life.cell, other.cell
        if theirs.system is not mine.system:
            raise UnknownRef(f"{other.name} is of another system")
        mine.link(theirs)
        if not theirs.link(mine):
            mine.unlink(theirs)
            assert theirs.reason is not None
            mine.linked_end(theirs, theirs.reason)

    def unlink(self, other: Ref) -> None:
        """Undo `link`; nothing if there is none."""
        self._life.cell.unlink(other.cell)
        other.cell.unlink(self._life.cell)

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
        self._life.exit(reason or NORMAL)

    def stop_order(self) -> list[list[Cell]]:
        """Which children to stop first, second, ...; those of one group at the same time."""
        return [[cell] for cell in reversed(self._life.cell.children)]

    def describe(self) -> str:
        """A few words for `System.tree`. Called from any thread, so it must only read."""
        return ""

    # --- pykka's hooks for a new type of actor, and what it keeps in each actor -------------------

    @staticmethod
    def _create_actor_inbox() -> NoReturn:
        raise ActorError("an actor's inbox is its mailbox")

    @staticmethod
    def _create_future() -> Future:
        return Future()

    def _start_actor_loop(self) -> None:
        self._life.live()

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        """Of the actor's own identity."""
        return uuid.UUID(bytes=self._life.cell.identity).urn

    @property
    def actor_inbox(self) -> _PykkaInbox:  # type: ignore[override]
        """What pykka puts into it goes into the mailbox."""
        return _PykkaInbox(self._life.cell)

    @property
    def actor_stopped(self) -> _PykkaStopped:  # type: ignore[override]
        """Set when it takes no more messages."""
        return _PykkaStopped(self._life.cell)

    @property
    def actor_ref(self) -> pykka.ActorRef[Self]:
        """For code that is written for pykka; it tells and asks with declared messages."""
        return pykka.ActorRef(self)


class _PykkaInbox:
    """Where pykka's ActorRef puts its envelopes: into the actor's own mailbox."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def put(self, envelope: Any) -> None:
        message, future = envelope.message, envelope.reply_to
        if isinstance(future, Future):
            future.system = self._cell.system
            future.runtime = self._cell.system.runtime
            future.cell = self._cell
        if isinstance(message, Message):
            self._cell.post(message, future)
        elif type(message).__name__ == _PYKKA_STOP:
            self._cell.request_shutdown(future, drain=True)
        else:
            raise WrongType(f"a declared Message expected, not {type(message).__name__}")

    def get(self) -> NoReturn:
        raise ActorError("only the actor's own loop takes from its mailbox")

    def empty(self) -> bool:
        return not (self._cell.mailbox.control or self._cell.mailbox.depth)


class _PykkaStopped:
    """The part of pykka's `actor_stopped` event that its ActorRef reads."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def is_set(self) -> bool:
        return self._cell.mailbox.closed
