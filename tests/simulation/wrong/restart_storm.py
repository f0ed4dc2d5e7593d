"""Wrong: a worker that refuses to start while there is a lock, though its own crash in the middle
of a job leaves one behind. So each restart fails, until the supervisor gives up. Corrected: it
removes what it finds, since it is the only one who works there.
"""

from __future__ import annotations

from actors import Actor, ChildSpec, Faults, Message, Options, Supervisor, System

OPTIONS = Options(Faults(kinds=["crash_before", "crash_after"], limit=1))

locks: set[str] = set()
"""What a disk would be."""


class Begin(Message):
    pass


class Finish(Message):
    pass


class Worker(Actor):
    def __init__(self, tidies: bool) -> None:
        super().__init__()
        self.tidies = tidies

    def on_start(self) -> None:
        if self.tidies:
            locks.clear()
        if locks:
            raise RuntimeError("somebody else works there")

    def on_receive(self, message: Message) -> None:
        match message:
            case Begin():
                locks.add("job")
            case Finish():
                locks.discard("job")


def run(system: System, *, tidies: bool) -> None:
    assert system.simulation is not None
    locks.clear()
    spec = ChildSpec.of("worker", Worker, tidies, registered=True)
    top = system.start(Supervisor, [spec], name="top")
    worker = system.named("worker")
    worker.tell(Begin())
    worker.tell(Finish())
    system.simulation.advance(1.0)
    assert top.is_alive(), "the supervisor has given up"


def test(system: System) -> None:
    run(system, tidies=False)


def corrected(system: System) -> None:
    run(system, tidies=True)
