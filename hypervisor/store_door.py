"""How a guest's connection to the store is opened, and how its events reach it.

A connection is opened by who starts the domain, and ends with it. Requests go from the domain's own
thread (`open_here`) or from the actor of its process (`ProcessStore`) to the store's actor, and
never through the hypervisor. Events go past the domain's actor, so that they arrive while a program
starts or stops as well:

- `LocalDoor`, one for each domain of this process, hands them to the domain's `StoreClient`.
- `ProcessDoor`, one for all processes, sends them as frames (`StoreEvents`) on the hypercall
  socket, of which it has a duplicate: a batch at a time, and the next when `StoreTaken` came back.

Nobody waits for a domain that does not take its events: what waits for it is bounded
(store_outbox.py), then its actor is told `DoesNotRead`, and ends it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors import Actor, ActorDead, Down, Fd, Message, Ref
from hypervisor.errors import DomainDead
from hypervisor.frames import send_frame
from hypervisor.guest import TIMEOUT, unwrap
from hypervisor.store_calls import OpenStore, StoreCall, StoreEvent, StoreEvents
from hypervisor.store_client import StoreClient
from hypervisor.store_outbox import Outbox


class Attach(Message):
    """To `ProcessDoor`: that connection is of the process behind ``socket``, whose actor asks."""

    connection: int
    socket: Fd
    domain: Ref


class Taken(Message):
    """To `ProcessDoor`: the process has taken the events that were out."""

    connection: int


class DoesNotRead(Message):
    """To the actor of a process domain: it does not take its events from the store."""


def open_here(store: Ref, domid: int, start: Callable[..., Ref]) -> StoreClient:
    """The client of a domain in this process; ``start`` starts the actor that it ends with."""
    caller = _Here(store)
    client = StoreClient(caller)
    caller.connection = store.ask(OpenStore(domid, start(LocalDoor, client, name="store-door")))
    return client


@dataclass
class _Here:
    """Asks the store in the thread of whoever calls."""

    store: Ref
    connection: int = 0

    def __call__(self, call: Message) -> Any:
        try:
            return unwrap(self.store.ask(StoreCall(self.connection, call), timeout=TIMEOUT))
        except ActorDead as dead:
            raise DomainDead("the machine has ended, and its store with it") from dead


class LocalDoor(Actor):
    """Hands a client its events, and tells it its end."""

    pooled = True

    def __init__(self, client: StoreClient) -> None:
        super().__init__()
        self._client = client

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, StoreEvent)
        self._client.deliver([(message.path, message.token)])

    def on_stop(self) -> None:
        self._client.end("the domain has ended")


class ProcessStore:
    """The connection of the process behind descriptor ``end``; its actor makes it, and calls."""

    def __init__(self, store: Ref, door: Ref, domid: int, domain: Ref, end: int) -> None:
        self._store = store
        self._door = door
        self._connection = store.ask(OpenStore(domid, door, domain))
        door.ask(Attach(self._connection, Fd(os.dup(end)), domain))

    def call(self, call: Message) -> Any:
        """What the store answers."""
        return self._store.ask(StoreCall(self._connection, call))

    def taken(self) -> None:
        """`StoreTaken` came."""
        self._door.tell(Taken(self._connection))


@dataclass
class _Line:
    socket: socket.socket
    domain: Ref
    outbox: Outbox


class ProcessDoor(Actor):
    """Sends the events of all process domains."""

    pooled = True

    def on_start(self) -> None:
        self._lines: dict[int, _Line] = {}

    def on_stop(self) -> None:
        for connection in list(self._lines):
            self._drop(connection)

    def on_receive(self, message: Message) -> None:
        match message:
            case StoreEvent(connection, path, token):
                line = self._lines.get(connection)
                if line is None:
                    return  # its domain has ended meanwhile
                if line.outbox.put((path, token)):
                    self._send(connection, line)
                else:
                    self._give_up(connection)
            case Taken(connection):
                line = self._lines.get(connection)
                if line is not None:
                    line.outbox.taken()
                    self._send(connection, line)
            case Attach(connection, fd, domain):
                sock = socket.socket(fileno=fd.take())
                sock.setblocking(False)
                self._lines[connection] = _Line(sock, domain, Outbox())
                self.monitor(domain)
            case Down(ref=ref):
                for number in [n for n, line in self._lines.items() if line.domain == ref]:
                    self._drop(number)
            case _:
                super().on_receive(message)

    def _send(self, connection: int, line: _Line) -> None:
        batch = line.outbox.batch()
        if not batch:
            return
        try:
            send_frame(line.socket, StoreEvents(batch))
        except BlockingIOError:
            self._give_up(connection)
        except (BrokenPipeError, ConnectionResetError):
            self._drop(connection)  # it is dead, and its actor knows that by the pidfd

    def _give_up(self, connection: int) -> None:
        self._lines[connection].domain.tell(DoesNotRead(), control=True)
        self._drop(connection)

    def _drop(self, connection: int) -> None:
        self._lines.pop(connection).socket.close()
