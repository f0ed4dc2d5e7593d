"""The toolstack: what is done to domains from outside, in steps that the supervisor offers.

It holds no domain itself. The supervisor of the domains knows their specs and has them started and
ended; the domain records (domain_records.py) know what became of them, and how an end is meant; a
domain's own actor does what concerns its present incarnation.

Whoever ends a domain for good (`remove`, a reboot that fails) withdraws its device afterwards: also
of one that was just between two incarnations, whose front ends wait for the next. May be used from
any thread.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

from actors import (
    ActorDead,
    ActorError,
    AwaitChildren,
    ChildExists,
    ChildSpec,
    ChildStatus,
    DeleteChild,
    GetChildSpec,
    Message,
    NoSuchChild,
    Ref,
    RestartChild,
    StartChild,
    StartFailed,
    StopChild,
    System,
    TerminateChild,
)
from hypervisor import domain_records as records
from hypervisor import hypercalls as hc
from hypervisor.domain_info import CRASHED, DomainInfo, Record, ShutdownReason
from hypervisor.errors import DomainStartError, HypervisorError, MachineFailed, NotAProcess
from hypervisor.process_domain import ProcessDomain
from hypervisor.vitals import usage_of

_TIMEOUT = 60.0  # seconds; a start that takes too long fails by its own, shorter deadline


class Toolstack:
    """Acts on the domains of ``supervisor``; each of its errors is a `HypervisorError`."""

    def __init__(self, system: System, hypervisor: Ref, domains: Ref, supervisor: Ref) -> None:
        self._system = system
        self._hypervisor = hypervisor
        self._domains = domains
        self._supervisor = supervisor
        self._reboots = threading.Lock()
        self._groups: dict[str, str] = {}  # name of a member -> of its group

    def start(self, spec: ChildSpec) -> None:
        """Start a domain, and return when it has started; if it cannot, nothing is left of it."""
        self._check_free(spec.name)
        if spec.name not in self._domains.ask(_NAMES):
            with suppress(ActorError):  # of a transient one that has ended well the spec is kept
                self._supervisor.ask(DeleteChild(spec.name), timeout=_TIMEOUT)
        try:
            self._start(spec.name, StartChild(spec))
        except DomainStartError:
            self._domains.ask(records.Closed(spec.name, CRASHED))
            raise

    def start_group(self, spec: ChildSpec, members: list[str]) -> None:
        """Start domains under the supervisor ``spec``; if one cannot start, none is left."""
        running = self._domains.ask(_NAMES)
        for name in (spec.name, *members):
            self._check_free(name)
            if name in running:
                raise _taken(name)
        if len({spec.name, *members}) <= len(members):
            raise HypervisorError(f"two of group {spec.name!r} have the same name")
        self._groups.update(dict.fromkeys(members, spec.name))
        try:
            self._start(spec.name, StartChild(spec))
        except BaseException:
            for name in members:
                del self._groups[name]
                self._give_up(name, CRASHED)
            raise

    def _check_free(self, name: str) -> None:
        if name in self._groups or name in self._groups.values():
            raise _taken(name)

    def _supervisor_of(self, name: str) -> Ref:
        """The present incarnation of who supervises that domain."""
        group = self._groups.get(name)
        if group is None:
            return self._supervisor
        found = self._find(self._supervisor, group)
        if found is None:
            raise no_domain(name)
        return found

    def _find(self, supervisor: Ref, name: str) -> Ref | None:
        children: list[ChildStatus] = supervisor.ask(AwaitChildren(), timeout=_TIMEOUT)
        return next((child.ref for child in children if child.name == name), None)

    def _alone(self, name: str) -> None:
        if (group := self._groups.get(name)) is not None:
            raise HypervisorError(
                f"domain {name!r} is one of group {group!r}, which would bring it back"
            )

    def remove(self, name: str, state: str, how: str | None = None) -> None:
        """End a domain for good, as ``how`` says; its ``state`` is that afterwards."""
        self._alone(name)
        if how is not None:
            self._domains.ask(records.Intend(name, how))
        try:
            self._supervisor.ask(StopChild(name), timeout=_TIMEOUT)
        except NoSuchChild as error:
            raise no_domain(name) from error
        self._give_up(name, state)

    def reboot(self, name: str) -> None:
        """End a domain in order, and start it again. One at a time: two would undo each other."""
        with self._reboots:
            supervisor = self._supervisor_of(name)
            try:
                spec: ChildSpec = supervisor.ask(GetChildSpec(name), timeout=_TIMEOUT)
                self._domains.ask(records.Intend(name, records.REBOOT))
                supervisor.ask(TerminateChild(name), timeout=_TIMEOUT)
            except NoSuchChild as error:
                raise no_domain(name) from error
            # The supervisor has forgotten a temporary child that it was told to end.
            temporary = spec.restart == "temporary"
            try:
                self._start(name, StartChild(spec) if temporary else RestartChild(name), supervisor)
            except DomainStartError:
                with suppress(NoSuchChild):  # temporary, or removed by somebody else meanwhile
                    supervisor.ask(StopChild(name), timeout=_TIMEOUT)
                self._give_up(name, CRASHED)
                raise
            finally:
                self._domains.ask(records.Intend(name, None))

    def _give_up(self, name: str, state: str) -> None:
        self._domains.ask(records.Closed(name, state))
        self._hypervisor.ask(hc.Withdraw(name, f"domain {name!r} has ended for good"))

    def info(self, name: str) -> DomainInfo:
        """What is known of a domain, also of one that has ended lately."""
        record: Record | None = self._domains.ask(records.Lookup(name))
        if record is None:
            raise no_domain(name)
        return _info(record)

    def infos(self) -> list[DomainInfo]:
        """The same of all that have not ended for good."""
        found = [self._domains.ask(records.Lookup(name)) for name in self._domains.ask(_NAMES)]
        return [_info(record) for record in found if record is not None]

    def log(self, name: str) -> list[str]:
        """The last lines of its log."""
        lines: list[str] | None = self._domains.ask(records.ReadLog(name))
        if lines is None:
            raise no_domain(name)
        return lines

    def ask(self, name: str, message: Message) -> Any:
        """Ask the present incarnation, when it is up; if it is just ending, ask the next."""
        while True:
            supervisor = self._supervisor_of(name)
            try:
                found = self._find(supervisor, name)
            except ActorDead:  # its group is just being started again
                if supervisor is self._supervisor:
                    raise
                self._system.wait(supervisor)
                continue
            if found is None:
                raise no_domain(name)
            try:
                return found.ask(message)
            except ActorDead:
                self._system.wait(found)  # its supervisor has its report by then, and acts on it

    def ask_process(self, name: str, message: Message) -> Any:
        """The same of a domain that has a process."""
        known: Record | None = self._domains.ask(records.Lookup(name))
        if known is not None and known.placement != ProcessDomain.placement:
            raise not_a_process(name, known.placement)
        return self.ask(name, message)

    def _start(
        self, name: str, message: StartChild | RestartChild, supervisor: Ref | None = None
    ) -> None:
        try:
            (supervisor or self._supervisor).ask(message, timeout=_TIMEOUT)
        except ChildExists as error:
            raise _taken(name) from error
        except NoSuchChild as error:
            raise no_domain(name) from error
        except ActorDead as dead:
            raise MachineFailed(self._system.wait(self._supervisor).reason.text) from dead
        except StartFailed as failure:
            if isinstance(failure.__cause__, DomainStartError):
                raise failure.__cause__ from None
            raise DomainStartError(
                name, failure.error, failure.text, failure.traceback
            ) from failure


def _taken(name: str) -> HypervisorError:
    return HypervisorError(f"there is a domain {name!r} already")


def no_domain(name: str) -> HypervisorError:
    """The error for a name that no domain has."""
    return HypervisorError(f"there is no domain {name!r}")


def not_a_process(name: str, placement: str) -> NotAProcess:
    """The error for what only a process can do."""
    return NotAProcess(f"the placement of domain {name!r} is {placement!r}: it has no process")


_NAMES = records.Names()


def _info(record: Record) -> DomainInfo:
    return DomainInfo(
        record.name,
        record.domid,
        record.placement,
        record.state,
        record.pid,
        record.restarts,
        record.refused,
        None if record.shutdown is None else ShutdownReason(record.shutdown),
        record.crash,
        None if record.pid is None else usage_of(record.pid),
    )
