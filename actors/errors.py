"""What can go wrong between actors; every error of this package is an `ActorError`.

Rule: the name says what happened, the text says to whom. Errors that pykka has a word for are
pykka's too (`ActorDead` is a `pykka.ActorDeadError`), so code that was written for pykka goes on
working.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pykka

if TYPE_CHECKING:
    from actors.signals import ExitReason


class ActorError(Exception):
    """Base of every error that this package raises."""


class ActorDead(ActorError, pykka.ActorDeadError):
    """The actor has ended, or ended before it answered. Whether it did the work is not known."""


class AskTimeout(ActorError, pykka.Timeout):
    """No answer within the deadline of the ask. The actor may still do the work."""


class StopTimeout(ActorError):
    """An actor did not end in the time that it was given; its thread may still run."""


class MailboxFull(ActorError):
    """The mailbox is at its bound of messages or bytes. The message was not accepted."""


class WouldBlock(ActorError):
    """An actor that shares its thread with others was about to wait, and so to hold them up."""


class Deadlock(ActorError):
    """In a simulation: nobody can go on. Says who waits for whom."""


class NotSettled(ActorError):
    """In a simulation: it did not come to rest, or to what was waited for, in its time."""


class NameTaken(ActorError):
    """Another actor of this system is registered under that name, and alive."""


class ChildExists(ActorError):
    """A supervisor has a child of that name already."""


class NoSuchChild(ActorError):
    """A supervisor has no child of that name."""


class TooManyChildren(ActorError):
    """A supervisor has as many children as it may have."""


class StartFailed(ActorError):
    """``__init__`` or ``on_start`` of an actor failed, or it was killed meanwhile. It has ended.

    Attributes:
        name: of the actor.
        reason: its exit report.
        error, text, traceback: type name, message and traceback text of the original error, which
            in the same process is also the ``__cause__``.
    """

    def __init__(self, name: str, reason: ExitReason) -> None:
        super().__init__(f"{name} could not start: {reason}")
        self.name = name
        self.reason = reason
        self.error = reason.error
        self.text = reason.text
        self.traceback = reason.traceback


class RemoteActorError(ActorError):
    """The other actor's handler raised; attributes as in `StartFailed`.

    The other actor's traceback is a note of this exception, and so is printed with it.
    """

    def __init__(self, name: str, reason: ExitReason) -> None:
        super().__init__(f"{name} failed: {reason}")
        self.name = name
        self.reason = reason
        self.error = reason.error
        self.text = reason.text
        self.traceback = reason.traceback
        if reason.traceback:
            self.add_note(f"in {name}:\n{reason.traceback.rstrip()}")


class RestartIntensityExceeded(ActorError):
    """A supervisor restarted its children more often than it may, and gave up.

    Its name is the ``error`` of the supervisor's `ExitReason`.
    """


class MessageError(ActorError):
    """A message is not what its declaration says, or is not declared at all."""


class UnknownKind(MessageError):
    """No message of that kind is declared."""


class UnknownRef(MessageError):
    """A reference in a message is not of this system, or of no actor that is still known."""


class WrongType(MessageError):
    """A field holds a value of another type than declared, or the bytes are no message at all."""


class TooDeep(MessageError):
    """Values are nested deeper than the limit."""


class TooLarge(MessageError):
    """The encoded message has more bytes or descriptors than the limit."""
