"""What a device is made of: functions, each one or more interfaces with a class of their own. Pure.

`Function` is what the author of a device subclasses; a composite device is a list of them. Rules:

1. A function knows nothing of numbers: the device gives out interface numbers and endpoint
   addresses, and calls a function with the place of the endpoint in its own `interfaces`.
2. It never waits. An endpoint that has nothing to say, or no room, answers NAK; `ready` says when
   that is over, and is asked after everything that happens to the device.
3. Data are the host's own pages: read into them, write from them, keep no view of them.
4. What the world outside does to it comes by `input`, what it does to the world goes by `output`:
   both bytes, whose meaning is the class's own, `protocol.SAID_LIMIT` of them at a time.

`InPipe` is for endpoints towards the host: messages in a queue, cut into packets as the bus does
it. A URB ends when it is full or with the first packet that is short.

Specification: USB 2.0 sections 5.3 (device to function), 5.8.3 (short packets), 8.4.5 (NAK, STALL).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from examples.usb import protocol as p
from examples.usb.chapter9 import Setup
from examples.usb.descriptors import Interface

Result = tuple[int, int]
"""A status of protocol.py, and how many bytes were moved."""


class Stalled(Exception):
    """A control request that this device does not have, or not with these values, or not now."""


class Function:
    """Base of functions. Override `interfaces` and what the class needs."""

    def interfaces(self, first: int) -> list[Interface]:
        """The interfaces; the first of them has the number ``first``."""
        raise NotImplementedError(f"{type(self).__name__} has no interfaces")

    def reset(self) -> None:
        """Begin again: the bus was reset, or a configuration was chosen."""

    def descriptor(self, kind: int) -> bytes | None:  # noqa: ARG002 - the shape is Function's
        """A descriptor that the class adds to GET_DESCRIPTOR, or None."""
        return None

    def control(self, setup: Setup, data: bytes) -> bytes:
        """A class or vendor request: ``data`` from the host, or the answer, longer than asked or
        not.

        Raises:
            Stalled: it is refused.
        """
        raise Stalled(f"{type(self).__name__} has no request {setup.request:#x} of {len(data)}")

    def send(self, endpoint: int, view: memoryview) -> Result:  # noqa: ARG002 - the shape is Function's
        """Fill ``view`` with what the endpoint has for the host."""
        return p.STALL, 0

    def receive(self, endpoint: int, view: memoryview) -> Result:  # noqa: ARG002 - the shape is Function's
        """Take what the host sends; NAK for what there is no room for yet."""
        return p.STALL, 0

    def ready(self, endpoint: int) -> bool:  # noqa: ARG002 - the shape is Function's
        """The endpoint would not answer NAK now."""
        return True

    def cleared(self, endpoint: int) -> None:
        """The host has ended a halt of the endpoint."""

    def input(self, data: bytes) -> None:
        """Something happens to the device in the world outside."""

    def output(self) -> bytes:
        """What it has done to the world outside since this was called last, which is after each
        thing that happens to the device.
        """
        return b""


class InPipe:
    """Messages for the host from one endpoint, whose packets have up to ``packet`` bytes."""

    def __init__(self, packet: int) -> None:
        self.packet = packet
        self._queue: deque[_Message | None] = deque()  # None: a halt

    def __bool__(self) -> bool:
        return bool(self._queue)

    @property
    def size(self) -> int:
        """Bytes that wait for the host."""
        return sum(message.left for message in self._queue if message is not None)

    def put(self, data: bytes, *, end: bool = False) -> None:
        """Queue a message. ``end``: it ends its transfer, by an empty packet if need be."""
        self._queue.append(_Message(len(data), lambda at, view: _copy(data, at, view), end=end))

    def put_source(self, size: int, read: Callable[[int, memoryview], None]) -> None:
        """Queue a message of ``size`` bytes that are read when they are wanted.

        Args:
            read: fills a view with the message's bytes from a place on.
        """
        self._queue.append(_Message(size, read, end=False))

    def halt(self) -> None:
        """Halt the endpoint when everything queued so far has gone."""
        self._queue.append(None)

    def clear(self) -> None:
        """Forget everything."""
        self._queue.clear()

    def fill(self, view: memoryview) -> Result:
        """Serve one URB. What a message's source raises comes out; nothing is lost by it.

        A message that does not end where the URB does, between two packets, is babble: the packet
        that has no room stays with the device, as one that the host never acknowledged.
        """
        filled, room = 0, len(view)
        while self._queue:
            if filled == room and filled:
                return p.OK, filled
            message = self._queue[0]
            if message is None:
                self._queue.popleft()
                return p.STALL, filled
            take = min(message.left, room - filled)
            if take < message.left:
                take -= take % self.packet
            if take:
                message.read(message.done, view[filled : filled + take])
                message.done += take
                filled += take
            if message.left:
                return (p.OK if filled == room else p.BABBLE), filled
            self._queue.popleft()
            if message.size % self.packet or not message.size or message.end:
                return p.OK, filled
        return (p.OK if filled == room and filled else p.NAK), filled


class _Message:
    def __init__(self, size: int, read: Callable[[int, memoryview], None], *, end: bool) -> None:
        self.size = size
        self.end = end
        self.read = read
        self.done = 0

    @property
    def left(self) -> int:
        return self.size - self.done


def _copy(data: bytes, at: int, view: memoryview) -> None:
    view[:] = data[at : at + len(view)]
