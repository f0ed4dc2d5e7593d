"""The front end of one USB device: a host controller's port at a channel. No actor, no thread.

Owns what the controller (controller.py) has decided to send and the channel has no memory for just
now. Whoever drives it watches `fileno` and calls `reap` when it is readable; what has happened
comes as events: `Giveback`, `Output`, `Connected`, `Disconnected`. All methods are for one thread.

This file is all that knows how requests go over the channel: one request for a transfer, all phases
in it, with one buffer, which is copied from and to the URB.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from examples.usb.controller import Controller, Effect, Send
from examples.usb.urb import Urb
from transport import (
    BuffersExhausted,
    ChannelClosed,
    ChannelFull,
    Completion,
    FrontEnd,
    OnLoss,
    TransportError,
)


class Host:
    """A port whose device is at the other end of ``channel``; `attach` enumerates it.

    Attributes:
        controller: the pure part; to be looked at only.
    """

    def __init__(self, channel: FrontEnd) -> None:
        self.controller = Controller()
        self._channel = channel
        self._stalled: deque[Send] = deque()
        self._events: list[Effect] = []

    def fileno(self) -> int:
        """The descriptor to select for reading."""
        return self._channel.fileno()

    def attach(self) -> None:
        """Enumerate the device; `Connected` will say that it is there."""
        self._perform(self.controller.attach())

    def submit(self, urb: Urb) -> None:
        """Take the URB; `Giveback` will say that it has ended. Raises ValueError: id in use."""
        self._perform(self.controller.submit(urb))

    def unlink(self, number: Any) -> None:
        """End the URB of that id soon; nothing if it has ended."""
        self._perform(self.controller.unlink(number))

    def unlink_all(self) -> None:
        """End every URB soon."""
        self._perform(self.controller.unlink_all())

    def reset(self) -> None:
        """Reset the device, and configure it as it was first."""
        self._perform(self.controller.reset())

    def input(self, function: int, data: bytes) -> None:
        """Have something happen to the device in the world; see its function."""
        self._perform(self.controller.input(function, data))

    def events(self) -> list[Effect]:
        """What has happened already, without looking at the channel."""
        events, self._events = self._events, []
        return events

    def reap(self) -> list[Effect]:
        """What has happened since the last time; never waits."""
        for completion in self._channel.reap():
            self._completed(completion)
        if self._channel.failure is not None:
            self._close(str(self._channel.failure))
        else:
            self._send()
        return self.events()

    def _completed(self, completion: Completion) -> None:
        buffer, send = completion.buffer, completion.token
        data = b""
        if buffer is not None:
            if send.room and completion.error is None:
                data = bytes(buffer.view)
            buffer.release()
        if isinstance(completion.error, ChannelClosed):
            return  # all of them have ended, and `reap` says so
        if completion.error is not None:
            self._perform(self.controller.failed(send.token, str(completion.error)))
        else:
            self._perform(self.controller.answered(send.token, completion.result, data))

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Send):
                self._stalled.append(effect)
            else:
                self._events.append(effect)
        self._send()

    def _send(self) -> None:
        try:
            while self._stalled:
                self._send_one(self._stalled[0])
                self._stalled.popleft()
        except (BuffersExhausted, ChannelFull):
            pass  # there is more room when something has ended
        except ChannelClosed as error:
            self._close(str(error))
            return
        self._channel.push()

    def _send_one(self, send: Send) -> None:
        size = len(send.data) or send.room
        buffer = self._channel.buffer(size) if size else None
        try:
            if buffer is not None and send.data:
                buffer.view[:] = send.data
            # Another incarnation refuses what was meant for this one, so nothing is done twice.
            self._channel.submit(send.body, buffer, send, on_loss=OnLoss.REISSUE)
        except TransportError:
            if buffer is not None:
                buffer.release()
            raise

    def _close(self, reason: str) -> None:
        self._stalled.clear()
        self._events += self.controller.closed(reason)
