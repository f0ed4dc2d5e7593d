"""What people see of a running topology: rows (requests.py) as lines of text. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

_MIB = 1 << 20


def tree(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The supervision tree, a line for each, and one for each channel that a domain has."""
    lines = []
    for row in rows:
        indent = "  " * row["depth"]
        name = f"{indent}{row['name']}"
        if row["kind"] != "domain":
            lines.append(f"{name:<24} {row['kind']}")
        else:
            restarts = "" if row["restarts"] is None else _count(row["restarts"], "restart")
            where = "" if row["pid"] is None else f"pid {row['pid']}"
            memory = "" if row["rss"] is None else f"{row['rss'] / _MIB:.0f} MiB"
            line = f"{name:<24} {row['state']:<9} {restarts:<12} {row['placement'] or '':<9}"
            lines.append(f"{line} {where:<12} {memory}".rstrip())
        lines += [
            f"{indent}  -> {use['device']}: {use['state']}, epoch {use['epoch']}"
            for use in row.get("uses", ())
        ]
    return lines


def request(item: dict[str, Any]) -> list[str]:
    """A request that has ended, with its data phases."""
    took, submitted = item["seconds"], item["submitted"]
    words = [
        f"{item['operation']:<16}",
        f"{span(took):>8}",
        f"{item['outcome']:<9}",
        f"{size(item['bytes']):>9}",
        f"epoch {item['epoch']}",
        *([f"attempt {item['attempts']}"] if item["attempts"] > 1 else []),
        *([item["error"]] if item["error"] else []),
    ]
    moments = [] if item["pushed"] is None else [f"pushed +{span(item['pushed'] - submitted)}"]
    moments += [
        f"{phase['direction']} {size(phase['bytes'])} +{span(phase['time'] - submitted)}"
        for phase in item["phases"]
    ]
    if item["phases_left_out"]:
        moments.append(f"and {item['phases_left_out']} phases")
    clock = time.strftime("%H:%M:%S", time.localtime(item["time"]))
    lines = [f"{clock}.{int(item['time'] % 1 * 1000):03} " + "  ".join(words)]
    return [*lines, *(["             " + ", ".join(moments)] if item["phases"] else [])]


def change(item: dict[str, Any]) -> str:
    """A change of the store."""
    if "missed" in item:
        return f"{item['revision']:>8}  the log does not reach back: what there is, {_nodes(item)}"
    if item["value"] is None:
        return f"{item['revision']:>8}  {item['path']} removed"
    same = "" if item.get("old") != item["value"] else "  (its permissions)"
    return f"{item['revision']:>8}  {item['path']} = {json.dumps(item['value'])}{same}"


def _nodes(item: dict[str, Any]) -> str:
    return _count(item["nodes"], "node")


def span(seconds: float) -> str:
    """A time, in the unit that suits it."""
    for unit, least in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= least:
            return f"{seconds / least:.3g} {unit}" if seconds < 1000 else f"{seconds:.0f} s"
    return f"{seconds * 1e6:.3g} µs"


def size(count: float) -> str:
    """A number of bytes, in the unit that suits it."""
    for unit, power in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if count >= 1 << power:
            return f"{count / (1 << power):.3g} {unit}"
    return f"{count:.0f} B"


_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "channel": ("channel", str),
    "from": ("from", str),
    "to": ("to", str),
    "state": ("state", str),
    "per_second": ("req/s", lambda value: f"{value:,.0f}"),
    "bytes_per_second": ("bytes/s", size),
    "p50": ("p50", span),
    "p99": ("p99", span),
    "in_flight": ("in flight", str),
    "credits": ("credits", str),
    "requests": ("requests", lambda value: f"{value:,}"),
    "resent": ("resent", str),
    "unknown": ("unknown", str),
    "restarts": ("restarts", str),
}
_TEXTS = 4  # columns that stand to the left


def top(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The channels, with a head; what is not known is "-"."""
    table = [[head for head, _ in _COLUMNS.values()]]
    table += [
        ["-" if row[name] is None else text(row[name]) for name, (_, text) in _COLUMNS.items()]
        for row in rows
    ]
    widths = [max(len(line[at]) for line in table) for at in range(len(_COLUMNS))]
    return [
        "  ".join(
            cell.ljust(width) if at < _TEXTS else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
