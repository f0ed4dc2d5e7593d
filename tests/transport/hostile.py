"""A back end that writes what no back end may, once, from below its driver."""

from __future__ import annotations

import gc
import os
from typing import Any

import msgpack  # type: ignore[import-untyped, unused-ignore]

from hypervisor import Region
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


class BadDetails(BackEnd):
    """Its first incarnation accepts with what no correct back end tells."""

    runner = "tests.transport.hostile:BadDetailsActor"
    idempotent = True

    def on_start(self, wrong: str, flag: str) -> None:
        try:
            os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            self.wrong = ""
        else:
            self.wrong = wrong

    def on_request(self, request: Request) -> Any:
        return "honest"


class BadDetailsActor(BackEndActor):
    """Tells it for its driver."""

    def on_start(self) -> None:
        guest, driver = self._guest, self._driver
        assert isinstance(driver, BadDetails)
        switch = guest.switch

        def lie(front: Any, epoch: int, state: Any, details: Any = None, **rest: Any) -> None:
            if isinstance(details, dict):
                if driver.wrong == "small page":
                    page = Region(4096, readonly_to_peers=True)
                    gref = guest.grant_access(front[0], page, readonly=True)
                    details = {**details, "ring-ref": gref}
                    self._page = page
                else:
                    details = {
                        "": details,
                        "nothing": None,
                        "no reference": {**details, "ring-ref": None},
                        "features": {**details, "features": ["unheard of"]},
                    }[driver.wrong]
            switch(front, epoch, state, details, **rest)

        guest.switch = lie  # type: ignore[method-assign]
        super().on_start()
