"""What a peer may write into its own pages, and what comes of it: never more than its own end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]
import pytest

from hypervisor import Machine
from tests.transport.drivers import Echo, SpinningEcho
from tests.transport.hostile import Liar
from transport import ChannelClosed, connect

GARBAGE = [
    b"\xc1",
    msgpack.packb("not an array"),
    msgpack.packb([1, 2]),
    msgpack.packb([0, 1, "body"]),
    msgpack.packb(["epoch", 1, "body"]),
    msgpack.packb([1, "number", "body"]),
    b"\x95\x01\x01",
]


@pytest.fixture
def machine() -> Iterator[Machine]:
    with Machine(intensity=100, watchdog=0.3) as machine:
        yield machine


@pytest.mark.parametrize("records", GARBAGE)
def test_a_front_end_that_writes_garbage_loses_its_channel_alone(
    machine: Machine, records: bytes
) -> None:
    machine.start("echo", Echo)
    pid = machine.pid("echo")
    good, bad = connect(machine, "echo"), connect(machine, "echo")
    assert good.call("before") == "before"
    link = bad._link
    assert link is not None
    link.queue.append(records)
    with pytest.raises(ChannelClosed, match="refused us"):
        bad.call("after the garbage")
    assert good.call("after") == "after"
    assert machine.pid("echo") == pid


def test_a_front_end_that_writes_garbage_while_it_is_looked_at_loses_its_channel_alone(
    machine: Machine,
) -> None:
    machine.start("echo", SpinningEcho)
    pid = machine.pid("echo")
    bad = connect(machine, "echo")
    assert bad.call("before") == "before"  # its event has the driver look around, from now on
    link = bad._link
    assert link is not None
    link.queue.append(GARBAGE[0])
    with pytest.raises(ChannelClosed, match="refused us"):
        bad.call("after the garbage")
    assert connect(machine, "echo").call("after") == "after"
    assert machine.pid("echo") == pid


@pytest.mark.parametrize("span", [(-1, 10), (0, 1 << 40), (1 << 63, 1), (0, -5)])
def test_a_buffer_outside_the_granted_memory_is_refused(
    machine: Machine, span: tuple[int, int]
) -> None:
    machine.start("echo", Echo)
    channel = connect(machine, "echo")
    link: Any = channel._link
    link.queue.append(msgpack.packb([link.epoch, 1, "upper", *span]))
    with pytest.raises(ChannelClosed, match="a buffer of"):
        channel.call("next")


@pytest.mark.parametrize("lie", ["garbage", "unknown number", "old epoch", "no array", "index"])
def test_a_back_end_that_lies_is_replaced_and_nobody_notices(
    machine: Machine, lie: str, tmp_path: Any
) -> None:
    machine.start("liar", Liar, lie, str(tmp_path / "lied"))
    channel = connect(machine, "liar")
    assert channel.call("question") == "honest"
    assert channel.statistics().faults == 1
    assert channel.statistics().epochs == 2
