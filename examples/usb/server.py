"""The server: one actor, one thread, for the listening sockets, every client and every device.

Owns the clients (connection.py) and whose a device is. The devices, their channels and the
listening sockets are the starter's. Who wakes whom, all through the one place where the actor
waits:

    a client's socket is readable -> its commands go to its device
    a channel has completions     -> URBs that have ended go to the client whose they are
    a client's socket is writable -> the rest of what it gets
    a line is readable            -> input for a device
    a period of the bus is over   -> isochronous URBs of it go to the client (frames.py)
    the listening sockets, the stop descriptor, deadlines

Rules:
1. A device has one client at a time; who else wants it is refused. When its client goes, by
   whatever end, everything that it had under way is unlinked, the device is reset, and it is free.
2. A client's error ends that client alone, a device's end that device and its client alone.
3. One that does not say in `OPERATION_SECONDS` what it wants, or does not take the answer, is
   closed.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from actors import Actor, Message, Timer
from examples.door import Door
from examples.usb import usbip
from examples.usb.connection import Connection
from examples.usb.controller import Disconnected, Giveback, Output
from examples.usb.plug import Plug
from examples.usb.urb import Urb
from examples.usb.usbip_session import (
    Event,
    List,
    Reset,
    Session,
    Submitted,
    Unlinked,
    Wanted,
)
from examples.usb.usbredir_session import RedirSession
from examples.usb.world import Line
from transport import RemoteProtocolError

CLIENT_LIMIT: Final = 128
OPERATION_SECONDS: Final = 30.0

_log = logging.getLogger("examples.usb")


class _Deadline(Message):
    client: int


class _Due(Message):
    """Isochronous transfers of a device, by its place, have had their time."""

    plug: int


Doors = Sequence[tuple[socket.socket, Callable[[int], Session | RedirSession]]]
"""Listening sockets, and what is spoken there."""


class UsbServer(Actor):
    """Exports ``plugs`` to whoever connects at ``doors``, until ``stop`` becomes readable."""

    def __init__(self, doors: Doors, plugs: Sequence[Plug], stop: int) -> None:
        super().__init__()
        self._plugs = list(plugs)
        self._stop_fd = stop
        self._clients: dict[int, Connection] = {}
        self._deadlines: dict[int, Timer] = {}
        self._numbers = 0
        listeners = [(listener, partial(self._on_connect, session)) for listener, session in doors]
        self._door = Door(self, listeners, self._clients, CLIENT_LIMIT, _log)

    def on_start(self) -> None:
        self._door.open()
        self.watch(self._stop_fd, self.exit)
        for plug in self._plugs:
            self.watch(plug.host.fileno(), partial(self._on_device, plug))
            for line in plug.lines:
                if line.input is not None:
                    self._listen_to(plug, line, line.input)

    def on_stop(self) -> None:
        for client in self._clients.values():
            client.close()

    def on_receive(self, message: Message) -> Any:
        match message:
            case _Deadline(number):
                client = self._clients.get(number)
                if client is not None and client.plug is None:
                    self._drop(client, "it does not go on")
            case _Due(place):
                plug = self._plugs[place]
                plug.timed = False
                self._give_back(plug, plug.frames.take(self.system.now()))
                self._time(plug)

    # --- clients come and go ----------------------------------------------------------------------

    def _on_connect(
        self, session: Callable[[int], Session | RedirSession], connected: socket.socket
    ) -> None:
        self._numbers += 1
        client = Connection(self._numbers, connected, session(self._numbers))
        self._clients[client.number] = client
        deadline = self.after(OPERATION_SECONDS, _Deadline(client.number))
        self._deadlines[client.number] = deadline
        self._look_at(client)

    def _drop(self, client: Connection, reason: str) -> None:
        if not client.closed:
            _log.warning("client %d is disconnected: %s", client.number, reason)
        self._forget(client)

    def _forget(self, client: Connection) -> None:
        """Close the client and free its device."""
        if client.closed:
            return
        if client.watched != (False, False):
            self.unwatch(client.socket.fileno())
        client.close()
        del self._clients[client.number]
        self._deadlines.pop(client.number).cancel()
        self._door.open()
        plug = client.plug
        if plug is not None:
            plug.owner = None
            plug.frames.clear()
            plug.host.unlink_all()
            plug.host.reset()
            self._handle(plug)

    def _look_at(self, client: Connection) -> None:
        """Watch the client's socket for what its state can use now."""
        wanted = (not client.full, client.pending)
        if client.closed or wanted == client.watched:
            return
        self.watch(
            client.socket.fileno(),
            partial(self._on_readable, client) if wanted[0] else None,
            partial(self._send, client) if wanted[1] else None,
        )
        client.watched = wanted

    # --- what clients want ------------------------------------------------------------------------

    def _on_readable(self, client: Connection) -> None:
        if not client.watched[0]:
            return  # the event is older than our decision not to look
        try:
            events = client.receive()
            if events is None:
                self._forget(client)
                return
            self._serve(client, events)
        except OSError as error:
            self._drop(client, f"its connection is lost: {error}")
        except RemoteProtocolError as error:
            self._drop(client, str(error))

    def _serve(self, client: Connection, events: list[Event]) -> None:
        for event in events:
            match event:
                case List():
                    present = [plug.exported for plug in self._plugs if not plug.gone]
                    client.reply(usbip.devlist(present))
                case Wanted(busid):
                    self._import(client, busid)
                case Submitted(urb):
                    assert client.plug is not None
                    client.plug.host.submit(urb)
                case Unlinked(number):
                    assert client.plug is not None
                    held = client.plug.frames.unlink(number)
                    if held is None:
                        client.plug.host.unlink(number)
                    else:
                        self._give_back(client.plug, [held])
                case Reset():
                    assert client.plug is not None
                    client.plug.host.reset()
        if client.plug is not None:
            self._handle(client.plug)
        self._send(client)

    def _import(self, client: Connection, busid: str | None) -> None:
        plug = next((plug for plug in self._plugs if _is_wanted(plug, busid)), None)
        if plug is None or plug.gone:
            _log.warning("client %d wants %r, which there is not", client.number, busid)
            client.reply(client.session.refused(usbip.ST_NODEV))
        elif plug.owner is not None:
            owner = plug.owner.number
            _log.warning("client %d wants %s, which client %d has", client.number, busid, owner)
            client.reply(client.session.refused(usbip.ST_DEV_BUSY))
        else:
            plug.owner, client.plug = client, plug
            client.reply(client.session.imported(plug.exported, plug.host.controller.kind))
            self._serve(client, client.feed(b""))

    # --- what devices say -------------------------------------------------------------------------

    def _on_device(self, plug: Plug) -> None:
        self._handle(plug, reap=True)

    def _handle(self, plug: Plug, *, reap: bool = False) -> None:
        ended = []
        now = self.system.now()
        for event in plug.host.reap() if reap else plug.host.events():
            match event:
                case Giveback(urb):
                    if not plug.frames.hold(urb, now):
                        ended.append(urb)
                case Output(function, data):
                    for line in plug.lines:
                        if line.function == function:
                            line.write(data)
                case Disconnected(reason):
                    self._unplug(plug, reason)
        self._time(plug)
        self._give_back(plug, ended)
        if plug.gone and plug.owner is not None:
            self._drop(plug.owner, "its device is gone")

    def _time(self, plug: Plug) -> None:
        """Look again when the next isochronous transfer is due."""
        due = plug.frames.due
        if due is not None and not plug.timed:
            plug.timed = True
            self.after(max(due - self.system.now(), 0), _Due(self._plugs.index(plug)))

    def _give_back(self, plug: Plug, ended: list[Urb]) -> None:
        owner = plug.owner
        if owner is None:
            return
        wanted: list[Event] = []
        for urb in ended:
            if urb.id[0] == owner.number:
                more, told = owner.session.ended(urb)
                owner.reply(told)
                wanted += more
        if wanted:
            self._serve(owner, wanted)
        self._send(owner)

    def _unplug(self, plug: Plug, reason: str) -> None:
        _log.warning("device %s is gone: %s", plug.exported.busid, reason)
        plug.gone = True
        self.unwatch(plug.host.fileno())
        for line in plug.lines:
            if line.input is not None:
                self.unwatch(line.input)

    def _send(self, client: Connection) -> None:
        """Send what waits, then see what the client can do next."""
        if client.closed:
            return
        try:
            client.send()
        except OSError as error:
            self._drop(client, f"its connection is lost: {error}")
            return
        if client.done:
            self._forget(client)
        else:
            self._look_at(client)

    # --- the world --------------------------------------------------------------------------------

    def _listen_to(self, plug: Plug, line: Line, fd: int) -> None:
        try:
            self.watch(fd, partial(self._on_line, plug, line))
        except PermissionError:  # a regular file: all of it is there
            self._input(plug, line, line.read())

    def _on_line(self, plug: Plug, line: Line) -> None:
        data = line.read()
        if data:
            self._input(plug, line, data)
        else:
            assert line.input is not None
            self.unwatch(line.input)

    def _input(self, plug: Plug, line: Line, data: bytes) -> None:
        plug.host.input(line.function, data)
        self._handle(plug)


def _is_wanted(plug: Plug, busid: str | None) -> bool:
    if busid is None:
        return plug.owner is None and not plug.gone
    return plug.exported.busid == busid
