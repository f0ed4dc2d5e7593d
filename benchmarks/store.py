"""The store: each operation by four ways to it, at three sizes; is the cost the same at each?

The ways: the pure store with its protocol and nothing around it; its actor in the same process; the
unix socket, as other people's clients use it; and the hypercall of a domain that is a process. They
all do the same, by the same client, and are measured in turns.
"""

from __future__ import annotations

import os
import random
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from actors import Message
from benchmarks.effort import Effort
from benchmarks.report import interleave, median, progress, table
from hypervisor import Guest, Machine, StoreClient, Watch
from hypervisor.store import Store
from hypervisor.store_calls import StoreRequest
from hypervisor.store_permissions import Caller
from hypervisor.store_watches import Event
from hypervisor.xs_requests import answer
from hypervisor.xs_wire import Frames, Op, Packet, pack, parse, unpack
from transport import BackEnd, BackEndActor, FrontEnd, Request, connect

SIZES = (1_000, 10_000, 100_000)
WAYS = ("pure", "actor", "unix socket", "hypercall")
WATCHES = 1_000
CHILDREN = 1_000
PATIENCE = 60.0
OPERATIONS = {
    "read": 400,
    "write": 400,
    "transaction": 100,
    f"directory of {CHILDREN}": 20,
    "write, and hear of it": 200,
    f"{WATCHES} watches hear of a write": 2,
}
"""How often each is done for one measurement."""


def run(effort: Effort) -> None:
    """Measure and print."""
    sizes = [effort.count(size) for size in SIZES]
    with ExitStack() as stack:
        worlds = {size: stack.enter_context(_world(size)) for size in sizes}
        contestants: dict[str, Callable[[], float]] = {}
        for operation in OPERATIONS:
            for way in WAYS:
                for size in sizes:
                    name = f"{operation}|{way}|{size}"
                    contestants[name] = partial(worlds[size][way], operation, size)
        progress("store")
        times = interleave(contestants, effort.rounds)
    for operation in OPERATIONS:
        rows = []
        for way in WAYS:
            each = [median(times[f"{operation}|{way}|{size}"]) for size in sizes]
            base = median(times[f"{operation}|pure|{sizes[0]}"])
            cells = [f"{seconds * 1e6:.1f} us" for seconds in each]
            rows.append([way, *cells, f"{each[-1] / each[0]:.2f}", f"{each[0] / base:.1f}"])
        head = ("nodes", *map(str, sizes), "x last / first", "x pure")
        table(operation, head, rows)


def receive(watch: Watch) -> str | None:
    """Its next event, which somebody else brings."""
    return watch.get(PATIENCE)


def measure(
    client: StoreClient,
    operation: str,
    size: int,
    hear: Callable[[Watch], str | None] = receive,
) -> float:
    """Seconds of one; each time at nodes that are chosen at random among ``size``."""
    count = OPERATIONS[operation]
    paths = [node(random.randrange(size)) for _ in range(count)]
    if operation == "read":
        return _timed(client.read, paths)
    if operation == "write":
        return _timed(lambda path: client.write(path, b"value"), paths)
    if operation == "transaction":
        return _timed(partial(_transact, client), paths)
    if operation.startswith("directory"):
        return _timed(lambda _: client.directory("/wide"), paths)
    watches = [client.watch("/watched") for _ in range(1 if "hear of it" in operation else WATCHES)]
    try:
        _hear_all(watches, hear)
        return _timed(lambda _: _tell(client, watches, hear), paths)
    finally:
        for watch in watches:
            watch.close()


def node(number: int) -> str:
    """The path of the node of that number."""
    return f"/bench/{number // 100}/{number % 100}"


def _timed(operation: Callable[[str], object], paths: list[str]) -> float:
    began = time.perf_counter()
    for path in paths:
        operation(path)
    return (time.perf_counter() - began) / len(paths)


def _transact(client: StoreClient, path: str) -> None:
    with client.transaction() as transaction:
        transaction.write(path, transaction.read(path))


