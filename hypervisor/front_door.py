"""The door of domain 0: where the machine's own process is told what concerns it.

What is told about a channel is its endpoint's (guest.py). All else goes to who asked for it; if
nobody has, it is dropped.
"""

from __future__ import annotations

from actors import Actor, Message, Ref
from hypervisor import hypercalls as hc
from hypervisor.guest import Guest


class Hear(Message):
    """``listener`` hears all other news from now on; None: nobody."""

    listener: Ref | None


class FrontDoor(Actor):
    """See the module's text."""

    pooled = True

    def __init__(self, guest: Guest) -> None:
        super().__init__()
        self._guest = guest
        self._listener: Ref | None = None

    def on_receive(self, message: Message) -> None:
        match message:
            case Hear(listener):
                self._listener = listener
            case hc.News():
                if not self._guest.hear(message) and self._listener is not None:
                    self._listener.tell(message, control=True)
