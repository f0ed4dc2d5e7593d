"""Watched descriptors: one thread waits for them and for messages; neither starves the other."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from actors import Actor, Message, RemoteActorError, Shutdown, System
from tests.actors.parts import Fail, Leave, Patient, Recorder, Say, Seen


class Do(Message):
    """Runs the watcher's function of that name in its thread."""

    name: str


class Watcher(Patient):
    """Watches one end of a socket pair; `does` is what a test makes it do."""

    def __init__(self, sock: socket.socket, **does: Callable[[Watcher], object]) -> None:
        super().__init__()
        self.sock = sock
        self.fd = sock.fileno()
        self.does = does

    def on_start(self) -> None:
        self.watch(self.fd, self.read)

    def read(self) -> None:
        data = self.sock.recv(1)
        self.seen.append(f"fd {data.decode()}")
        if not data:
            self.exit()

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, Do):
            return self.does[message.name](self)
        return super().on_receive(message)


@pytest.fixture
def pair() -> Any:
    a, b = socket.socketpair()
    with a, b:
        yield a, b


Pair = tuple[socket.socket, socket.socket]


def test_a_readable_descriptor_wakes_the_actor(pair: Pair) -> None:
    ours, theirs = pair
    with System() as system:
        ref = system.start(Watcher, theirs)
        ours.send(b"a")
        ours.shutdown(socket.SHUT_WR)
        assert system.wait(ref).reason.kind == "normal"


def test_a_message_wakes_an_actor_that_watches(pair: Pair) -> None:
    with System() as system:
        ref = system.start(Watcher, pair[1])
        for text in "abc":
            assert ref.ask(Say(text), timeout=float("inf")) == text


