"""What people see of a running topology: rows (requests.py) as lines of text. Pure."""

from __future__ import annotations

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


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
