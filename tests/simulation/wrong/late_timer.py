"""Wrong: a session ends when nobody has used it for a minute, but the timer of an earlier use goes
on, and ends a session that has just been used. Corrected: the earlier timer is cancelled.
"""

from __future__ import annotations

from typing import Any

from actors import Actor, Message, Options, System, Timer

OPTIONS = Options()


class Use(Message):
    pass


class Expire(Message):
    pass


class IsOpen(Message):
    pass


class Session(Actor):
    def __init__(self, cancels: bool) -> None:
        super().__init__()
        self.cancels = cancels
        self.open = False
        self.timer: Timer | None = None

    def on_receive(self, message: Message) -> Any:
        match message:
            case Use():
                self.open = True
                if self.cancels and self.timer is not None:
                    self.timer.cancel()
                self.timer = self.after(60, Expire())
            case Expire():
                self.open = False
            case IsOpen():
                return self.open
        return None


def run(system: System, *, cancels: bool) -> None:
    assert system.simulation is not None
    session = system.start(Session, cancels, name="session")
    for _ in range(5):
        session.tell(Use())
        pause = 10 * system.simulation.choose(10)
        system.simulation.advance(pause)
        assert session.ask(IsOpen()) == (pause < 60), "it ended too early, or too late"


def test(system: System) -> None:
    run(system, cancels=False)


def corrected(system: System) -> None:
    run(system, cancels=True)
