"""A part of the tree that is stopped and killed like an OS process; and its descriptors."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors import (
    Actor,
    ActorDead,
    AskTimeout,
    Exit,
    Lock,
    Message,
    Ref,
    SimulatedProcess,
    StartFailed,
    System,
)
from actors.descriptor_ledger import DescriptorLedger
from tests.simulation.programs import Coroutine, Say, Seen

Log = list[str]


class Do(Message):
    """To the host: kill or stop the process."""

    what: str


class Step(Message):
    """To the program: log, reach a point, ask a friend if there is one, and log again."""

    friend: Ref | None = None


class Program(Actor):
    def __init__(self, log: Log, point: Callable[[], object]) -> None:
        super().__init__()
        self.log = log
        self.point = point

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, Step)
        self.log.append("begin")
        try:
            self.point()
            if message.friend is not None:
                message.friend.ask(Say("x"), 1000)
            self.log.append("end")
        finally:
            self.log.append("finally")

    def on_stop(self) -> None:
        self.log.append("on_stop")


class Queuer(Program):
    """Wants a lock that others want as well."""

    locks: list[Lock] = []  # noqa: RUF012 - the one of the test

    def on_receive(self, message: Message) -> None:
        self.locks[-1].acquire()
        self.log.append(f"{self.name} has it")


class Host(Actor):
    """Strikes at the ``at``-th point."""

    def __init__(self, log: Log, at: int = 0, what: str = "kill", kind: Any = Program) -> None:
        super().__init__()
        self.log = log
        self.at = at
        self.what = what
        self.kind = kind

    def on_start(self) -> None:
        assert self.system.simulation is not None
        self.points = 0
        self.process: SimulatedProcess = self.system.simulation.process(self.ref, self.peril)
        self.process.at_death(lambda: self.log.append("dead"))
        args = (self.log, self.process.point) if issubclass(self.kind, Program) else ()
        self.child = self.start_child(self.kind, *args, name="program")

    def peril(self) -> None:
        self.points += 1
        if self.points == self.at:
            self.strike(self.what)

    def strike(self, what: str) -> None:
        self.log.append(what)
        self.process.kill() if what == "kill" else self.process.stop()

    def on_receive(self, message: Message) -> Any:
        match message:
            case Do(what):
                self.strike(what)
            case Seen():
                return self.child
            case Exit(reason=reason):
                self.log.append(f"Exit {reason.kind}")
        return None

    def on_stop(self) -> None:
        self.process.kill()


class Slow(Actor):
    """Answers after a virtual second."""

    def on_receive(self, message: Message) -> str:
        assert self.system.simulation is not None
        self.system.simulation.pause(1.0)
        return "at last"


def test_a_killed_process_takes_no_step_and_runs_none_of_its_code() -> None:
    log: Log = []
    with System(simulation=0) as system:
        host = system.start(Host, log)
        program = host.ask(Seen())
        program.ask(Step())
        assert log == ["begin", "end", "finally"]
        host.ask(Do("kill"))
        assert log[3:5] == ["kill", "dead"]
        assert not program.is_alive()
        with pytest.raises(ActorDead):
            program.ask(Step())
        host.ask(Do("kill"))
        assert log[3:] == ["kill", "dead", "Exit killed", "kill"]  # once
    assert "on_stop" not in log


def test_a_process_is_killed_in_the_middle_of_a_step_and_unwound_when_all_is_over() -> None:
    log: Log = []
    with System(simulation=0) as system:
        host = system.start(Host, log, 4)  # points: birth, turn, step, and the one in the middle
        with pytest.raises(ActorDead):
            host.ask(Seen()).ask(Step())
        assert log[:3] == ["begin", "kill", "dead"]
        assert host.ask(Seen()) is not None
        assert "finally" not in log
    assert log[-1] == "finally"
    assert "end" not in log


def test_a_process_is_killed_while_it_waits_and_never_gets_its_answer() -> None:
    log: Log = []
    with System(simulation=0) as system:
        host, slow = system.start(Host, log), system.start(Slow)
        program = host.ask(Seen())
        program.tell(Step(slow))
        assert system.simulation is not None
        system.simulation.advance(0.5)
        host.ask(Do("kill"))
        system.simulation.settle()
        assert system.now() >= 1.0
        assert log == ["begin", "kill", "dead", "Exit killed"]


def test_what_a_killed_process_waits_for_goes_to_the_next_one_who_does() -> None:
    log: Log = []
    with System(simulation=0) as system:
        assert system.simulation is not None
        lock = system.runtime.lock("the lock")
        lock.acquire()
        Queuer.locks.append(lock)
        host = system.start(Host, log, 0, "kill", Queuer)
        next_one = system.start(Queuer, log, int, name="the next one")
        for queuer in (host.ask(Seen()), next_one):
            queuer.tell(Step())
            system.simulation.settle()
        host.ask(Do("kill"))
        lock.release()
        system.simulation.settle()
        assert "the next one has it" in log


def test_a_stopped_process_takes_no_step_and_what_it_is_sent_waits() -> None:
    log: Log = []
    with System(simulation=0) as system:
        host = system.start(Host, log)
        program = host.ask(Seen())
        host.ask(Do("stop"))
        with pytest.raises(AskTimeout):
            program.ask(Step(), 10.0)
        assert system.now() == 10.0
        assert log == ["stop"]
        host.ask(Do("kill"))
        assert not program.is_alive()


def test_a_process_that_is_killed_while_it_starts_has_failed_to_start() -> None:
    with System(simulation=0) as system, pytest.raises(StartFailed, match="killed"):
        system.start(Host, [], 1)


def test_a_process_that_was_stopped_does_not_keep_the_system_from_its_end() -> None:
    log: Log = []
    with System(simulation=0) as system:
        system.start(Host, log).ask(Do("stop"))
    assert log == ["stop", "dead"]


def test_an_actor_with_an_event_loop_cannot_be_in_a_process() -> None:
    with System(simulation=0) as system, pytest.raises(StartFailed, match="event loop"):
        system.start(Host, [], 0, "kill", Coroutine)


# --- descriptors ----------------------------------------------------------------------------------


def lock(path: Path) -> int:
    number = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(number)
        raise
    return number


def test_what_a_process_has_opened_is_closed_with_it_and_its_number_kept(tmp_path: Path) -> None:
    others = os.open(os.devnull, os.O_RDONLY)
    ledger = DescriptorLedger()
    ledger.enter()
    mine = lock(tmp_path / "file")
    ledger.leave()
    with pytest.raises(BlockingIOError):
        lock(tmp_path / "file")
    ledger.close()
    again = lock(tmp_path / "file")
    assert again != mine
    assert os.fstat(others)
    os.close(mine)  # as a stack that is unwound may do
    ledger.release()
    os.close(again)
    os.close(others)


def test_what_a_process_has_closed_itself_or_opened_outside_is_left_alone() -> None:
    ledger = DescriptorLedger()
    ledger.enter()
    gone = os.eventfd(0)
    depth = ledger.pause()
    others = os.eventfd(0)
    ledger.resume(depth)
    ledger.leave()
    ledger.enter()
    os.close(gone)
    mine = os.eventfd(7, os.EFD_NONBLOCK)
    assert mine == gone
    ledger.close()
    with pytest.raises(OSError):
        os.eventfd_read(mine)
    os.eventfd_write(others, 5)
    assert os.eventfd_read(others) == 5
    os.close(others)
    ledger.release()
    with pytest.raises(OSError):
        os.fstat(mine)


def test_a_number_that_was_given_to_somebody_else_is_not_closed() -> None:
    ledger = DescriptorLedger()
    ledger.enter()
    mine = os.eventfd(0)
    ledger.leave()
    ledger.close()
    os.close(mine)
    others = os.memfd_create("somebody else's")
    assert others == mine
    ledger.release()
    assert os.fstat(others)
    os.close(others)
