"""Which actor the current thread is running. Set by the runtime, around steps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.life import Life


class _Here(threading.local):
    """What else of the current thread: ``birth``, the life that is making its actor just now, for
    `Actor.__new__` to find; ``vacant``, whether the actor whose own thread it was has ended; and
    ``heir``, the one that gets the thread next.
    """

    cell: Cell | None = None
    birth: Life | None = None
    vacant: bool = False
    heir: Life | None = None


here = _Here()
