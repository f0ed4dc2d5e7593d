"""iceoryx2 as a contestant (trips.py): shared memory without copies, polled or woken by its events.

Two ways, both with loaned memory that is filled in place: its request-response service, and a
publish-subscribe service each way, which is the quicker one, and has no tie between a request and
its response. Blocking is the latter with an event service each way. Each pair has its files in a
folder of its own.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import iceoryx2 as iox2

from benchmarks.apart import apart
from benchmarks.trips import BODY, DEPTH, Measure, ahead, flooded, served

Serve = Callable[[int], None]
Take = Callable[[], Any]
_SIZE = len(BODY)


class Body(ctypes.Structure):
    """64 bytes."""

    _fields_ = (("data", ctypes.c_uint8 * _SIZE),)


@contextmanager
def request_response() -> Iterator[Measure]:
    """Polled."""
    with _served("request_response_server") as (node, server):
        client = _request_response(node).client_builder().create()
        yield served(server, lambda: _receive(_request(client)))


@contextmanager
def request_response_in_flight() -> Iterator[Callable[[int], float]]:
    """Polled, with `DEPTH` requests ahead."""
    with _served("request_response_server") as (node, server):
        client = _request_response(node).client_builder().create()
        asked: deque[Any] = deque()
        flood = ahead(lambda: asked.append(_request(client)), lambda: _receive(asked.popleft()))
        yield flooded(flood, server)


@contextmanager
def request_response_server(folder: str) -> Iterator[Serve]:
    """Answers with the body."""
    server = _request_response(_node(folder)).server_builder().create()

    def serve(count: int) -> None:
        for _ in range(count):
            while (request := server.receive()) is None:
                pass
            response = request.loan_uninit()
            ctypes.memmove(response.payload_ptr, request.payload_ptr, _SIZE)
            response.assume_init().send()
            request.delete()

    yield serve


@contextmanager
def publish_subscribe() -> Iterator[Measure]:
    """Polled."""
    with _served("publish_subscribe_server") as (node, server):
        publisher, subscriber = _ends(node, "there", "back", Body)

        def trip() -> None:
            _send(publisher)
            while (answer := subscriber.receive()) is None:
                pass
            ctypes.string_at(answer.payload_ptr, _SIZE)
            answer.delete()

        yield served(server, trip)


@contextmanager
def in_flight() -> Iterator[Callable[[int], float]]:
    """Polled, with `DEPTH` samples ahead."""
    with _served("publish_subscribe_server") as (node, server):
        publisher, subscriber = _ends(node, "there", "back", Body)

        def flood(count: int) -> None:
            sent = ended = 0
            while ended < count:
                while sent < count and sent - ended < DEPTH:
                    _send(publisher)
                    sent += 1
                while (answer := subscriber.receive()) is not None:
                    ctypes.string_at(answer.payload_ptr, _SIZE)
                    answer.delete()
                    ended += 1

        yield flooded(flood, server)


@contextmanager
def publish_subscribe_server(folder: str) -> Iterator[Serve]:
    """Answers with the body."""
    publisher, subscriber = _ends(_node(folder), "back", "there", Body)

    def serve(count: int) -> None:
        for _ in range(count):
            while (asked := subscriber.receive()) is None:
                pass
            _answer(publisher, asked)

    yield serve


@contextmanager
def with_events() -> Iterator[Measure]:
    """Nobody polls: each side sleeps until it is notified."""
    with _served("with_events_server") as (node, server):
        publisher, subscriber = _ends(node, "there", "back", Body)
        notifier, listener = _signals(node, "there", "back")

        def trip() -> None:
            _send(publisher)
            notifier.notify()
            answer = _woken(listener, subscriber.receive)
            ctypes.string_at(answer.payload_ptr, _SIZE)
            answer.delete()

        yield served(server, trip)


@contextmanager
def with_events_server(folder: str) -> Iterator[Serve]:
    """Answers with the body."""
    node = _node(folder)
    publisher, subscriber = _ends(node, "back", "there", Body)
    notifier, listener = _signals(node, "back", "there")

    def serve(count: int) -> None:
        for _ in range(count):
            _answer(publisher, _woken(listener, subscriber.receive))
            notifier.notify()

    yield serve


@contextmanager
def bulk(size: int) -> Iterator[Measure]:
    """Polled; the peer reads all of ``size`` bytes where they are, and answers with their sum."""
    from benchmarks.reading import fill, stamp  # noqa: PLC0415 - only this one needs numpy

    with _served("bulk_server") as (node, server):
        publisher = _publisher(node, "there", iox2.Slice[ctypes.c_uint8], size)
        subscriber = _subscriber(node, "back", Body)
        sums: dict[int, int] = {}  # of each piece of memory that was lent to us: a few
        number = 0

        def trip() -> None:
            nonlocal number
            number += 1
            sample = publisher.loan_slice_uninit(size)
            view = sample.payload().as_memory_view()
            if sample.payload_ptr not in sums:
                sums[sample.payload_ptr] = fill(view)
            stamp(view, number)
            expected = sums[sample.payload_ptr] + number
            sample.assume_init().send()
            while (answer := subscriber.receive()) is None:
                pass
            assert ctypes.c_uint64.from_address(answer.payload_ptr).value == expected
            answer.delete()

        yield served(server, trip)


@contextmanager
def bulk_server(folder: str) -> Iterator[Serve]:
    """Answers with the sum of what it reads in place."""
    from benchmarks.reading import read_all  # noqa: PLC0415 - only this one needs numpy

    node = _node(folder)
    publisher = _publisher(node, "back", Body)
    subscriber = _subscriber(node, "there", iox2.Slice[ctypes.c_uint8])

    def serve(count: int) -> None:
        for _ in range(count):
            while (asked := subscriber.receive()) is None:
                pass
            total = read_all(asked.payload().as_memory_view())
            asked.delete()
            answer = publisher.loan_uninit()
            ctypes.c_uint64.from_address(answer.payload_ptr).value = total
            answer.assume_init().send()

    yield serve


# --- the services ---------------------------------------------------------------------------------


@contextmanager
def _served(server: str) -> Iterator[tuple[Any, Any]]:
    """Our node, and the process of the other."""
    with (
        tempfile.TemporaryDirectory(prefix="xenidc-bench-") as folder,
        apart(f"benchmarks.with_iceoryx2:{server}", folder) as other,
    ):
        yield _node(folder), other
        for left in Path("/dev/shm").glob(f"{_prefix(folder)}*"):  # it leaves one, for the next
            left.unlink()


def _prefix(folder: str) -> str:
    return f"{Path(folder).name}-"


def _node(folder: str) -> Any:
    iox2.set_log_level(iox2.LogLevel.Error)
    config = iox2.config.default()
    config.global_cfg.root_path = iox2.Path.new(folder)
    config.global_cfg.prefix = iox2.FileName.new(_prefix(folder))
    return iox2.NodeBuilder.new().config(config).create(iox2.ServiceType.Ipc)


def _request_response(node: Any) -> Any:
    builder = node.service_builder(iox2.ServiceName.new("round trip"))
    service = builder.request_response(Body, Body).max_active_requests_per_client(DEPTH)
    return service.open_or_create()


def _request(client: Any) -> Any:
    request = client.loan_uninit()
    ctypes.memmove(request.payload_ptr, BODY, _SIZE)
    return request.assume_init().send()


def _receive(pending: Any) -> None:
    while (response := pending.receive()) is None:
        pass
    ctypes.string_at(response.payload_ptr, _SIZE)
    response.delete()
    pending.delete()


def _service(node: Any, name: str, kind: Any) -> Any:
    builder = node.service_builder(iox2.ServiceName.new(name)).publish_subscribe(kind)
    return builder.subscriber_max_buffer_size(DEPTH).open_or_create()


def _publisher(node: Any, name: str, kind: Any, size: int = 0) -> Any:
    builder = _service(node, name, kind).publisher_builder()
    return (builder.initial_max_slice_len(size) if size else builder).create()


def _subscriber(node: Any, name: str, kind: Any) -> Any:
    return _service(node, name, kind).subscriber_builder().create()


def _ends(node: Any, outward: str, inward: str, kind: Any) -> tuple[Any, Any]:
    return _publisher(node, outward, kind), _subscriber(node, inward, kind)


def _signals(node: Any, outward: str, inward: str) -> tuple[Any, Any]:
    def event(name: str) -> Any:
        return node.service_builder(iox2.ServiceName.new(f"{name}, event")).event().open_or_create()

    return event(outward).notifier_builder().create(), event(inward).listener_builder().create()


def _send(publisher: Any) -> None:
    sample = publisher.loan_uninit()
    ctypes.memmove(sample.payload_ptr, BODY, _SIZE)
    sample.assume_init().send()


def _answer(publisher: Any, asked: Any) -> None:
    sample = publisher.loan_uninit()
    ctypes.memmove(sample.payload_ptr, asked.payload_ptr, _SIZE)
    sample.assume_init().send()
    asked.delete()


def _woken(listener: Any, receive: Take) -> Any:
    while (found := receive()) is None:
        listener.blocking_wait()
    return found
