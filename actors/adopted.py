"""A pykka actor that exists already, under our supervisors, with its class as it is.

    system.start(Supervisor, [adopted("mixer", Mixer, 48_000, registered=True)])
    pykka_ref(system.named("mixer")).proxy().play("a.ogg")

Their object, our loop: an `Adopted` makes an instance of their class whose inbox (pykka's hook for
a new type of actor) is its own mailbox, and calls the instance's methods where pykka's loop would.
So each end of it is seen where it happens, and reported once. What pykka promises still holds:

- its ActorRef and proxies tell, ask and stop it, with any object as message; the inbox is not
  bounded; `ActorRegistry` knows it while it lives;
- what raises under a tell ends it by `on_failure`, and under an ask goes to the asker alone;
- a stop comes after all that was sent before it, whoever asks for it; then `on_stop`.

How it ends. Stopped by its own `stop()`, its ActorRef or the registry: "normal"; by its supervisor
or its Ref: "shutdown"; by a failing tell, `on_stop` or `on_failure`, or any BaseException: "error".
It has started when its `on_start` has returned; if `__init__` or `on_start` raised it has failed to
start. If it does not stop in its time it is given up: whoever had asked gets ActorDead at once, and
when its handler returns it handles nothing more of what was queued, but runs `on_stop`. Until then
its ActorRef believes that it is alive.

Better than under pykka: no ask stays unanswered, be it that it races the end, or that a
BaseException hits the handler; and that ends this one actor instead of all in the process. Messages
of ours that are sent to the child's Ref or name, whichever incarnation it is, go to `on_receive`,
and what its code sends to our actors has its Ref as sender.

Limits:

- An ActorRef or proxy means one incarnation, wherever others keep it; after a restart it raises
  ActorDeadError. `pykka_ref` has the present one. All of these are for the same process only.
- It cannot be simulated: there its start fails.
- The arguments are those of a `ChildSpec`: what messages may hold, afresh for each incarnation.
- A thread cannot be killed: one that was given up runs on, beside its successor, until its handler
  returns, and `System.stop` says so by StopTimeout. It is no daemon: ``use_daemon_thread`` is not
  heeded. What the code itself waits for by pykka has pykka's timeout: none, unless it gives one.
- A pykka actor that is not adopted still stops all, by the registry, when a BaseException hits it.
  That looks like any other stop, so an adopted one ends "normal", and comes back if it is permanent
  but not if it is transient. The same goes for `ActorRegistry.stop_all()`: stop the System instead.
- A supervisor starts a child when the `on_start` of the one before has returned, for which pykka's
  `start` does not wait: an `on_start` that waits for an actor after it hangs. `__init__` runs in
  the actor's own thread, too.
- A class that overrides `start` or pykka's loop (`_MACHINERY`), or has a metaclass that makes its
  instances, cannot be adopted, as these would not be called: TypeError.
- What pykka sends takes the control lane: it comes before messages of ours, and statistics do not
  count it as queued (`describe` does).
- Used of pykka 4.5 and not documented there: `_handle_receive`, `_ActorStop`, and of an envelope
  its ``message`` and ``reply_to``.
"""

from __future__ import annotations

import inspect
import logging
import pkgutil
import queue
import sys
from typing import Any, ClassVar, NoReturn

import pykka

from actors.actor import Actor
from actors.cell import Cell
from actors.child_spec import Backoff, ChildSpec
from actors.codec import Packet
from actors.errors import ActorDead, ActorError, RemoteActorError
from actors.future import Future
from actors.here import here
from actors.mailbox import Envelope
from actors.message import Message
from actors.ref import Ref
from actors.signals import NORMAL, ExitReason

_PYKKA_STOP = "_ActorStop"  # pykka has no public name for it

_MACHINERY = (
    "start",
    "_start_actor_loop",
    "_actor_loop",
    "_actor_loop_setup",
    "_actor_loop_running",
    "_actor_loop_teardown",
    "_create_actor_inbox",
    "_stop",
    "_handle_failure",
)
"""What runs an actor in pykka: `Adopted` does, instead."""

_pykka_logger = logging.getLogger("pykka")


