"""The live tree of a system as text, and every actor's stack, for people.

Everything is read from outside, without stopping anybody: a line may be a moment older than the
next one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.cell import Cell


def picture(name: str, top: list[Cell], now: float) -> str:
    """All actors under ``top``, a line each."""
    return name
