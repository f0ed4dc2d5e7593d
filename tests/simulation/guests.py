"""Drivers whose life and death the tests of simulated machines look at."""

from __future__ import annotations

import fcntl
import os
from typing import Any

from hypervisor import GrantRevoked
from transport import BackEnd, RemoteBuffer, Request

LIVES: list[str] = []
"""What the drivers have done, in order; each test begins with none of it."""


class Echo(BackEnd):
    """Answers with the body."""

    idempotent = True

    def on_start(self) -> None:
        LIVES.append("start")

    def on_stop(self) -> None:
        LIVES.append("stop")

    def on_request(self, request: Request) -> Any:
        LIVES.append(f"serve {request.body}")
        return request.body


class Broken(BackEnd):
    """Cannot start."""

    def on_start(self) -> None:
        raise FileNotFoundError(2, "no image")


class Locker(Echo):
    """Has an image that one process at a time may have, by a descriptor that only it closes."""

    def on_start(self, path: str = "") -> None:
        self.image = os.open(path, os.O_RDWR)
        fcntl.flock(self.image, fcntl.LOCK_EX | fcntl.LOCK_NB)
        super().on_start()

    def on_stop(self) -> None:
        os.close(self.image)


class Hoarder(Echo):
    """Keeps every buffer that it has served, to look at it when it is gone."""

    kept: list[RemoteBuffer] = []  # noqa: RUF012 - of all incarnations, on purpose

    def on_request(self, request: Request) -> Any:
        assert request.buffer is not None
        self.kept.append(request.buffer)
        return super().on_request(request)

    @classmethod
    def sees(cls) -> list[str]:
        """What each of them shows now."""
        seen = []
        for buffer in cls.kept:
            try:
                with buffer.map(readonly=True) as pages:
                    seen.append(bytes(pages).decode())
            except GrantRevoked:
                seen.append("revoked")
        return seen
