"""The front end: a program that draws, and the actor around it.

`Drawer` is what an author subclasses; it knows no grant and no ring. It draws into the `Screen`
that it is given, at any time in its own thread, whether a display is there or not. `DrawerActor`
runs it in a domain, and offers its surface to the display on the machine's bus:

    InitWait   a display is there -> grant surface and ring page, allocate a port, Initialised
    Connected                     -> map its page, and say that all has changed
    Closed     it has died        -> revoke: what is drawn from now on is for its successor only
    Unknown    for good           -> the same, and wait for another

Both directions are events without answers, and the drawer has to survive the display and the other
way round; that is why this speaks to the hypervisor itself, and takes of transport the rings alone.

Who wakes whom: the display's events and its states wake the actor; a timer does only while the
drawer wants to be called at intervals (`Screen.animate`) and the display says that somebody looks.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, ClassVar, Final

import numpy.typing as npt

from actors import Actor, ExitReason, Message, Timer
from examples.framebuffer import protocol as p
from examples.framebuffer.damage import Rect
from examples.framebuffer.event_ring import EventRing
from examples.framebuffer.surface import Mode, Surface, packed_mode
from hypervisor import (
    EventChannel,
    Guest,
    HypervisorError,
    Mapping,
    PeerState,
    Region,
    XenbusState,
)
from transport import RemoteProtocolError, page_size

_CHANNEL: Final = 1  # this domain has one
_WAITING_MOST: Final = 256  # events; beyond that "all has changed" says it shorter


class Screen:
    """What a drawer draws on.

    Attributes:
        pixels: the pixels that the display sees, [row, column]; write to them, then `update`.
        mode: their sizes.
    """

    def __init__(self) -> None:
        self._surface: Surface | None = None
        self.events: EventRing | None = None
        self.frame_seconds: float | None = None

    @property
    def surface(self) -> Surface:
        """The memory behind it.

        Raises:
            ValueError: no mode has been set yet.
        """
        if self._surface is None:
            raise ValueError("the drawer has to set a mode first")
        return self._surface

    @property
    def pixels(self) -> npt.NDArray[Any]:
        return self.surface.pixels

    @property
    def mode(self) -> Mode:
        return self.surface.mode

    def set_mode(self, width: int, height: int, depth: int = 32, memory: int | None = None) -> None:
        """Have so many pixels of ``depth`` 32 (XRGB8888) or 16 (RGB565); they want to be drawn.

        Args:
            memory: at the first call, bytes for the pixels of the largest mode that will be set.

        Raises:
            ValueError: no mode is like that, or it needs more memory than the first call asked for.
        """
        mode = packed_mode(width, height, depth)
        if self._surface is None:
            self._surface = Surface(mode, memory)
            return
        self._surface.set_mode(mode)
        self._all_changed()

    def update(self, rect: Rect) -> None:
        """Say that these pixels have been drawn."""
        clipped = rect.clipped(self.mode.whole)
        if not clipped.empty:
            self._say(p.Update(clipped))

    def copy(self, source: Rect, x: int, y: int) -> None:
        """Copy pixels to ``x``, ``y``; a viewer that knows how copies its own.

        Raises:
            ValueError: one of the two is not all on the screen.
        """
        target = source.moved(x - source.x, y - source.y)
        for rect in (source, target):
            if rect.empty or rect.clipped(self.mode.whole) != rect:
                raise ValueError(f"{rect} is not on the screen")
        sequence = self.surface.begin_copy()
        pixels = self.pixels
        part = pixels[source.y : source.bottom, source.x : source.right].copy()
        pixels[target.y : target.bottom, target.x : target.right] = part
        self._say(p.Copy(target, source.x, source.y, sequence))

    def animate(self, seconds: float | None) -> None:
        """Have `Drawer.on_frame` called that often while somebody looks; None: no more."""
        self.frame_seconds = seconds

    def _all_changed(self) -> None:
        if self.events is not None:
            self.events.drop_waiting()
            self.events.send(p.Resize(*self.mode))
            self.events.send(p.Update(self.mode.whole))

    def _say(self, event: p.OutEvent) -> None:
        if self.events is None:
            return  # the next display is told of everything at once
        if self.events.waiting >= _WAITING_MOST:
            self._all_changed()
        else:
            self.events.send(event)


class Drawer:
    """Base of what draws. Override what there is something to do in."""

    runner: ClassVar[str] = "examples.framebuffer.drawer:DrawerActor"

    def on_start(self, screen: Screen, *args: Any) -> None:
        """Set a mode, and draw. The arguments are those of `Machine.start`."""
        raise NotImplementedError(f"{type(self).__name__} draws nothing")

    def on_key(self, keycode: int, pressed: bool) -> None:
        """A key or a button, by its code of linux/input-event-codes.h."""

    def on_pointer(self, x: int, y: int, z: int) -> None:
        """The pointer is at a pixel; ``z``: steps of the wheel, up is positive."""

    def on_frame(self) -> None:
        """It is time for the next picture of an animation."""


class DrawerActor(Actor):
    """Runs ``program``, a `Drawer` subclass, in the domain of ``guest``."""

    def __init__(self, guest: Guest, program: type[Drawer], args: list[Any]) -> None:
        super().__init__()
        self._guest = guest
        self._drawer = program()
        self._args = args
        self._screen = Screen()
        self._offer: _Offer | None = None
        self._period = p.NO_REFRESH
        self._frame: Timer | None = None

    def on_start(self) -> None:
        self._drawer.on_start(self._screen, *self._args)
        self._guest.connect(p.DEVICE, _CHANNEL)

    def on_stop(self) -> None:
        offer = self._offer
        if offer is not None:
            with suppress(HypervisorError):  # the display went too
                front = (self._guest.domid, _CHANNEL)
                self._guest.switch(front, offer.epoch, XenbusState.CLOSED)
            self._reset()
        self._guest.disconnect(_CHANNEL)
        with suppress(ValueError):
            self._guest.release(self._screen.surface.region)

    def on_receive(self, message: Message) -> None:
        match message:
            case PeerState():
                self._on_peer(message)
            case _Frame():
                self._frame = None
                self._drawer.on_frame()
                self._settle()

    def _on_peer(self, said: PeerState) -> None:
        state = XenbusState(said.state)
        if state is XenbusState.INIT_WAIT:
            self._make_offer(said)
        elif state is XenbusState.CONNECTED and self._offer is not None:
            self._open(said, self._offer)
        elif state in (XenbusState.CLOSED, XenbusState.UNKNOWN):
            self._reset()
            if isinstance(said.details, list):
                text = f"the display refused us: {said.details[-1]}"
                self.exit(ExitReason("error", "DisplayRefused", text, ""))
            elif state is XenbusState.UNKNOWN:
                self._guest.disconnect(_CHANNEL)
                self._guest.connect(p.DEVICE, _CHANNEL)

    def _make_offer(self, said: PeerState) -> None:
        self._reset()
        self._offer = offer = _Offer(said.epoch)
        guest, back = self._guest, said.peer
        with suppress(HypervisorError):  # it died meanwhile: its CLOSED is on its way
            ring = guest.grant_access(back, offer.page, readonly=True)
            offer.gref = guest.grant_access(back, self._screen.surface.region, readonly=True)
            offer.channel = channel = guest.alloc_unbound(back)
            details = {
                "ring-ref": ring,
                "surface-ref": offer.gref,
                "event-channel": channel.port,
                "event-channel-epoch": channel.epoch,
            }
            self._guest.switch(
                (guest.domid, _CHANNEL),
                said.epoch,
                XenbusState.INITIALISED,
                details,
                grants=[ring, offer.gref],
            )

    def _open(self, said: PeerState, offer: _Offer) -> None:
        try:
            offer.peer = self._guest.map_grant_ref(said.peer, said.details["ring-ref"])
        except HypervisorError:
            return  # as above
        assert offer.channel is not None
        self._screen.events = EventRing(offer.page.view, offer.peer.view, offer.channel)
        self.watch(offer.channel.fileno(), self._on_events)
        self._screen.update(self._screen.mode.whole)
        self._on_events()

    def _reset(self) -> None:
        """Take everything back from the display; ask nobody for permission."""
        offer, self._offer = self._offer, None
        self._screen.events = None
        self._period = p.NO_REFRESH
        if offer is None:
            return
        guest = self._guest
        if offer.channel is not None:
            self.unwatch(offer.channel.fileno())
            guest.close_port(offer.channel)
        if offer.peer is not None:
            guest.unmap_grant_ref(offer.peer)
        guest.release(offer.page)
        if offer.gref is not None:
            guest.revoke(offer.gref)

    def _on_events(self) -> None:
        events = self._screen.events
        assert events is not None
        try:
            for data in events.receive():
                self._take(p.in_event(data))
        except RemoteProtocolError as error:
            self.exit(ExitReason("error", "RemoteProtocolError", str(error), ""))
            return
        self._settle()

    def _take(self, event: p.InEvent) -> None:
        match event:
            case p.Key(pressed, keycode):
                self._drawer.on_key(keycode, pressed)
            case p.Position(x, y, z):
                self._drawer.on_pointer(x, y, z)
            case p.RefreshPeriod(period):
                self._period = period

    def _settle(self) -> None:
        """Show the display what was drawn, and see to the next frame."""
        if self._screen.events is not None:
            self._screen.events.flush()
        seconds = self._screen.frame_seconds
        if seconds is None or self._period == p.NO_REFRESH:
            if self._frame is not None:
                self._frame.cancel()
                self._frame = None
        elif self._frame is None:
            self._frame = self.after(max(seconds, self._period / 1000), _Frame())


class _Frame(Message):
    """The next picture is due."""


class _Offer:
    """What belongs to one connection, in one epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.page = Region(page_size(1, p.RING_BYTES), name="xenidc-ring", readonly_to_peers=True)
        self.gref: int | None = None
        self.channel: EventChannel | None = None
        self.peer: Mapping | None = None
