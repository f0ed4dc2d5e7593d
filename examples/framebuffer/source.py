"""Where the display's picture comes from: its end of the connection to a drawer.

Owns what belongs to one connection: the mapping of the surface, both ring pages, the port. Without
one it has the last picture that there was. One drawer at a time; another one is refused.

The display asks `verdict` what a message from the hypervisor is about, then calls `accept` or
`drop`, and watches `fileno` in between.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any

from examples.framebuffer import protocol as p
from examples.framebuffer.event_ring import EventRing
from examples.framebuffer.surface import Picture
from hypervisor import (
    EventChannel,
    Guest,
    HypervisorError,
    Mapping,
    MappingRevoked,
    News,
    PeerState,
    Region,
    XenbusState,
)
from transport import RemoteProtocolError, page_size

ACCEPT = "accept"
DROP = "drop"
IGNORE = "ignore"

_WAITING_MOST = 256  # events for a drawer that does not read; what comes after them is lost
_log = logging.getLogger("examples.framebuffer")


class Source:
    """The back end's end; ``picture`` is what there is to see, before the first drawer a blank."""

    def __init__(self, guest: Guest, picture: Picture) -> None:
        self._guest = guest
        self.picture = picture
        self._link: _Link | None = None

    @property
    def connected(self) -> bool:
        """A drawer is there."""
        return self._link is not None

    def fileno(self) -> int:
        """Readable when the drawer has said something; only while `connected`."""
        assert self._link is not None
        return self._link.channel.fileno()

    def verdict(self, news: News) -> str:
        """What follows from a word of the hypervisor: ACCEPT, DROP or IGNORE."""
        link = self._link
        match news:
            case PeerState(state=XenbusState.INITIALISING, front_domid=domid, channel=channel):
                self._say((domid, channel), news.epoch, XenbusState.INIT_WAIT)
            case PeerState(state=XenbusState.INITIALISED, front_domid=domid, channel=channel):
                if link is None:
                    return ACCEPT
                _log.warning("domain %d wants to draw, but domain %d does", domid, link.front[0])
                self._refuse((domid, channel), news.epoch, "somebody else draws here")
            case PeerState(state=XenbusState.CLOSED | XenbusState.UNKNOWN, epoch=epoch):
                if link is not None and epoch == link.epoch:
                    return DROP
            case MappingRevoked(handles=handles) if link is not None:
                if not {link.surface.handle, link.peer.handle}.isdisjoint(handles):
                    return DROP
        return IGNORE

    def accept(self, said: PeerState) -> bool:
        """Connect to the drawer; False if it went away meanwhile, or offers no surface."""
        front = (said.front_domid, said.channel)
        link: _Link | None = None
        try:
            link = _Link(self._guest, front, said)
            picture = Picture(link.surface.view)
            gref = self._guest.grant_access(said.peer, link.page, readonly=True)
            details = {"ring-ref": gref}
            self._guest.switch(front, said.epoch, XenbusState.CONNECTED, details, grants=[gref])
        except (RemoteProtocolError, HypervisorError) as error:
            if link is not None:
                link.close(self._guest)
            if isinstance(error, RemoteProtocolError):
                self._refuse(front, said.epoch, str(error))
            else:  # it died while it connected
                _log.info("drawer %s went away while it connected: %s", front, error)
            return False
        self._link, self.picture = link, picture
        return True

    def drop(self, reason: str | None = None) -> None:
        """End the connection, and keep the last picture; with a reason it is the drawer's fault."""
        link, self._link = self._link, None
        assert link is not None
        self.picture.keep()
        link.close(self._guest)
        if reason is not None:
            self._refuse(link.front, link.epoch, reason)

    def events(self) -> list[p.OutEvent]:
        """What the drawer has said.

        Raises:
            RemoteProtocolError: it does not speak this protocol: `drop` it.
        """
        assert self._link is not None
        return [p.out_event(data) for data in self._link.events.receive()]

    def send(self, event: p.InEvent) -> None:
        """Queue an event for the drawer, if there is one and it still listens; then `flush`."""
        if self._link is not None and self._link.events.waiting < _WAITING_MOST:
            self._link.events.send(event)

    def flush(self) -> None:
        """Show the drawer what is queued.

        Raises:
            RemoteProtocolError: as for `events`.
        """
        if self._link is not None:
            self._link.events.flush()

    def _refuse(self, front: tuple[int, int], epoch: int, text: str) -> None:
        _log.error("drawer %s is refused: %s", front, text)
        self._say(front, epoch, XenbusState.CLOSED, ["refused", text])

    def _say(
        self, front: tuple[int, int], epoch: int, state: XenbusState, details: Any = None
    ) -> None:
        with suppress(HypervisorError):  # it has gone already
            self._guest.switch(front, epoch, state, details)


class _Link:
    """One connection to one drawer.

    Raises:
        HypervisorError: it has gone; nothing is left of it.
        RemoteProtocolError: it offers something else.
    """

    def __init__(self, guest: Guest, front: tuple[int, int], said: PeerState) -> None:
        self.front = front
        self.epoch = said.epoch
        details = _numbers(said.details)
        self.page = Region(page_size(1, p.RING_BYTES), name="xenidc-ring", readonly_to_peers=True)
        mapped: list[Mapping] = []
        try:
            mapped.append(guest.map_grant_ref(said.peer, details["surface-ref"]))
            mapped.append(guest.map_grant_ref(said.peer, details["ring-ref"]))
            self.surface, self.peer = mapped
            self.channel: EventChannel = guest.bind_interdomain(
                said.peer, details["event-channel"], details["event-channel-epoch"]
            )
        except HypervisorError:
            for mapping in mapped:
                guest.unmap_grant_ref(mapping)
            self.page.close()
            raise
        self.events = EventRing(self.page.view, self.peer.view, self.channel)

    def close(self, guest: Guest) -> None:
        """Give everything back."""
        guest.unmap_grant_ref(self.surface)
        guest.unmap_grant_ref(self.peer)
        guest.close_port(self.channel)
        guest.release(self.page)


def _numbers(details: Any) -> dict[str, int]:
    """What a drawer offers, if it is all there.

    Raises:
        RemoteProtocolError: it is not.
    """
    names = ("surface-ref", "ring-ref", "event-channel", "event-channel-epoch")
    if not isinstance(details, dict) or any(type(details.get(name)) is not int for name in names):
        raise RemoteProtocolError(f"the offer {details!r:.80} lacks something")
    return {name: details[name] for name in names}
