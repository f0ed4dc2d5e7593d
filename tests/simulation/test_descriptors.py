"""Descriptors, waits and workers under the scheduler: real eventfds, virtual time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, Deadlock, Fd, Message, RemoteActorError, System
from tests.simulation.programs import Say, Seen


class Watch(Message):
    fd: Fd


class Unwatch(Message):
    """And close what was watched."""


class Close(Message):
    """Without unwatching it."""


class Watcher(Actor):
    """Remembers how often each eventfd that it watches was found readable."""

    def on_start(self) -> None:
        self.fds: list[Fd] = []
        self.seen: list[str] = []

    def on_receive(self, message: Message) -> Any:
        match message:
            case Watch(fd):
                number = len(self.fds)
                self.fds.append(fd)
                self.watch(fd.fileno(), lambda: self.found(number))
            case Unwatch():
                self.unwatch(self.fds[-1].fileno())
                self.fds.pop().close()
            case Close():
                self.fds[-1].close()
            case Say(text):
                self.seen.append(text)
            case Seen():
                return self.seen
        return None

    def found(self, number: int) -> None:
        self.seen.append(f"{number}: {os.eventfd_read(self.fds[number].fileno())}")


def event() -> Fd:
    return Fd(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))


def test_a_watched_descriptor_calls_its_actor_when_it_is_readable() -> None:
    with System(simulation=0) as system:
        watcher, fd = system.start(Watcher), event()
        watcher.ask(Watch(fd))
        assert watcher.ask(Seen()) == []
        os.eventfd_write(fd.fileno(), 3)
        assert system.simulation is not None
        system.simulation.settle()
        assert watcher.ask(Seen()) == ["0: 3"]
        fd.close()


def test_a_signal_and_a_message_come_in_either_order() -> None:
    orders = set()
    for seed in range(30):
        with System(simulation=seed) as system:
            watcher, fd = system.start(Watcher), event()
            watcher.ask(Watch(fd))
            watcher.tell(Say("said"))
            os.eventfd_write(fd.fileno(), 1)
            assert system.simulation is not None
            system.simulation.settle()
            orders.add(tuple(watcher.ask(Seen())))
            fd.close()
    assert orders == {("said", "0: 1"), ("0: 1", "said")}


def test_the_trace_names_a_watch_by_its_order_and_not_by_its_number() -> None:
    def trace() -> str:
        with System(simulation=1) as system:
            watcher = system.start(Watcher)
            fds = [event(), event()]
            for fd in fds:
                watcher.ask(Watch(fd))
            for fd in reversed(fds):
                os.eventfd_write(fd.fileno(), 1)
                fd.close()
            assert system.simulation is not None
            system.simulation.settle()
            return system.simulation.trace.text()

    first = trace()
    other = event()  # now all numbers are others
    assert trace() == first
    other.close()
    assert "finds what it watches ready: 1" in first
    assert "finds what it watches ready: 2" in first


def test_what_is_not_watched_any_more_calls_nobody() -> None:
    with System(simulation=0) as system:
        watcher, fd = system.start(Watcher), event()
        watcher.ask(Watch(fd))
        watcher.ask(Unwatch())
        os.eventfd_write(fd.fileno(), 1)
        assert system.simulation is not None
        system.simulation.settle()
        assert watcher.ask(Seen()) == []
        fd.close()


def test_a_descriptor_that_was_closed_while_it_was_watched_ends_the_actor() -> None:
    with System(simulation=0) as system:
        watcher, fd = system.start(Watcher), event()
        watcher.ask(Watch(fd))
        watcher.tell(Close())
        assert "closed before it was unwatched" in system.wait(watcher).reason.text
        fd.close()


def test_what_cannot_be_waited_for_is_refused_as_by_a_real_runtime(tmp_path: Path) -> None:
    file = Fd(os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR))
    with System(simulation=0) as system:
        with pytest.raises(RemoteActorError, match="PermissionError"):
            system.start(Watcher).ask(Watch(file))
        file.close()


class PooledWatcher(Watcher):
    pooled = True


class LoopWatcher(Watcher):
    uses_loop = True


@pytest.mark.parametrize(
    ("kind", "why"), [(PooledWatcher, "no thread of its own"), (LoopWatcher, "loop.add_reader")]
)
def test_an_actor_that_could_not_watch_for_real_cannot_here(kind: type[Actor], why: str) -> None:
    with System(simulation=0) as system, pytest.raises(RemoteActorError, match=why):
        system.start(kind).ask(Watch(event()))


class Ring(Message):
    fd: Fd


class Bell(Actor):
    """Makes an eventfd readable."""

    def on_receive(self, message: Message) -> None:
        assert isinstance(message, Ring)
        os.eventfd_write(message.fd.fileno(), 1)


def test_a_wait_for_a_descriptor_ends_when_somebody_makes_it_readable() -> None:
    with System(simulation=0) as system:
        bell, fd = system.start(Bell), event()
        bell.tell(Ring(fd))
        readable = system.runtime.readable(fd.fileno(), "the bell")
        assert readable.wait()
        assert readable.wait(0)
        assert system.now() == 0
        fd.close()


def test_a_wait_for_a_descriptor_ends_at_its_deadline_in_virtual_time() -> None:
    with System(simulation=0) as system:
        fd = event()
        readable = system.runtime.readable(fd.fileno(), "the bell")
        assert not readable.wait(0)
        assert not readable.wait(5.5)
        assert system.now() == 5.5
        fd.close()


def test_a_wait_for_what_nobody_will_make_readable_is_a_deadlock() -> None:
    with System(simulation=0) as system:
        fd = event()
        with pytest.raises(Deadlock, match="the test waits for the bell"):
            system.runtime.readable(fd.fileno(), "the bell").wait()
        fd.close()


class Work(Message):
    workers: int
    pieces: int
    fails: bool = False


class Busy(Actor):
    """Has workers, each of which asks a friend in the middle of its work."""

    def on_receive(self, message: Message) -> Any:
        assert isinstance(message, Work)
        executor = self.system.runtime.executor(message.workers, "worker")
        log: list[str] = []
        lock = self.system.runtime.lock("the middle")
        lock.acquire()

        def piece(number: int) -> None:
            log.append(f"begin {number}")
            lock.acquire(timeout=1.0)
            log.append(f"end {number}")
            if message.fails:
                raise ValueError("broken work")

        for number in range(message.pieces):
            executor.submit(piece, number)
        executor.shutdown()
        with pytest.raises(Exception, match="worker has been shut down"):
            executor.submit(piece, -1)
        return log


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_so_many_pieces_of_work_are_under_way_as_there_are_workers(workers: int) -> None:
    most = 0
    for seed in range(20):
        with System(simulation=seed) as system:
            log = system.start(Busy).ask(Work(workers, 5), 1000)
        assert sorted(log) == sorted(f"{what} {n}" for n in range(5) for what in ("begin", "end"))
        under_way = 0
        for line in log:
            under_way += 1 if line.startswith("begin") else -1
            most = max(most, under_way)
            assert 0 <= under_way <= workers
    assert most == workers


def test_work_that_raises_fails_the_run() -> None:
    with System(simulation=0) as system, pytest.raises(ValueError, match="broken work"):
        system.start(Busy).ask(Work(1, 1, fails=True), 1000)
