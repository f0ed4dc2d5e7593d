"""The messages that the runtime itself sends, all but dead letters on the control lane.

`Shutdown` asks an actor to end; `Exit` tells a parent, and `Down` a monitor, that one has. Each
actor that has been started gives exactly one report, and its reason is one of

- "normal": it ended itself (`Actor.exit`);
- "shutdown": it was asked to (`Ref.stop`, its parent, its system);
- "killed": it was given up (`Ref.kill`); its thread may still be in its last handler;
- "error": something raised; ``error`` is the type's name, ``text`` what it said.
"""

from __future__ import annotations

import traceback as tracebacks

from actors.message import Message
from actors.ref import Ref
from actors.traceback_text import format_exception

_TEXT_LIMIT = 4 << 10  # characters
_TRACEBACK_LIMIT = 32 << 10


def _sendable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class ExitReason(Message, kind="actors.exit_reason"):
    """Why an actor ended. ``kind``: "normal", "shutdown", "killed" or "error"."""

    kind: str
    error: str = ""
    text: str = ""
    traceback: str = ""

    def __post_init__(self) -> None:
        if self.kind not in ("normal", "shutdown", "killed", "error"):
            raise ValueError(f"{self.kind!r} is no kind of exit")
        # Whoever made it: a report must always fit into a message.
        object.__setattr__(self, "error", _sendable(self.error)[:_TEXT_LIMIT])
        object.__setattr__(self, "text", _sendable(self.text)[:_TEXT_LIMIT])
        object.__setattr__(self, "traceback", _sendable(self.traceback)[-_TRACEBACK_LIMIT:])

    @property
    def failed(self) -> bool:
        """Whether it is an abnormal end, after which OTP restarts a transient child."""
        return self.kind in ("killed", "error")

    @classmethod
    def of(cls, exception: BaseException) -> ExitReason:
        """The report of an exception."""
        try:
            text = str(exception)
            trace = format_exception(exception)
        except Exception as error:  # noqa: BLE001 - a __str__ that raises must not cost us the report
            text = f"(its text cannot be had: {type(error).__name__})"
            trace = "".join(tracebacks.format_tb(exception.__traceback__))
        return cls("error", type(exception).__name__, text, trace)

    def followed_by(self, later: ExitReason) -> ExitReason:
        """This reason, with an error of `on_stop` or `on_failure` added to it."""
        if self.kind != "error":
            return later
        text = f"{self.text}; then {later.error}: {later.text}"
        trace = f"{self.traceback}\n{later.traceback}"
        return ExitReason("error", self.error, text, trace)

    def __str__(self) -> str:
        return f"{self.error}: {self.text}" if self.kind == "error" else self.kind


NORMAL = ExitReason("normal")
SHUTDOWN = ExitReason("shutdown")
KILLED = ExitReason("killed")


class Shutdown(Message, kind="actors.shutdown"):
    """End in order. Handled by the runtime; no actor sees it.

    ``drain``: after all data messages that are queued. ``reason``: "shutdown" unless given.
    """

    drain: bool = False
    reason: ExitReason | None = None


class Started(Message, kind="actors.started"):
    """To the parent: this child, which it has begun to start, has started."""

    ref: Ref
    name: str


class Exit(Message, kind="actors.exit"):
    """To the parent: this child has ended. To an actor that traps exits: one it is linked to."""

    ref: Ref
    name: str
    reason: ExitReason


class Down(Message, kind="actors.down"):
    """To a monitor: this actor has ended. ``monitor``: the number that `Actor.monitor` returned."""

    ref: Ref
    name: str
    reason: ExitReason
    monitor: int = 0


class DeadLetter(Message, kind="actors.dead_letter"):
    """To a subscriber: a message was lost. ``message``: its kind, or "reply" for a late answer.

    ``to`` and ``sender`` are names, the latter "" from outside of actors. ``why``: "dead" (its
    receiver has ended), "late" (its asker has given up), "overflow" (dropped for a newer one),
    "unreadable", or "fault" (injected).
    """

    message: str
    to: str
    sender: str
    why: str
