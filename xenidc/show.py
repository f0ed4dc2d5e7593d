"""What people see of a running topology: rows (requests.py) as lines of text. Pure."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

_MIB = 1 << 20


def tree(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The supervision tree, a line for each."""
    lines = []
    for row in rows:
        name = f"{'  ' * row['depth']}{row['name']}"
        if row["kind"] != "domain":
            lines.append(f"{name:<24} {row['kind']}")
            continue
        restarts = "" if row["restarts"] is None else _count(row["restarts"], "restart")
        where = "" if row["pid"] is None else f"pid {row['pid']}"
        memory = "" if row["rss"] is None else f"{row['rss'] / _MIB:.0f} MiB"
        line = f"{name:<24} {row['state']:<9} {restarts:<12} {row['placement'] or '':<9}"
        lines.append(f"{line} {where:<12} {memory}".rstrip())
    return lines


def top(now: dict[str, Any], before: dict[str, Any] | None) -> list[str]:
    """The channels: with rates, if there is an earlier answer to compare with."""
    head = ("channel", "to", "requests", "per s", "in flight", "resent", "unknown", "restarts")
    rows: list[Sequence[str]] = [head]
    earlier = {} if before is None else {row["channel"]: row for row in before["channels"]}
    for row in now["channels"]:
        rate = "-"
        if before is not None and now["now"] > before["now"]:
            done = row["requests"] - earlier[row["channel"]]["requests"]
            rate = f"{done / (now['now'] - before['now']):,.0f}"
        counts = [row["in_flight"], row["resent"], row["unknown"], row["restarts"]]
        shown = ["-" if count is None else f"{count:,}" for count in counts]
        rows.append((row["channel"], row["to"], f"{row['requests']:,}", rate, *shown))
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


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


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
