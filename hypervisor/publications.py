"""What domains have published for one another: a page and a port, by who offers, and to whom.

Pure. There is at most one offer for each (granter, buddy); it says where the buddy finds the page
(a grant reference) and the port to bind (with its epoch, see event_channels.py). It stands until
the granter withdraws it, or either of the two dies. Whether the grant and the port are any good is
for the tables of grants and ports to say, when somebody uses them.

In the store an offer is shown in the granter's home, ``endpoint/BUDDY``, readable by the buddy: who
came too early watches that node.
"""

from __future__ import annotations

from typing import NamedTuple

from hypervisor.errors import HypercallError, NotPublished


class Offer(NamedTuple):
    """``gref``: the granter's page; ``port`` to be bound in ``epoch``."""

    gref: int
    port: int
    epoch: int


class Publications:
    """Every offer of a machine."""

    def __init__(self) -> None:
        self._offers: dict[tuple[int, int], Offer] = {}

    def publish(self, granter: int, buddy: int, offer: Offer) -> None:
        """Raises: HypercallError: there is one for that buddy already, or it is the granter."""
        if granter == buddy:
            raise HypercallError(f"publish: domain {granter} needs no endpoint to itself")
        if (granter, buddy) in self._offers:
            raise HypercallError(f"publish: there is an endpoint for domain {buddy} already")
        self._offers[granter, buddy] = offer

    def withdraw(self, granter: int, buddy: int) -> bool:
        """Whether there was one."""
        return self._offers.pop((granter, buddy), None) is not None

    def lookup(self, granter: int, caller: int) -> Offer:
        """What ``granter`` offers to ``caller``. Raises: NotPublished."""
        offer = self._offers.get((granter, caller))
        if offer is None:
            raise NotPublished(f"domain {granter} has no endpoint for domain {caller}")
        return offer

    def domain_died(self, domid: int) -> list[tuple[int, int]]:
        """Forget all of it and for it; returns the (granter, buddy) of what is gone."""
        gone = [pair for pair in self._offers if domid in pair]
        for pair in gone:
            del self._offers[pair]
        return gone


def directory(granter: int, buddy: int) -> str:
    """Where the store shows the offer."""
    return f"/local/domain/{granter}/endpoint/{buddy}"


def shown(granter: int, buddy: int, offer: Offer) -> dict[str, str]:
    """The nodes of an offer."""
    at = directory(granter, buddy)
    return {
        f"{at}/ring-ref": str(offer.gref),
        f"{at}/event-channel": str(offer.port),
        f"{at}/event-channel-epoch": str(offer.epoch),
    }
