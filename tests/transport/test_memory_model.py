"""Item 7: drivers do not know whether the memory is mapped or copied, or where they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from examples.block import plan
from examples.block.disk import Disk
from examples.block.load import Load
from examples.block.oracle import Oracle
from hypervisor import Guest, Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device
from tests.transport.drivers import Echo
from transport import BackEnd, OnLoss, RemoteError, Request, connect


class Careless(BackEnd):
    """Writes, and then fails; or writes where it said that it only reads."""

    def on_request(self, request: Request) -> None:
        assert request.buffer is not None
        if request.body == "readonly":
            with request.buffer.map(readonly=True) as pages:
                pages[:1] = b"x"
        with request.buffer.map() as pages:
            pages[:3] = b"new"
            raise ArithmeticError(request.body)


def test_the_echo_drivers_run_unchanged(opens: Opens, memory: str) -> None:
    channel = opens(Echo, memory=memory, buffer_bytes=1 << 20)
    assert channel.call(("a", 1)) == ("a", 1)
    with channel.buffer(10_000) as buffer:
        buffer.view[:] = b"q" * 10_000
        assert channel.call("upper", buffer) == 10_000
        assert bytes(buffer.view) == b"Q" * 10_000


def test_the_disk_runs_unchanged(opens: Opens, memory: str, tmp_path: Path) -> None:
    size = 128 << 10
    image = tmp_path / "disk.img"
    contents = b"".join(plan.contents(1, size))
    image.write_bytes(contents)
    channel = opens(Disk, str(image), memory=memory, slots=32, buffer_bytes=1 << 20)
    load = Load(channel, Oracle(contents))
    load.run(plan.steps(1, size), [], lambda _: None, seconds=0, progress=lambda _: None)
    load.verify(lambda _: None)
    assert not load.stuck
    assert (load.oracle.lost, load.oracle.wrong, load.oracle.failed) == (0, 0, 0)
    assert image.read_bytes() == load.oracle.contents


def test_copied_memory_is_never_mapped(machine: Machine) -> None:
    machine.start("device", Device)
    domid = machine.domain("device").domid
    mapped = []
    for memory in ("copied", "mapped"):
        with connect(machine, "device", memory=memory, buffer_bytes=1 << 20) as channel:
            channel.call("x")
            mapped.append(machine.guest.memory_usage(domid).mappings)
    assert mapped == [1, 2]  # the ring, and the buffer memory


def test_copied_memory_is_copied_as_often_as_the_driver_asks_for(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.start("device", Device, placement="thread")
    channel = connect(machine, "device", memory="copied", buffer_bytes=1 << 16)
    copies: list[int] = []
    honest = Guest.grant_copy

    def counted(guest: Guest, source: Any, dest: Any, length: int) -> None:
        copies.append(length)
        honest(guest, source, dest, length)

    monkeypatch.setattr(Guest, "grant_copy", counted)
    with channel.buffer(100) as buffer:
        for body, often in (("sum", 1), ("fill", 1), ("upper", 2)):
            channel.call(body, buffer)
            assert copies == [100] * often
            copies.clear()


def test_a_driver_that_only_reads_cannot_write(opens: Opens, memory: str) -> None:
    channel = opens(Careless, memory=memory, buffer_bytes=1 << 16)
    with channel.buffer(3) as buffer, pytest.raises(RemoteError) as caught:
        channel.call("readonly", buffer)
    assert caught.value.error == "TypeError"


def test_what_a_driver_had_copied_when_it_failed_is_not_copied_back(
    opens: Opens, memory: str
) -> None:
    channel = opens(Careless, memory=memory, buffer_bytes=1 << 16)
    with channel.buffer(3) as buffer:
        buffer.view[:] = b"old"
        with pytest.raises(RemoteError, match="ArithmeticError"):
            channel.call("x", buffer)
        assert bytes(buffer.view) == {"mapped": b"new", "copied": b"old"}[memory]


def test_what_is_not_to_be_filled_is_not_copied_in(opens: Opens, memory: str) -> None:
    channel = opens(Device, memory=memory, buffer_bytes=1 << 16)
    with channel.buffer(600) as buffer:
        channel.call("fill", buffer)
        assert channel.call("peek", buffer) == bytes(range(64))


def test_copied_memory_outlives_its_back_ends(machine: Machine, tmp_path: Path) -> None:
    machine.start("device", Device, str(tmp_path))
    channel = connect(machine, "device", memory="copied", buffer_bytes=1 << 16)
    with channel.buffer(5000) as buffer:
        for turn in range(3):
            buffer.view[:] = b"a" * 5000
            assert channel.call(("again-die", f"flag{turn}"), buffer) == "the second time"
            channel.call("upper", buffer)
            assert bytes(buffer.view) == b"A" * 5000
    assert channel.statistics().epochs == 4


def test_a_revoked_copy_is_over_for_its_driver_like_a_mapping(
    opens: Opens, host: Machine, memory: str
) -> None:
    channel = opens(Device, memory=memory, buffer_bytes=1 << 16)
    with channel.buffer(100) as buffer:
        for _ in range(3):
            buffer.view[:] = b"a" * 100
            host.revoke("device")
            channel.call("upper", buffer, on_loss=OnLoss.REISSUE)
            assert bytes(buffer.view) == b"A" * 100


def test_memory_is_mapped_or_copied(machine: Machine) -> None:
    with pytest.raises(ValueError, match="'mapped' or 'copied'"):
        connect(machine, "device", memory="shared")
