"""A channel in one thread, for tests: a controller, a back end, and what lies between them.

It does what transport does when a back end dies: every request without an answer goes to the next
one, also those that the dead one had carried out already.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from examples.usb import chapter9 as c9
from examples.usb.backend import UsbDevice
from examples.usb.controller import Connected, Controller, Disconnected, Effect, Output, Send
from examples.usb.function import Function
from examples.usb.urb import Urb
from transport import Request


class Buffer:
    """What a request carries."""

    def __init__(self, data: bytearray) -> None:
        self.data = data

    def map(self) -> memoryview:
        return memoryview(self.data)


class Runs(UsbDevice):
    """A back end whose functions a test has made."""

    make: Callable[[], Sequence[Function]]

    def function(self, serial_number: str, kind: str, *arguments: Any) -> Function:
        return self.functions.pop(0)

    def start(self, make: Callable[[], Sequence[Function]]) -> None:
        self.functions = list(make())
        count = len(self.functions)
        self.on_start("thing", 0x1209, 1, "0123456789AB", [["a test's"]] * count)


class Wire:
    """A controller at a device of the functions that ``make`` makes.

    Attributes:
        requests: sent, and without an answer.
        ended: URBs that were given back, in order.
        events: everything else.
    """

    def __init__(self, make: Callable[[], Sequence[Function]]) -> None:
        self.make = make
        self.controller = Controller()
        self.requests: deque[tuple[Send, bytearray]] = deque()
        self.ended: list[Urb] = []
        self.events: list[Effect] = []
        self._ids = itertools.count()
        self._start()
        self.perform(self.controller.attach())

    def _start(self) -> None:
        self.back_end = Runs()
        self.back_end.start(self.make)

    def perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self.requests.append((effect, bytearray(effect.data or effect.room)))
            elif isinstance(effect, Connected | Disconnected | Output):
                self.events.append(effect)
            else:
                self.ended.append(effect.urb)

    # --- time goes on -----------------------------------------------------------------------------

    def _serve(self, place: int) -> Any:
        send, data = self.requests[place]
        return self.back_end.on_request(Request(send.body, (Buffer(data),) if data else ()))  # type: ignore[arg-type]

    def step(self) -> None:
        """One request is answered, if there is one."""
        if self.requests:
            answer = self._serve(0)
            send, data = self.requests.popleft()
            self.perform(
                self.controller.answered(send.token, answer, bytes(data if send.room else b""))
            )

    def run(self) -> None:
        """Until nothing is under way."""
        while self.requests:
            self.step()

    def kill(self, carried_out: int = 0) -> None:
        """The back end dies, after so many requests whose answers nobody will see."""
        for place in range(min(carried_out, len(self.requests))):
            self._serve(place)
        self._start()

    # --- shorthand --------------------------------------------------------------------------------

    def submit(self, endpoint: int, what: int | bytes, **fields: Any) -> Urb:
        """A transfer of so many bytes from the device, or of these bytes to it."""
        length, data = (what, b"") if isinstance(what, int) else (len(what), what)
        kind = fields.pop("kind", self.controller.kind(endpoint))
        assert kind is not None
        urb = Urb(next(self._ids), endpoint, kind, length, data, **fields)
        self.perform(self.controller.submit(urb))
        return urb

    def control(self, setup: c9.Setup, data: bytes = b"") -> Urb:
        what = setup.length if setup.is_in else data
        return self.submit(0, what, setup=setup.pack())
