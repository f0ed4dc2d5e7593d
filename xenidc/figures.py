"""Rates and percentiles of channels, from two answers to ``top`` (requests.py). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transport import Latency

Row = dict[str, Any]


def figures(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> list[Row]:
    """The rows of ``now``, each with ``per_second``, ``bytes_per_second``, ``p50`` and ``p99``
    (seconds), which are of the time since ``before``; without that the percentiles are of all that
    there was, and the rates None. What is not known of a channel is None too.
    """
    earlier = {} if before is None else {row["channel"]: row for row in before["channels"]}
    passed = 0.0 if before is None else now["now"] - before["now"]
    return [_with_figures(row, earlier.get(row["channel"]), passed) for row in now["channels"]]


def _with_figures(row: Row, before: Row | None, passed: float) -> Row:
    latency = _latency(row)
    if before is None or before["requests"] is None:
        before = None
    elif latency is not None and (old := _latency(before)) is not None:
        latency = latency.since(old)
    return {
        **row,
        "per_second": _rate(row, before, "requests", passed),
        "bytes_per_second": _rate(row, before, "bytes", passed),
        "p50": None if latency is None else latency.percentile(0.5),
        "p99": None if latency is None else latency.percentile(0.99),
    }


def _latency(row: Row) -> Latency | None:
    if row["latency"] is None:
        return None
    return Latency(dict(row["latency"]), row["latency_seconds"])


def _rate(row: Row, before: Row | None, name: str, passed: float) -> float | None:
    if before is None or row[name] is None or passed <= 0:
        return None
    rate: float = (row[name] - before[name]) / passed
    return rate
