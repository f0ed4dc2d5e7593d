"""Wrong: a store answers "stored" when it has only made a note to write. If it crashes before it
has written, what was acknowledged is lost. Corrected: it answers when the disk has answered.
"""

from __future__ import annotations

import contextlib
from typing import Any

from actors import (
    Actor,
    ActorError,
    ChildSpec,
    Faults,
    Message,
    Options,
    Ref,
    Reply,
    Supervisor,
    System,
)

OPTIONS = Options(Faults(kinds=["crash_after"], limit=1))


class Put(Message):
    key: str


class Write(Message):
    keys: list[str]


class Flush(Message):
    pass


class Keys(Message):
    pass


class Disk(Actor):
    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()

    def on_receive(self, message: Message) -> Any:
        match message:
            case Write(keys):
                self.keys.update(keys)
            case Keys():
                return sorted(self.keys)
        return None


class Store(Actor):
    """Writes once a second what has come in."""

    def __init__(self, disk: Ref, patient: bool) -> None:
        super().__init__()
        self.disk = disk
        self.patient = patient
        self.keys: list[str] = []
        self.replies: list[Reply] = []

    def on_receive(self, message: Message) -> None:
        match message:
            case Put(key):
                if not self.keys:
                    self.after(1.0, Flush())
                self.keys.append(key)
                if self.patient:
                    self.replies.append(self.reply_later())
            case Flush():
                self.disk.ask(Write(self.keys))
                for reply in self.replies:
                    reply.send(None)
                self.keys, self.replies = [], []


def run(system: System, *, patient: bool) -> None:
    assert system.simulation is not None
    disk = system.start(Disk, name="disk")
    spec = ChildSpec.of("store", Store, disk, patient, registered=True)
    system.start(Supervisor, [spec], name="top")
    stored = []
    for key in ("a", "b"):
        with contextlib.suppress(ActorError):
            system.named("store").ask(Put(key))
            stored.append(key)
    system.simulation.settle()
    assert set(stored) <= set(disk.ask(Keys())), "what was stored is lost"


def test(system: System) -> None:
    run(system, patient=False)


def corrected(system: System) -> None:
    run(system, patient=True)
