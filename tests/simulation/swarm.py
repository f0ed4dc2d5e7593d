"""A tree of supervisors under everything that can happen to it, and what must hold nevertheless.

One run: a tree that its seed makes (strategies, restarts, backoffs, ways to start and to stop), a
dozen acts of the world (crashes, kills, ends, requests, pauses) at moments that its seed chooses,
faults among them; then all calms down, or the top is stopped in the middle of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import Counter
from typing import Any, ClassVar

from actors import (
    Actor,
    ActorDead,
    AwaitChildren,
    Backoff,
    ChildSpec,
    ChildStatus,
    CountChildren,
    DeleteChild,
    Down,
    Faults,
    Future,
    GetChildSpec,
    Message,
    Options,
    Ref,
    RestartChild,
    Scheduler,
    StartChild,
    StartFailed,
    StartInstance,
    StopChild,
    Supervisor,
    System,
    TerminateChild,
    WhichChildren,
)

FAULTS = Faults(rate=0.1, limit=5, max_delay=2.0)
OPTIONS = Options(FAULTS)

STRATEGIES = ("one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one")
GROUPED = ("one_for_all", "rest_for_one")
RESTARTS = ("permanent", "transient", "temporary")


class Crash(Message):
    pass


class Leave(Message):
    pass


class Seen(Message):
    pass


class Witness(Actor):
    """Who has ended, by the number of the monitor."""

    def __init__(self) -> None:
        super().__init__()
        self.downs: list[int] = []

    def on_receive(self, message: Message) -> Any:
        match message:
            case Down(_, _, _, monitor):
                self.downs.append(monitor)
            case Seen():
                return self.downs
        return None


class Child(Actor):
    """Does what it is told; a witness watches each of its incarnations."""

    world: ClassVar[World]

    def on_start(self) -> Any:
        self.world.watch(self.ref)

    def on_receive(self, message: Message) -> Any:
        match message:
            case Crash():
                raise RuntimeError("told to")
            case Leave():
                self.exit()


class PooledChild(Child):
    pooled = True


class SlowChild(Child):
    """Takes its time to start, to work and to stop."""

    async def on_start(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0.3)
        super().on_start()

    async def on_receive(self, message: Message) -> None:
        await asyncio.sleep(0.2)
        super().on_receive(message)

    async def on_stop(self) -> None:  # type: ignore[override]
        await asyncio.sleep(0.4)


class Parent(Child):
    """Starts a child of its own, and asks it before it is up itself."""

    def on_start(self) -> None:
        self.start_child(PooledChild, name=f"{self.name}'s").ask(Seen())
        super().on_start()


KINDS = (Child, PooledChild, SlowChild, Parent)


class World:
    """What really happens, by the trace; checked after every step."""

    def __init__(self, system: System, witness: Ref) -> None:
        assert system.simulation is not None
        self.system = system
        self.simulation: Scheduler = system.simulation
        self.witness = witness
        self.strategies: dict[str, str] = {}  # of the supervisors
        self.specs: dict[str, list[ChildSpec]] = {}  # that a supervisor begins with
        self.parents: dict[str, str] = {}  # the supervisor of each child
        self.living: Counter[str] = Counter()
        self.up: set[str] = set()  # as far as their supervisors know
        self.ends: list[str] = []
        self.monitors: dict[int, Ref] = {}
        self.requests: list[tuple[str, Future]] = []
        self.last: dict[str, int] = {}  # which of its first children a supervisor started last
        self._next = 0

    def watch(self, ref: Ref) -> None:
        self.monitors[self.system.monitor(ref, self.witness)] = ref

    def expect(self, supervisor: str, strategy: str, specs: list[ChildSpec]) -> None:
        self.strategies[supervisor] = strategy
        self.specs[supervisor] = specs
        for name in (*(spec.name for spec in specs), f"{supervisor}-0", f"{supervisor}-1"):
            self.parents[name] = supervisor

    def look(self) -> None:
        events = self.simulation.trace.events
        while self._next < len(events):
            event = events[self._next]
            self._next += 1
            if event.what == "starts":
                self.starts(event.actor)
            elif event.what == "ends":
                self.has_ended(event.actor)
            elif event.what == "receives" and event.values[0].startswith("Started("):
                self.up.add(event.values[0].split("'")[1])

    def starts(self, name: str) -> None:
        self.living[name] += 1
        self.up.discard(name)
        assert self.living[name] <= 1 or name.endswith("'s"), f"two of {name} live"
        supervisor = self.parents.get(name)
        if supervisor is None or self.strategies[supervisor] not in GROUPED:
            return
        assert self.living[supervisor], f"{name} starts without its supervisor"
        starting = {
            other
            for other, parent in self.parents.items()
            if parent == supervisor and self.living[other] > 0 and other not in {name, *self.up}
        }
        assert not starting, f"{name} starts, and {starting} have not started yet"
        order = [spec.name for spec in self.specs[supervisor]]
        if name in order and not self.requests:
            index = order.index(name)
            assert index > self.last.get(supervisor, -1), f"{name} starts out of order"
            self.last[supervisor] = index

    def has_ended(self, name: str) -> None:
        if self.living[name]:  # else it was killed before it could begin
            self.living[name] -= 1
        self.up.discard(name)
        self.ends.append(name)
        self.last.pop(name, None)
        self.last.pop(self.parents.get(name, ""), None)  # a group operation may begin here


def pick(simulation: Scheduler, values: Any) -> Any:
    return values[simulation.choose(len(values))]


def make_spec(simulation: Scheduler, name: str, auto_shutdown: str = "never") -> ChildSpec:
    restart = pick(simulation, RESTARTS)
    may_be_significant = restart != "permanent" and auto_shutdown != "never"
    return ChildSpec.of(
        name,
        pick(simulation, KINDS),
        restart=restart,
        shutdown=pick(simulation, (5.0, None, 0.2, 0.0)),
        backoff=pick(simulation, (None, None, Backoff(0.5, 4.0))),
        significant=may_be_significant and pick(simulation, (False, True)),
        registered=True,
    )


def make_supervisor(world: World, name: str, children: str, *more: ChildSpec) -> list[Any]:
    """Its arguments."""
    simulation = world.simulation
    auto_shutdown = pick(simulation, ("never", "never", "any_significant", "all_significant"))
    strategy = pick(simulation, STRATEGIES[: 3 if more else 4])
    specs = [make_spec(simulation, child, auto_shutdown) for child in children]
    if strategy == "simple_one_for_one":
        del specs[1:]
    for spec in more:
        specs.insert(simulation.choose(len(specs) + 1), spec)
    world.expect(name, strategy, [] if strategy == "simple_one_for_one" else specs)
    return [specs, pick(simulation, (1, 3, 9)), 5.0, strategy, auto_shutdown]


def make_tree(world: World) -> list[Any]:
    """The arguments of the top: it has three children, and a supervisor of three more."""
    inner = make_supervisor(world, "inner", "def")
    spec = ChildSpec.of("inner", Supervisor, *inner, registered=True)
    return make_supervisor(world, "top", "abc", spec)


def act(world: World, *, requests: bool) -> None:
    """One of the things that the world does."""
    simulation, system = world.simulation, world.system
    child = pick(simulation, "abcdef")
    match simulation.choose(10 if requests else 5):
        case 0 | 1:
            simulation.advance(simulation.choose(8) / 10)
        case 2:
            system.named(pick(simulation, (child, child, child, "inner"))).tell(Crash())
        case 3:
            system.named(child).tell(Leave())
        case 4:
            if (ref := system.whereis(child)) is not None:
                ref.kill()
        case 5:
            supervisor = pick(simulation, ("top", "inner"))
            message = pick(simulation, (WhichChildren(), AwaitChildren(), CountChildren()))
            ask(world, supervisor, message)
        case 6:
            supervisor = pick(simulation, ("top", "inner"))
            name = f"{supervisor}-{simulation.choose(2)}"
            ask(world, supervisor, StartChild(make_spec(simulation, name)))
        case 7:
            ask(world, "inner", StartInstance([]))
        case _:
            supervisor = pick(simulation, ("top", "inner"))
            kind = pick(simulation, (StopChild, TerminateChild, RestartChild, DeleteChild))
            name = pick(simulation, (child, child, "inner", "top-0", "inner-0", "d-1"))
            ask(world, supervisor, pick(simulation, (kind, kind, GetChildSpec))(name))


def ask(world: World, supervisor: str, message: Message) -> None:
    """Without a deadline: it is to be answered, or to fail, in any case."""
    ref = world.system.named(supervisor)
    world.requests.append((f"{supervisor}: {message}", ref.ask_future(message, math.inf)))


def check_rest(world: World, top: Ref) -> None:
    """Nothing is under way any more: what is said to run runs, and what ought to."""
    for request, future in world.requests:
        assert future.settled, f"no answer to {request}"
    downs = Counter(world.witness.ask(Seen()))
    for number, ref in world.monitors.items():
        expected = 0 if ref.is_alive() else 1
        assert downs[number] == expected, f"{downs[number]} reports of {ref.name}"
    running = {"witness"}
    if top.is_alive():
        running |= {"top", *check_supervisor(world, "top")}
        if "inner" in running:
            running |= check_supervisor(world, "inner")
    living = {name for name, count in world.living.items() if count}
    assert {name.removesuffix("'s") for name in living} == running


def check_supervisor(world: World, supervisor: str) -> set[str]:
    """Its children that run."""
    statuses: list[ChildStatus] = world.system.named(supervisor).ask(WhichChildren())
    states = {status.name: status.state for status in statuses}
    assert set(states.values()) <= {"running", "stopped"}, f"{supervisor} is not at rest: {states}"
    running = {status.name for status in statuses if status.ref and status.ref.is_alive()}
    assert running == {name for name, state in states.items() if state == "running"}
    if not world.requests:
        permanent = {each.name for each in world.specs[supervisor] if each.restart == "permanent"}
        assert permanent <= running, f"{permanent - running} ought to run"
    return running


def check_order(world: World, top: Ref) -> None:
    """All children end when their supervisor does, the last one first."""
    statuses: list[ChildStatus] = top.ask(WhichChildren())
    order = [status.name for status in statuses if status.state == "running"]
    world.ends.clear()
    top.stop()
    assert [name for name in world.ends if name in order] == order[::-1]
    world.simulation.settle()  # children of killed children are told to end, and not waited for
    assert {name for name, count in world.living.items() if count} == {"witness"}


def test(system: System) -> None:
    simulation = system.simulation
    assert simulation is not None
    witness = system.start(Witness, name="witness")
    world = Child.world = World(system, witness)
    simulation.invariant(world.look)
    requests = simulation.choose(2) > 0
    try:
        top = system.start(Supervisor, *make_tree(world), name="top", registered=True)
    except StartFailed:
        simulation.settle()
        assert {name for name, count in world.living.items() if count} == {"witness"}
        return
    world.watch(top)
    for _ in range(simulation.choose(12)):
        with contextlib.suppress(ActorDead):
            act(world, requests=requests)
    if simulation.choose(3) == 0:
        top.stop()
    simulation.settle()
    check_rest(world, top)
    if top.is_alive():
        check_order(world, top)
