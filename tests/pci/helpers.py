"""What the tests of the live bus share: a machine with a bus, and the death of its back end."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.pci import capabilities as caps
from examples.pci import regs
from examples.pci.access import OnReset
from examples.pci.emulated import EmulatedBus
from examples.pci.front import PciBus, open_bus
from hypervisor import Machine

ROOT = Path(__file__).parents[2]
NETWORK, NETWORK_SECOND, STORAGE = 0x08, 0x09, 0x100
LINE = 0x3C  # a register that may be written and means nothing


@contextmanager
def emulated(
    placement: str = "process",
    *,
    on_reset: OnReset = "retry",
    intensity: int = 3,
    watchdog: float = 10.0,
) -> Iterator[tuple[Machine, PciBus]]:
    """A machine with an emulated bus."""
    with Machine(intensity=intensity, watchdog=watchdog) as machine:
        machine.start("pci", EmulatedBus, placement=placement)
        with open_bus(machine, "pci", on_reset=on_reset) as bus:
            yield machine, bus


def kill(machine: Machine) -> None:
    """SIGKILL to the back end's process; returns when it is dead."""
    pidfd = os.pidfd_open(machine.pid("pci"))
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poller = select.poll()
        poller.register(pidfd, select.POLLIN)
        poller.poll()
    finally:
        os.close(pidfd)


def special(bus: PciBus, sbdf: int) -> int:
    """Where a function's doorbell structure is."""
    found = bus.capabilities(sbdf)
    return next(each.at for each in found if each.identifier == regs.CAP_VENDOR)


def ring(bus: PciBus, sbdf: int, vector: int) -> None:
    """Have a device raise an interrupt; it has been signalled when this returns."""
    bus.write(sbdf, special(bus, sbdf) + caps.DOORBELL, 4, vector)


def need(program: str, package: str) -> None:
    """Skip the test, naming the Debian package, where a program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed: apt-get install {package}")


def command(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end."""
    return subprocess.run(
        [*prefix, sys.executable, "-m", "examples.pci", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
