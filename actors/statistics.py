"""Figures of one actor, as they are when somebody looks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from actors.cell import Cell


@dataclass(frozen=True)
class Statistics:
    """Of one incarnation. All are read without stopping it, so they may be a message apart.

    Attributes:
        state: "starting", "idle", "busy", "stopping" or "ended".
        handled: messages whose handler has been called.
        queued, queued_bytes: in the data lane now, those put aside by `Actor.stash` included.
        most_queued: the largest ``queued`` so far.
        unanswered: asks that it has taken and will answer later.
        restarts: how often its supervisor has replaced its predecessors.
        uptime: seconds since it was made.
    """

    name: str
    state: str
    handled: int
    queued: int
    queued_bytes: int
    most_queued: int
    unanswered: int
    restarts: int
    uptime: float

    @classmethod
    def of(cls, cell: Cell) -> Self:
        """The figures of one actor."""
        mailbox, life = cell.mailbox, cell.life
        return cls(
            name=cell.name,
            state="ended" if cell.reason is not None or life is None else life.state,
            handled=cell.handled,
            queued=mailbox.depth,
            queued_bytes=mailbox.bytes,
            most_queued=mailbox.most,
            unanswered=len(cell.pending),
            restarts=cell.restarts,
            uptime=cell.system.now() - cell.born_at,
        )
