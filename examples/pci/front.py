"""The front end of a PCI bus: accesses (access.py), interrupts as ports, and error recovery.

`PciBus` is a user of a channel, made by `open_bus`.

Who wakes whom: an interrupt makes its port readable, without a message. When the back end goes, the
hypervisor says so to `_PortWatch`, which makes every port that has lost its other end readable:
whoever sleeps on one looks at his device, and sees. Such a port stays open until it is disabled or
enabled anew. A bind has a first event: look once after enabling.

Several front ends may share a bus, as CPUs do. The interrupts of a function are one's who enabled
them; if he went without a word (`close`), the next one disables them first. All that is here is for
one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from actors import Actor, Message
from examples.pci import protocol as p
from examples.pci.access import ConfigAccess, OnReset
from examples.pci.errors import BadAnswer, BusGone, OperationFailed, PciError
from hypervisor import EventChannel, Guest, HypervisorError, Machine, News, PortClosed, raise_event
from transport import ChannelClosed, DeadlineExceeded, FrontEnd, connect

_DISABLE = {p.ENABLE_MSI: p.DISABLE_MSI, p.ENABLE_MSIX: p.DISABLE_MSIX}


class PciBus(ConfigAccess):
    """See the module's text. ``guest`` is the domain that this is in."""

    def __init__(
        self,
        channel: FrontEnd,
        guest: Guest,
        *,
        on_reset: OnReset = "retry",
        completion_timeout: float = 10.0,
    ) -> None:
        self._guest = guest
        self._ports: dict[tuple[int, int], list[EventChannel]] = {}  # by sbdf and operation
        self._changing = threading.Lock()  # no port is closed or made while one is raised
        super().__init__(channel, on_reset=on_reset, completion_timeout=completion_timeout)

    def enable_msi(self, sbdf: int, vectors: int = 1) -> list[EventChannel]:
        """Enable MSI: a port for each vector, readable when the device has raised it.

        The ports stay the bus's: `disable_msi` closes them.

        Raises:
            DeviceNotFound, NotImplementedOperation, OperationFailed, AccessDenied, BusGone.
        """
        return self._open_ports(p.ENABLE_MSI, sbdf, vectors, vectors, self._guest.domid)

    def enable_msix(self, sbdf: int, entries: Sequence[int]) -> list[EventChannel]:
        """The same for these entries of the MSI-X table, 128 at most."""
        if len(entries) > p.MSIX_LIMIT:
            raise OperationFailed(f"{len(entries)} entries at once; {p.MSIX_LIMIT} are allowed")
        argument = [self._guest.domid, *entries]
        return self._open_ports(p.ENABLE_MSIX, sbdf, len(entries), 0, argument)

    def disable_msi(self, sbdf: int) -> None:
        """Disable MSI, and close its ports; they are closed whatever the back end says.

        Raises:
            OperationFailed: it is not enabled; after a reset it is not.
        """
        self._close_ports(sbdf, p.ENABLE_MSI)
        self.call(p.DISABLE_MSI, sbdf)

    def disable_msix(self, sbdf: int) -> None:
        """The same for MSI-X."""
        self._close_ports(sbdf, p.ENABLE_MSIX)
        self.call(p.DISABLE_MSIX, sbdf)

    def aer_listen(self) -> EventChannel:
        """The port that is readable when `aer_next` has something; again after a reset."""
        (port,) = self._open_ports(p.AER_LISTEN, 0, 1, 0, self._guest.domid)
        return port

    def aer_next(self) -> tuple[int, int] | None:
        """The step of a recovery that is asked for, as (AER_ operation, sbdf), or None.

        It is asked for until `aer_answer` answers it.
        """
        step = self.call(p.AER_NEXT)
        match step:
            case None:
                return None
            case (int(operation), int(sbdf)):
                return operation, sbdf
        raise BadAnswer(f"a step of an error recovery is {step!r:.80}")

    def aer_answer(self, operation: int, sbdf: int, result: int) -> None:
        """What came of a step: an ERS_ number (see aer.py for what follows from it).

        After a slot reset every register has its reset value, and no interrupt is enabled.

        Raises:
            OperationFailed: that step was not asked for.
        """
        self.call(p.AER_RESULT, sbdf, offset=operation, argument=result)

    def close(self) -> None:
        """Disable what is enabled, and close every port. Idempotent; the channel stays."""
        for sbdf, operation in list(self._ports):
            self._undo(sbdf, operation)

    def on_port_closed(self, port: int, epoch: int) -> None:
        """The other end of a port has gone: make it readable, if it is one of ours.

        ``epoch`` is the one that began by that; a port of the same number and of a later epoch is
        another one.
        """
        with self._changing:
            for channels in self._ports.values():
                for channel in channels:
                    if channel.port == port and channel.epoch < epoch:
                        raise_event(channel.fileno())

    def _open_ports(
        self, operation: int, sbdf: int, count: int, size: int, argument: Any
    ) -> list[EventChannel]:
        back, offered = _offered(self.call(operation, sbdf, 0, size, argument), count)
        self._close_ports(sbdf, operation)  # those of an incarnation, or a life, before
        channels: list[EventChannel] = []
        try:
            with self._changing:  # a port whose other end closes at once is one of ours already
                self._ports[sbdf, operation] = channels
                for port, epoch in offered:
                    channels.append(self._guest.bind_interdomain(back, port, epoch))
        except HypervisorError as error:  # it died meanwhile
            self._undo(sbdf, operation)
            raise OperationFailed(f"its ports cannot be bound: {error}") from error
        return list(channels)

    def _undo(self, sbdf: int, operation: int) -> None:
        """Close the ports of an operation, and have the back end close its own."""
        self._close_ports(sbdf, operation)
        if operation in _DISABLE:
            with suppress(PciError):  # it may have been reset, or be gone
                self.call(_DISABLE[operation], sbdf)

    def _close_ports(self, sbdf: int, operation: int) -> None:
        with self._changing:
            for channel in self._ports.pop((sbdf, operation), ()):
                with suppress(HypervisorError):
                    self._guest.close_port(channel)


