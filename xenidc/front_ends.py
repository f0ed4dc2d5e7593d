"""The front ends of a running machine's domains, as its store shows them: also those that a driver
has opened itself, to another domain's device.

Pure, but for the one snapshot. What a front end does is known to who holds it alone: of one that is
in another domain's process there is its state, and no figures.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hypervisor import Machine, XenbusState

_FRONT_END = re.compile(r"/local/domain/(\d+)/device/([^/]+)/(\d+)")


class FrontEndNode(NamedTuple):
    """A front end.

    Attributes:
        domid: of the domain that it is in; 0: the machine's own process.
        device: that it uses.
        number: of the channel in its domain.
        state: of its own end, as Xen calls it ("Connected").
        epoch: of its connection.
        slots: requests in flight at most, None until it has offered itself.
    """

    domid: int
    device: str
    number: int
    state: str
    epoch: int
    slots: int | None


def front_ends(machine: Machine) -> list[FrontEndNode]:
    """All that have met a back end, by domain and number.

    Raises:
        HypervisorError: the machine has ended.
    """
    return sorted(_found(machine.store.snapshot("/local/domain").values))


def _found(values: Mapping[str, bytes]) -> Iterator[FrontEndNode]:
    for path in values:
        if (named := _FRONT_END.fullmatch(path)) is None:
            continue
        state, epoch, slots = (
            int(values[f"{path}/{name}"]) if f"{path}/{name}" in values else None
            for name in ("state", "epoch", "slots")
        )
        if state is not None and epoch is not None:  # else it is just being written
            domid, device, number = named.groups()
            label = XenbusState(state).label
            yield FrontEndNode(int(domid), device, int(number), label, epoch, slots)
