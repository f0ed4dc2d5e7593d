"""A domain of a simulated machine: its program is actors in the same system, which can be killed
and stopped at any point as an OS process can.

The order of its end is that of every domain (domain.py): the process is killed, so that nothing of
it takes another step; its mappings, event channels and descriptors are gone; then `DestroyDomain`;
then the exit report, for which the supervisor starts the next incarnation.

What a `ProcessDomain` hears by a pidfd comes here as the `Exit` of the program's actor. A `Probe`
is answered at once by a process that runs, however busy, as in a real one by a thread of its own;
one that is stopped does not answer, and is killed when the watchdog's time is over.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from actors import Exit, ExitReason, Message, Ref, Scheduler, StartFailed, Timer
from hypervisor import domain_records as records
from hypervisor import hypercalls as hc
from hypervisor.domain import Crash, DomainActor, DomainPlan, WhichPid
from hypervisor.errors import DomainStartError
from hypervisor.program import load
from hypervisor.simulated_faults import CRASH_DOMAIN, HANG_DOMAIN, SLOW_START
from hypervisor.simulated_guest import ProcessGuest
from hypervisor.store_door import open_here

_BOOT_TIMEOUT = 20.0  # virtual seconds for a driver's on_start


class SimulatedDomain(DomainActor):
    """See the top of the module."""

    placement = "simulated"

    def __init__(
        self,
        plan: DomainPlan,
        watchdog: float,
        grace: float,
    ) -> None:
        super().__init__(plan)
        assert self.system.simulation is not None
        self._simulation: Scheduler = self.system.simulation
        self._process = self._simulation.process(self.ref, self._peril)
        self._watchdog = watchdog
        self._grace = grace
        self._ping: Timer | None = None
        self._at_end = ExitStack()

    def on_start(self) -> None:
        if self._simulation.strikes(SLOW_START, self._name):
            self._simulation.pause(self._simulation.delay())
        self._create()
        try:
            self._child = self._boot()
        except BaseException as error:
            self._process.kill()
            self._not_started(DomainStartError.of(self._name, error))
            raise
        self._domains.ask(records.Running(self._name, None))

    def _boot(self) -> Ref:
        runner, program = load(self._program)
        deadline = self._simulation.later(
            _BOOT_TIMEOUT, f"{self._name} has not started in time", self._process.kill
        )
        try:
            start = partial(self.start_child, shutdown=0)  # it goes when its process does
            store = open_here(self._store, self._domid, start)
            self._guest = guest = ProcessGuest(
                self._domid, self._name, store, self._hypervisor, self._simulation, self._process
            )
            return self.start_child(
                runner,
                guest,
                program,
                self._args,
                name=f"{self._name}.program",
                shutdown=None,  # `stop_order` has its whole process killed
            )
        except StartFailed as failure:
            if self._process.killed:
                text = "its process died while it started"
                raise DomainStartError(self._name, "DomainDied", text) from failure
            raise DomainStartError(
                self._name, failure.error, failure.text, failure.traceback
            ) from failure
        finally:
            deadline.cancel()

    def stop_order(self) -> list[list[Any]]:
        """Only an orderly end leaves its program time for one."""
        if self.exit_reason.kind not in ("shutdown", "normal"):
            self._process.kill()
        else:
            what = f"{self._name} has not ended in time"
            deadline = self._simulation.later(self._grace, what, self._process.kill)
            self._at_end.callback(deadline.cancel)
        return super().stop_order()

    def on_stop(self) -> None:
        self._at_end.close()
        how = self._dying()
        self._process.kill()
        self._destroy(how)

    def on_receive(self, message: Message) -> Any:
        match message:
            case hc.News():
                if not self._guest.hear(message):
                    self._child.tell(message, control=True)
            case hc.Kill(text):
                self.exit(ExitReason("error", "DomainKilled", text, ""))
            case hc.Probe():
                self._probe()
            case _ProbeExpired():
                self._ping = None
                if self._process.stopped:
                    text = f"no sign of life within {self._watchdog} s of being asked"
                    self.exit(ExitReason("error", "DomainHung", text, ""))
            case WhichPid():
                return None
            case Crash():
                self._process.kill()
            case Exit(reason=reason):
                died = ExitReason("error", "DomainDied", "its process died", "")
                self.exit(died if self._process.killed else reason)
            case _:
                raise TypeError(f"a domain does not take {type(message).__name__}")
        return None

    def _probe(self) -> None:
        if self._process.stopped and self._ping is None:
            self._ping = self.after(self._watchdog, _ProbeExpired())

    def _peril(self) -> None:
        if self._simulation.strikes(CRASH_DOMAIN, self._name):
            self._process.kill()
        elif self._simulation.strikes(HANG_DOMAIN, self._name):
            self._process.stop()


class _ProbeExpired(Message):
    """The watchdog's time is over."""
