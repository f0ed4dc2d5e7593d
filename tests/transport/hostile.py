"""A back end that writes what no back end may, once, from below its driver."""

from __future__ import annotations

import gc
import os
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]

from transport import BackEnd, BackEndActor, Outgoing, Request


class Liar(BackEnd):
    """Its first incarnation answers with the lie; its second is honest."""

    def on_start(self, lie: str, flag: str) -> None:
        self._lie = lie
        self._flag = flag

    idempotent = True

    def on_request(self, request: Request) -> Any:
        try:
            os.close(os.open(self._flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return "honest"
        (actor,) = [found for found in gc.get_objects() if isinstance(found, BackEndActor)]
        (link,) = actor._connections.values()
        outgoing: Outgoing = link._outgoing
        lies = {
            "garbage": b"\xc1\xc1",
            "unknown number": msgpack.packb([link.epoch, 99, 0, "x"]),
            "old epoch": msgpack.packb([link.epoch - 1, 1, 0, "x"]),
            "no array": msgpack.packb({"a": 1}),
        }
        if self._lie == "index":
            outgoing._header[0] = 1 << 40
            link.channel.send()
        else:
            link.publish(lies[self._lie])
        return self.offload(_never)


def _never() -> None:
    """An answer that never comes, so that the lie stands alone."""
    with open("/dev/zero", "rb") as endless:
        while endless.read(1 << 20):
            continue
