"""A domain that advertises and connects endpoints as it is asked to, in a thread or a process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from actors import Message
from hypervisor import (
    Guest,
    PortClosed,
    ReadEnd,
    WriteEnd,
    advertise_endpoint,
    connect_to_endpoint,
)
from transport import BackEnd, BackEndActor, Request

PATIENCE = 20.0


class Buddy(BackEnd):
    """Every request is a call; its answer is what the call returned."""

    runner = "tests.hypervisor.endpoint_programs:BuddyActor"
    guest: Guest
    watch: Callable[..., None]
    unwatch: Callable[[int], None]

    def on_start(self) -> None:
        self.ends: dict[int, WriteEnd | ReadEnd] = {}
        self.handled: SimpleQueue[list[Any]] = SimpleQueue()
        self.closed: SimpleQueue[list[Any]] = SimpleQueue()

    def on_stop(self) -> None:
        for buddy in list(self.ends):
            self.close(buddy)

    def handler(self, buddy: int, data: Any) -> None:
        end = self.ends[buddy]
        read = bytes(end.read_page.view[:4]) if isinstance(end, ReadEnd) else b""
        self.handled.put([buddy, data, read])

    def keep(self, end: WriteEnd | ReadEnd) -> None:
        self.ends[end.buddy] = end
        self.watch(end.fileno(), end.serve)

    def close(self, buddy: int) -> None:
        end = self.ends.pop(buddy)
        self.unwatch(end.fileno())
        end.close()
        end.close()

    def on_request(self, request: Request) -> Any:
        match request.body:
            case ["domid"]:
                return self.guest.domid
            case ["advertise", buddy, data]:
                self.keep(advertise_endpoint(self.guest, buddy, self.handler, data))
            case ["connect", buddy, data]:
                self.keep(connect_to_endpoint(self.guest, buddy, self.handler, data))
            case ["write", buddy, bytes(text)]:
                end = self.ends[buddy]
                assert isinstance(end, WriteEnd)
                end.write_page.view[:4] = text
                end.read_port.send()
            case ["done", buddy]:
                end = self.ends[buddy]
                assert isinstance(end, ReadEnd)
                end.write_port.send()
            case ["deface", buddy]:
                end = self.ends[buddy]
                assert isinstance(end, ReadEnd)
                struct.pack_into("<I", end.read_page.view, 0, 7)
            case ["close", buddy]:
                self.close(buddy)
            case ["handled"]:
                return self.offload(self.handled.get, True, PATIENCE)
            case ["closed"]:
                return self.offload(self.closed.get, True, PATIENCE)
            case _:
                raise ValueError(request.body)
        return None


class BuddyActor(BackEndActor):
    """Gives the driver its guest, its watches, and what is said of its ports."""

    def __init__(self, guest: Guest, program: type[Buddy], args: list[Any]) -> None:
        super().__init__(guest, program, args)
        driver = self._driver
        assert isinstance(driver, Buddy)
        driver.guest, driver.watch, driver.unwatch = guest, self.watch, self.unwatch
        self._buddy = driver

    def on_receive(self, message: Message) -> None:
        if isinstance(message, PortClosed):
            for end in self._buddy.ends.values():
                port = end.read_port if isinstance(end, WriteEnd) else end.write_port
                if port.port == message.port:
                    self._buddy.closed.put([end.buddy, message.died])
        super().on_receive(message)
