"""What the two ends of a channel tell each other when they connect: the details of their states.

Pure. Each end checks what it is told before it does anything with it: the details come from the
peer, and the bus only carries them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from transport.errors import RemoteProtocolError


@dataclass(frozen=True)
class FrontOffer:
    """A front end's, with Initialised.

    Attributes:
        ring_ref, buffer_ref: grants of its ring page and of its buffer memory.
        port, port_epoch: its unbound event channel.
        slots: of the channel; a power of two.
    """

    ring_ref: int
    buffer_ref: int
    port: int
    port_epoch: int
    slots: int

    @classmethod
    def of(cls, details: Any) -> Self:
        """Raises RemoteProtocolError: no correct front end says that."""
        names = ("ring-ref", "buffer-ref", "event-channel", "event-channel-epoch", "slots")
        offer = cls(*_numbers(details, names))
        if offer.slots.bit_count() != 1:
            raise RemoteProtocolError(f"a channel of {offer.slots} slots")
        return offer


@dataclass(frozen=True)
class BackOffer:
    """A back end's, with Connected.

    Attributes:
        ring_ref: grant of its ring page.
        idempotent: whether all its operations may be done twice.
    """

    ring_ref: int
    idempotent: bool

    @classmethod
    def of(cls, details: Any) -> Self:
        """Raises RemoteProtocolError: no correct back end says that."""
        (ring_ref,) = _numbers(details, ("ring-ref",))
        idempotent = details.get("idempotent")
        if type(idempotent) is not bool:
            raise RemoteProtocolError("an offer does not say whether it is idempotent")
        return cls(ring_ref, idempotent)


def _numbers(details: Any, names: tuple[str, ...]) -> list[int]:
    if not isinstance(details, dict):
        raise RemoteProtocolError(f"an offer is a {type(details).__name__}")
    found = [details.get(name) for name in names]
    for name, value in zip(names, found, strict=True):
        if type(value) is not int or not 0 <= value < 1 << 32:
            raise RemoteProtocolError(f"an offer has no number {name}")
    return [value for value in found if value is not None]
