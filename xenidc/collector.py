"""What a running machine does, in the words of Prometheus and OpenMetrics.

Nothing is counted here: each scrape reads what the machine and its channels count themselves. A
counter of a channel is as old as the channel, one of a domain as old as the machine, but for the
processor time of its process. The buckets of the histogram are powers of two, from a microsecond to
half a minute; a channel's own are eight times finer (transport's `Latency`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    StateSetMetricFamily,
)
from prometheus_client.registry import Collector

from hypervisor import DomainInfo, Machine
from transport import FrontEnd, Latency, Statistics

STATES = ("starting", "running", "paused", "dying", "crashed", "shutdown", "destroyed")
"""Of a domain; see `DomainInfo`."""
BOUNDS = tuple(2.0**power for power in range(-20, 6))
"""Seconds: the upper bounds of the histogram's buckets."""

_DOMAIN_COUNTERS: dict[str, tuple[str, Callable[[DomainInfo], float | None]]] = {
    "restarts": ("times that a domain was started again", lambda info: info.restarts),
    "refused": ("hypercalls and frames of a domain that were refused", lambda info: info.refused),
    "cpu_seconds": (
        "processor time of a domain's present process",
        lambda info: None if info.usage is None else info.usage.cpu_seconds,
    ),
}
_CHANNEL_COUNTERS: dict[str, tuple[str, Callable[[Statistics], float]]] = {
    "requests": ("requests that have ended", lambda of: of.requests),
    "bytes": ("bytes that ended requests carried", lambda of: of.bytes),
    "resent": ("requests that were sent again to a new back end", lambda of: of.resent),
    "unknown": ("requests that ended in OutcomeUnknown", lambda of: of.unknown),
    "epochs": ("connections that were opened", lambda of: of.epochs),
    "faults": ("back ends that broke the protocol", lambda of: of.faults),
    "revocations": ("times that memory was taken back", lambda of: len(of.revoke_seconds)),
    "revocation_seconds": ("what that took", lambda of: sum(of.revoke_seconds)),
}
_CHANNEL_GAUGES: dict[str, tuple[str, Callable[[FrontEnd, Statistics], float]]] = {
    "in_flight": ("requests that have not ended", lambda _, of: of.in_flight),
    "credits": ("requests that could be submitted", lambda front, _: front.credits),
    "free_bytes": ("of buffer memory", lambda _, of: of.free_bytes),
    "open": ("1 until the channel has ended", lambda front, _: front.failure is None),
}


def registry_of(machine: Machine, channels: Mapping[str, FrontEnd]) -> CollectorRegistry:
    """See `xenidc.metrics`."""
    registry = CollectorRegistry()
    registry.register(_Machine(machine, dict(channels)))
    return registry


class _Machine(Collector):
    def __init__(self, machine: Machine, channels: dict[str, FrontEnd]) -> None:
        self._machine = machine
        self._channels = channels

    def collect(self) -> Iterable[Metric]:
        yield from self._domains(self._machine.domains())
        fronts = [(name, front, front.statistics()) for name, front in self._channels.items()]
        yield from self._of_channels(fronts)
        letters = CounterMetricFamily(
            "xenidc_dead_letters", "messages that nobody could receive any more", labels=["kind"]
        )
        for kind, count in self._machine.system.dead_letters.by_kind.items():
            letters.add_metric([kind], count)
        yield letters

    def describe(self) -> Iterable[Metric]:
        """Nothing is asked for when it is registered."""
        return []

    def _domains(self, infos: list[DomainInfo]) -> Iterator[Metric]:
        state = StateSetMetricFamily("xenidc_domain_state", "of a domain", labels=["domain"])
        memory = GaugeMetricFamily(
            "xenidc_domain_resident_memory_bytes", "of a domain's process", labels=["domain"]
        )
        for info in infos:
            state.add_metric([info.name], {each: each == info.state for each in STATES})
            if info.usage is not None:
                memory.add_metric([info.name], info.usage.rss)
        yield state
        yield memory
        for name, (text, read) in _DOMAIN_COUNTERS.items():
            counter = CounterMetricFamily(f"xenidc_domain_{name}", text, labels=["domain"])
            for info in infos:
                if (value := read(info)) is not None:
                    counter.add_metric([info.name], value)
            yield counter

    def _of_channels(self, fronts: list[tuple[str, FrontEnd, Statistics]]) -> Iterator[Metric]:
        labels = ["channel", "device"]
        for name, (text, count) in _CHANNEL_COUNTERS.items():
            counter = CounterMetricFamily(f"xenidc_channel_{name}", text, labels=labels)
            for channel, front, of in fronts:
                counter.add_metric([channel, front.device], count(of))
            yield counter
        for name, (text, read) in _CHANNEL_GAUGES.items():
            gauge = GaugeMetricFamily(f"xenidc_channel_{name}", text, labels=labels)
            for channel, front, of in fronts:
                gauge.add_metric([channel, front.device], read(front, of))
            yield gauge
        histogram = HistogramMetricFamily(
            "xenidc_channel_request_seconds", "how long ended requests took", labels=labels
        )
        for channel, front, of in fronts:
            buckets = _buckets(of.latency)
            histogram.add_metric([channel, front.device], buckets, of.latency.seconds)
        yield histogram


def _buckets(latency: Latency) -> list[tuple[str, float]]:
    """(bound, how many took no longer), the last without a bound."""
    found = [
        (bound, sum(count for upper, count in latency.counts.items() if upper <= bound))
        for bound in BOUNDS
    ]
    return [
        ("+Inf" if math.isinf(bound) else repr(bound), count)
        for bound, count in [*found, (math.inf, latency.count)]
    ]
