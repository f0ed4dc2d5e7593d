"""Wrong: a client that keeps the reference of a server, which means one incarnation: after a
restart it talks to the dead one for ever. Corrected: it means the server by its name.
"""

from __future__ import annotations

import contextlib
from typing import Any

from actors import Actor, ActorError, ChildSpec, Faults, Message, Options, Ref, Supervisor, System

OPTIONS = Options(Faults(kinds=["crash_before", "crash_after"], limit=1))


class Serve(Message):
    pass


class Use(Message):
    pass


class Server(Actor):
    def on_receive(self, message: Message) -> str:
        return "served"


class Client(Actor):
    fails_on_ask = False

    def __init__(self, server: Ref) -> None:
        super().__init__()
        self.server = server

    def on_receive(self, message: Message) -> Any:
        return self.server.ask(Serve())


def run(system: System, *, by_name: bool) -> None:
    assert system.simulation is not None
    system.start(Supervisor, [ChildSpec.of("server", Server, registered=True)], name="top")
    server = system.named("server") if by_name else system.whereis("server")
    client = system.start(Client, server, name="client")
    with contextlib.suppress(ActorError):
        client.ask(Use())
    system.simulation.settle()
    assert client.ask(Use()) == "served"


def test(system: System) -> None:
    run(system, by_name=False)


def corrected(system: System) -> None:
    run(system, by_name=True)
