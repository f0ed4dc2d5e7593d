"""The actors that stand for domains: one supervised actor is one incarnation of a domain.

Its start is the domain's start, its end is the domain's end, so that a plain supervisor restarts
domains. `DomainActor` is what all placements share. `ThreadDomain` runs its program as a child
actor in this process; `ProcessDomain` (process_domain.py) in an OS process.

Order of an end, whatever caused it: ask how it is meant (domain_records.py) -> stop or kill the
program -> wait until it is really gone -> `DestroyDomain` (grants withdrawn, ports closed, peers
told) -> exit report -> the supervisor starts the next incarnation, which gets a new domid and whose
connections get new epochs.

A thread cannot be killed, paused or confined, nor be told from a slow one; thread placement has no
watchdog, and its output is its process's.
"""

from __future__ import annotations

import time
from typing import Any, ClassVar

from actors import Actor, Exit, ExitReason, Message, Ref, StartFailed
from hypervisor import domain_records as records
from hypervisor import hypercalls as hc
from hypervisor.domain_info import CrashReport, ShutdownReason
from hypervisor.errors import DomainStartError
from hypervisor.guest import LocalGuest
from hypervisor.processes import HowEnded
from hypervisor.program import load
from hypervisor.store_door import open_here


class DomainPlan(Message):
    """What every incarnation of a domain is given, whatever its placement.

    Attributes:
        hypervisor, domains, store: actors of the machine; ``domains`` keeps the records.
        name: the domain's, which is also the device that it serves.
        program, args, restart: see `DomainSpec`.
        grouped: so it may be stopped for a sibling's failure, and start again.
    """

    hypervisor: Ref
    domains: Ref
    store: Ref
    name: str
    program: str
    args: list[Any]
    restart: str
    grouped: bool


class DomainActor(Actor):
    """What all placements share: a domid from the hypervisor, giving it back, and the record."""

    placement: ClassVar[str]

    def __init__(self, plan: DomainPlan) -> None:
        super().__init__()
        self._hypervisor = plan.hypervisor
        self._domains = plan.domains
        self._store = plan.store
        self._name = plan.name
        self._program = plan.program
        self._args = plan.args
        self._restart = plan.restart
        self._grouped = plan.grouped
        self._domid = -1
        self._how: HowEnded | None = None  # its process, if it had one

    def _create(self) -> None:
        self._domid = self._hypervisor.ask(hc.CreateDomain(self._name, self.ref))
        self._domains.ask(records.Created(self._name, self._domid, self.placement))

    def _not_started(self, error: DomainStartError) -> None:
        """Give back what `_create` took; the supervisor hears the error itself."""
        crash = self._crash(error.error, error.text, error.details)
        self._domains.ask(records.Ended(self._name, True, ShutdownReason.CRASH, crash))
        self._hypervisor.ask(hc.DestroyDomain(self._domid, "it could not start", True, True))

    def _dying(self) -> str | None:
        """How its end is meant."""
        how: str | None = self._domains.ask(records.Dying(self._name))
        return how

    def _destroy(self, how: str | None) -> None:
        reason = self.exit_reason
        returns = (
            how == records.REBOOT or (self._grouped and self._restart != "temporary")
            if reason.kind == "shutdown"
            else self._restart == "permanent" or (self._restart == "transient" and reason.failed)
        )
        crash = None
        if reason.failed:
            crash = self._crash(reason.error or reason.kind, reason.text, reason.traceback)
        ended = records.reason_of(reason.kind, reason.error, how)
        # In this order: whoever hears of the end from the bus finds the reason in the record.
        self._domains.ask(records.Ended(self._name, returns, ended, crash))
        self._hypervisor.ask(hc.DestroyDomain(self._domid, str(reason), returns, reason.failed))

    def _crash(self, error: str, text: str, traceback: str) -> CrashReport:
        signal, code = (None, None) if self._how is None else self._how
        now = time.time() if self.system.simulation is None else self.system.now()
        return CrashReport(error, text, traceback, signal, code, now, [])


class ThreadDomain(DomainActor):
    """A domain whose program is an actor on a thread of this process."""

    placement = "thread"

    def on_start(self) -> None:
        self._create()
        store = open_here(self._store, self._domid, self.start_child)
        self._guest = guest = LocalGuest(self._domid, self._name, store, self._hypervisor)
        try:
            runner, program = load(self._program)
            self._child = self.start_child(runner, guest, program, self._args, name=self._name)
        except StartFailed as failure:
            error = DomainStartError(self._name, failure.error, failure.text, failure.traceback)
            self._not_started(error)
            raise error from failure
        except Exception as failure:
            self._not_started(DomainStartError.of(self._name, failure))
            raise
        self._domains.ask(records.Running(self._name, None))

    def on_stop(self) -> None:
        self._destroy(self._dying())

    def on_receive(self, message: Message) -> Any:
        match message:
            case hc.News():
                if not self._guest.hear(message):
                    self._child.tell(message, control=True)
            case hc.Kill(text):
                self.exit(ExitReason("error", "DomainKilled", text, ""))
            case Crash():
                self.exit(ExitReason("error", "DomainKilled", "it was told to crash", ""))
            case WhichPid() | hc.Probe():
                return None
            case Exit(reason=reason):
                self.exit(reason)
            case _:
                raise TypeError(f"a domain does not take {type(message).__name__}")
        return None


class Crash(Message):
    """Fail at once, as if by itself. For tests of failure."""


class WhichPid(Message):
    """Answered by the pid of the domain's process, None for one that has none of its own."""