class Adopted(Actor):
    """Runs one pykka actor; see this module. `adopted` makes its spec.

    Args:
        target: "package.module:Class", of a `pykka.ThreadingActor`.
        kwargs: keyword arguments for it, here in one so that they may have any name.
        args: for it, too.
    """

    fails_on_ask: ClassVar[bool] = False

    def __init__(self, target: str, kwargs: dict[str, Any] | None = None, /, *args: Any) -> None:
        super().__init__()
        self._target = target
        self._args = args
        self._kwargs = kwargs or {}
        self._theirs: Any = None
        self._failed = False

    @property
    def pykka_ref(self) -> pykka.ActorRef[Any] | None:
        """Of their actor; None before it is made."""
        return None if self._theirs is None else self._theirs.actor_ref

    def on_start(self) -> None:
        if self.system.simulation is not None:
            raise ActorError(
                f"{self.name} adopts {self._target}, a pykka actor: those cannot be simulated"
            )
        theirs = pkgutil.resolve_name(self._target)
        _check(theirs, self._target)
        self._theirs = _make(theirs, self._args, self._kwargs, _Inbox(self._life.cell))
        pykka.ActorRegistry.register(self._theirs.actor_ref)
        try:
            self._theirs.on_start()
        except BaseException:
            self._leave()
            raise

    def on_receive(self, message: Message) -> Any:
        envelope = self._life.envelope
        content = envelope.content if isinstance(envelope, _Letter) else message
        try:
            value = self._theirs._handle_receive(content)  # noqa: SLF001 - runs proxies' calls
        except Exception as error:
            if envelope.future is None:
                self._fail(error)
                return None
            _pykka_logger.info("Exception returned from %s to caller:", self._theirs, exc_info=True)
            raise
        if self._theirs.actor_stopped.is_set():
            self.exit()
        if not isinstance(envelope, _Letter):
            return value
        if isinstance(envelope.future, _Answer):
            envelope.future.value = value
        return None

    def on_stop(self) -> None:
        self._leave()
        if not self._failed:
            self._theirs.on_stop()

    def describe(self) -> str:
        letters = len(self._life.cell.mailbox.control or ())
        return f"pykka {self._target}" + (f", {letters} in its inbox" if letters else "")

    def _fail(self, error: Exception) -> None:
        """What pykka does about a failure, in the except block, as its hook expects."""
        self._failed = True
        self._leave()
        reason = ExitReason.of(error)
        try:
            self._theirs.on_failure(*sys.exc_info())
        except BaseException as later:  # noqa: BLE001 - it becomes part of the report
            reason = reason.followed_by(ExitReason.of(later))
        self.exit(reason)

    def _leave(self) -> None:
        """Dead for pykka. Twice is once."""
        pykka.ActorRegistry.unregister(self._theirs.actor_ref)
        self._theirs.actor_stopped.set()


def adopted(
    name: str,
    theirs: type[pykka.ThreadingActor] | str,
    /,
    *args: Any,
    restart: str = "permanent",
    shutdown: float | str | None = "default",
    significant: bool = False,
    registered: bool = False,
    backoff: Backoff | None = None,
    **kwargs: Any,
) -> ChildSpec:
    """The spec of a pykka actor as a supervised child; ``theirs`` may also be "module:Class".

    ``args`` and ``kwargs`` go to its `__init__`, the rest is as in `ChildSpec.of`. If its own
    arguments have names of these: `ChildSpec.of(name, Adopted, "module:Class", {"restart": ...})`.

    Raises ValueError if the class is local, TypeError if it cannot be adopted.
    """
    if not isinstance(theirs, str):
        target = f"{theirs.__module__}:{theirs.__qualname__}"
        _check(theirs, target)
        if "<locals>" in target:
            raise ValueError(f"{theirs.__qualname__} is local: no spec can name it")
        theirs = target
    return ChildSpec.of(
        name,
        Adopted,
        theirs,
        kwargs,
        *args,
        restart=restart,
        shutdown=shutdown,
        significant=significant,
        registered=registered,
        backoff=backoff,
    )


