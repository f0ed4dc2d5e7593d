"""The machine's list of domains: what is known of each, over its incarnations and after its end.

An actor that outlives the supervisor of the domains. The actors that stand for domains tell it what
becomes of them, with asks, so that what a domain was told is in its record; the machine reads it.
It is also where the machine leaves word how a domain is meant to end (`Intend`): the incarnation
that is just ending asks for it (`Dying`), whichever that turns out to be.

A record is continued by the next incarnation unless the domain ended for good; then a domain of the
same name begins a new one. Bounds: ``_KEPT_LINES`` lines of log for each domain, the records of the
last ``_KEPT_RECORDS`` domains that ended for good.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from actors import Actor, Message, Ref
from hypervisor.domain_info import (
    CRASHED,
    DESTROYED,
    DYING,
    PAUSED,
    RUNNING,
    SHUTDOWN,
    STARTING,
    CrashReport,
    DomainChanged,
    Record,
    ShutdownReason,
)

DESTROY, REBOOT = "destroy", "reboot"
"""How a domain is meant to end; None: in order, or by itself."""

_KEPT_LINES = 200  # of at most 4 KiB when escaped: they fit into one message
_CRASH_LINES = 20
_KEPT_RECORDS = 64


class Created(Message):
    """A new incarnation is about to start."""

    name: str
    domid: int
    placement: str


class Running(Message):
    """It has started; ``pid``: of its process."""

    name: str
    pid: int | None


class Paused(Message):
    """It is paused, or is not any more."""

    name: str
    paused: bool


class Said(Message):
    """Lines of its log."""

    name: str
    lines: list[str]


class Refused(Message):
    """A hypercall or a frame of it was refused."""

    name: str


class Dying(Message):
    """It is being ended. Answered by how that is meant."""

    name: str


class Ended(Message):
    """It has ended. ``returns``: its supervisor will start it again. ``crash``: without its log."""

    name: str
    returns: bool
    reason: int
    crash: CrashReport | None


class Intend(Message):
    """How the next end of the domain is meant, until another word."""

    name: str
    how: str | None


class Closed(Message):
    """The machine has given the domain up for good, in this state."""

    name: str
    state: str


class Lookup(Message):
    """Answered by its `Record`, or None."""

    name: str


class HearChanges(Message):
    """Tell ``listener`` `DomainChanged` from now on; None: nobody."""

    listener: Ref | None


class ReadLog(Message):
    """Answered by the last lines of its log, or None if there is no such domain."""

    name: str


class Names(Message):
    """Answered by the names of the domains that have not ended for good."""


@dataclass
class _Entry:
    record: Record
    intent: str | None = None
    over: bool = False
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    fresh: int = 0  # lines of the present incarnation


class DomainRecords(Actor):
    """See the module's text."""

    pooled = True

    def on_start(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._listener: Ref | None = None

    def on_receive(self, message: Message) -> Any:
        match message:
            case Created(name, domid, placement):
                self._created(name, domid, placement)
            case Running(name, pid):
                self._change(name, state=RUNNING, pid=pid)
            case Paused(name, paused):
                self._change(name, state=PAUSED if paused else RUNNING)
            case Said(name, lines):
                entry = self._entries[name]
                entry.log.extend(lines)
                entry.fresh += len(lines)
            case Refused(name):
                self._change(name, refused=self._entries[name].record.refused + 1)
            case Dying(name):
                self._change(name, state=DYING)
                return self._entries[name].intent
            case Ended():
                self._ended(message)
            case Intend(name, how):
                if name in self._entries:
                    self._entries[name].intent = how
            case Closed(name, state):
                self._closed(name, state)
            case HearChanges(listener):
                self._listener = listener
            case Lookup(name):
                return self._entries[name].record if name in self._entries else None
            case ReadLog(name):
                return list(self._entries[name].log) if name in self._entries else None
            case Names():
                return [name for name, entry in self._entries.items() if not entry.over]
            case _:
                raise TypeError(f"the domain records do not take {type(message).__name__}")
        return None

    def _created(self, name: str, domid: int, placement: str) -> None:
        entry = self._entries.get(name)
        if entry is None or entry.over:
            self._entries.pop(name, None)  # so that it is the last in order again
            record = Record(name, domid, placement, STARTING, None, 0, 0, None, None)
            self._entries[name] = _Entry(record)
            self._say(name)
            return
        entry.fresh = 0
        restarts = entry.record.restarts + 1
        self._change(name, state=STARTING, domid=domid, restarts=restarts)

    def _ended(self, said: Ended) -> None:
        entry = self._entries[said.name]
        crash, state = entry.record.crash, SHUTDOWN
        if said.crash is not None:
            lines = min(entry.fresh, _CRASH_LINES)
            crash = replace(said.crash, log=list(entry.log)[len(entry.log) - lines :])
            state = CRASHED
        elif entry.intent == DESTROY:
            state = DESTROYED
        self._change(said.name, state=state, pid=None, shutdown=said.reason, crash=crash)
        if not said.returns:
            self._closed(said.name, state)

    def _closed(self, name: str, state: str) -> None:
        entry = self._entries.get(name)
        if entry is None:
            return
        self._change(name, state=state)
        entry.over, entry.intent = True, None
        ended = [other for other, known in self._entries.items() if known.over]
        for other in ended[:-_KEPT_RECORDS]:
            del self._entries[other]

    def _change(self, name: str, **changes: Any) -> None:
        entry = self._entries[name]
        before = entry.record.state
        entry.record = replace(entry.record, **changes)
        if entry.record.state != before:
            self._say(name)

    def _say(self, name: str) -> None:
        if self._listener is not None:
            self._listener.tell(DomainChanged(name, self._entries[name].record.state))


def reason_of(kind: str, error: str, intent: str | None) -> ShutdownReason:
    """Xen's word for an exit report's ``kind`` and ``error``."""
    if kind in ("error", "killed"):
        return ShutdownReason.WATCHDOG if error == "DomainHung" else ShutdownReason.CRASH
    return ShutdownReason.REBOOT if intent == REBOOT else ShutdownReason.POWEROFF
