"""A load on a disk of a simulated machine, and what must hold whatever goes wrong meanwhile.

Every request ends exactly once, with the right answer; what was acknowledged is read back, also by
later incarnations, and is on the platter in the end.

As a program of its own it runs some seeds and prints what became of each (see test_machine.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from actors import Actor, Choices, Faults, Message, Options, System
from actors.explore import attempt
from hypervisor import DOMAIN_FAULTS, DomainStartError, Machine
from tests.simulation.disks import BLOCK, PLATTERS, EarlyDisk, MemoryDisk
from transport import BackEnd, FrontEnd, connect

BLOCKS = 4
ROUNDS = 3
FAULTS = Faults(DOMAIN_FAULTS, rate=0.01, limit=3)
OPTIONS = Options(FAULTS)


class Operate(Message):
    """One request, whose result is the answer."""

    operation: str
    number: int
    how: str
    value: bytes


class Client(Actor):
    """One that calls, beside others; answered by what is in the buffer afterwards."""

    def __init__(self, channel: FrontEnd) -> None:
        super().__init__()
        self.channel = channel

    def on_receive(self, message: Message) -> bytes:
        assert isinstance(message, Operate)
        with self.channel.buffer(BLOCK) as buffer:
            buffer.view[:] = message.value
            body = (message.operation, message.number, message.how)
            assert self.channel.call(body, buffer) == message.number
            return bytes(buffer.view)


Rounds = Callable[[System, FrontEnd, list[Operate]], list[bytes]]


def by_clients(system: System, channel: FrontEnd, asked: list[Operate]) -> list[bytes]:
    """Actors call, all at the same time."""
    clients = [system.start(Client, channel) for _ in asked]
    futures = [client.ask_future(each, 1000) for client, each in zip(clients, asked, strict=True)]
    values = [future.result() for future in futures]
    for client in clients:
        client.stop()
    return values


def by_event_loop(system: System, channel: FrontEnd, asked: list[Operate]) -> list[bytes]:
    """One loop submits and reaps."""
    for token, each in enumerate(asked):
        buffer = channel.buffer(BLOCK)
        buffer.view[:] = each.value
        channel.submit((each.operation, each.number, each.how), buffer, token)
    channel.push()
    values: dict[int, bytes] = {}
    while len(values) < len(asked):
        assert channel.wait(1000), "there is no answer"
        for completion in channel.reap():
            assert completion.error is None, completion.error
            assert completion.result == asked[completion.token].number, "another one's answer"
            assert completion.token not in values, "it has ended twice"
            assert completion.buffer is not None
            values[completion.token] = bytes(completion.buffer.view)
            completion.buffer.release()
    return [values[token] for token in range(len(asked))]


def run(system: System, disk: type[MemoryDisk]) -> None:
    """One machine, one disk, some rounds of requests."""
    assert system.simulation is not None
    choose = system.simulation.choose
    platter = PLATTERS["disk"] = {}
    zeros = bytes(BLOCK)
    written = dict.fromkeys(range(BLOCKS), zeros)
    go: Rounds = (by_event_loop, by_clients)[choose(2)]
    with Machine(system=system, intensity=1000) as machine:
        start(machine, disk, "disk")
        with connect(machine, "disk", slots=8, buffer_bytes=1 << 15, timeout=1000) as channel:
            for count in range(1, ROUNDS + 1):
                asked = [
                    Operate(
                        ("write", "read")[choose(2)],
                        number,
                        ("inline", "offload")[choose(2)],
                        bytes([count + 16 * number]) * BLOCK,
                    )
                    for number in range(BLOCKS)
                ]
                for each, value in zip(asked, go(system, channel, asked), strict=True):
                    if each.operation == "write":
                        written[each.number] = each.value
                    else:
                        assert value == written[each.number], "what was written is lost"
            asked = [Operate("read", number, "inline", zeros) for number in range(BLOCKS)]
            values = go(system, channel, asked)
            assert dict(enumerate(values)) == written, "what was written is lost"
            assert channel.statistics().in_flight == 0
    assert {**dict.fromkeys(range(BLOCKS), zeros), **platter} == written


def start(machine: Machine, disk: type[BackEnd], *args: Any) -> None:
    """Whoever starts a domain that dies at once hears of it, and starts it again."""
    while True:
        try:
            machine.start("disk", disk, *args)
        except DomainStartError:
            continue
        return


def test(system: System) -> None:
    """The right disk."""
    run(system, MemoryDisk)


def wrong(system: System) -> None:
    """The one that acknowledges before it stores."""
    run(system, EarlyDisk)


def outcome(seed: int) -> list[Any]:
    """What became of one seed: its trace, its choices, its error."""
    scheduler, error = attempt(test, Choices.seeded(seed), OPTIONS)
    return [scheduler.trace.lines(), scheduler.choices.recorded, repr(error)]


if __name__ == "__main__":
    for number in range(30):
        sys.stdout.write(json.dumps(outcome(number)) + "\n")
