"""The time that isochronous transfers take on a bus. Pure: time is passed in.

A device of ours answers at once, but the pace of an isochronous stream is the bus's: one packet in
each period of its endpoint. Drivers rely on it, and submit the next transfer whenever one has
ended. So the end of a transfer is held here until its last packet's period is over.

Rules: the transfers of an endpoint follow each other without a gap, as long as the next one is
there in time; else the next one begins when it comes. Errors are not held. What is unlinked while
it is held ends at once, as unlinked: its periods have not passed.

Specification: USB 2.0 sections 5.6.4 (isochronous bus access), 9.6.6 (bInterval).
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable
from typing import Any, Final

from examples.usb import protocol as p
from examples.usb.chapter9 import ISOCHRONOUS
from examples.usb.descriptors import EndpointRead
from examples.usb.urb import Urb

FRAME: Final = 1e-3  # seconds
MICROFRAME: Final = FRAME / 8
_INTERVALS: Final = range(1, 17)


class Frames:
    """The ends of isochronous transfers of one device that are not due yet."""

    def __init__(self, speed: int, endpoints: Iterable[EndpointRead]) -> None:
        frame = MICROFRAME if speed == p.SPEED_HIGH else FRAME
        self._periods = {
            end.address: frame * 2 ** (end.interval - 1)
            for end in endpoints
            if end.kind == ISOCHRONOUS and end.interval in _INTERVALS
        }
        self._free: dict[int, float] = {}  # endpoint -> when all its packets so far have gone
        self._held: list[tuple[float, int, Urb]] = []
        self._order = itertools.count()

    @property
    def due(self) -> float | None:
        """When the next end is due; None: there is none."""
        return self._held[0][0] if self._held else None

    def hold(self, urb: Urb, now: float) -> bool:
        """Keep the end of a transfer until it is due; False: it is due now."""
        period = self._periods.get(urb.endpoint)
        if period is None or urb.kind != ISOCHRONOUS or urb.status != p.OK:
            return False
        due = max(self._free.get(urb.endpoint, now), now) + period * len(urb.packets)
        self._free[urb.endpoint] = due
        heapq.heappush(self._held, (due, next(self._order), urb))
        return True

    def unlink(self, number: Any) -> Urb | None:
        """The transfer of that id, if it is held, with CONNRESET as its end."""
        for entry in self._held:
            urb = entry[2]
            if urb.id == number:
                self._held.remove(entry)
                heapq.heapify(self._held)
                urb.status = p.CONNRESET
                return urb
        return None

    def clear(self) -> None:
        """Forget all of them: whose they were has gone."""
        self._held.clear()
        self._free.clear()

    def take(self, now: float) -> list[Urb]:
        """Those that are due, in order."""
        taken = []
        while self._held and self._held[0][0] <= now:
            taken.append(heapq.heappop(self._held)[2])
        return taken