def _tell(client: StoreClient, watches: list[Watch], hear: Callable[[Watch], str | None]) -> None:
    client.write("/watched", b"x")
    _hear_all(watches, hear)


def _hear_all(watches: list[Watch], hear: Callable[[Watch], str | None]) -> None:
    for watch in watches:
        assert hear(watch) == "/watched"


# --- the ways -------------------------------------------------------------------------------------


@contextmanager
def _world(size: int) -> Iterator[dict[str, Callable[[str, int], float]]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        machine = stack.enter_context(Machine(spares=0, store_socket=folder / "store"))
        wire = stack.enter_context(_dial(folder / "store"))
        pure = pure_client(Store())
        for client in (pure, machine.store):
            _fill(client, size)
        _say(wire, Op.SET_QUOTA, pack([b"watches", b"0"]))
        machine.start("bench", Bench)
        domain = stack.enter_context(connect(machine, "bench"))
        yield {
            "pure": partial(measure, pure),
            "actor": partial(measure, machine.store),
            "unix socket": SocketClient(wire).measure,
            "hypercall": partial(_by_hypercall, domain),
        }


def _fill(client: StoreClient, size: int) -> None:
    for path in ("/bench", "/wide", "/watched"):
        client.write(path, b"")
        client.set_perms(path, ["b0"])
    for number in range(size):
        if number % 1_000 == 0:
            progress(f"store: {number} of {size} nodes are there")
        client.write(node(number), b"value")
    for number in range(CHILDREN):
        client.write(f"/wide/child-{number:04}", b"")


def pure_client(store: Store) -> StoreClient:
    """Domain 0's, of a store with nothing around it."""

    def call(said: Message) -> bytes:
        assert isinstance(said, StoreRequest)
        reply, effects = answer(store, Caller(0, 1), parse(said.packet))
        client.deliver((e.path, e.token) for e in effects if isinstance(e, Event))
        return reply

    client = StoreClient(call)
    return client


class SocketClient:
    """Of whatever serves the protocol at the other end; one thread reads what it waits for."""

    def __init__(self, wire: socket.socket) -> None:
        self._wire = wire
        self._frames = Frames()
        self._client = StoreClient(self._call)

    def measure(self, operation: str, size: int) -> float:
        """As the function."""
        return measure(self._client, operation, size, self._hear)

    def _call(self, said: Message) -> bytes:
        assert isinstance(said, StoreRequest)
        self._wire.sendall(said.packet)
        while (packet := self._next()).type == Op.WATCH_EVENT:
            self._deliver(packet)
        return packet.encode()

    def _hear(self, watch: Watch) -> str | None:
        while (path := watch.get(0)) is None:
            self._deliver(self._next())
        return path

    def _deliver(self, event: Packet) -> None:
        path, token = unpack(event.payload)
        self._client.deliver([(path.decode("ascii"), token)])

    def _next(self) -> Packet:
        while (packet := self._frames.take()) is None:
            self._frames.feed(self._wire.recv(1 << 16))
        return packet


@contextmanager
def _dial(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as wire:
        wire.connect(os.fspath(path))
        yield wire


def _say(wire: socket.socket, op: Op, payload: bytes) -> None:
    wire.sendall(Packet(op, 0, 0, payload).encode())
    assert parse(wire.recv(1 << 16)).type == op


def _by_hypercall(domain: FrontEnd, operation: str, size: int) -> float:
    return float(domain.call([operation, size], timeout=PATIENCE))


class Bench(BackEnd):
    """A domain that measures what it is asked to."""

    runner = "benchmarks.store:BenchActor"
    guest: Guest

    def on_request(self, request: Request) -> float:
        operation, size = request.body
        return measure(self.guest.store, operation, size)


class BenchActor(BackEndActor):
    """Gives the driver its guest."""

    def __init__(self, guest: Guest, program: type[Bench], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        driver = self._driver
        assert isinstance(driver, Bench)
        driver.guest = guest
