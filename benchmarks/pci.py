"""A read of configuration space: by a polled call, by a blocking call, and from sysfs.

The same access of the same front end (`PciBus.read`), on two processors. Polled, the bus looks for
requests all the time, and its caller for the answer; blocking, both sleep. The host's devices are
read by the polled call as well, beside what its back end does for each read: a pread of the file in
sysfs. There the time is the device's, or that of the hypervisor that emulates it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contest import Contestant, contest, two_cores
from benchmarks.effort import Effort
from benchmarks.report import Aim
from benchmarks.trips import Measure, timed
from examples.pci import protocol as p
from examples.pci.access import ConfigAccess
from examples.pci.emulated import EmulatedBus
from examples.pci.host import SYSFS, HostBus
from hypervisor import Machine
from transport import BackEnd, connect

READS = 5000
BLOCKING, RAW = "emulated bus, blocking", "sysfs read (limit)"


class SleepingBus(EmulatedBus):
    """The same bus, which waits to be woken."""

    spin = 0.0


class SleepingAccess(ConfigAccess):
    """The same access, whose caller sleeps."""

    def _ask(self, body: p.Body) -> Any:
        return self._channel.call(body, timeout=self.completion_timeout, wait="sleep")


def run(effort: Effort) -> None:
    """Measure and print; says so where the host has no devices."""
    cpus = two_cores("pci")
    if cpus is None:
        return
    contestants = {
        "emulated bus, polled": Contestant(
            "benchmarks.pci:polled",
            (),
            aims=(Aim("< 6 us", 6e-6), Aim("8 x faster", 1 / 8, (BLOCKING,))),
        ),
        BLOCKING: Contestant("benchmarks.pci:blocking"),
    }
    if any(Path(SYSFS).glob("*/config")):
        contestants |= {
            "the host's, polled": Contestant("benchmarks.pci:host"),
            RAW: Contestant("benchmarks.pci:sysfs"),
        }
    else:
        print(f"pci: no device in {SYSFS}: no read from sysfs, nor by the back end of the host's")
    contest(
        "configuration read of 4 bytes",
        contestants,
        effort,
        count=effort.count(READS),
        beside=(BLOCKING, RAW),
        cpus=cpus,
    )


@contextmanager
def polled() -> Iterator[Measure]:
    """A contestant (trips.py)."""
    with _bus(EmulatedBus, ConfigAccess) as bus:
        yield _first_read(bus)


@contextmanager
def blocking() -> Iterator[Measure]:
    """A contestant."""
    with _bus(SleepingBus, SleepingAccess) as bus:
        yield _first_read(bus)


@contextmanager
def host() -> Iterator[Measure]:
    """A contestant."""
    with _bus(HostBus, ConfigAccess) as bus:
        yield _first_read(bus)


@contextmanager
def sysfs() -> Iterator[Measure]:
    """A contestant, of the same register of the same device."""
    first = min(Path(SYSFS).glob("*/config"))
    with first.open("rb") as file:
        yield timed(lambda: int.from_bytes(os.pread(file.fileno(), 4, 0), "little"))


@contextmanager
def _bus(driver: type[BackEnd], access: type[ConfigAccess]) -> Iterator[ConfigAccess]:
    with Machine(spares=0) as machine:
        machine.start("pci", driver)
        with connect(machine, "pci") as channel:
            yield access(channel)


def _first_read(bus: ConfigAccess) -> Measure:
    first = min(found.sbdf for found in bus.scan())
    return timed(partial(bus.read, first, 0, 4))
