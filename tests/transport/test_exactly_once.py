"""Exactly once between real processes: a counter whose back end is killed, or stopped, at random
moments under load. Its caller keeps a ledger of his own; the file says what was really done.
"""

from __future__ import annotations

import os
import random
import select
import signal
from collections import Counter as Multiset
from pathlib import Path

import pytest

from hypervisor import HypervisorError, Machine
from tests.transport.counting import Counter
from transport import FrontEnd, OutcomeUnknown, connect

IN_FLIGHT = 24


class Load:
    """Requests without end, and a signal to the back end after a random number of answers."""

    def __init__(self, machine: Machine, channel: FrontEnd, seed: int) -> None:
        self.acknowledged: set[int] = set()
        self.unknown: set[int] = set()
        self._machine = machine
        self._channel = channel
        self._random = random.Random(seed)
        self._asked = 0
        self._poller = select.poll()
        self._poller.register(channel.fileno(), select.POLLIN)

    def signal(self, number: signal.Signals, times: int) -> None:
        """Under load, so often; and then until nothing is in flight."""
        while times:
            self._reap(self._random.randrange(400))
            try:
                os.kill(self._machine.pid("counter"), number)
            except (HypervisorError, ProcessLookupError):
                continue  # it is dead just now
            times -= 1
        while self._in_flight:
            self._take()

    @property
    def _in_flight(self) -> int:
        return self._asked - len(self.acknowledged) - len(self.unknown)

    def _reap(self, count: int) -> None:
        enough = len(self.acknowledged) + count + 1  # so that each incarnation does something
        while len(self.acknowledged) < enough:
            while self._in_flight < IN_FLIGHT:
                how = ("inline", "offload")[self._random.randrange(2)]
                self._channel.submit((self._asked, how), token=self._asked)
                self._asked += 1
            self._channel.push()
            self._take()

    def _take(self) -> None:
        self._poller.poll()
        for request in self._channel.reap():
            assert request.token not in self.acknowledged | self.unknown, "it has ended twice"
            if request.error is None:
                assert request.result == request.token
                self.acknowledged.add(request.token)
            else:
                assert type(request.error) is OutcomeUnknown
                self.unknown.add(request.token)


def run(path: Path, number: signal.Signals, times: int, *, watchdog: float = 1.0) -> None:
    """Signal so often, then compare the ledger with the file."""
    path.touch()
    with Machine(intensity=10 * times, watchdog=watchdog) as machine:
        machine.start("counter", Counter, str(path), placement="process")
        with connect(machine, "counter", slots=64, buffer_bytes=1 << 14) as channel:
            load = Load(machine, channel, times)
            load.signal(number, times)
            assert channel.statistics().epochs > times // 2
    done = Multiset(int(line) for line in path.read_bytes().splitlines())
    assert set(done.values()) == {1}, "something was done twice"
    assert load.acknowledged <= done.keys(), "what was acknowledged is lost"
    assert done.keys() <= load.acknowledged | load.unknown
    assert len(load.unknown) <= times * IN_FLIGHT


def test_a_counter_whose_process_is_killed_counts_nothing_twice_and_loses_nothing(
    tmp_path: Path,
) -> None:
    run(tmp_path / "count", signal.SIGKILL, 8)


def test_a_counter_whose_process_is_stopped_counts_nothing_twice_and_loses_nothing(
    tmp_path: Path,
) -> None:
    run(tmp_path / "count", signal.SIGSTOP, 1, watchdog=0.2)


@pytest.mark.stress
@pytest.mark.timeout(3600)
def test_a_thousand_kills_at_random_moments_deceive_no_caller(tmp_path: Path) -> None:
    run(tmp_path / "count", signal.SIGKILL, 1000)


@pytest.mark.stress
@pytest.mark.timeout(600)
def test_a_hundred_hangs_at_random_moments_deceive_no_caller(tmp_path: Path) -> None:
    run(tmp_path / "count", signal.SIGSTOP, 100, watchdog=0.2)