def test_ready_descriptors_and_data_alternate(pair: Pair) -> None:
    """One never-ending source of each: both get their turns, strictly in turn."""
    turns: list[str] = []

    def fd_turn() -> None:
        turns.append("fd")

    class Torn(Actor):
        def on_start(self) -> None:
            self.watch(pair[1].fileno(), on_write=fd_turn)  # is always writable
            self.ref.tell(Say("again"))

        def on_receive(self, message: Message) -> None:
            turns.append("data")
            self.ref.tell(message)
            if len(turns) > 100:
                self.exit()

    with System() as system:
        system.wait(system.start(Torn))
    assert turns == ["fd", "data"] * (len(turns) // 2)


def test_control_comes_between_two_ready_descriptors() -> None:
    turns: list[str] = []
    pipes = [os.pipe() for _ in range(3)]

    class Busy(Actor):
        def on_start(self) -> None:
            for read, write in pipes:
                self.watch(read, functools.partial(self.turn, read))
                os.write(write, b"x")

        def turn(self, fd: int) -> None:
            os.read(fd, 1)
            turns.append("fd")
            self.ref.tell(Say("data"))
            self.ref.tell(Say("control"), control=True)

        def on_receive(self, message: Message) -> None:
            assert isinstance(message, Say)
            turns.append(message.text)
            if turns.count("data") == 3:
                self.exit()

    with System() as system:
        system.wait(system.start(Busy))
    assert turns[:6] == ["fd", "control"] * 3
    for fds in pipes:
        for fd in fds:
            os.close(fd)


def test_a_stop_overtakes_descriptors_that_are_always_ready(pair: Pair) -> None:
    with System() as system:
        ref = system.start(Watcher, pair[1], spin=lambda it: it.watch(it.fd, on_write=lambda: None))
        ref.ask(Do("spin"))
        ref.stop()


def test_an_error_in_a_callback_ends_the_actor(pair: Pair) -> None:
    class Clumsy(Watcher):
        def read(self) -> None:
            raise ValueError("dropped it")

    with System() as system:
        ref = system.start(Clumsy, pair[1])
        pair[0].send(b"x")
        assert system.wait(ref).reason.text == "dropped it"


def test_watching_again_replaces_what_was_watched(pair: Pair) -> None:
    def once(it: Watcher) -> None:
        it.seen.append("writable")
        it.unwatch(it.fd)

    with System() as system:
        ref = system.start(
            Watcher,
            pair[1],
            write=lambda it: it.watch(it.fd, on_write=lambda: once(it)),
            again=lambda it: it.watch(it.fd, it.read),
        )
        ref.ask(Do("write"))
        pair[0].send(b"1")  # nobody reads it now
        ref.ask(Say("x"))
        ref.ask(Say("y"))
        ref.ask(Do("again"))
        ref.ask(Say("z"))
        assert ref.ask(Seen()) == ["writable", "x", "y", "fd 1", "z"]


def test_a_reader_that_unwatches_is_not_called_as_a_writer(pair: Pair) -> None:
    def read(it: Watcher) -> None:
        it.seen.append("read")
        it.unwatch(it.fd)
        it.unwatch(it.fd)

    with System() as system:
        ref = system.start(
            Watcher,
            pair[1],
            both=lambda it: it.watch(it.fd, lambda: read(it), lambda: it.seen.append("write")),
            unwatch=lambda it: it.unwatch(it.fd),
        )
        ref.ask(Do("unwatch"))
        pair[0].send(b"1")
        ref.ask(Do("both"))
        ref.ask(Say("x"))
        assert ref.ask(Seen()) == ["read", "x"]


def test_a_hang_up_is_told_to_a_writer_too(pair: Pair) -> None:
    ours, theirs = pair
    theirs.setblocking(False)
    while True:
        try:
            theirs.send(bytes(65536))
        except BlockingIOError:
            break

    class Writer(Actor):
        def on_start(self) -> None:
            self.watch(theirs.fileno(), on_write=self.exit)

    with System() as system:
        ref = system.start(Writer)
        ours.close()
        assert system.wait(ref).reason.kind == "normal"


def test_a_descriptor_that_was_unwatched_meanwhile_is_not_called() -> None:
    calls: list[int] = []
    pipes = [os.pipe() for _ in range(2)]

    class Jealous(Actor):
        def on_start(self) -> None:
            for read, write in pipes:
                os.write(write, b"x")
                self.watch(read, functools.partial(self.turn, read))

        def turn(self, fd: int) -> None:
            calls.append(fd)
            for read, _ in pipes:
                self.unwatch(read)
            self.ref.tell(Shutdown())

        def on_receive(self, message: Message) -> None:
            raise AssertionError(message)

    with System() as system:
        system.wait(system.start(Jealous))
    assert len(calls) == 1
    for fds in pipes:
        for fd in fds:
            os.close(fd)


def test_a_descriptor_number_may_be_closed_and_used_again(pair: Pair) -> None:
    numbers: list[int] = []

    def reopen(it: Watcher) -> None:
        for _ in range(3):
            read, write = os.pipe()
            numbers.append(read)
            it.watch(read, lambda: None)
            os.close(read)  # without unwatching it first
            os.close(write)
        it.unwatch(numbers[-1])

    with System() as system:
        ref = system.start(Watcher, pair[1], reopen=reopen)
        ref.ask(Do("reopen"))
        assert len(set(numbers)) == 1
        assert ref.ask(Say("x")) == "x"


def test_a_descriptor_that_lives_on_after_an_unclean_end_of_its_watch_is_a_loud_error() -> None:
    read, write = os.pipe()
    os.write(write, b"x")

    def mess(it: Watcher) -> None:
        first = os.dup(read)
        it.watch(first, lambda: None)
        os.close(first)
        it.unwatch(first)

    ours, theirs = socket.socketpair()
    with System() as system:
        ref = system.start(Watcher, theirs, mess=mess)
        ref.ask(Do("mess"))
        assert "closed before it was unwatched" in system.wait(ref).reason.text
    for fd in (read, write):
        os.close(fd)
    ours.close()
    theirs.close()


def test_what_cannot_be_watched_is_an_error(pair: Pair) -> None:
    with System() as system, open(__file__) as plain:
        ref = system.start(
            Watcher,
            pair[1],
            plain=lambda it: it.watch(plain.fileno(), lambda: None),
            closed=lambda it: it.watch(9999, lambda: None),
            nothing=lambda it: it.watch(it.fd),
        )
        for name, error in (
            ("plain", "PermissionError"),
            ("closed", "OSError"),
            ("nothing", "ValueError"),
        ):
            with pytest.raises(RemoteActorError, match=error):
                ref.ask(Do(name))


def test_descriptors_of_the_poller_are_closed_however_the_actor_ends(pair: Pair) -> None:
    class FailsToStart(Watcher):
        def on_start(self) -> None:
            super().on_start()
            raise ValueError

    with System() as system:
        before = len(os.listdir("/proc/self/fd"))
        for end in (Leave(), Shutdown()):
            ref = system.start(Watcher, pair[1])
            ref.tell(end)
            system.wait(ref)
        ref = system.start(Watcher, pair[1])
        ref.tell(Fail())
        system.wait(ref)
        with pytest.raises(Exception, match="could not start"):
            system.start(FailsToStart, pair[1])
        assert len(os.listdir("/proc/self/fd")) == before


def test_an_actor_that_never_watches_has_no_descriptor() -> None:
    with System() as system:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            system.start(Recorder).ask(Say(""))
        assert len(os.listdir("/proc/self/fd")) == before
