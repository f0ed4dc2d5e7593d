"""A USB request block: one transfer, from its submission to its end. A value, no behaviour.

Names are Linux's (struct urb). The host controller (controller.py) alone writes what is below the
line. An id is whatever who submits it knows it by, and is free again after the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from examples.usb import protocol as p
from examples.usb.chapter9 import CONTROL, IN, Setup


@dataclass(eq=False)
class Urb:
    """One transfer.

    Attributes:
        id: unique among those that have not ended; hashable.
        endpoint: its address; 0 for control transfers of both directions.
        kind: a transfer type of chapter9.
        length: bytes that are sent or wanted.
        data: what is sent, ``length`` bytes; empty for a read.
        setup: eight bytes, of control transfers.
        packets: lengths of isochronous packets; their sum is ``length``.
        short_not_ok: fewer bytes than wanted are an error (REMOTEIO).
        status: how it ended, of protocol.py.
        actual: bytes that were moved.
        received: what was read: ``actual`` bytes; all ``length`` of an isochronous read.
        results: status and actual length of each isochronous packet.
    """

    id: Any
    endpoint: int
    kind: int
    length: int = 0
    data: bytes = b""
    setup: bytes = b""
    packets: tuple[int, ...] = ()
    short_not_ok: bool = False
    # ---
    status: int = p.OK
    actual: int = 0
    received: bytes = b""
    results: tuple[tuple[int, int], ...] = ()

    @property
    def is_in(self) -> bool:
        """The data go to the host."""
        if self.kind == CONTROL:
            return Setup.of(self.setup).is_in
        return bool(self.endpoint & IN)