def pykka_ref(ref: Ref) -> pykka.ActorRef[Any]:
    """Pykka's reference to the adopted actor that ``ref`` means now; in the same process only.

    Take a `System.named` one, which means the present incarnation, and call this again after a
    restart. Raises ActorDead if there is none just now, ActorError if it is no adopted one.
    """
    cell = ref.cell
    life = cell.life
    actor = None if life is None or cell.mailbox.closed else life.actor
    if not isinstance(actor, Adopted):
        if actor is None:
            raise ActorDead(f"{cell.name} does not run now: it has no pykka reference")
        raise ActorError(f"{cell.name} is a {type(actor).__name__}, not an adopted pykka actor")
    theirs = actor.pykka_ref
    if theirs is None:
        raise ActorDead(f"{cell.name} does not run yet: it is starting")
    return theirs


class _Delivery(Message, kind="actors.adopted_delivery"):
    """All of a letter that is in its packet."""


class _Letter(Envelope):
    """What pykka has sent, in our mailbox. It stays in the process, and is not packed."""

    __slots__ = ("content",)

    def __init__(
        self, content: Any, packet: Packet, answer: _Answer | None, sender: Cell | None, trace: int
    ) -> None:
        super().__init__(type(content).__name__, packet, answer, sender, trace)
        self.content = content


class _Answer(Future):
    """A pykka future that is settled once, by whoever comes first.

    ``value``: what the answer is to be, as our own messages could not carry it.
    """

    def __init__(self, theirs: pykka.Future[Any]) -> None:
        super().__init__()
        self.value: Any = None
        self._theirs = theirs

    def _finish(self, packet: Packet | None, value: Any, error: BaseException | None) -> bool:
        if not super()._finish(packet, value, error):
            return False
        if isinstance(error, RemoteActorError) and isinstance(error.__cause__, Exception):
            error = error.__cause__  # what the handler raised: pykka passes it on as it is
        try:
            if error is None:
                self._theirs.set(self.value)
            else:
                self._theirs.set_exception((type(error), error, error.__traceback__))
        except queue.Full:  # the asker has set it itself
            return False
        return True


class _Inbox:
    """Where pykka's ActorRef puts its envelopes: into the mailbox of the `Adopted`."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell

    def put(self, envelope: Any) -> None:
        cell, content, future = self._cell, envelope.message, envelope.reply_to
        answer = None if future is None else _Answer(future)
        if type(content).__name__ == _PYKKA_STOP:
            cell.request_shutdown(answer, drain=True, reason=NORMAL)
            return
        sender = here.cell
        trace = cell.system.next_trace() if sender is None else sender.trace
        letter = _Letter(content, cell.pack(_Delivery()), answer, sender, trace)
        if cell.mailbox.refuses:  # a stop came before it
            cell.refuse(letter)
        else:
            cell.deliver(letter, control=True)

    def get(self) -> NoReturn:
        raise ActorError("only the actor's own loop takes from its mailbox")

    def empty(self) -> bool:
        return not self._cell.mailbox.control


def _check(theirs: Any, target: str) -> None:
    """Raises TypeError for what cannot be adopted."""
    if not isinstance(theirs, type) or not issubclass(theirs, pykka.ThreadingActor):
        raise TypeError(f"{target} is not a pykka.ThreadingActor")
    if type(theirs).__call__ is not type.__call__:
        raise TypeError(f"{target} cannot be adopted: its metaclass makes the instances")
    for name in _MACHINERY:
        plain = inspect.getattr_static(pykka.ThreadingActor, name, None)
        if inspect.getattr_static(theirs, name, None) is not plain:
            raise TypeError(f"{target} cannot be adopted: its own {name} would not be called")


def _make(theirs: Any, args: tuple[Any, ...], kwargs: dict[str, Any], inbox: _Inbox) -> Any:
    """An instance with ``inbox``, as if its class had this hook."""
    actor = theirs.__new__(theirs, *args, **kwargs)
    vars(actor)["_create_actor_inbox"] = lambda: inbox
    theirs.__init__(actor, *args, **kwargs)
    del vars(actor)["_create_actor_inbox"]
    return actor
