"""The door of domain 0: where the machine's own process is told what concerns it.

Passes what it is told about a channel to that channel's endpoint, and what it is told about ports
to who asked for it. What nobody is registered for is dropped.
"""

from __future__ import annotations

from actors import Actor, Message, Ref
from hypervisor import hypercalls as hc


class Register(Message):
    """``endpoint`` hears of ``channel`` from now on; None: nobody."""

    channel: int
    endpoint: Ref | None


class HearPorts(Message):
    """``listener`` hears of ports from now on; None: nobody."""

    listener: Ref | None


class FrontDoor(Actor):
    """See the module's text."""

    pooled = True

    def on_start(self) -> None:
        self._endpoints: dict[int, Ref] = {}
        self._hears_ports: Ref | None = None

    def on_receive(self, message: Message) -> None:
        match message:
            case Register(channel, Ref() as endpoint):
                self._endpoints[channel] = endpoint
            case Register(channel):
                self._endpoints.pop(channel, None)
            case HearPorts(listener):
                self._hears_ports = listener
            case hc.PortBound() | hc.PortClosed() if self._hears_ports is not None:
                self._hears_ports.tell(message, control=True)
            case hc.PeerState() if message.channel in self._endpoints:
                self._endpoints[message.channel].tell(message, control=True)
