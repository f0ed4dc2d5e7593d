"""The back end of an emulated bus: pure hardware (bus.py), and the ports of its interrupts.

Owns the ports of every enabled vector and the one of error recovery; the endpoint's thread does
everything. Enabling MSI or MSI-X makes one port for each vector, which the front end binds; raising
a vector signals its port, and no message is sent. A front end that does not read its ports delays
nobody: events coalesce.

The state of the bus is this object's: an incarnation that dies takes it along. So a request for
another incarnation is refused (`StaleIncarnation`), and executed by nobody; see protocol.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from examples.pci import protocol as p
from examples.pci import regs
from examples.pci.aer import Recovery
from examples.pci.devices import make_bus
from examples.pci.errors import (
    SUCCESS,
    NotImplementedOperation,
    OperationFailed,
    PciError,
    StaleIncarnation,
)
from examples.pci.function import ErrorReported, Function, Signal
from examples.pci.runner import OwnedPorts
from hypervisor import EventChannel, HypercallError
from transport import BackEnd, Request

SPIN = 0.001
"""Seconds that a bus looks for the next access; they come in runs, and each is short."""


class EmulatedBus(BackEnd):
    """Serves the bus of devices.py; start arguments: none."""

    runner = "examples.pci.runner:PortsActor"
    spin = SPIN

    def on_start(self, ports: OwnedPorts) -> None:
        self._ports = ports
        self._bus = make_bus()
        self._recovery = Recovery()
        self._vectors: dict[Function, dict[int, EventChannel]] = {}  # an address may change
        self._listener: EventChannel | None = None
        self._operations: dict[int, Callable[[int, int, int, Any], Any]] = {
            p.CONF_READ: self._read,
            p.CONF_WRITE: self._write,
            p.ENABLE_MSI: self._enable_msi,
            p.DISABLE_MSI: lambda sbdf, *_: self._disable(sbdf, regs.CAP_MSI),
            p.ENABLE_MSIX: self._enable_msix,
            p.DISABLE_MSIX: lambda sbdf, *_: self._disable(sbdf, regs.CAP_MSIX),
            p.AER_LISTEN: self._listen,
            p.AER_NEXT: lambda *_: self._recovery.next(),
            p.AER_RESULT: self._result,
        }

    def is_idempotent(self, body: p.Body) -> bool:
        """Whether a request may be executed again after a crash of the back end."""
        return p.is_idempotent(body)

    def on_request(self, request: Request) -> p.Answer:
        operation, incarnation, sbdf, offset, size, value = request.body
        if operation == p.ROOTS:
            return SUCCESS, (self._ports.domid, ((0, 0),))
        try:
            if incarnation != self._ports.domid:
                raise StaleIncarnation(f"the bus of incarnation {incarnation} has died")
            serve = self._operations.get(operation)
            if serve is None:
                raise NotImplementedOperation(f"operation {operation!r:.80}")
            return SUCCESS, serve(sbdf, offset, size, value)
        except PciError as error:
            return p.refusal(error)

    def _read(self, sbdf: int, offset: int, size: int, _value: int) -> int:
        return self._bus.function(sbdf).read(offset, size)

    def _write(self, sbdf: int, offset: int, size: int, value: int) -> None:
        function = self._bus.function(sbdf)
        for effect in function.write(offset, size, value):
            match effect:
                case Signal(vector):
                    self._vectors[function][vector].send()
                case ErrorReported(fatal):
                    if self._recovery.report(sbdf, fatal=fatal):
                        self._call_listener()

    def _enable_msi(self, sbdf: int, _offset: int, count: int, remote: int) -> p.Ports:
        function = self._bus.function(sbdf)
        function.interrupts.enable_msi(count)
        return self._make_ports(function, remote)

    def _enable_msix(self, sbdf: int, _offset: int, _size: int, value: Sequence[int]) -> p.Ports:
        remote, *entries = value
        function = self._bus.function(sbdf)
        function.interrupts.enable_msix(entries)
        return self._make_ports(function, remote)

    def _make_ports(self, function: Function, remote: int) -> p.Ports:
        interrupts = function.interrupts
        try:
            channels = self._open(remote, len(interrupts.vectors))
        except BaseException:
            assert interrupts.kind is not None
            interrupts.disable(interrupts.kind)
            raise
        self._vectors[function] = dict(zip(interrupts.vectors, channels, strict=True))
        return self._offer(channels)

    def _disable(self, sbdf: int, kind: int) -> None:
        function = self._bus.function(sbdf)
        if not function.interrupts.disable(kind):
            raise OperationFailed("it is not enabled")
        self._close_vectors(function)

    def _close_vectors(self, function: Function) -> None:
        self._ports.close(self._vectors.pop(function, {}).values())

    def _listen(self, _sbdf: int, _offset: int, _size: int, remote: int) -> p.Ports:
        (listener,) = self._open(remote, 1)
        if self._listener is not None:
            self._ports.close([self._listener])
        self._listener = listener
        return self._offer([listener])

    def _result(self, sbdf: int, operation: int, _size: int, result: int) -> None:
        function = self._bus.function(sbdf)
        if self._recovery.answer(operation, sbdf, result):
            function.reset()
            self._close_vectors(function)
        if self._recovery.next() is not None:
            self._call_listener()

    def _call_listener(self) -> None:
        if self._listener is not None:
            self._listener.send()

    def _open(self, remote: int, count: int) -> list[EventChannel]:
        try:
            return self._ports.open(remote, count)
        except HypercallError as error:
            raise OperationFailed(str(error)) from error

    def _offer(self, channels: Sequence[EventChannel]) -> p.Ports:
        return self._ports.domid, tuple((channel.port, channel.epoch) for channel in channels)
