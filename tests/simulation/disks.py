"""In-memory block devices that the tests of simulated machines run: a right one and wrong ones.

What is on the platter outlives each incarnation of the driver, as an image file does; what a driver
keeps in itself does not.
"""

from __future__ import annotations

from typing import Any

from transport import BackEnd, Request

BLOCK = 64  # bytes

PLATTERS: dict[str, dict[int, bytes]] = {}
"""Name of a disk -> block number -> contents."""


class MemoryDisk(BackEnd):
    """Body: ("read" or "write", number, "inline" or "offload"), with a buffer of one block."""

    def on_start(self, name: str) -> None:
        self.blocks = PLATTERS[name]

    idempotent = True

    def on_request(self, request: Request) -> Any:
        operation, number, how = request.body
        work = self.read if operation == "read" else self.write
        if how == "offload":
            return self.offload(work, number, request.buffer)
        return work(number, request.buffer)

    def read(self, number: int, buffer: Any) -> int:
        with buffer.map() as pages:
            pages[:] = self.blocks.get(number, bytes(BLOCK))
        return number

    def write(self, number: int, buffer: Any) -> int:
        with buffer.map(readonly=True) as pages:
            self.blocks[number] = bytes(pages)
        return number


class EarlyDisk(MemoryDisk):
    """Wrong: it answers a write first, and stores it when the next request comes."""

    def on_start(self, name: str) -> None:
        super().on_start(name)
        self.cache: dict[int, bytes] = {}

    def on_request(self, request: Request) -> Any:
        self.blocks.update(self.cache)
        self.cache.clear()
        return super().on_request(request)

    def write(self, number: int, buffer: Any) -> int:
        with buffer.map(readonly=True) as pages:
            self.cache[number] = bytes(pages)
        return number
