"""What the two ends tell each other when they connect, and what comes of it: offer and acceptance.

Pure. The details of Initialised (the front end's `Offer`) and of Connected (the back end's
`Acceptance`) come from a domain that may be broken or hostile, so they are read here, once, into
checked values: nobody else looks into them.

Version and features: a front end may say which version it speaks, and which features it understands
beyond that. A back end of another version refuses; what both have is what the channel has.

A refusal is [kind, reason] with the state Closed: the back end lives, but will not talk to this
front end. Any other detail of Closed is a text for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from transport.descriptors import show
from transport.errors import ChannelClosed, RemoteProtocolError, VersionMismatch
from transport.journal import SLOT_LIMIT

BUFFER_LIMIT = 1 << 32
"""Bytes of a channel's buffer memory at most."""
_FEATURE_LIMIT = 64
_NUMBER_LIMIT = 1 << 63

REFUSALS: dict[str, type[ChannelClosed]] = {"refused": ChannelClosed, "version": VersionMismatch}
"""What the front end makes of each kind."""


@dataclass(frozen=True)
class Offer:
    """A front end's.

    Attributes:
        ring, buffers: grant references of its page, and of the buffer memory.
        port, port_epoch: of its event channel.
        slots, buffer_bytes: how many of each there are.
        copied: the buffer memory may be copied, not mapped.
        version: the one that it speaks; None: whichever.
        features: those that it understands.
    """

    ring: int
    buffers: int
    port: int
    port_epoch: int
    slots: int
    buffer_bytes: int
    copied: bool
    version: int | None
    features: frozenset[str]

    def details(self) -> dict[str, Any]:
        """As it is told; the names are those of Xen's own front ends where they have them."""
        return {
            "ring-ref": self.ring,
            "buffer-ref": self.buffers,
            "event-channel": self.port,
            "event-channel-epoch": self.port_epoch,
            "slots": self.slots,
            "buffer-bytes": self.buffer_bytes,
            "copied": self.copied,
            "version": self.version,
            "features": sorted(self.features),
        }

    @classmethod
    def of(cls, details: Any) -> Self:
        """What a front end has told.

        Raises:
            RemoteProtocolError: no correct front end tells that.
        """
        told = _Told(details)
        slots = told.number("slots", 1, SLOT_LIMIT)
        if slots & (slots - 1):
            raise RemoteProtocolError(f"{slots} slots are not a power of two")
        return cls(
            told.number("ring-ref"),
            told.number("buffer-ref"),
            told.number("event-channel"),
            told.number("event-channel-epoch"),
            slots,
            told.number("buffer-bytes", 1, BUFFER_LIMIT),
            told.flag("copied"),
            told.version(optional=True),
            told.features(),
        )


@dataclass(frozen=True)
class Acceptance:
    """A back end's.

    Attributes:
        ring: grant reference of its page.
        idempotent: it may be sent every request again.
        version: the one that it speaks.
        features: those that the channel has.
    """

    ring: int
    idempotent: bool
    version: int
    features: frozenset[str]

    def details(self) -> dict[str, Any]:
        """As it is told."""
        return {
            "ring-ref": self.ring,
            "idempotent": self.idempotent,
            "version": self.version,
            "features": sorted(self.features),
        }

    @classmethod
    def of(cls, details: Any, understood: frozenset[str]) -> Self:
        """What a back end has told a front end that understands these features.

        Raises:
            RemoteProtocolError: no correct back end tells that.
        """
        told = _Told(details)
        features = told.features()
        if not features <= understood:
            raise RemoteProtocolError(f"features that nobody asked for: {show(sorted(features))}")
        version = told.version(optional=False)
        assert version is not None
        return cls(told.number("ring-ref"), told.flag("idempotent"), version, features)


def agree(offer: Offer, version: int, features: frozenset[str]) -> frozenset[str]:
    """The features of a channel to a back end of that version with those features.

    Raises:
        VersionMismatch: it has another version than the front end wants.
    """
    if offer.version is not None and offer.version != version:
        raise VersionMismatch(f"version {version} is served, not {offer.version}")
    return offer.features & features


def refusal(device: str, details: Any) -> ChannelClosed | None:
    """What a front end ends with when its back end closed with these details; None: no refusal."""
    match details:
        case [str(kind), str(reason)] if kind in REFUSALS:
            return REFUSALS[kind](f"{device!r} refused us: {reason}")
    return None


class _Told:
    """Details, as they came."""

    def __init__(self, details: Any) -> None:
        if not isinstance(details, Mapping):
            raise RemoteProtocolError(f"the details of a connection are {show(details)}")
        self._details = details

    def number(self, name: str, least: int = 0, most: int = _NUMBER_LIMIT - 1) -> int:
        value = self._details.get(name)
        if type(value) is not int or not least <= value <= most:
            raise RemoteProtocolError(f"{name} is {show(value)}, not {least} to {most}")
        return value

    def flag(self, name: str) -> bool:
        value = self._details.get(name)
        if type(value) is not bool:
            raise RemoteProtocolError(f"{name} is {show(value)}, not true or false")
        return value

    def version(self, *, optional: bool) -> int | None:
        if optional and self._details.get("version") is None:
            return None
        return self.number("version")

    def features(self) -> frozenset[str]:
        value = self._details.get("features")
        if (
            not isinstance(value, list | tuple)
            or len(value) > _FEATURE_LIMIT
            or not all(type(each) is str for each in value)
        ):
            raise RemoteProtocolError(f"features is {show(value)}, not some names")
        return frozenset(value)
