"""A topology that runs: its machine, the front ends of its channels, and what is done with them.

Everything that it has is an actor of one system, or ends with the context manager. Each workload
runs in an actor of its own, so that several run at the same time, on threads and under the
scheduler of a simulation alike. What one of them raises is raised by `Running.work`, when all have
ended: the first in the order of their declaration.

Corner case: in a simulation with faults a domain may die while it starts, which whoever starts it
is told. So it is started again there, as a person would; a driver that cannot start is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from actors import Actor, Future, Message, System
from hypervisor import DomainStartError, Machine
from transport import FrontEnd, connect
from xenidc.check import check, function_of, placement_of, start_order
from xenidc.errors import WorkloadFailed
from xenidc.topology import Domain, Topology

_FOR_EVER = 1e9  # seconds; an ask has to have a number
_PATIENCE = 1000.0  # virtual seconds for a back end, several starts of which may hang


class Running:
    """What `running` gives.

    Attributes:
        topology: what it was made of.
        machine: the machine that runs it.
        channels: its front ends, by the names of the channels.
    """

    def __init__(self, topology: Topology, machine: Machine, channels: dict[str, FrontEnd]) -> None:
        self.topology = topology
        self.machine = machine
        self.channels = channels

    def work(self) -> None:
        """Run all workloads, and return when the last has ended.

        Raises:
            WorkloadFailed: one of them raised something, which is the cause.
        """
        self.wait(self.begin())

    def begin(self) -> list[tuple[str, list[BaseException], Future]]:
        """Start all workloads, for `wait`."""
        system, begun = self.machine.system, []
        for number, workload in enumerate(self.topology.workloads):
            fronts = [self.channels[name] for name in workload.channels]
            raised: list[BaseException] = []
            name = f"{workload.name}-{number}"
            worker = system.start(_Worker, function_of(workload), fronts, raised, name=name)
            begun.append((workload.name, raised, worker.ask_future(_Work(), _FOR_EVER)))
        return begun

    def wait(self, begun: list[tuple[str, list[BaseException], Future]]) -> None:
        """Until all of them have ended; see `work`."""
        for _, _, future in begun:
            future.result()
        for name, raised, _ in begun:
            for error in raised:
                text = " ".join(str(error).split())
                raise WorkloadFailed(
                    f"workload {name!r}: {type(error).__name__}: {text}"
                ) from error


@contextmanager
def running(
    topology: Topology,
    placement: str = "process",
    *,
    system: System | None = None,
    spares: int = 2,
    store_socket: str | None = None,
    started: Callable[[Machine], object] = lambda _machine: None,
) -> Iterator[Running]:
    """Check a topology, start it, and stop it again at the end of the context.

    Args:
        placement: "process", "thread" or "simulated": where domains run that do not say it
            themselves. Simulated all do.
        system: to run in, instead of one of its own; if it has a ``simulation`` so has this.
        spares, store_socket: those of `hypervisor.Machine`.
        started: called with the machine when there is one, before it has a domain.

    Raises:
        TopologyError: there is something wrong with it; nothing was started.
        DomainStartError, DeadlineExceeded, ChannelClosed: a domain or a channel could not be
            started; nothing is left.
    """
    if placement == "simulated" and system is None:
        system = System(topology.name, simulation=0)
    if system is not None and system.simulation is not None:
        placement = "simulated"
    check(topology, placement)
    with ExitStack() as stack:
        machine = stack.enter_context(
            Machine(system=system, spares=spares, store_socket=store_socket, **topology.machine)
        )
        started(machine)
        for unit in start_order(topology):
            _start(topology, machine, unit, placement)
        channels: dict[str, FrontEnd] = {}
        for channel in topology.channels:
            patience = {"timeout": _PATIENCE} if placement == "simulated" else {}
            front = connect(machine, channel.to, **{**patience, **channel.options})
            channels[channel.name] = stack.enter_context(front)
        yield Running(topology, machine, channels)


def _start(topology: Topology, machine: Machine, unit: list[Domain], placement: str) -> None:
    specs = [domain.spec(placement_of(domain, placement)) for domain in unit]
    group = next((each for each in topology.groups if each.name == unit[0].group), None)
    while True:
        try:
            if group is None:
                machine.start_spec(specs[0])
            else:
                machine.group(
                    group.name,
                    specs,
                    strategy=group.strategy,
                    intensity=group.intensity,
                    period=group.period,
                )
        except DomainStartError as error:
            if placement == "simulated" and "DomainDied" in str(error):
                continue  # see the top
            raise
        return


class _Work(Message):
    """Do it; answered by nothing, when it has been done."""


class _Worker(Actor):
    def __init__(
        self,
        function: Callable[..., object],
        fronts: list[FrontEnd],
        raised: list[BaseException],
    ) -> None:
        super().__init__()
        self._function = function
        self._fronts = fronts
        self._raised = raised  # an error itself does not pass through a mailbox

    def on_receive(self, message: Message) -> Any:
        assert isinstance(message, _Work)
        try:
            self._function(*self._fronts)
        except Exception as error:  # noqa: BLE001 - it is the caller's to judge
            self._raised.append(error)
