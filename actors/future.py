"""The answer to an ask, from the asker's side (`Future`) and from the answerer's (`Reply`).

A future is settled exactly once, and the first to do so wins: the answer, the end of the actor, or
the asker's own deadline. Whoever comes later is told so (`settle` returns False) and closes
what it brought. Answers cross as packets and are unpacked by the thread that asks for the result.

It is a `pykka.Future`, so that pykka's references can ask our actors.
"""

from __future__ import annotations

import sys
import time
from _thread import allocate_lock
from collections.abc import Callable
from types import TracebackType
from typing import Any

import pykka

from actors.codec import Packet, Resolver, decode_value
from actors.errors import ActorError, AskTimeout
from actors.waiting import acquire_within

_ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Future(pykka.Future[Any]):
    """``deadline``: on ``clock`` in seconds; None waits for ever. ``who`` is asked (for errors)."""

    def __init__(
        self,
        who: str = "the actor",
        deadline: float | None = None,
        system: Resolver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.system = system
        self._who = who
        self._deadline = deadline
        self._clock = clock
        self._right = allocate_lock()  # whoever acquires it is the one who settles
        self._latch = allocate_lock()  # held until settled; then it only keeps waiters apart
        self._latch.acquire()
        self._packet: Packet | None = None
        self._value: Any = None
        self._error: BaseException | None = None

    def settle(self, packet: Packet | None, error: BaseException | None = None) -> bool:
        """Answer with a packet (None: the answer is None) or an error. False if it is too late."""
        return self._finish(packet, None, error)

    @property
    def settled(self) -> bool:
        return self._right.locked()

    def result(self, timeout: float | None = None) -> Any:
        """The answer. Waits at most ``timeout`` seconds, and never beyond the ask's own deadline.

        Raises AskTimeout; else what `Ref.ask` raises. When the deadline has passed the ask is over:
        a later answer is dropped. After a mere ``timeout`` one may ask for the result again.
        """
        if not self._wait(timeout):
            raise AskTimeout(f"{self._who} has not answered yet, after {timeout} s")
        try:
            if self._packet is not None:
                packet, self._packet = self._packet, None
                try:
                    self._value = decode_value(packet, self.system)
                except ActorError as error:
                    self._error = error
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._latch.release()

    def _finish(self, packet: Packet | None, value: Any, error: BaseException | None) -> bool:
        if not self._right.acquire(False):
            return False
        self._packet, self._value, self._error = packet, value, error
        self._latch.release()
        return True

    def _wait(self, timeout: float | None) -> bool:
        """Acquire the latch. False if ``timeout`` came first."""
        if self._latch.acquire(False):
            return True
        if self._deadline is not None:
            left = self._deadline - self._clock()
            if timeout is None or left <= timeout:
                if acquire_within(self._latch, left):
                    return True
                self.settle(None, AskTimeout(f"{self._who} did not answer in time"))
                return self._latch.acquire()
        return acquire_within(self._latch, timeout)

    def get(self, *, timeout: float | None = None) -> Any:
        """The word of pykka for `result`."""
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        return self.result(timeout)

    def set(self, value: Any = None) -> None:
        """Answer as pykka does, unpacked. Raises RuntimeError if it is settled already."""
        if not self._finish(None, value, None):
            raise RuntimeError("the future has been settled already")

    def set_exception(self, exc_info: _ExcInfo | None = None) -> None:
        """Fail as pykka does. Raises RuntimeError if it is settled already."""
        error = (exc_info or sys.exc_info())[1]
        if not self.settle(None, error or RuntimeError("no exception was given")):
            raise RuntimeError("the future has been settled already")
