"""Filters: back ends that stand before another one, and what each of them does is one small thing.

A filter is a back end like any other, whose first start argument says what is below it: a program's
name (hypervisor/program.py) and that program's own arguments. So a stack of them is one driver with
plain arguments, and works in every placement, for users and for tests that need a fault:

    machine.start("disk", *stack((LogFilter, "log"), (DelayFilter, 0.01), (Disk, "disk.img")))

A request passes the stack from left to right, its answer from right to left.

Rules:
1. `on_request` of what is below is called in the endpoint's thread, and its offloaded work run by a
   worker, as without a filter. What must happen at the end of a request happens in whichever
   thread that is in: filters guard what they count.
2. What a back end declares (``idempotent``, ``workers``, ``spin``, ``features``) is that of what is
   below, unless the filter says otherwise.
3. What goes wrong in a filter is the error of that request alone.
4. A filter that cannot start leaves nothing of what is below open.
5. A filter waits only in offloaded work, by its runtime's clock, which is virtual in a simulation.

Corner case: offloaded work of a connection that is over is not run at all. So a request may begin
and never end here.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from typing import Any, Final

from hypervisor import load, name_of
from transport.driver import BackEnd, Offloaded, Request

STATISTICS: Final = "xenidc:statistics"
"""The body of the request that `StatisticsFilter` answers itself."""

Ended = Callable[[Exception | None], object]
"""Called when a request has ended: with its error, or None."""


def stack(*layers: type[BackEnd] | tuple[Any, ...]) -> tuple[Any, ...]:
    """What to give to `Machine.start` behind the name: filters, from the outermost on, and last a
    driver.

    Args:
        layers: each is a class, or a tuple of a class and its start arguments.

    Raises:
        ValueError: there is none.
        TypeError: what stands before the last one is no filter; or the last one has a runner of its
            own, which would not be run.
        HypervisorError: a class cannot be found by its name.
    """
    if not layers:
        raise ValueError("a stack ends in a driver")
    *filters, (driver, *args) = [each if isinstance(each, tuple) else (each,) for each in layers]
    if driver.runner != BackEnd.runner:
        raise TypeError(f"{driver.__name__} is run by {driver.runner}, which is no use below")
    for program, *own in reversed(filters):
        if not issubclass(program, Filter):
            raise TypeError(f"{program.__name__} is no filter: it can only be the last")
        args = [[name_of(driver), *args], *own]
        driver = program
    return (driver, *args)


class Filter(BackEnd):
    """Base of filters: passes everything on. Override `on_attach`, `on_detach` and `on_request`.

    Attributes:
        below: the back end that it stands before; started.
    """

    below: BackEnd

    def on_start(self, below: list[Any], *args: Any) -> None:
        """``below``: the name of a program and its start arguments; ``args`` are `on_attach`'s."""
        program, *rest = below
        self.below = load(program)[1]()
        self.below.runtime = self.runtime
        self.below.opener, self.below.domain_store = self.opener, self.domain_store
        self.below.on_start(*rest)
        self.idempotent = self.below.idempotent
        self.workers = self.below.workers
        self.spin = self.below.spin
        self.features = self.below.features
        try:
            self.on_attach(*args)
        except BaseException:
            self.below.on_stop()
            raise

    def on_stop(self) -> None:
        """The filter first, then what is below."""
        try:
            self.on_detach()
        finally:
            self.below.on_stop()

    def on_abandoned(self) -> None:
        """What is below may have work that lasts."""
        self.below.on_abandoned()

    def on_attach(self, *args: Any, **kwargs: Any) -> None:
        """Open what the filter itself needs; the arguments are its own of `stack`.

        What is below has been started. An exception means that the domain could not start.
        """

    def on_detach(self) -> None:
        """Close it again, before what is below. Called at an orderly end only."""

    def is_idempotent(self, body: Any) -> bool:
        """That of what is below."""
        return self.below.is_idempotent(body)

    def on_request(self, request: Request) -> Any:
        """Have what is below serve it."""
        return self.below.on_request(request)

    def serve(self, request: Request, ended: Ended) -> Any:
        """The same, and call ``ended`` when it has, in whichever thread; to be returned too."""
        try:
            result = self.below.on_request(request)
        except Exception as error:
            ended(error)
            raise
        if type(result) is Offloaded:
            return Offloaded(_run_and_tell, (result, ended), begun=result.begun)
        ended(None)
        return result


def _run_and_tell(work: Offloaded, ended: Ended) -> Any:
    try:
        result = work.run()
    except Exception as error:
        ended(error)
        raise
    ended(None)
    return result


