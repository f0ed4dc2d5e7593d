"""The front end of a PCI bus: accesses as calls, interrupts as ports, and what a bus's death means.

`PciBus` is a user of a channel, made by `open_bus`. An access is a call (`_ask` is the only place
that makes one) and ends in bounded time: with an answer, or, like on real hardware when nobody
answers, with all ones for a read and nothing for a write, and a logged reason.

When the back end has died, its successor's registers have their reset values, and it refuses what
was meant for the one before (protocol.py). The caller has chosen what that means for him:

    on_reset      the next access                     and the ones after it
    "retry"       is done on the new bus, a warning   go on; `incarnation` has changed
    "all-ones"    all ones, a warning                 all ones, until `attach` is called

A bus without state of its own (the host's) is the same for every incarnation: nothing is noticed.

Who wakes whom: an interrupt makes its port readable, without a message. When the back end goes, the
hypervisor says so to `_PortWatch`, which makes every port that has lost its other end readable:
whoever sleeps on one looks at his device, and sees. Such a port stays open until it is disabled or
enabled anew. A bind has a first event: look once after enabling.

Accesses may be made from any thread; all the rest by one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Literal

from actors import Actor, Message
from examples.pci import protocol as p
from examples.pci.errors import (
    BY_CODE,
    SUCCESS,
    BusGone,
    DeviceNotFound,
    OperationFailed,
    PciError,
    StaleIncarnation,
)
from examples.pci.scan import Found, FoundBar, FoundCapability, capabilities, scan, size_bars
from examples.pci.space import check_access
from hypervisor import EventChannel, Guest, HypervisorError, Machine, News, PortClosed, raise_event
from transport import ChannelClosed, DeadlineExceeded, FrontEnd, RemoteError, connect

_log = logging.getLogger("examples.pci")

_DISABLE = {p.ENABLE_MSI: p.DISABLE_MSI, p.ENABLE_MSIX: p.DISABLE_MSIX}

OnReset = Literal["retry", "all-ones"]


class PciBus:
    """See the module's text.

    Attributes:
        incarnation: which back end's bus this is; another one has forgotten what was written.
        roots: the (domain, bus) numbers to enumerate from.
        completion_timeout: seconds after which nobody has answered an access; may be changed.
    """

    def __init__(
        self,
        channel: FrontEnd,
        guest: Guest,
        *,
        on_reset: OnReset = "retry",
        completion_timeout: float = 10.0,
    ) -> None:
        """See `open_bus`."""
        self._channel = channel
        self._guest = guest
        self._on_reset = on_reset
        self.completion_timeout = completion_timeout
        self._lost: str | None = None
        self._ports: dict[tuple[int, int], list[EventChannel]] = {}  # by sbdf and operation
        self._closing = threading.Lock()  # no port is closed or made while it is being raised
        self.incarnation = 0
        self.roots: tuple[tuple[int, int], ...] = ()
        self.attach()

    def attach(self) -> None:
        """Take the bus as it is now, also after it was lost.

        Raises:
            BusGone: there is none.
        """
        self._lost = None
        self.incarnation, self.roots = self._call(p.ROOTS)

    # --- configuration space ----------------------------------------------------------------------

    def read(self, sbdf: int, offset: int, size: int) -> int:
        """Read a register of 1, 2 or 4 bytes; all ones where nobody answers.

        Raises:
            InvalidOffset: see there.
            AccessDenied: not everybody may read it.
        """
        check_access(offset, size)
        with suppress(DeviceNotFound, BusGone):
            return int(self._call(p.CONF_READ, sbdf, offset, size))
        return p.all_ones(size)

    def write(self, sbdf: int, offset: int, size: int, value: int) -> None:
        """Write a register of 1, 2 or 4 bytes; dropped where nobody answers.

        Raises:
            InvalidOffset: see there.
            AccessDenied: the bus is read-only.
        """
        check_access(offset, size)
        with suppress(DeviceNotFound, BusGone):
            self._call(p.CONF_WRITE, sbdf, offset, size, value & p.all_ones(size))

    def scan(self) -> list[Found]:
        """Every function of the bus."""
        return scan(self, self.roots)

    def capabilities(self, sbdf: int) -> list[FoundCapability]:
        """See `capabilities` of scan.py."""
        return capabilities(self, sbdf)

    def bars(self, sbdf: int) -> list[FoundBar]:
        """See `size_bars`; done again if the bus was replaced meanwhile."""
        while True:
            before = self.incarnation
            found = size_bars(self, sbdf)
            if self.incarnation == before:
                return found

    # --- interrupts -------------------------------------------------------------------------------

    def enable_msi(self, sbdf: int, vectors: int = 1) -> list[EventChannel]:
        """Enable MSI: a port for each vector, readable when the device has raised it.

        The ports stay the bus's: `disable_msi` closes them.

        Raises:
            DeviceNotFound, NotImplementedOperation, OperationFailed, AccessDenied, BusGone.
        """
        return self._open_ports(p.ENABLE_MSI, sbdf, size=vectors, value=self._guest.domid)

    def enable_msix(self, sbdf: int, entries: Sequence[int]) -> list[EventChannel]:
        """The same for these entries of the MSI-X table, 128 at most."""
        if len(entries) > p.MSIX_LIMIT:
            raise OperationFailed(f"{len(entries)} entries at once; {p.MSIX_LIMIT} are allowed")
        return self._open_ports(p.ENABLE_MSIX, sbdf, value=[self._guest.domid, *entries])

    def disable_msi(self, sbdf: int) -> None:
        """Disable MSI, and close its ports; they are closed whatever the back end says.

        Raises:
            OperationFailed: it is not enabled; after a reset it is not.
        """
        self._close_ports(sbdf, p.ENABLE_MSI)
        self._call(p.DISABLE_MSI, sbdf)

    def disable_msix(self, sbdf: int) -> None:
        """The same for MSI-X."""
        self._close_ports(sbdf, p.ENABLE_MSIX)
        self._call(p.DISABLE_MSIX, sbdf)

    # --- error recovery ---------------------------------------------------------------------------

    def aer_listen(self) -> EventChannel:
        """The port that is readable when `aer_next` has something; again after a reset."""
        (port,) = self._open_ports(p.AER_LISTEN, 0, value=self._guest.domid)
        return port

    def aer_next(self) -> tuple[int, int] | None:
        """The step of a recovery that is asked for, as (AER_ operation, sbdf), or None.

        It is asked for until `aer_answer` answers it.
        """
        step = self._call(p.AER_NEXT)
        return None if step is None else (step[0], step[1])

    def aer_answer(self, operation: int, sbdf: int, result: int) -> None:
        """What came of a step: an ERS_ number (see aer.py for what follows from it).

        After a slot reset every register has its reset value, and no interrupt is enabled.

        Raises:
            OperationFailed: that step was not asked for.
        """
        self._call(p.AER_RESULT, sbdf, offset=operation, value=result)

    # --- the end ----------------------------------------------------------------------------------

    def close(self) -> None:
        """Disable what is enabled, and close every port. Idempotent; the channel stays."""
        for sbdf, operation in list(self._ports):
            self._undo(sbdf, operation)

    def on_port_closed(self, port: int) -> None:
        """The other end of a port has gone: make it readable, if it is one of ours."""
        with self._closing:
            for channels in self._ports.values():
                for channel in channels:
                    if channel.port == port:
                        raise_event(channel.fileno())

    # --- calls ------------------------------------------------------------------------------------

    def _ask(self, body: p.Body) -> p.Answer:
        answer: p.Answer = self._channel.call(body, timeout=self.completion_timeout)
        return answer

    def _call(
        self, operation: int, sbdf: int = 0, offset: int = 0, size: int = 0, value: Any = 0
    ) -> Any:
        """The value of an answer; an error is raised."""
        while self._lost is None:
            body = (operation, self.incarnation, sbdf, offset, size, value)
            try:
                error, result = self._ask(body)
            except (ChannelClosed, DeadlineExceeded) as gone:
                self._on_silence(gone)
                raise BusGone(str(gone)) from gone
            except RemoteError as wrong:
                raise OperationFailed(str(wrong)) from wrong
            if error == SUCCESS:
                return result
            if error != StaleIncarnation.code:
                raise BY_CODE.get(error, PciError)(result)
            self._on_stale()
        raise BusGone(self._lost)

    def _on_silence(self, gone: Exception) -> None:
        _log.warning("the bus does not answer: %s", gone)
        if self._on_reset == "all-ones" or isinstance(gone, ChannelClosed):
            self._lost = str(gone)

    def _on_stale(self) -> None:
        if self._on_reset == "all-ones":
            self._lost = f"the bus of incarnation {self.incarnation} has died"
            _log.warning("%s: it reads all ones until it is attached again", self._lost)
            return
        before = self.incarnation
        self.attach()
        _log.warning(
            "the bus of incarnation %d has died: %d has its reset values", before, self.incarnation
        )

    def _open_ports(
        self, operation: int, sbdf: int, *, size: int = 0, value: Any = 0
    ) -> list[EventChannel]:
        back, offered = self._call(operation, sbdf, 0, size, value)
        self._close_ports(sbdf, operation)  # those of an incarnation, or a life, before
        channels: list[EventChannel] = []
        try:
            with self._closing:  # a port whose other end closes at once is one of ours already
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
                self._call(_DISABLE[operation], sbdf)

    def _close_ports(self, sbdf: int, operation: int) -> None:
        with self._closing:
            for channel in self._ports.pop((sbdf, operation), ()):
                with suppress(HypervisorError):
                    self._guest.close_port(channel)


class _PortWatch(Actor):
    """Hears that ports were closed, and tells the bus."""

    def __init__(self, bus: PciBus) -> None:
        super().__init__()
        self._bus = bus

    def on_receive(self, message: Message) -> None:
        match message:
            case PortClosed():
                self._bus.on_port_closed(message.port)
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
        on_reset, completion_timeout: see the module's text, and `PciBus`.

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
