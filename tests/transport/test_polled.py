"""Item 8: polled calls: between a caller that polls and a driver that spins, a request and its
answer touch no mailbox, no eventfd and no other thread.

Shown by counting: signals, what mailboxes took, and how often the back end's threads went to sleep.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from actors import Actor, Message, Ref
from hypervisor import EventChannel, Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device, Spinner
from transport import DeadlineExceeded, FrontEnd, LocalProtocolError, connect

CALLS = 2000


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(watchdog=60) as machine:
        yield machine


def sleeps_of(pid: int) -> int:
    """How often threads of a process gave up a processor because they had nothing to do."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if line.startswith("voluntary_ctxt_switches"):
                total += int(line.split()[1])
    return total


def signalled(fd: int) -> bool:
    try:
        return bool(os.eventfd_read(fd))
    except BlockingIOError:
        return False


def test_a_polled_call_signals_nobody_and_is_signalled_by_nobody(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start("device", Spinner)
    channel = connect(machine, "device")
    pid = machine.pid("device")
    for number in range(100):
        channel.call(number, wait="poll")
    signalled(channel.wake.fileno())
    used: list[str] = []
    for kind, name in ((EventChannel, "send"), (Ref, "tell"), (Ref, "ask_future")):
        honest = getattr(kind, name)

        def counted(*args: Any, _name: str = name, _honest: Any = honest, **options: Any) -> Any:
            used.append(_name)
            return _honest(*args, **options)

        monkeypatch.setattr(kind, name, counted)
    before = sleeps_of(pid)
    for number in range(CALLS):
        assert channel.call(number, wait="poll") == number
    slept = sleeps_of(pid) - before
    assert not used
    assert not signalled(channel.wake.fileno())
    # Its other threads have their own business, but not for each call.
    assert slept < CALLS / 20


def polled(channel: FrontEnd, count: int) -> list[Any]:
    """The results of an event loop that polls, of so many requests at once."""
    requests = [channel.submit(number) for number in range(count)]
    channel.push()
    ended: list[Any] = []
    while len(ended) < count:
        ended += channel.reap(arm=False)
    return [request.result for request in requests]


def test_a_loop_that_polls_is_not_signalled(machine: Machine) -> None:
    machine.start("device", Spinner)
    channel = connect(machine, "device")
    number = channel.fileno()
    assert polled(channel, 8) == list(range(8))  # the first is signalled, as nobody has looked yet
    assert signalled(number)
    for _ in range(100):
        assert polled(channel, 8) == list(range(8))
    assert not signalled(number)
    channel.reap()
    channel.submit("x")
    channel.push()
    assert channel.wait(10)
    assert [request.result for request in channel.reap()] == ["x"]


def test_a_driver_that_spins_does_not_for_who_only_connects(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[None] = []
    monkeypatch.setattr(os, "sched_yield", lambda: looks.append(None))
    machine.start("device", Spinner, placement="thread")
    channels = [connect(machine, "device") for _ in range(3)]
    machine.shutdown("device")
    assert not looks
    for channel in channels:
        channel.close()


def test_a_polled_call_works_whether_or_not_the_driver_spins(opens: Opens) -> None:
    for driver in (Device, Spinner):
        channel = opens(driver, device=driver.__name__.lower())
        with channel.buffer(100) as buffer:
            buffer.view[:] = b"a" * 100
            assert channel.call("x", wait="poll") == "x"
            channel.call("upper", buffer, wait="poll")
            assert bytes(buffer.view) == b"A" * 100
        assert channel.call("y", wait="sleep") == "y"
        assert channel.call(("drain-in", 0), send=b"abc", wait="poll")[0] == 3


def test_a_polled_call_has_a_deadline(machine: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "one.runs")
    os.mkfifo(tmp_path / "one.go")
    machine.start("device", Device, str(tmp_path))
    channel = connect(machine, "device")
    with pytest.raises(DeadlineExceeded):
        channel.call(("hold", "one"), wait="poll", timeout=0.01)
    (tmp_path / "one.runs").read_bytes()
    with open(tmp_path / "one.go", "wb"):
        assert channel.call("x", wait="poll") == "x"


def test_a_polled_call_survives_its_back_end(machine: Machine, tmp_path: Path) -> None:
    machine.start("device", Device, str(tmp_path))
    channel = connect(machine, "device")
    assert channel.call(("again-die", "flag"), wait="poll") == "the second time"


class Ask(Message):
    body: str


class Driver(Actor):
    """An actor that may not wait: it has no thread of its own."""

    pooled = True

    def __init__(self, channel: FrontEnd) -> None:
        super().__init__()
        self.channel = channel

    def on_receive(self, message: Message) -> Any:
        assert isinstance(message, Ask)
        return self.channel.call(message.body, wait="poll")


def test_an_actor_that_may_not_wait_makes_polled_calls(opens: Opens, host: Machine) -> None:
    if host.system.simulation:
        pytest.skip("a pooled actor is never kept waiting there, and nobody polls")
    channel = opens(Spinner)
    actor = host.system.start(Driver, channel)
    for body in "abc":
        assert actor.ask(Ask(body)) == body


def test_the_loop_that_drives_a_channel_makes_polled_calls(opens: Opens, host: Machine) -> None:
    channel = opens(Spinner)
    assert channel.wait(0)
    channel.submit("submitted", token="token")
    with pytest.raises(LocalProtocolError, match="would wait for itself"):
        channel.call("asleep")
    if host.system.simulation:
        pytest.skip("nobody polls there")
    assert channel.call("polled", wait="poll") == "polled"
    ended = channel.reap()
    while not ended:
        assert channel.wait(10)
        ended = channel.reap()
    assert [(each.token, each.result) for each in ended] == [("token", "submitted")]


def test_a_driver_that_spins_serves_all_its_front_ends(machine: Machine) -> None:
    machine.start("device", Spinner)
    channels = [connect(machine, "device") for _ in range(4)]
    for number in range(50):
        for channel in channels:
            assert channel.call(number, wait="poll") == number
    channels[0].close()
    assert channels[1].call("after one has gone", wait="poll")
    assert connect(machine, "device").call("another comes while it spins")


def test_there_are_three_ways_to_wait(opens: Opens) -> None:
    channel = opens()
    with pytest.raises(ValueError, match="'sleep', 'spin' or 'poll'"):
        channel.call("x", wait="hope")
