"""Domains that do with the store what they are asked to, in a thread or in a process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from threading import Event
from typing import Any, ClassVar

import pytest

from actors import Message
from hypervisor import (
    Follower,
    Guest,
    Machine,
    StoreChanged,
    StoreTransaction,
    Watch,
    WatchEvent,
)
from hypervisor.store_calls import CloseStore, StoreCall, StoreRequest, StoreTaken
from hypervisor.xs_wire import Op, Packet
from transport import BackEnd, BackEndActor, FrontEnd, RemoteError, Request, connect

PATIENCE = 20.0


class Stores(BackEnd):
    """Every request is a call of `Guest.store`; its answer is what the call returned."""

    runner = "tests.hypervisor.store_programs:StoresActor"
    workers = 8
    guest: Guest

    def on_start(self, *paths: str) -> None:
        """Wait for the first event of each path, which it watches from the beginning."""
        self.transactions: dict[int, StoreTransaction] = {}
        self.listeners: dict[int, Watch | Follower] = {}
        self.first = []
        for path in paths:
            with self.guest.store.watch(path) as watch:
                self.first.append(watch.get(PATIENCE))

    def on_stop(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        if self.guest.store.exists("last-words"):
            self.guest.store.write("/last-words", b"written in on_stop")

    def keep(self, listener: Watch | Follower) -> int:
        self.listeners[listener.number] = listener
        return listener.number

    def on_request(self, request: Request) -> Any:
        store = self.guest.store
        match request.body:
            case ["domid"]:
                return self.guest.domid
            case ["first"]:
                return self.first
            case ["watch", path, *depth]:
                return self.keep(store.watch(path, depth=depth[0] if depth else None))
            case ["follow", path, since]:
                return self.keep(store.follow(path, since))
            case ["get", number, *timeout]:
                return self.offload(_get, self.listeners[number], *(timeout or [PATIENCE]))
            case ["take", number]:
                return _take(self.listeners[number])
            case ["revision", number]:
                follower = self.listeners[number]
                assert isinstance(follower, Follower)
                return follower.revision
            case ["close", number]:
                return self.listeners.pop(number).close()
            case ["snapshot", path]:
                return list(store.snapshot(path))
            case ["start"]:
                number = len(self.transactions) + 1
                self.transactions[number] = store.transaction()
                return number
            case ["in", number, what, *arguments]:
                return getattr(self.transactions[number], what)(*arguments)
            case ["packet", data]:
                return self.guest.hypercall(StoreRequest(data))
            case ["large packet", head, size]:  # a request has not the room for it
                return self.guest.hypercall(StoreRequest(head + b"x" * size))
            case ["write x", path, size]:
                return store.write(path, b"x" * size)
            case ["long directory", path]:
                names = store.directory(path)
                return [len(names), names[0], names[-1], sha256("".join(names).encode()).digest()]
            case ["deaf"]:  # the thread that reads the hypercall socket comes back no more
                guest: Any = self.guest
                guest.store.deliver = lambda _: Event().wait()
                return None
            case ["taken"]:
                guest = self.guest
                return guest.send(StoreTaken())
            case ["say", "machine's"]:
                return self.guest.hypercall(CloseStore(1))
            case ["say", "another's"]:
                read = Packet(Op.READ, 0, 0, b"/local\0").encode()
                return self.guest.hypercall(StoreCall(1, StoreRequest(read)))
            case [what, *arguments]:
                return getattr(store, what)(*arguments)
        raise ValueError(request.body)


def _get(listener: Watch | Follower, timeout: float) -> Any:
    found = listener.get(timeout)
    return found if found is None or isinstance(found, str) else list(found)


def _take(listener: Watch | Follower) -> list[list[Any]]:
    assert isinstance(listener, Follower)
    return [list(change) for change in listener.take()]


class StoresActor(BackEndActor):
    """Gives the driver its guest."""

    def __init__(self, guest: Guest, program: type[Stores], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        driver = self._driver
        assert isinstance(driver, Stores)
        driver.guest = guest


class Watching(BackEnd):
    """A driver whose actor is told what it watches and follows, and notes it in the store."""

    runner = "tests.hypervisor.store_programs:WatchingActor"


class WatchingActor(BackEndActor):
    """See above."""

    watched: ClassVar[str] = "/watched"

    def on_start(self) -> None:
        super().on_start()
        self._store = self._guest.store
        self._follower = self._store.follow(self.watched, to=self.ref)
        self._watch = self._store.watch(self.watched, to=self.ref)

    def on_stop(self) -> None:
        self._follower.close()
        self._watch.close()
        super().on_stop()

    def on_receive(self, message: Message) -> None:
        match message:
            case WatchEvent(number, path):
                assert number == self._watch.number
                self._store.write(f"events{path}", b"")
            case StoreChanged(number):
                assert number == self._follower.number
                while changes := self._follower.take():
                    for change in changes:
                        self._store.write(f"changes/{change.revision}", change.new or b"gone")
            case _:
                super().on_receive(message)


class World:
    """A machine with such domains."""

    def __init__(self, stack: ExitStack, machine: Machine) -> None:
        self._stack = stack
        self.machine = machine
        self.store = machine.store

    def domain(self, name: str, placement: str, *args: Any, restart: str = "temporary") -> FrontEnd:
        self.machine.start(name, Stores, *args, placement=placement, restart=restart)
        return self._stack.enter_context(connect(self.machine, name))


@contextmanager
def new_world() -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, stack.enter_context(Machine(spares=0)))


def ask(domain: FrontEnd, *body: Any) -> Any:
    """What the domain answers; a channel's arrays are lists again."""
    return _listed(domain.call(list(body), timeout=PATIENCE))


def _listed(value: Any) -> Any:
    return [_listed(part) for part in value] if isinstance(value, tuple) else value


def refused(domain: FrontEnd, *body: Any) -> str:
    """The name of the error, or its errno if it is the store's."""
    with pytest.raises(RemoteError) as error:
        ask(domain, *body)
    name, text = error.value.error, error.value.text
    return text.partition(":")[0] if name == "StoreError" else name
