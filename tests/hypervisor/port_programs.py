"""A domain that does with event channels what it is asked to, in a thread or in a process."""

from __future__ import annotations

import select
import threading
from contextlib import closing
from queue import SimpleQueue
from typing import Any

from actors import Actor, Message
from hypervisor import EventChannel, Guest, PortBound, PortClosed, Virq, clear_event, new_event
from hypervisor import raise_event as kick
from transport import BackEnd, BackEndActor, Request

PATIENCE = 20.0


def wait_for(channel: EventChannel) -> bool:
    """Sleep until an event is there that may be served, and consume it; False: none came."""
    poller = select.poll()
    poller.register(channel.upcall_fileno(), select.POLLIN)
    while not channel.arrived():
        if not poller.poll(PATIENCE * 1000):
            return False
    return channel.consume()


class Restless:
    """A thread that masks and unmasks a port all the time, and who waits for its events with it."""

    def __init__(self, channel: EventChannel) -> None:
        self._channel = channel
        self._kick = new_event()
        self._ended = False
        self._poller = select.poll()
        self._poller.register(channel.upcall_fileno(), select.POLLIN)
        self._poller.register(self._kick, select.POLLIN)
        self.turns = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            self._channel.mask()
            if self._channel.unmask():
                kick(self._kick.fileno())
            self.turns += 1

    def wait(self) -> bool:
        """As `wait_for`, however often the port is masked meanwhile."""
        channel = self._channel
        while self._poller.poll(PATIENCE * 1000):
            kicked = clear_event(self._kick.fileno())
            if (channel.arrived() or kicked) and not channel.masked and channel.consume():
                return True
        return False

    def close(self) -> None:
        self._ended = True
        self._thread.join()
        self._kick.close()


class Ports(BackEnd):
    """Every request is a call; its answer is what the call returned."""

    runner = "tests.hypervisor.port_programs:PortsActor"
    guest: Guest

    def on_start(self) -> None:
        self.told: SimpleQueue[list[Any]] = SimpleQueue()
        self.channels: dict[int, EventChannel] = {}

    def on_stop(self) -> None:
        for channel in self.channels.values():
            channel.close_signals()

    def keep(self, channel: EventChannel) -> list[int]:
        self.channels[channel.port] = channel
        return [channel.port, channel.epoch]

    def on_request(self, request: Request) -> Any:
        guest, channels = self.guest, self.channels
        match request.body:
            case ["domid"]:
                return guest.domid
            case ["alloc", remote]:
                return self.keep(guest.alloc_unbound(remote))
            case ["reoffer", port, epoch]:
                return self.keep(guest.reoffer(channels[port], epoch))
            case ["bind", remote, port, epoch]:
                return self.keep(guest.bind_interdomain(remote, port, epoch))
            case ["virq", virq]:
                return self.keep(guest.bind_virq(Virq(virq)))
            case ["ipi"]:
                return self.keep(guest.bind_ipi())
            case ["timer", seconds]:
                return guest.set_timer(seconds)
            case ["status", of, port]:
                return int(guest.port_status(port, of).status)
            case ["close", port]:
                return guest.close_port(channels.pop(port))
            case ["reset"]:
                return guest.reset_ports()
            case ["wait", port]:
                return self.offload(wait_for, channels[port])
            case ["echo", port, rounds]:
                return self.offload(echo, channels[port], rounds)
            case ["told"]:
                return self.offload(self.told.get, True, PATIENCE)
            case [what, port]:
                return getattr(channels[port], what)()
        raise ValueError(request.body)


class PortsActor(BackEndActor):
    """Gives the driver its guest, and what is said of its ports."""

    def __init__(self, guest: Guest, program: type[Ports], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        driver = self._driver
        assert isinstance(driver, Ports)
        driver.guest = guest
        self._ports = driver

    def on_receive(self, message: Message) -> None:
        match message:
            case PortBound(port, epoch, remote, remote_port):
                self._ports.told.put(["bound", port, epoch, remote, remote_port])
            case PortClosed(port, epoch, remote, died):
                self._ports.told.put(["closed", port, epoch, remote, died])
        super().on_receive(message)


class Ear(Actor):
    """The same for domain 0."""

    def __init__(self, told: SimpleQueue[list[Any]]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Message) -> None:
        match message:
            case PortBound(port, epoch, remote, remote_port):
                self._told.put(["bound", port, epoch, remote, remote_port])
            case PortClosed(port, epoch, remote, died):
                self._told.put(["closed", port, epoch, remote, died])


def echo(channel: EventChannel, rounds: int) -> int:
    """Answer each of so many events with one; how many came before the first that did not."""
    with closing(Restless(channel)) as restless:
        for count in range(rounds):
            if not restless.wait():
                return count
            channel.send()
        return rounds
