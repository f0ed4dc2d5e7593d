"""The back end: one actor, one thread, for the drawer's surface, the listening socket and viewers.

It is the program of its domain. Who wakes whom, all through the one place where the actor waits:

    the drawer's events          -> damage for every viewer; those that wait get an update begun
    a viewer's socket, readable  -> what it says; its keys and pointer go to the drawer
    a viewer's socket, writable  -> send; when all is sent, encode one band more
    states of the bus            -> a drawer comes, or has gone: its last picture stays
    the listening socket; deadlines of viewers that take too long

Rules:
1. One band of one viewer for each time that its socket takes something. So a viewer that reads
   slowly, or whose updates are large, does not keep the others waiting for longer than one band.
2. With nothing to send, nothing runs: no timer, no look at the surface.
3. A viewer's error ends that viewer alone, a drawer's error its connection alone.
4. A viewer that takes nothing of what waits for it for `STALL_SECONDS`, or is not through its
   handshake after `HANDSHAKE_SECONDS`, is closed. Asking and then doing nothing is no error.
5. The listening socket belongs to the machine's own process, which binds it once. So who connects
   while a display is being restarted waits in the backlog, and is served by the next one.
"""

from __future__ import annotations

import logging
import os
import socket
from functools import partial
from typing import Any, ClassVar, Final

from actors import Actor, Fd, Message, Timer
from examples.door import Door
from examples.framebuffer import protocol as p
from examples.framebuffer import rfb
from examples.framebuffer.handshake import Handshake
from examples.framebuffer.input import Held
from examples.framebuffer.source import ACCEPT, DROP, Source
from examples.framebuffer.surface import Picture
from examples.framebuffer.viewer import Viewer
from hypervisor import Guest, News, PeerState
from transport import RemoteProtocolError

VIEWER_LIMIT: Final = 64
HANDSHAKE_SECONDS: Final = 30.0
STALL_SECONDS: Final = 30.0
REFRESH_PERIOD: Final = 20  # milliseconds; what an animation may count on while somebody looks

_log = logging.getLogger("examples.framebuffer")


class _HandshakeDeadline(Message):
    viewer: int


class _StallDeadline(Message):
    viewer: int
    sent: int


