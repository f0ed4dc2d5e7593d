"""The answer to an ask, from the asker's side; `Reply` is the answerer's.

A future is settled exactly once, and the first to do so wins: the answer, the end of the actor, or
the asker's own deadline. Whoever comes later is told so (`settle` returns False) and closes
what it brought. Answers cross as packets and are unpacked by the thread that asks for the result.

It is a `pykka.Future`, so that pykka's references can ask our actors.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from _thread import allocate_lock
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pykka

from actors.codec import Packet, Resolver, decode_value
from actors.errors import ActorError, AskTimeout
from actors.here import here
from actors.runtime import Lock, Runtime, acquire_within

if TYPE_CHECKING:
    from actors.cell import Cell

logger = logging.getLogger("actors")

_ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


class Future(pykka.Future[Any]):
    """``deadline``: on the runtime's clock in seconds; None waits for ever.

    ``who`` is asked (for errors), and ``cell`` is it.
    """

    def __init__(
        self,
        who: str = "the actor",
        deadline: float | None = None,
        system: Resolver | None = None,
        runtime: Runtime | None = None,
        cell: Cell | None = None,
    ) -> None:
        super().__init__()
        self.system = system
        self.runtime = runtime
        self.cell = cell
        self._who = who
        self._deadline = deadline
        self._lock = allocate_lock()
        self._latch: Lock | None = None  # made by the first who has to wait
        self._callbacks: list[Callable[[], object]] | None = None
        self._packet: Packet | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._settled = False

    def settle(self, packet: Packet | None, error: BaseException | None = None) -> bool:
        """Answer with a packet (None: the answer is None) or an error. False if it is too late."""
        return self._finish(packet, None, error)

    @property
    def settled(self) -> bool:
        """Whether `result` returns at once."""
        return self._settled

    def result(self, timeout: float | None = None) -> Any:
        """The answer. Waits at most ``timeout`` seconds, and never beyond the ask's own deadline.

        Raises AskTimeout; else what `Ref.ask` raises. When the deadline has passed the ask is over:
        a later answer is dropped. After a mere ``timeout`` one may ask for the result again.
        """
        if not self._settled and not self._wait(timeout):
            raise AskTimeout(f"{self._who} has not answered yet, after {timeout} s")
        if self._packet is not None:
            with self._lock:
                if self._packet is not None:  # nobody else has done it meanwhile
                    try:
                        self._value = decode_value(self._packet, self.system)
                    except ActorError as error:
                        self._error = error
                    self._packet = None
        if self._error is not None:
            raise self._error
        return self._value

    async def result_async(self) -> Any:
        """Like `result`, for coroutines: the event loop goes on meanwhile."""
        loop = asyncio.get_running_loop()
        settled = loop.create_future()

        def wake() -> None:
            if not settled.done():
                settled.set_result(None)

        def wake_safely() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody waits there
                loop.call_soon_threadsafe(wake)

        timer = None
        if self._deadline is not None:
            timer = loop.call_later(max(0.0, self._deadline - self._now()), self._expire)
        self.on_settled(wake_safely)
        try:
            await settled
        finally:
            with self._lock:
                if self._callbacks is not None:
                    self._callbacks.remove(wake_safely)
            if timer is not None:
                timer.cancel()
        return self.result()

    def on_settled(self, callback: Callable[[], object]) -> None:
        """Call it once when it is settled, by whoever settles it; at once if it is already."""
        with self._lock:
            if not self._settled:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback()

    def __str__(self) -> str:
        return f"an answer of {self._who}"

    def _expire(self) -> None:
        self.settle(None, AskTimeout(f"{self._who} did not answer in time"))

    def _now(self) -> float:
        return time.monotonic() if self.runtime is None else self.runtime.now()

    def _finish(self, packet: Packet | None, value: Any, error: BaseException | None) -> bool:
        with self._lock:
            if self._settled:
                return False
            self._packet, self._value, self._error = packet, value, error
            self._settled = True
            latch = self._latch
            callbacks, self._callbacks = self._callbacks, None
        if latch is not None:
            latch.release()
        for callback in callbacks or ():
            try:
                callback()
            except Exception:
                logger.exception("what was to be called with %s has failed", self)
        return True

    def _wait(self, timeout: float | None) -> bool:
        """Whether it was settled before ``timeout``; at the deadline it settles itself."""
        if here.cell is not None:
            here.cell.may_block(f"waits for {self}")
        with self._lock:
            if self._settled:
                return True
            if self._latch is None:
                new = allocate_lock() if self.runtime is None else self.runtime.lock(self)
                new.acquire()
                self._latch = new
            latch = self._latch
        left = None if self._deadline is None else self._deadline - self._now()
        ours = left is not None and (timeout is None or left <= timeout)
        if acquire_within(latch, left if ours else timeout):
            latch.release()  # for the next one who waits
            return True
        if ours:
            self._expire()
            return True
        return False

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
