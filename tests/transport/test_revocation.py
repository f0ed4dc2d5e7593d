"""Item 9: revocation instead of the interval timer. A channel is reset in a bounded number of steps
whatever its peer does; the thread of 2006 polled a timer until the other domain let go.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypervisor import Machine
from tests.transport.device import Device
from tests.transport.hostile import Liar
from transport import FrontEnd, connect


def counted(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """The hypercalls of the front end's domain from now on, by name."""
    calls: Counter[str] = Counter()
    honest = machine.guest.hypercall

    def hypercall(call: Any) -> Any:
        calls[type(call).__name__] += 1
        return honest(call)

    monkeypatch.setattr(machine.guest, "hypercall", hypercall)
    return calls


def dead(machine: Machine, channel: FrontEnd) -> None:
    machine.kill("device")


def stopped(machine: Machine, channel: FrontEnd) -> None:
    pid = machine.pid("device")
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)  # a running thread stops a moment later


def hostile(machine: Machine, channel: FrontEnd) -> None:
    """It lies at the first request, and answers nothing after it."""


@pytest.mark.parametrize("peer", [dead, stopped, hostile])
@pytest.mark.parametrize("memory", ["mapped", "copied"])
def test_a_channel_is_reset_in_bounded_steps_whatever_its_peer_does(
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    peer: Callable[[Machine, FrontEnd], None],
    memory: str,
) -> None:
    if peer is hostile:
        machine.start("device", Liar, "garbage", str(tmp_path / "lied"))
    else:
        machine.start("device", Device)
    channel = connect(machine, "device", memory=memory, slots=64, buffer_bytes=1 << 22)
    buffers = [channel.buffer(1 << 16) for _ in range(60)]
    for buffer in buffers:
        buffer.view[:4] = b"kept"
    calls = counted(machine, monkeypatch)
    peer(machine, channel)
    requests = [channel.submit("peek", buffer) for buffer in buffers]
    channel.push()
    channel.call("x")
    # Withdrawn, closed and offered anew: the same few steps for 1 buffer or for 60.
    assert sum(calls.values()) - calls["Complain"] <= 16, calls
    assert channel.statistics().epochs == 2
    assert len(channel.statistics().revoke_seconds) == 1
    assert all(bytes(buffer.view[:4]) == b"kept" for buffer in buffers)
    channel.drain()
    assert all(request.error is None for request in requests)


def test_a_channel_is_closed_in_bounded_steps_under_a_stopped_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with Machine(watchdog=60) as machine:
        machine.start("device", Device)
        channel = connect(machine, "device")
        pid = machine.pid("device")
        os.kill(pid, signal.SIGSTOP)
        os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)
        requests = [channel.submit(number) for number in range(10)]
        channel.push()
        calls = counted(machine, monkeypatch)
        channel.close()
        assert all(request.done for request in requests)
        assert sum(calls.values()) <= 12, calls
        assert machine.guest.memory_usage().grants == 0
        os.kill(pid, signal.SIGCONT)
        assert connect(machine, "device").call("it goes on") == "it goes on"
