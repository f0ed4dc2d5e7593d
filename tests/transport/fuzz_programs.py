"""A back end that says over the bus what none should, once, before it is connected."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

from hypervisor import Guest, HypervisorError, XenbusState
from tests.transport.drivers import Echo
from transport import BackEndActor


class Babbler(Echo):
    """Start arguments: a file that its first incarnation makes, and what that one says, as pairs of
    a state and details.
    """

    runner = "tests.transport.fuzz_programs:BabblerActor"


class BabblerActor(BackEndActor):
    """Says it in the place of its first Connected."""

    def __init__(self, guest: Guest, program: type[Babbler], args: list[Any]) -> None:
        flag, words = args
        honest = guest.switch

        def switch(
            front: tuple[int, int], epoch: int, state: XenbusState, *args: Any, **more: Any
        ) -> None:
            if state is XenbusState.CONNECTED:
                with suppress(FileExistsError):
                    os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                    for said, details in words:
                        with suppress(HypervisorError):
                            honest(front, epoch, XenbusState(said), details)
            honest(front, epoch, state, *args, **more)

        guest.switch = switch  # type: ignore[method-assign]
        super().__init__(guest, program, [])