class DelayFilter(Filter):
    """Holds every answer back for so many seconds: the work is done, and nobody knows it yet.

    While it is, an answer occupies one of the ``workers``; an orderly end waits for it.
    """

    def on_attach(self, seconds: float) -> None:
        if not 0 <= seconds <= threading.TIMEOUT_MAX:
            raise ValueError(f"an answer cannot be {seconds!r} s late")
        self._seconds = seconds

    def on_request(self, request: Request) -> Any:
        try:
            result = self.below.on_request(request)
        except Exception as error:  # noqa: BLE001 - it is raised again, later
            return Offloaded(self._fail, (error,), begun=True)
        if type(result) is Offloaded:
            return Offloaded(self._work, (result,), begun=result.begun)
        return Offloaded(self._answer, (result,), begun=True)

    def _answer(self, result: Any) -> Any:
        self._pause()
        return result

    def _fail(self, error: Exception) -> Any:
        self._pause()
        raise error

    def _work(self, work: Offloaded) -> Any:
        try:
            return work.run()
        finally:
            self._pause()

    def _pause(self) -> None:
        never = self.runtime.lock(f"the {self._seconds} s of a delay")
        never.acquire()
        never.acquire(timeout=self._seconds)


class ErrorFilter(Filter):
    """Lets a share of all requests fail, and nothing of those is done.

    Start arguments: the share, 0 to 1; a seed, by which it is always the same ones in each
    incarnation, counted as they come; and the errno of the OSError that they fail with.
    """

    def on_attach(self, rate: float, seed: int = 0, number: int = errno.EIO) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"a share of {rate!r} requests cannot fail: it is 0 to 1")
        self._rate = rate
        self._number = number
        self._random = random.Random(seed)  # noqa: S311 - to be repeatable is its purpose

    def on_request(self, request: Request) -> Any:
        if self._random.random() < self._rate:
            raise OSError(self._number, f"{os.strerror(self._number)} (by a filter)")
        return self.below.on_request(request)


class LogFilter(Filter):
    """Writes a line at the beginning and at the end of each request to the end of a file.

    Start argument: its path. A line is the runtime's clock in seconds, the request's number in this
    incarnation, and ``begins`` with the body and the bytes in buffers, ``ends``, or ``fails`` with
    the error. Each is written at once and in one piece, so several domains may share a file, and
    what a killed one has written is there.
    """

    def on_attach(self, path: str) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._file = os.open(path, flags, 0o644)
        self._count = 0

    def on_detach(self) -> None:
        os.close(self._file)

    def on_request(self, request: Request) -> Any:
        self._count += 1
        number = self._count
        size = sum(buffer.length for buffer in request.buffers)
        self._write(number, f"begins {request.body!r:.200} with {size} bytes")
        return self.serve(
            request,
            lambda error: self._write(number, f"fails {error!r:.200}" if error else "ends"),
        )

    def _write(self, number: int, text: str) -> None:
        line = f"{self.runtime.now():.6f} {number} {text}\n"
        os.write(self._file, line.encode(errors="backslashreplace"))


class StatisticsFilter(Filter):
    """Counts. Answers the body `STATISTICS` itself, which is not counted, with a dict.

    ``begun``, ``ended`` and ``failed`` (which have ended too) are requests of this incarnation;
    ``bytes`` what the buffers of those that have begun hold; ``seconds`` how long those took that
    have ended, together, and ``longest`` the longest of them.
    """

    def on_attach(self) -> None:
        self._lock = threading.Lock()  # nobody waits while holding it
        self._begun = self._ended = self._failed = self._bytes = 0
        self._seconds = self._longest = 0.0

    def is_idempotent(self, body: Any) -> bool:
        return body == STATISTICS or self.below.is_idempotent(body)

    def on_request(self, request: Request) -> Any:
        if request.body == STATISTICS:
            return self._report()
        since = self.runtime.now()
        with self._lock:
            self._begun += 1
            self._bytes += sum(buffer.length for buffer in request.buffers)
        return self.serve(request, lambda error: self._count(since, error))

    def _count(self, since: float, error: Exception | None) -> None:
        seconds = self.runtime.now() - since
        with self._lock:
            self._ended += 1
            self._failed += error is not None
            self._seconds += seconds
            self._longest = max(self._longest, seconds)

    def _report(self) -> dict[str, int | float]:
        with self._lock:
            return {
                "begun": self._begun,
                "ended": self._ended,
                "failed": self._failed,
                "bytes": self._bytes,
                "seconds": self._seconds,
                "longest": self._longest,
            }
