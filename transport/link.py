"""The front end's connection to one back end, in one epoch: what goes into the rings between them.

It belongs to the channel (channel.py), and is used under its lock. ``closing`` comes with the first
sign that the back end goes, ``broken`` when it has broken the protocol; neither is ever undone: the
next back end has a link of its own.
"""

from __future__ import annotations

from hypervisor import EventChannel, Mapping, Region
from transport import descriptors
from transport.errors import LocalProtocolError, RemoteProtocolError
from transport.handshake import Acceptance
from transport.journal import Journal
from transport.ring import Incoming, Outgoing, split_page


class Link:
    """One connection to one back end, in one epoch."""

    def __init__(
        self,
        epoch: int,
        ring: Region,
        channel: EventChannel,
        peer_page: Mapping,
        slots: int,
        accepted: Acceptance,
    ) -> None:
        self.epoch = epoch
        self.channel = channel
        self.accepted = accepted
        ours, _ = split_page(ring.view, slots, descriptors.RECORD_LIMIT)
        theirs, journal = split_page(peer_page.view, slots, descriptors.RECORD_LIMIT)
        self.incoming = Incoming(ours, theirs)
        self.outgoing = Outgoing(ours, theirs)
        self._journal = Journal(journal, slots)
        self.queue: list[bytes] = []
        self.closing = False  # nothing more goes into its ring
        self.broken = False  # and nothing that comes out of it is believed

    def begun(self, number: int) -> bool:
        """Whether that request may have been begun, and may not be done twice."""
        return not self.accepted.idempotent and (self.broken or self._journal.begun(number))

    def show(self) -> None:
        """Show the back end what is queued, with one signal at most.

        Raises:
            RemoteProtocolError: it has more of us unread than there can be.
        """
        if self.queue and not self.closing:
            try:
                self.outgoing.write(b"".join(self.queue))
            except LocalProtocolError:
                raise RemoteProtocolError("the back end does not read, and answers") from None
            self.queue.clear()
            if self.outgoing.publish():
                self.channel.send()