class Display(Actor):
    """Shows the surface of whoever draws on `protocol.DEVICE` to whoever connects.

    Start arguments: the listening socket (an `Fd`), the password or None, the desktop's name, and
    width and height of the picture before there is one.
    """

    runner: ClassVar[str] = "examples.framebuffer.display:Display"

    def __init__(self, guest: Guest, _program: type, args: list[Any]) -> None:
        super().__init__()
        listener, self._password, name, width, height = args
        self._guest = guest
        self._name: bytes = name.encode()
        self._listener = _socket(listener)
        self._source = Source(guest, Picture.blank(width, height))
        self._viewers: dict[int, Viewer] = {}
        self._deadlines: dict[int, Timer] = {}
        self._held = Held()
        self._numbers = 0
        listeners = [(self._listener, self._on_connect)]
        self._door = Door(self, listeners, self._viewers, VIEWER_LIMIT, _log)

    def on_start(self) -> None:
        self._door.open()
        self._guest.advertise(p.DEVICE)

    def on_stop(self) -> None:
        for viewer in self._viewers.values():
            viewer.close()
        self._listener.close()
        if self._source.connected:
            self._source.drop()

    def on_receive(self, message: Message) -> None:
        match message:
            case News():
                self._on_news(message)
            case _HandshakeDeadline(number):
                viewer = self._viewers.get(number)
                if viewer is not None and not viewer.ready:
                    self._drop(viewer, "it did not finish its handshake in time")
            case _StallDeadline(number, sent):
                self._on_stall(self._viewers.get(number), sent)

    # --- the drawer -------------------------------------------------------------------------------

    def _on_news(self, news: News) -> None:
        match self._source.verdict(news):
            case verdict if verdict == ACCEPT and isinstance(news, PeerState):
                if self._source.accept(news):
                    self.watch(self._source.fileno(), self._on_drawer)
                    self._say(p.RefreshPeriod(self._period()))
                    self._renew()
            case verdict if verdict == DROP:
                self._drop_drawer()

    def _drop_drawer(self, reason: str | None = None) -> None:
        self.unwatch(self._source.fileno())
        self._source.drop(reason)

    def _on_drawer(self) -> None:
        if not self._source.connected:
            return  # the event is older than the connection's end
        try:
            events = self._source.events()
            self._look()
            self._source.flush()
        except RemoteProtocolError as error:
            self._drop_drawer(str(error))
            return
        for event in events:
            for viewer in self._viewers.values():
                if viewer.pace is not None:
                    if isinstance(event, p.Update):
                        viewer.pace.damaged(event.rect)
                    elif isinstance(event, p.Copy):
                        viewer.pace.copied(event)
        for viewer in list(self._viewers.values()):
            self._advance(viewer)

    def _look(self) -> None:
        """Notice a change of the mode, whose RESIZE may still be on its way."""
        if self._source.picture.look():
            self._renew()

    def _renew(self) -> None:
        mode = self._source.picture.mode
        for viewer in list(self._viewers.values()):
            if viewer.pace is not None:
                viewer.pace.renewed(mode.width, mode.height)
                self._advance(viewer)

    def _say(self, *events: p.InEvent) -> None:
        """Tell the drawer."""
        if not self._source.connected:
            return
        for event in events:
            self._source.send(event)
        try:
            self._source.flush()
        except RemoteProtocolError as error:
            self._drop_drawer(str(error))

    def _period(self) -> int:
        return REFRESH_PERIOD if self._viewers else p.NO_REFRESH

    # --- viewers come and go ----------------------------------------------------------------------

    def _on_connect(self, connected: socket.socket) -> None:
        self._numbers += 1
        challenge = os.urandom(rfb.CHALLENGE_BYTES)
        viewer = Viewer(self._numbers, connected, Handshake(self._password, challenge))
        self._viewers[viewer.number] = viewer
        self.after(HANDSHAKE_SECONDS, _HandshakeDeadline(viewer.number))
        if len(self._viewers) == 1:
            self._say(p.RefreshPeriod(self._period()))
        self._advance(viewer)

    def _drop(self, viewer: Viewer, reason: str) -> None:
        _log.warning("viewer %d is disconnected: %s", viewer.number, reason)
        if not viewer.closed:
            viewer.abort()
        self._forget(viewer)

    def _forget(self, viewer: Viewer) -> None:
        if viewer.closed:
            return
        if viewer.watched != (False, False):
            self.unwatch(viewer.socket.fileno())
        viewer.close()
        del self._viewers[viewer.number]
        deadline = self._deadlines.pop(viewer.number, None)
        if deadline is not None:
            deadline.cancel()
        self._say(*self._held.gone(viewer.number))
        if not self._viewers:
            self._say(p.RefreshPeriod(self._period()))
        self._door.open()

    # --- viewers at work --------------------------------------------------------------------------

    def _on_readable(self, viewer: Viewer) -> None:
        if not viewer.watched[0]:
            return  # the event is older than our decision not to look
        try:
            said = viewer.receive(self._source.picture, self._name)
        except (RemoteProtocolError, OSError) as error:
            self._drop(viewer, str(error))
            return
        if said:
            self._say(*self._held.events(viewer.number, said, self._source.picture.mode))
        self._advance(viewer)

    def _advance(self, viewer: Viewer) -> None:
        """Give the viewer what it can take now, and see what it can take next."""
        if viewer.closed:
            return
        try:
            viewer.advance(self._source.picture)
        except OSError as error:
            self._drop(viewer, f"its connection is lost: {error}")
            return
        if viewer.done:
            if viewer.why:
                _log.warning("viewer %d is disconnected: %s", viewer.number, viewer.why)
            self._forget(viewer)
            return
        wanted = (not viewer.ending, viewer.pending)
        if wanted != viewer.watched:
            self.watch(
                viewer.socket.fileno(),
                partial(self._on_readable, viewer) if wanted[0] else None,
                partial(self._advance, viewer) if wanted[1] else None,
            )
            viewer.watched = wanted
        self._watch_for_a_stall(viewer)

    def _watch_for_a_stall(self, viewer: Viewer) -> None:
        """A deadline while something waits to be sent, and only then."""
        deadline = self._deadlines.get(viewer.number)
        if viewer.pending and deadline is None:
            message = _StallDeadline(viewer.number, viewer.sent)
            self._deadlines[viewer.number] = self.after(STALL_SECONDS, message)
        elif not viewer.pending and deadline is not None:
            del self._deadlines[viewer.number]
            deadline.cancel()

    def _on_stall(self, viewer: Viewer | None, sent: int) -> None:
        if viewer is None:
            return
        del self._deadlines[viewer.number]
        if viewer.sent == sent:
            self._drop(viewer, f"it took nothing for {STALL_SECONDS:g} s")
        else:
            self._watch_for_a_stall(viewer)


def _socket(listener: Fd) -> socket.socket:
    found = socket.socket(fileno=listener.take())
    found.setblocking(False)
    return found
