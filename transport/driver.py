"""What a driver author writes and sees: `BackEnd`, and the requests that it serves.

A driver knows no actor, no ring and no grant. It is run by the endpoint actor in backend.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

from actors import Runtime
from hypervisor import StoreClient
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
            Cancelled: the data is not in buffers, and the caller has gone with it.
            LocalProtocolError: the data is not in buffers, so that this has to wait for the front
                end; only offloaded work may. Or ``limit`` is below 0.
        """
        if limit is not None and limit < 0:
            raise LocalProtocolError(f"a data phase of {limit} bytes")
        if self.phases is not None:
            return self.phases.pull(limit)
        for buffer, offset, left in self._rest(0):
            count = left if limit is None else min(limit, left)
            self._at[0] += count
            return buffer.read(offset, count)
        return memoryview(b"")

    def push(self, data: Bytes) -> None:
        """A data phase: the next bytes for the caller.

        Raises:
            LocalProtocolError: there is no room for so many, and none was taken; or as for `pull`.
            GrantRevoked, Cancelled: as for `pull`.
        """
        rest = bytes_of(data)
        if self.phases is not None:
            self.phases.push(rest)
            return
        room = list(self._rest(1))
        if len(rest) > sum(left for _, _, left in room):
            raise LocalProtocolError(f"{len(rest)} bytes are more than the request has room for")
        for buffer, offset, left in room:
            part, rest = rest[:left], rest[left:]
            buffer.write(offset, part)
            self._at[1] += len(part)

    def _rest(self, way: int) -> Iterator[tuple[RemoteBuffer, int, int]]:
        """What is left of the buffers: each one's offset from which on, and how many bytes."""
        at = self._at[way]
        for buffer in self.buffers:
            if at < buffer.length:
                yield buffer, at, buffer.length - at
            at = max(0, at - buffer.length)


class Offloaded:
    """Work for a worker thread; made by `BackEnd.offload`.

    Attributes:
        begun: something of the request has been done already: it cannot end in `Cancelled`.
    """

    __slots__ = ("arguments", "begun", "function")

    def __init__(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], *, begun: bool = False
    ) -> None:
        self.function = function
        self.arguments = arguments
        self.begun = begun

    def run(self) -> Any:
        """Do it here and now, as a worker would."""
        return self.function(*self.arguments)


class BackEnd:
    """Base of drivers. Override `on_request`, and the others where there is something to do.

    Attributes:
        workers: how many threads run offloaded work.
        spin: seconds that the endpoint goes on looking for requests before it sleeps. It costs
            that much of a processor, and saves both sides a wake-up.
        idempotent: every operation may be done twice, since its effect is the same. Then requests
            are sent again to the next back end if this one dies with them.
        version: of its protocol; a front end that asks for another one is refused.
        features: what it offers beyond its plain protocol; see `FrontEnd.features`.
        runtime: the clock and the locks of where it runs, which in a simulation are virtual; there
            from `on_start` on. Who waits for time waits on one of its locks, in offloaded work.
        opener, domain_store: what `connect` and `store` use; set by the endpoint that runs it.
    """

    runner: ClassVar[str] = "transport.backend:BackEndActor"
    workers: int = 4
    spin: float = 0.0
    idempotent: bool = False
    version: int = 1
    features: frozenset[str] = frozenset()
    runtime: Runtime
    opener: Callable[..., FrontEnd] | None = None
    domain_store: StoreClient | None = None

    @property
    def store(self) -> StoreClient:
        """The machine's store, as this driver's domain may use it.

        Raises:
            LocalProtocolError: this driver is not run by an endpoint.
        """
        if self.domain_store is None:
            raise LocalProtocolError("only a driver that runs in a domain has its store")
        return self.domain_store

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

    def on_abandoned(self) -> None:
        """Offloaded work is running whose answer nobody wants any more, or this driver is to stop.

        Both wait for all offloaded work. Who has work that may last for ever has it end now, and
        lasting work of other connections with it, if it cannot tell.
        """

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
