"""A machine for each placement, and channels to a device on it, mapped and copied."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from actors import Faults, Scheduler, System
from hypervisor import Machine
from tests.transport.device import Device
from transport import BackEnd, FrontEnd, connect

Opens = Callable[..., FrontEnd]


@pytest.fixture(params=["thread", "process", "simulated"])
def place(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["mapped", "copied"])
def memory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def host(place: str) -> Iterator[Machine]:
    """A machine whose domains are in that place."""
    system = None
    if place == "simulated":
        system = System(simulation=Scheduler(0, Faults(kinds=()), preemption=0))
    with Machine(system=system, intensity=100, watchdog=0.3) as machine:
        yield machine


@pytest.fixture
def opens(host: Machine, place: str) -> Opens:
    """Starts a driver there, and connects to it."""

    def open_it(
        driver: type[BackEnd] = Device, *args: Any, device: str = "device", **options: Any
    ) -> FrontEnd:
        host.start(device, driver, *args, placement=place)
        return connect(host, device, **options)

    return open_it


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A real one."""
    with Machine(intensity=100, watchdog=0.3) as machine:
        yield machine
