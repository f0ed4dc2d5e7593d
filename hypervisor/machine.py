"""The machine: what a user holds. Domains under a supervisor, and the hypervisor that they share.

A `Machine` owns a System whose top-level actors are started in this order and stopped in reverse:
the store (and its socket and doors), the hypervisor, the list of domains, the process pool, the
supervisor of the domains. The process that makes the machine is a domain itself (domid 0,
"machine"): front ends in it speak by `guest`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from actors import (
    ChildSpec,
    Exit,
    Ref,
    StartFailed,
    Supervisor,
    System,
)
from hypervisor import domain_records as records
from hypervisor import hypercalls as hc
from hypervisor.cpus import checked, on_cpu
from hypervisor.domain import Crash, DomainPlan, ThreadDomain, WhichPid
from hypervisor.domain_info import DESTROYED, SHUTDOWN, DomainInfo, ShutdownReason
from hypervisor.domain_spec import DomainSpec
from hypervisor.errors import BadCpus, HypervisorError
from hypervisor.front_door import FrontDoor, Hear
from hypervisor.grant_quota import GrantQuota
from hypervisor.guest import Guest, LocalGuest
from hypervisor.hardening import Hardening
from hypervisor.hypervisor import Hypervisor
from hypervisor.port_effects import CONTROL_DOMAIN
from hypervisor.process_domain import Pause, ProcessDomain
from hypervisor.processes import ProcessPool
from hypervisor.program import name_of, refuse_while_loading
from hypervisor.simulated_domain import SimulatedDomain
from hypervisor.simulated_guest import ControlGuest
from hypervisor.store_actor import StoreActor
from hypervisor.store_door import ProcessDoor, open_here
from hypervisor.store_quota import Quota as StoreQuota
from hypervisor.store_socket import StoreSocket
from hypervisor.toolstack import Toolstack, not_a_process
from hypervisor.vitals import usage_of

_PLACEMENTS = ("process", "thread")
_SIMULATED_PLACEMENTS = (*_PLACEMENTS, "simulated")
_STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one")


class Machine:
    """Runs domains, and restarts those that fail.

    Args:
        intensity: how many restarts are allowed within ``period``; one more and the machine gives
            up, and every channel ends with the reason.
        period: seconds.
        watchdog: seconds within which a process domain that somebody waits for in vain must
            answer a probe. One that does not is killed and restarted, unless it is seen to make
            progress: then until it had a processor for ten times as long (watchdog.py).
        grace: seconds that a process domain gets for its orderly end before it is killed.
        spares: pre-imported processes that stand by for restarts, each about 25 MiB; without one
            at hand a restart pays for the start of an interpreter, about 0.2 s.
        port_quota: how many event channel ports each domain but this process may have open.
        grant_quota: what each of them may have of memory, grants and mappings; None: `GrantQuota`'s
            own values. One that holds too much of what was revoked, and has not let go after
            ``watchdog`` seconds, is killed.
        store_quota: what each of them may have in the store; None: xenstored's own values.
        store_socket: where to serve the machine's store to xenstore-utils and other clients of
            the XenStore protocol; whoever may open it (the user alone) is domain 0 there.
        system: to run in, instead of a real one of its own; the machine stops it at its end. In one
            with a ``simulation`` all domains are simulated ones, whatever their placement, and all
            is decided by its seed; there are no spares then.

    Raises:
        HypervisorError: a simulated machine has no store socket; or a driver's file makes a machine
            when it is loaded.
        SocketInUse, NotASocket, OSError: the store cannot be served there.

    Attributes:
        store: domain 0's client of the machine's store.

    Use it as a context manager: leaving it stops every domain in reverse order of its start.
    """

    def __init__(
        self,
        *,
        intensity: int = 1,
        period: float = 5.0,
        watchdog: float = 1.0,
        grace: float = 5.0,
        spares: int = 2,
        port_quota: int = 4096,
        grant_quota: GrantQuota | None = None,
        store_quota: StoreQuota | None = None,
        store_socket: str | os.PathLike[str] | None = None,
        system: System | None = None,
    ) -> None:
        refuse_while_loading()
        self.watchdog = watchdog
        self._grace = grace
        self.system = System("machine") if system is None else system
        simulation = self.system.simulation
        if simulation is not None and store_socket is not None:
            raise HypervisorError("a simulated machine has no store socket: it has no outside")
        try:
            self._store = store = self.system.start(StoreActor, store_quota, name="store")
            if store_socket is not None:
                self._listen(store, os.fspath(store_socket))
            self.store = open_here(store, CONTROL_DOMAIN, self.system.start)
            self._hypervisor = self.system.start(
                Hypervisor, store, port_quota, grant_quota, watchdog, name="hypervisor"
            )
            self._domains = self.system.start(records.DomainRecords, name="domain-records")
            self.guest: Guest
            self._pool: Ref | None = None
            self._store_door: Ref | None = None
            common = (CONTROL_DOMAIN, "machine", self.store, self._hypervisor)
            if simulation is None:
                self.guest = LocalGuest(*common)
                self._store_door = self.system.start(ProcessDoor, name="store-process-door")
                self._pool = self.system.start(ProcessPool, spares, name="processes")
            else:
                self.guest = ControlGuest(*common, simulation)
            self._front = self.system.start(FrontDoor, self.guest, name="front")
            self._hypervisor.ask(hc.CreateDomain(self.guest.name, self._front))
            self._supervisor = self.system.start(
                Supervisor, [], intensity=intensity, period=period, name="domains"
            )
            self.system.monitor(self._supervisor, self._hypervisor)
            self._toolstack = Toolstack(
                self.system, self._hypervisor, self._domains, self._supervisor
            )
        except BaseException:
            self.system.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None and self.system.simulation is not None:
            self.system.simulation.conclude()  # it has failed: no more faults
        self.close()

    def close(self) -> None:
        """Stop everything, in reverse order; returns when nothing of it is left. Idempotent."""
        self.system.stop()

    def start(
        self,
        name: str,
        program: type | str,
        *args: Any,
        placement: str = "process",
        restart: str = "permanent",
        cpus: Iterable[int] | None = None,
        harden: Hardening | None = None,
    ) -> None:
        """Start a domain that runs ``program`` and serves the device ``name``.

        Args:
            name: of the domain and of its device; unique in the machine.
            program: a driver class (a subclass of `transport.BackEnd`), importable by name; or
                that name.
            args: for the driver's ``on_start``; plain msgpack values.
            placement: "process" (an OS process of its own) or "thread" (in this process). In a
                simulated machine both mean "simulated", which only there may be said as well.
            restart: "permanent", "transient" or "temporary", as in OTP.
            cpus: the processors that its process may run on, from before its program starts; None:
                those that the machine may.
            harden: what its process may do less than its user could.

        Raises:
            DomainStartError: it could not start; nothing of it is left.
            HypervisorError: a domain of that name exists, or the class cannot be found by its name.
            ValueError: not a placement, or not a kind of restart.
            BadCpus: none, or not all of them are the calling thread's to use.
            NotAProcess: ``cpus`` or ``harden`` of a domain on a thread.
            MachineFailed: the machine has given up already.
        """
        self.start_spec(DomainSpec(name, program, args, placement, restart, cpus, harden))

    def start_spec(self, domain: DomainSpec) -> None:
        """`start` with its arguments as one value."""
        self._toolstack.start(self._child_spec(domain, grouped=False))

    def group(
        self,
        name: str,
        members: Iterable[DomainSpec],
        *,
        strategy: str = "rest_for_one",
        intensity: int = 1,
        period: float = 5.0,
    ) -> None:
        """Start domains under a supervisor of their own, in this order, all or none.

        What ends with the failure of one is started again after it, in order, and its channels
        wait for it and go on. If they fail too often the whole group is started again, which
        counts as one restart for the machine. A member can be killed, paused and rebooted; it
        cannot be shut down or destroyed, for its group would only bring it back.

        Args:
            name: of the group, and as unique in the machine as that of a domain.
            strategy: "one_for_one", "one_for_all" or "rest_for_one", as in OTP.
            intensity, period: as of `Machine`, for this group alone.

        Raises:
            DomainStartError: one of them could not start; nothing is left of any.
            ValueError: there is no such strategy, or there are no members.
            HypervisorError, NotAProcess, BadCpus, MachineFailed: as `start`.
        """
        specs = [self._child_spec(member, grouped=True) for member in members]
        if strategy not in _STRATEGIES or not specs:
            raise ValueError(
                f"a group has members, and one of the strategies {', '.join(_STRATEGIES)}, not "
                f"{strategy!r}"
            )
        self._toolstack.start_group(
            ChildSpec.of(name, Supervisor, specs, intensity, period, strategy),
            [spec.name for spec in specs],
        )

    def _child_spec(self, domain: DomainSpec, *, grouped: bool) -> ChildSpec:
        placement, restart = domain.placement, domain.restart
        allowed = _PLACEMENTS if self.system.simulation is None else _SIMULATED_PLACEMENTS
        if placement not in allowed:
            raise ValueError(f"placement is one of {', '.join(allowed)}, not {placement!r}")
        if placement == "thread" and not (domain.cpus is None and domain.harden is None):
            raise not_a_process(domain.name, placement)
        plan = DomainPlan(
            self._hypervisor,
            self._domains,
            self._store,
            domain.name,
            name_of(domain.program),
            list(domain.args),
            restart,
            grouped,
        )
        if self.system.simulation is not None:
            return ChildSpec.of(
                domain.name,
                SimulatedDomain,
                plan,
                self.watchdog,
                self._grace,
                restart=restart,
                shutdown=None,  # as below
            )
        if placement == "process":
            return ChildSpec.of(
                domain.name,
                ProcessDomain,
                plan,
                self._pool,
                self._store_door,
                self.watchdog,
                self._grace,
                None if domain.cpus is None else checked(domain.cpus),
                domain.harden,
                restart=restart,
                shutdown=None,  # it bounds its end itself, by killing its process
            )
        return ChildSpec.of(domain.name, ThreadDomain, plan, restart=restart)

    def pause(self, name: str) -> None:
        """Stop a process domain where it is (SIGSTOP), until `unpause` or its end.

        What its clients ask for waits, and the watchdog lets it be. Its children, if it has any, go
        on. Returns when none of its threads runs; one that cannot be stopped within 5 s is killed
        as hung. Nothing if it is paused already.

        Raises:
            HypervisorError: there is no such domain.
            NotAProcess: it is placed on a thread.
        """
        self._toolstack.ask_process(name, Pause(True))

    def unpause(self, name: str) -> None:
        """Let a paused domain go on; nothing if it is not paused. Raises as `pause`."""
        self._toolstack.ask_process(name, Pause(False))

    def shutdown(self, name: str, reason: ShutdownReason = ShutdownReason.POWEROFF) -> None:
        """Have a domain end, and return when it has.

        Args:
            reason: POWEROFF: in order and for good, its channels end with `ChannelClosed`; REBOOT:
                as `reboot`; CRASH: as `kill`.

        Raises:
            HypervisorError: there is no such domain.
            ValueError: WATCHDOG, which is the machine's own verdict.
        """
        match reason:
            case ShutdownReason.POWEROFF:
                self._toolstack.remove(name, SHUTDOWN)
            case ShutdownReason.REBOOT:
                self.reboot(name)
            case ShutdownReason.CRASH:
                self.kill(name)
            case _:
                raise ValueError(f"{reason.name} is not to be asked for")

    def reboot(self, name: str) -> None:
        """End a domain in order, and start it again; its channels wait, and go on.

        It is no failure: it does not count for the restart intensity, and a temporary domain is
        started again, too.

        Raises:
            HypervisorError: there is no such domain.
            DomainStartError: it did not start again; it is given up, and its channels end.
        """
        self._toolstack.reboot(name)

    def destroy(self, name: str) -> None:
        """End a domain at once and for good, without an orderly end; its channels end.

        A process is killed, and has gone when this returns. A thread cannot be: it is ended as by
        `shutdown`. If an orderly end is under way already, this waits for it.

        Raises:
            HypervisorError: there is no such domain.
        """
        self._toolstack.remove(name, DESTROYED, records.DESTROY)

    def kill(self, name: str) -> None:
        """Crash the domain: SIGKILL to its process, or a failure of its thread's actor.

        Returns when the signal is sent; its supervisor then does what the domain's ``restart``
        says.

        Raises:
            HypervisorError: there is no such domain.
        """
        self._toolstack.ask(name, Crash())

    def pid(self, name: str) -> int:
        """The pid of a process domain's present incarnation.

        Raises:
            HypervisorError: there is no such domain.
            NotAProcess: it is placed on a thread.
        """
        return int(self._toolstack.ask_process(name, WhichPid()))

    def domains(self) -> list[DomainInfo]:
        """The domains that have not ended for good, in the order of their start."""
        return self._toolstack.infos()

    def domain(self, name: str) -> DomainInfo:
        """What is known of a domain, also of one that has ended.

        Raises:
            HypervisorError: there is no such domain, and was none lately.
        """
        return self._toolstack.info(name)

    def log(self, name: str) -> list[str]:
        """The last lines that a process domain wrote to its standard output and error, the oldest
        first; also of one that has ended. All of them go to the logger ``xenidc.domain.NAME``.

        Raises:
            HypervisorError: there is no such domain, and was none lately.
        """
        return self._toolstack.log(name)

    def paired(self, name: str) -> AbstractContextManager[None]:
        """In this context the calling thread runs on the one processor of a domain.

        A blocking `call` to a domain on one's own core takes a fraction of the time.

        Raises:
            BadCpus: the domain was not started with one processor in ``cpus``.
            HypervisorError, NotAProcess: as `pid`.
        """
        pid = self.pid(name)
        usage = usage_of(pid)
        if usage is None or len(usage.cpus) != 1:
            raise BadCpus(f"domain {name!r} was not started on one processor alone (cpus)")
        return on_cpu(*usage.cpus)

    def revoke(self, device: str) -> None:
        """Take back what the front ends of ``device`` have granted to its back end.

        Both live on, and their channels are established anew; requests in flight are sent again.
        Nothing if nobody uses it.
        """
        self._hypervisor.ask(hc.RevokeDevice(device))

    def wait(self, timeout: float | None = None) -> Exit:
        """Wait for the supervisor's end: it gave up, or the machine was closed."""
        return self.system.wait(self._supervisor, timeout)

    def hear(self, listener: Ref | None) -> None:
        """Let ``listener`` have all `News` of ports and grants that domain 0 is told.

        It takes the place of the one before; None: nobody. Ports and grants that it does not know
        are others' (each channel of `transport.connect` has some).
        """
        self._front.ask(Hear(listener))

    def hear_domains(self, listener: Ref | None) -> None:
        """Let ``listener`` have a `DomainChanged` whenever a domain comes into another state.

        It takes the place of the one before; None: nobody.
        """
        self._domains.ask(records.HearChanges(listener))

    def _listen(self, store: Ref, path: str) -> None:
        try:
            self.system.start(StoreSocket, store, path, name="store-socket")
        except StartFailed as failure:
            raise failure.__cause__ or failure from None
