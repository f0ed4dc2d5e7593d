"""Requests of channels as spans of OpenTelemetry, made when they have ended (transport's
`RequestRecord`).

A span lasts from the request's submission to its end, by the clock of the machine set against the
wall's at that moment. Events in it: ``pushed``, and each data phase that is known. It is made in
the thread that reaps: its processor should not wait (the SDK's batch processor does not).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider

from hypervisor import Machine
from transport import FrontEnd, RequestRecord
from xenidc.errors import FaceError
from xenidc.operation import operation_of

_NS = 1_000_000_000


def begin(
    machine: Machine, channels: Mapping[str, FrontEnd], provider: TracerProvider | None
) -> Callable[[], None]:
    """See `xenidc.record_spans`."""
    provider = trace.get_tracer_provider() if provider is None else provider
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        raise FaceError(
            "no tracer provider of OpenTelemetry is set, so spans would go nowhere; run this by "
            "`opentelemetry-instrument`, or set one first"
        )
    tracer = provider.get_tracer("xenidc")
    now = machine.system.now
    with ExitStack() as undo:
        for name, front in channels.items():
            undo.callback(front.observe(_recorder(tracer, name, now)))
        return undo.pop_all().close


def _recorder(
    tracer: trace.Tracer, channel: str, now: Callable[[], float]
) -> Callable[[RequestRecord | None], None]:
    def record_span(record: RequestRecord | None) -> None:
        if record is None:
            return
        zero = time.time_ns() - round(now() * _NS)  # of the machine's clock, on the wall's

        def wall(seconds: float) -> int:
            return zero + round(seconds * _NS)

        span = tracer.start_span(
            operation_of(record.body),
            Context(),
            SpanKind.CLIENT,
            {
                "xenidc.channel": channel,
                "xenidc.device": record.device,
                "xenidc.epoch": record.epoch,
                "xenidc.attempts": record.attempts,
                "xenidc.outcome": record.outcome,
                "xenidc.bytes": record.size,
            },
            start_time=wall(record.submitted),
        )
        if record.pushed is not None:
            span.add_event("pushed", timestamp=wall(record.pushed))
        for phase in record.phases:
            details = {"xenidc.bytes": phase.size, "xenidc.epoch": phase.epoch}
            span.add_event(phase.direction, details, wall(phase.time))
        if record.error is not None:
            span.set_attribute("error.type", type(record.error).__name__)
            span.set_status(Status(StatusCode.ERROR, " ".join(str(record.error).split())))
        span.end(wall(record.ended))

    return record_span
