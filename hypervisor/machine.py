"""The machine: what a user holds. Domains under a supervisor, and the hypervisor that they share.

A `Machine` owns a System whose top-level actors are started in this order and stopped in reverse:
the store (and its socket and doors), the hypervisor, the process pool, the supervisor of the
domains. The process that makes the machine is a domain itself (domid 0, "machine"): front ends in
it speak by `guest`.
"""

from __future__ import annotations

import itertools
import os
from types import TracebackType
from typing import Any, Self

from actors import (
    Actor,
    ActorDead,
    AwaitChildren,
    ChildExists,
    ChildSpec,
    ChildStatus,
    Exit,
    Message,
    NoSuchChild,
    Ref,
    StartChild,
    StartFailed,
    StopChild,
    Supervisor,
    System,
)
from hypervisor import hypercalls as hc
from hypervisor.domain import Crash, ProcessDomain, ThreadDomain, WhichPid
from hypervisor.errors import DomainStartError, HypervisorError, MachineFailed
from hypervisor.grant_quota import GrantQuota
from hypervisor.guest import Guest, LocalGuest
from hypervisor.hypervisor import Hypervisor
from hypervisor.port_effects import CONTROL_DOMAIN
from hypervisor.processes import ProcessPool
from hypervisor.program import name_of
from hypervisor.simulated_domain import SimulatedDomain
from hypervisor.simulated_guest import ControlGuest
from hypervisor.store_actor import StoreActor
from hypervisor.store_door import ProcessDoor, open_here
from hypervisor.store_socket import StoreSocket

_PLACEMENTS = ("process", "thread")
_SIMULATED_PLACEMENTS = (*_PLACEMENTS, "simulated")
_START_TIMEOUT = 60.0  # seconds; a start that takes too long fails by its own, shorter deadline


