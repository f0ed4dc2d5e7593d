"""Ramsdell's pair: a page that one domain writes and its buddy reads, and a port between them.

John Ramsdell's counter-proposal to xenidc (xen-devel, 2006): `advertise_endpoint` in the domain
that writes, `connect_to_endpoint` in its buddy, over grants, event channels and a publication. A
channel in both directions is two pairs. The page is read-only to the buddy, by the kernel's word.

Where the handler runs: in the thread of whoever waits on the end, and nowhere else. An end has a
`fileno`, readable when its port has been notified, and `serve`, which takes the notification and
calls ``handler(buddy, data)``; an actor does ``self.watch(end.fileno(), end.serve)``. There is no
thread of ours. Notifications coalesce: the handler looks at the page, and counts nothing.

Life: whichever end closes first revokes or unmaps its own half, and the owner of the other hears
`PortClosed` of his port, as he does when the buddy's domain dies; then he closes his, which never
needs the buddy. To go on he advertises anew: a pair is not used twice. A page that was read-only to
the buddy cannot be emptied under it: until it unmaps it still reads what was there at the end.

Corner cases: the connecting end has a first notification from the start, since data may have come
before it. A buddy that is not advertised to yet gets `NotPublished` at once; publications.py says
what to watch instead of asking again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from hypervisor.channel_end import EventChannel
from hypervisor.guest import Guest
from hypervisor.memory import PAGE, Mapping
from hypervisor.region import Region

Handler = Callable[[int, Any], object]
"""Called with the buddy's domid and the data that was given with it."""


class _End:
    """What both ends have: a port, who is told of it, and one way to give everything back."""

    def __init__(
        self, buddy: int, port: EventChannel, handler: Handler, data: Any, held: ExitStack
    ) -> None:
        self.buddy = buddy
        self._port = port
        self._handler = handler
        self._data = data
        self._held = held

    def fileno(self) -> int:
        """Readable when the buddy has notified us; then call `serve`. Unwatch it before `close`."""
        return self._port.fileno()

    def serve(self) -> None:
        """Take the notification and call the handler; nothing if there is none."""
        if self._port.consume():
            self._handler(self.buddy, self._data)

    def close(self) -> None:
        """Give back page and port; the buddy is told, and not waited for. Idempotent."""
        self._held.close()


class WriteEnd(_End):
    """The advertising end.

    Attributes:
        write_page: written here, read by the buddy (``view``).
        read_port: notified by the buddy when it has read; notifies the buddy when there is data.
    """

    def __init__(
        self,
        write_page: Region,
        read_port: EventChannel,
        buddy: int,
        handler: Handler,
        data: Any,
        held: ExitStack,
    ) -> None:
        super().__init__(buddy, read_port, handler, data, held)
        self.write_page = write_page
        self.read_port = read_port


class ReadEnd(_End):
    """The connecting end.

    Attributes:
        read_page: read here, written by the buddy (``view``).
        write_port: notified by the buddy when there is data; notifies it when that has been read.
        handle: of the mapping.
    """

    def __init__(
        self,
        read_page: Mapping,
        write_port: EventChannel,
        handle: int,
        buddy: int,
        handler: Handler,
        data: Any,
        held: ExitStack,
    ) -> None:
        super().__init__(buddy, write_port, handler, data, held)
        self.read_page = read_page
        self.write_port = write_port
        self.handle = handle


def advertise_endpoint(
    guest: Guest, buddy: int, handler: Handler, data: Any = None, *, size: int = PAGE
) -> WriteEnd:
    """Offer domain ``buddy`` a page of ours to read, and a port.

    Args:
        handler: called by `serve` with ``buddy`` and ``data``.
        size: bytes of the page, rounded up to whole pages of the machine.

    Raises:
        HypercallError: no such domain, or there is an endpoint for it already.
        QuotaExceeded: this domain has as many ports, or as much granted, as it may.
    """
    with ExitStack() as held:
        page = Region(size, name="xenidc-endpoint", readonly_to_peers=True)
        held.callback(guest.release, page)
        port = guest.alloc_unbound(buddy)
        held.callback(guest.close_port, port)
        gref = guest.grant_access(buddy, page, readonly=True)
        guest.publish(buddy, gref, port)
        held.callback(guest.unpublish, buddy)
        return WriteEnd(page, port, buddy, handler, data, held.pop_all())


def connect_to_endpoint(guest: Guest, buddy: int, handler: Handler, data: Any = None) -> ReadEnd:
    """Map the page that domain ``buddy`` has advertised to us, and bind its port.

    Args:
        handler: called by `serve` with ``buddy`` and ``data``.

    Raises:
        NotPublished: it has not advertised one to this domain, or has closed it.
        BadPort, BadGrant: it closes it just now, or somebody here is connected to it already.
    """
    offer = guest.lookup(buddy)
    with ExitStack() as held:
        port = guest.bind_interdomain(buddy, offer.port, offer.epoch)
        held.callback(guest.close_port, port)
        page = guest.map_grant_ref(buddy, offer.gref)
        held.callback(guest.unmap_grant_ref, page)
        return ReadEnd(page, port, page.handle, buddy, handler, data, held.pop_all())
