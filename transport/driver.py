"""What a driver author writes and sees: `BackEnd`, and the requests that it serves.

A driver knows no actor, no ring and no grant. It is run by the endpoint actor in backend.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from transport.buffers import Bytes, RemoteBuffer, bytes_of
from transport.errors import LocalProtocolError
from transport.frontend import DEFAULT_BUFFER_BYTES, DEFAULT_SLOTS, DEFAULT_SPIN

if TYPE_CHECKING:
    from transport.frontend import FrontEnd
    from transport.serving import Phases


class Request:
    """One request as the driver sees it.

    Attributes:
        body: its msgpack value.
        buffers: what the front end lets the driver see, in order.
        cancelled: the caller has no use for it any more; who works on it for long may look.
        phases: how data comes and goes that is not in buffers, or None; see `pull` and `push`.
    """

    __slots__ = ("_at", "body", "buffers", "cancelled", "phases")

    def __init__(
        self, body: Any, buffers: tuple[RemoteBuffer, ...] = (), phases: Phases | None = None
    ) -> None:
        self.body = body
        self.buffers = buffers
        self.cancelled = False
        self.phases = phases
        self._at = [0, 0]  # how far `pull` and `push` are in the buffers

    @property
    def buffer(self) -> RemoteBuffer | None:
        """The first of its buffers, None if it has none."""
        return self.buffers[0] if self.buffers else None

    def pull(self, limit: int | None = None) -> memoryview:
        """A data phase: the next bytes that the caller sends, empty at their end.

        What it returns is in memory of the front end, and good until the next phase. From buffers
        nothing is copied, and whatever else is in memory comes in pieces of at most 1 MiB. Can be
        called any number of times, and in any order with `push`.

        Args:
            limit: bytes; None: as many as there are in one piece.

        Raises:
            GrantRevoked: the connection is over.
            LocalProtocolError: the data is not in buffers, so that this has to wait for the front
                end; only offloaded work may.
        """
        if self.phases is not None:
            return self.phases.pull(limit)
        return self._next(0, limit).toreadonly()

    def push(self, data: Bytes) -> None:
        """A data phase: the next bytes for the caller.

        Raises:
            LocalProtocolError: there is no room for so many; or as for `pull`.
            GrantRevoked: the connection is over.
        """
        rest = bytes_of(data)
        if self.phases is not None:
            self.phases.push(rest)
            return
        while len(rest):
            room = self._next(1, len(rest))
            if not len(room):
                raise LocalProtocolError(f"{len(rest)} bytes more than the request has room for")
            room[:] = rest[: len(room)]
            rest = rest[len(room) :]

    def _next(self, way: int, limit: int | None) -> memoryview:
        """The next stretch of the buffers, in one piece."""
        at = self._at[way]
        for buffer in self.buffers:
            if at < buffer.length:
                count = buffer.length - at if limit is None else min(limit, buffer.length - at)
                self._at[way] += count
                return buffer.map()[at : at + count]
            at -= buffer.length
        return memoryview(bytearray())


class Offloaded:
    """Work for a worker thread; made by `BackEnd.offload`."""

    __slots__ = ("arguments", "function")

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function = function
        self.arguments = arguments


class BackEnd:
    """Base of drivers. Override `on_request`, and the others where there is something to do.

    Attributes:
        workers: how many threads run offloaded work.
        spin: seconds that the endpoint goes on looking for requests before it sleeps. It costs
            that much of a processor, and saves both sides a wake-up.
        idempotent: every operation may be done twice, since its effect is the same. Then requests
            are sent again to the next back end if this one dies with them.
        features: what it offers beyond its plain protocol; see `FrontEnd.features`.
        opener: opens its channels; set by the endpoint that runs it.
    """

    runner: ClassVar[str] = "transport.backend:BackEndActor"
    workers: ClassVar[int] = 4
    spin: ClassVar[float] = 0.0
    idempotent: ClassVar[bool] = False
    features: ClassVar[frozenset[str]] = frozenset()
    opener: Callable[..., FrontEnd] | None = None

    def connect(
        self,
        device: str,
        *,
        slots: int = DEFAULT_SLOTS,
        buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        spin: float = DEFAULT_SPIN,
        watchdog: float = 1.0,
    ) -> FrontEnd:
        """A channel to another domain's device, for a driver that needs one itself.

        It is not waited for: requests wait until that back end comes. So it may be called in
        `on_start`, where nobody may wait for an answer. The channel ends with this driver.

        Args:
            slots, buffer_bytes, spin: see `connect` of this package.
            watchdog: seconds without any answer, until the other back end is to show that it lives.

        Raises:
            LocalProtocolError: this driver is not run by an endpoint.
            HypercallError: the domain serves that device itself.
        """
        if self.opener is None:
            raise LocalProtocolError("only a driver that runs in a domain has channels")
        return self.opener(device, watchdog, slots, buffer_bytes, spin)

    def on_start(self, *args: Any, **kwargs: Any) -> None:
        """Open what the driver needs; the arguments are those of `Machine.start`.

        An exception here means that the domain could not start.
        """

    def on_stop(self) -> None:
        """Close it again. Called at an orderly end only: never count on it."""

    def is_idempotent(self, body: Any) -> bool:
        """Whether this operation may be done twice, where not every one may.

        Such requests are sent again to the next back end if this one dies with them. Others are if
        they had not begun; else they end in `OutcomeUnknown`. Must be quick: it is asked for each.
        """
        del body
        return self.idempotent

    def on_request(self, request: Request) -> Any:
        """Serve one request; returns the result, any msgpack value, or `offload`.

        Runs in the endpoint's thread: what takes long belongs into `offload`. An exception is the
        answer to this request alone: the caller gets it as `RemoteError`.
        """
        raise NotImplementedError(f"{type(self).__name__} serves no requests")

    def offload(self, function: Callable[..., Any], *arguments: Any) -> Offloaded:
        """To be returned by `on_request`: a worker thread calls ``function(*arguments)``, and what
        that returns or raises is the answer. Other requests are served meanwhile.
        """
        return Offloaded(function, arguments)