class Machine:
    """Runs domains, and restarts those that fail.

    Args:
        intensity: how many restarts are allowed within ``period``; one more and the machine gives
            up (`failure`, and every channel ends with the reason).
        period: seconds.
        watchdog: seconds within which a process domain that somebody waits for in vain must
            answer a probe; one that does not is killed and restarted.
        grace: seconds that a process domain gets for its orderly end before it is killed.
        spares: pre-imported processes that stand by for restarts, each about 25 MiB; without one
            at hand a restart pays for the start of an interpreter, about 0.2 s.
        port_quota: how many event channel ports each domain but this process may have open.
        grant_quota: what each of them may have of memory, grants and mappings; None: `GrantQuota`'s
            own values. One that holds too much of what was revoked, and has not let go after
            ``watchdog`` seconds, is killed.
        store_socket: where to serve the machine's store to xenstore-utils and other clients of
            the XenStore protocol; whoever may open it (the user alone) is domain 0 there.
        system: to run in, instead of a real one of its own; the machine stops it at its end. In one
            with a ``simulation`` all domains are simulated ones, whatever their placement, and all
            is decided by its seed; there are no spares then.

    Raises:
        HypervisorError: a simulated machine has no store socket.
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
        store_socket: str | os.PathLike[str] | None = None,
        system: System | None = None,
    ) -> None:
        self.watchdog = watchdog
        self._channels = itertools.count(1)
        self._grace = grace
        self.system = System("machine") if system is None else system
        simulation = self.system.simulation
        if simulation is not None and store_socket is not None:
            raise HypervisorError("a simulated machine has no store socket: it has no outside")
        try:
            self._store = store = self.system.start(StoreActor, name="store")
            if store_socket is not None:
                self._listen(store, os.fspath(store_socket))
            self.store = open_here(store, CONTROL_DOMAIN, self.system.start)
            self._hypervisor = self.system.start(
                Hypervisor,
                store,
                port_quota,
                grant_quota,
                watchdog,
                name="hypervisor",
            )
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
            self._front = self.system.start(_FrontDoor, self.guest, name="front")
            self._hypervisor.ask(hc.CreateDomain(self.guest.name, self._front))
            self._supervisor = self.system.start(
                Supervisor, [], intensity=intensity, period=period, name="domains"
            )
            self.system.monitor(self._supervisor, self._hypervisor)
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
        program: type,
        *args: Any,
        placement: str = "process",
        restart: str = "permanent",
    ) -> None:
        """Start a domain that runs ``program`` and serves the device ``name``.

        Args:
            name: of the domain and of its device; unique in the machine.
            program: a driver class (a subclass of `transport.BackEnd`), importable by name.
            args: for the driver's ``on_start``; plain msgpack values.
            placement: "process" (an OS process of its own) or "thread" (in this process). In a
                simulated machine both mean "simulated", which only there may be said as well.
            restart: "permanent", "transient" or "temporary", as in OTP.

        Raises:
            DomainStartError: it could not start; nothing of it is left.
            HypervisorError: a domain of that name exists, or the class cannot be found by its name.
            ValueError: not a placement, or not a kind of restart.
            MachineFailed: the machine has given up already.
        """
        common = [self._hypervisor, self._store, name, name_of(program), list(args), restart]
        simulated = self.system.simulation is not None
        allowed = _SIMULATED_PLACEMENTS if simulated else _PLACEMENTS
        if placement not in allowed:
            raise ValueError(f"placement is one of {', '.join(allowed)}, not {placement!r}")
        if simulated:
            spec = ChildSpec.of(
                name,
                SimulatedDomain,
                *common,
                self.watchdog,
                self._grace,
                restart=restart,
                shutdown=None,  # as below
            )
        elif placement == "process":
            spec = ChildSpec.of(
                name,
                ProcessDomain,
                *common,
                self._pool,
                self._store_door,
                self.watchdog,
                self._grace,
                restart=restart,
                shutdown=None,  # it bounds its end itself, by killing its process
            )
        else:
            spec = ChildSpec.of(name, ThreadDomain, *common, restart=restart)
        self._ask_supervisor(name, spec)

    def stop(self, name: str) -> None:
        """Stop a domain in an orderly way; its channels end with `ChannelClosed`.

        Raises:
            HypervisorError: there is no such domain.
        """
        try:
            self._supervisor.ask(StopChild(name), timeout=_START_TIMEOUT)
        except NoSuchChild as error:
            raise HypervisorError(f"there is no domain {name!r}") from error

    def pid(self, name: str) -> int:
        """The pid of a process domain's present incarnation.

        Raises:
            HypervisorError: there is no such domain, or it is placed on a thread.
        """
        pid = self._ask_domain(name, WhichPid())
        if pid is None:
            raise HypervisorError(f"domain {name!r} has no process of its own")
        return int(pid)

    def kill(self, name: str) -> None:
        """Crash the domain: SIGKILL to its process, or a failure of its thread's actor.

        Returns when the signal is sent; its supervisor then does what the domain's ``restart``
        says.
        """
        self._ask_domain(name, Crash())

    def revoke(self, device: str) -> None:
        """Take back what the front ends of ``device`` have granted to its back end.

        Both live on, and their channels are established anew; requests in flight are sent again.
        Nothing if nobody uses it.
        """
        self._hypervisor.ask(hc.RevokeDevice(device))

    def wait(self, timeout: float | None = None) -> Exit:
        """Wait for the supervisor's end: it gave up, or the machine was closed."""
        return self.system.wait(self._supervisor, timeout)

    def next_channel(self) -> int:
        """A number for one more channel of domain 0."""
        return next(self._channels)

    def register(self, channel: int, endpoint: Ref) -> None:
        """Let ``endpoint`` have what domain 0 is told about ``channel``."""
        self._front.ask(_Register(channel, endpoint))

    def unregister(self, channel: int) -> None:
        """That channel's endpoint has ended: what is still said to it is dropped."""
        self._front.ask(_Register(channel, None))

    def hear(self, listener: Ref | None) -> None:
        """Let ``listener`` have all `News` of ports and grants that domain 0 is told.

        It takes the place of the one before; None: nobody. Ports and grants that it does not know
        are others' (each channel of `transport.connect` has some).
        """
        self._front.ask(_Hear(listener))

    def _listen(self, store: Ref, path: str) -> None:
        try:
            self.system.start(StoreSocket, store, path, name="store-socket")
        except StartFailed as failure:
            raise failure.__cause__ or failure from None

    def _ask_domain(self, name: str, message: Message) -> Any:
        """Ask the present incarnation, when it is up; if it is just ending, ask the next."""
        while True:
            children: list[ChildStatus] = self._supervisor.ask(
                AwaitChildren(), timeout=_START_TIMEOUT
            )
            found = next((child.ref for child in children if child.name == name), None)
            if found is None:
                raise HypervisorError(f"there is no domain {name!r} now")
            try:
                return found.ask(message)
            except ActorDead:
                self.system.wait(found)  # its supervisor has its report by then, and acts on it

    def _ask_supervisor(self, name: str, spec: ChildSpec) -> None:
        try:
            self._supervisor.ask(StartChild(spec), timeout=_START_TIMEOUT)
        except ChildExists as error:
            raise HypervisorError(f"there is a domain {name!r} already") from error
        except ActorDead as dead:
            raise MachineFailed(self.wait().reason.text) from dead
        except StartFailed as failure:
            if isinstance(failure.__cause__, DomainStartError):
                raise failure.__cause__ from None
            raise DomainStartError(
                name, failure.error, failure.text, failure.traceback
            ) from failure


class _Register(Message):
    channel: int
    endpoint: Ref | None


class _Hear(Message):
    listener: Ref | None


class _FrontDoor(Actor):
    """The door of domain 0: passes what it is told about a channel to that channel's endpoint, and
    other news to who asked for it.
    """

    pooled = True

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self._guest = guest
        self._endpoints: dict[int, Ref] = {}
        self._listener: Ref | None = None

    def on_receive(self, message: Message) -> None:
        match message:
            case _Register(channel, Ref() as endpoint):
                self._endpoints[channel] = endpoint
            case _Register(channel):
                self._endpoints.pop(channel, None)
            case _Hear(listener):
                self._listener = listener
            case hc.PeerState():
                if message.channel in self._endpoints:
                    self._endpoints[message.channel].tell(message, control=True)
            case hc.News():
                self._guest.hear(message)
                if self._listener is not None:
                    self._listener.tell(message, control=True)
