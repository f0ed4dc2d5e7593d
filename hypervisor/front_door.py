"""The door of domain 0: where the machine's own process is told what concerns it.

Passes what it is told about a channel to that channel's endpoint, and other news to who asked for
them. What nobody is registered for is dropped.
"""

from __future__ import annotations

from actors import Actor, Message, Ref
from hypervisor import hypercalls as hc
from hypervisor.guest import Guest


class Register(Message):
    """``endpoint`` hears of ``channel`` from now on; None: nobody."""

    channel: int
    endpoint: Ref | None


class Hear(Message):
    """``listener`` hears of ports and grants from now on; None: nobody."""

    listener: Ref | None


class FrontDoor(Actor):
    """See the module's text."""

    pooled = True

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self._guest = guest
        self._endpoints: dict[int, Ref] = {}
        self._listener: Ref | None = None

    def on_receive(self, message: Message) -> None:
        match message:
            case Register(channel, Ref() as endpoint):
                self._endpoints[channel] = endpoint
            case Register(channel):
                self._endpoints.pop(channel, None)
            case Hear(listener):
                self._listener = listener
            case hc.PeerState():
                if message.channel in self._endpoints:
                    self._endpoints[message.channel].tell(message, control=True)
            case hc.News():
                self._guest.hear(message)
                if self._listener is not None:
                    self._listener.tell(message, control=True)