def _offered(answer: Any, count: int) -> p.Ports:
    match answer:
        case (int(back), tuple(ports)) if len(ports) == count and p.are_pairs(ports):
            return back, ports
    raise BadAnswer(f"the ports of {count} interrupts are {answer!r:.80}")


class _PortWatch(Actor):
    """Hears that ports were closed, and tells the bus."""

    def __init__(self, bus: PciBus) -> None:
        super().__init__()
        self._bus = bus

    def on_receive(self, message: Message) -> None:
        match message:
            case PortClosed():
                self._bus.on_port_closed(message.port, message.epoch)
            case News():
                return
            case _:
                raise TypeError(f"a watch of ports does not take {type(message).__name__}")


@contextmanager
def open_bus(
    machine: Machine,
    device: str,
    *,
    timeout: float = 10.0,
    on_reset: OnReset = "retry",
    completion_timeout: float = 10.0,
) -> Iterator[PciBus]:
    """The bus that ``device`` serves, until the end of the context.

    Takes the news of the machine's ports for itself (`Machine.hear`).

    Args:
        timeout: seconds to wait for the back end.
        on_reset, completion_timeout: see `ConfigAccess`.

    Raises:
        BusGone: there is no back end, or it does not answer in time.
    """
    try:
        channel = connect(machine, device, timeout=timeout)
    except (ChannelClosed, DeadlineExceeded) as gone:
        raise BusGone(str(gone)) from gone
    with channel:
        bus = PciBus(
            channel, machine.guest, on_reset=on_reset, completion_timeout=completion_timeout
        )
        watch = machine.system.start(_PortWatch, bus, name=f"{device}-ports")
        machine.hear(watch)
        try:
            yield bus
        finally:
            machine.hear(None)
            watch.stop()
            bus.close()
