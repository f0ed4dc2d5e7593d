"""What an actor's own thread sleeps on, and what others wait on for a descriptor.

Of the first there are three. `Sleeper` is for actors that only have a mailbox: a lock used as a
one-token semaphore, no descriptor. `Poller` is for those that also watch descriptors: one epoll
that holds them and an eventfd for the mailbox, so that one wake-up serves both. `LoopSleeper` is
for actors whose handlers are coroutines: it runs their event loop while the actor sleeps.

Who wakes whom: the mailbox calls `wake` under its lock, once per sleep (see `Mailbox.arm`).
Nobody calls it after the mailbox has closed, so the poller's descriptors may be closed then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import select
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from actors.errors import ActorError
from actors.runtime import Lock, acquire_within

Callback = Callable[[], object]

_BROKEN = select.EPOLLHUP | select.EPOLLERR
_LONGEST = 1e6  # seconds; epoll counts milliseconds in an int
_BATCH = 64  # events per poll: bounds what is dispatched before the mailbox has its turn


class Sleeper:
    """`wait` returns when `wake` has been called, once per call. ``token``: a lock, not held."""

    __slots__ = ("_token", "wake")

    def __init__(self, token: Lock) -> None:
        self._token = token
        self._token.acquire()
        self.wake = token.release  # itself: no Ctrl-C comes between a call of it and its effect

    def wait(self, timeout: float | None) -> bool:
        """Whether a wake has come within ``timeout`` seconds (None: however long it takes)."""
        return acquire_within(self._token, timeout)


class LoopSleeper:
    """A `Sleeper` that runs ``loop`` while it waits. All but `wake`: the actor's thread."""

    __slots__ = ("_loop", "_waiter", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._woken = False
        self._waiter: asyncio.Future[bool] | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it to its end; what it returns or raises."""
        return self._loop.run_until_complete(coroutine)

    def wait(self, timeout: float | None) -> bool:
        """Whether a wake has come within ``timeout`` seconds (None: however long it takes)."""
        return bool(self.run(self._wait(timeout)))

    def wake(self) -> None:
        self._loop.call_soon_threadsafe(self._rouse)

    def close(self) -> None:
        """Cancel what still runs in the loop, wait for it, and close the loop."""
        tasks = sorted(asyncio.all_tasks(self._loop), key=hash)  # simulated ones hash by number
        for task in tasks:
            task.cancel()
        try:
            self.run(_gather(tasks))
            self.run(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _wait(self, timeout: float | None) -> bool:
        if not self._woken:
            self._waiter = self._loop.create_future()
            timer = None
            if timeout is not None:
                timer = self._loop.call_later(max(0.0, timeout), self._give_up)
            await self._waiter
            self._waiter = None
            if timer is not None:
                timer.cancel()
        woken, self._woken = self._woken, False
        return woken

    def _rouse(self) -> None:
        self._woken = True
        self._give_up()

    def _give_up(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


async def _gather(tasks: list[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


class Readable:
    """See `Runtime.readable`."""

    __slots__ = ("_poll",)

    def __init__(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        self._poll = poller.poll

    def wait(self, timeout: float | None = None) -> bool:
        return bool(self._poll(None if timeout is None else min(timeout, _LONGEST) * 1000))


class Watch:
    """What to call when one descriptor is ready."""

    __slots__ = ("fd", "on_read", "on_write")

    def __init__(self, fd: int, on_read: Callback | None, on_write: Callback | None) -> None:
        self.fd = fd
        self.on_read = on_read
        self.on_write = on_write

    @property
    def mask(self) -> int:
        """What to wait for, in the kernel's words, which are the same for poll and epoll."""
        readable = select.EPOLLIN if self.on_read is not None else 0
        return readable | (select.EPOLLOUT if self.on_write is not None else 0)


class Watches(ABC):
    """Level-triggered readiness of watched descriptors."""

    def __init__(self) -> None:
        self._watches: dict[int, Watch] = {}

    @abstractmethod
    def watch(self, watch: Watch) -> None:
        """Watch from now on; replaces what was watched for that descriptor. Raises OSError."""

    @abstractmethod
    def unwatch(self, fd: int) -> None:
        """Watch no longer; nothing if it is not watched, or closed already."""

    @abstractmethod
    def poll(self, timeout: float | None) -> list[tuple[Watch, int]]:
        """What is ready within ``timeout`` seconds (None: wait for something).

        Raises ActorError for a descriptor that was closed before it was unwatched.
        """

    @abstractmethod
    def close(self) -> None:
        """Watch nothing any more."""

    def dispatch(self, watch: Watch, mask: int) -> None:
        """Call what the event is for, unless it was unwatched or replaced since it was polled."""
        if self._watches.get(watch.fd) is not watch:
            return
        broken = mask & _BROKEN
        if watch.on_read is not None and mask & (select.EPOLLIN | broken):
            watch.on_read()
            if watch.on_write is None or self._watches.get(watch.fd) is not watch:
                return
        if watch.on_write is not None and mask & (select.EPOLLOUT | broken):
            watch.on_write()


class Poller(Watches):
    """Those of an actor's own thread, and `wake`. All but `wake`: that thread alone."""

    def __init__(self) -> None:
        super().__init__()
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._event, select.EPOLLIN)

    def wake(self) -> None:
        os.eventfd_write(self._event, 1)

    def watch(self, watch: Watch) -> None:
        """See `Watches`."""
        mask = watch.mask
        if watch.fd in self._watches:
            try:
                self._epoll.modify(watch.fd, mask)
            except FileNotFoundError:  # it was closed unasked, and its number given out again
                self._epoll.register(watch.fd, mask)
        else:
            self._epoll.register(watch.fd, mask)
        self._watches[watch.fd] = watch

    def unwatch(self, fd: int) -> None:
        """See `Watches`."""
        if self._watches.pop(fd, None) is not None:
            try:
                self._epoll.unregister(fd)
            except OSError as error:
                if error.errno not in (errno.EBADF, errno.ENOENT):
                    raise

    def poll(self, timeout: float | None) -> list[tuple[Watch, int]]:
        """At most 64; see `Watches`.

        What was closed unasked is an error only if it is still open elsewhere: the kernel would
        report it for ever, and it can no longer be told not to.
        """
        if timeout is not None and timeout > _LONGEST:
            timeout = _LONGEST
        ready = []
        for fd, mask in self._epoll.poll(timeout, _BATCH):
            if fd == self._event:
                with contextlib.suppress(BlockingIOError):  # a late wake was drained before
                    os.eventfd_read(fd)
            elif (watch := self._watches.get(fd)) is None:
                raise ActorError(f"descriptor {fd} was closed before it was unwatched")
            else:
                ready.append((watch, mask))
        return ready

    def close(self) -> None:
        """See `Watches`."""
        self._watches.clear()
        self._epoll.close()
        os.close(self._event)
