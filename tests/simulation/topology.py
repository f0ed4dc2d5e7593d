"""One of everything under one seed: supervisors, restarts, timers, asks, faults, coroutines, links,
monitors, names, sets and dicts. Run as a program it prints what 50 seeds gave, a line of JSON each.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from typing import Any

from actors import (
    Actor,
    ActorError,
    Backoff,
    ChildSpec,
    Choices,
    Down,
    Exit,
    Faults,
    Message,
    Options,
    Ref,
    Supervisor,
    System,
)
from actors.explore import attempt


class Subscribe(Message):
    to: Ref


class Beat(Message):
    pass


class News(Message):
    counts: dict[str, int]
    about: dict[str, Any]
    sources: list[Ref]


class Ask(Message):
    words: list[str]


class Hub(Actor):
    """Tells all subscribers now and then how often it has heard which word."""

    def __init__(self) -> None:
        super().__init__()
        self.subscribers: set[Ref] = set()
        self.counts: dict[str, int] = {}

    def on_start(self) -> None:
        self.every(0.3, Beat())

    def on_receive(self, message: Message) -> Any:
        match message:
            case Subscribe(to):
                self.subscribers.add(to)
                self.monitor(to)
            case Down(ref):
                self.subscribers.discard(ref)
            case Ask(words):
                for word in words:
                    self.counts[word] = self.counts.get(word, 0) + 1
                return self.counts
            case Beat():
                about = {"now": self.system.now(), "words": sorted({*self.counts})}
                for ref in self.subscribers:
                    ref.tell(News(self.counts, about, list(self.subscribers)))
        return None


class Reader(Actor):
    """Subscribes, and asks back when there are news."""

    pooled = True

    def on_start(self) -> None:
        self.system.named("hub").tell(Subscribe(self.ref))

    def on_receive(self, message: Message) -> Any:
        if isinstance(message, News) and self.sender is not None:
            self.sender.tell(Ask([self.name, *message.counts][:3]))
        return None


class Writer(Actor):
    """Asks the hub in several coroutines at a time; one that fails takes the others along."""

    async def on_receive(self, message: Message) -> Any:
        if not isinstance(message, Ask):
            return None
        hub = self.system.named("hub")

        async def ask(word: str) -> dict[str, int]:
            await asyncio.sleep(len(word) / 100)
            counts: dict[str, int] = await hub.ask_async(Ask([word]), timeout=0.5)
            return counts

        async with asyncio.TaskGroup() as group:
            tasks = {group.create_task(ask(word)) for word in message.words}
        return next(task.result() for task in tasks)


class Twin(Actor):
    """Linked to the other one."""

    def __init__(self, other: str) -> None:
        super().__init__()
        self.other = other

    def on_start(self) -> None:
        if (other := self.system.whereis(self.other)) is not None:
            self.link(other)

    def on_receive(self, message: Message) -> Any:
        match message:
            case Ask(words):
                return self.system.named("hub").ask(Ask(words), timeout=0.5)
            case Exit(_, name):
                return name
        return None


def test(system: System) -> None:
    simulation = system.simulation
    assert simulation is not None
    backoff = Backoff(initial=0.2, maximum=1.0)
    twins = [
        ChildSpec.of("castor", Twin, "pollux", registered=True),
        ChildSpec.of("pollux", Twin, "castor", registered=True, backoff=backoff),
    ]
    specs = [
        ChildSpec.of("hub", Hub, registered=True),
        *(ChildSpec.of(f"reader-{n}", Reader, backoff=backoff) for n in range(3)),
        ChildSpec.of("writer", Writer, registered=True),
        ChildSpec.of("twins", Supervisor, twins, 5, 5.0, "one_for_all"),
    ]
    system.start(Supervisor, specs, 9, 5.0, "rest_for_one", name="top")
    names = ["hub", "writer", "castor", "pollux"]
    for _ in range(8):
        ref = system.named(names[simulation.choose(len(names))])
        words = ["alpha", "beta", "gamma"][: 1 + simulation.choose(3)]
        with contextlib.suppress(ActorError):
            if simulation.choose(2):
                ref.ask(Ask(words), timeout=1.0)
            else:
                ref.tell(Ask(words))
        simulation.advance(simulation.choose(4) / 10)
    simulation.eventually(lambda: system.whereis("pollux") is not None, within=60)


OPTIONS = Options(Faults(limit=4), preemption=0.2)


def main() -> None:
    for seed in range(50):
        run, error = attempt(test, Choices.seeded(seed), OPTIONS)
        line = json.dumps([seed, str(error), run.choices.recorded, run.trace.lines()])
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
