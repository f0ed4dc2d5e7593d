"""Isochronous streams of a usbredir client: what has been started, and the packets of one. Pure.

usbredir has no isochronous transfers: a client starts a stream, names the size of our transfers and
how many of them, and then packets go, one for each period of the endpoint. The session
(usbredir_session.py) makes transfers of them; their pace is the bus's (frames.py).

Rules of a stream to the device:
1. It begins when half of the packets that its transfers hold are there, so that the next transfer
   is there in time although packets come late now and then; and so again after it ran dry.
2. What comes while all transfers are full is dropped, and counted: its time is over.

Source: usb-redirection-protocol.md of spice/usbredir, version 0.7, usb_redir_start_iso_stream and
usb_redir_iso_packet.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from examples.usb.descriptors import EndpointRead


@dataclass(eq=False)
class Stream:
    """A stream that was started.

    Attributes:
        packets: of each transfer.
        transfers: under way at the same time, at most.
        under_way: the numbers of those that are.
        next_id: of the next packet to the client.
        dropped: packets of the client.
    """

    end: EndpointRead
    packets: int
    transfers: int
    under_way: set[Any] = field(default_factory=set)
    next_id: int = 0
    dropped: int = 0
    _waiting: deque[bytes] = field(default_factory=deque)
    _flows: bool = False

    def put(self, data: bytes) -> None:
        """Take a packet for the device."""
        if len(self._waiting) + len(self.under_way) * self.packets < self.packets * self.transfers:
            self._waiting.append(data)
        else:
            self.dropped += 1

    def take(self) -> list[bytes]:
        """The packets of the next transfer to the device; empty while there is none to be made."""
        if not self.under_way and len(self._waiting) < self.packets:
            self._flows = False  # it has run dry, or has not begun
        enough = max(self.packets, self.packets * self.transfers // 2)
        self._flows = self._flows or len(self._waiting) >= enough
        if not self._flows or len(self._waiting) < self.packets:
            return []
        return [self._waiting.popleft() for _ in range(self.packets)]
