"""Which actor the current thread is running. Set by the runtime, around steps."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.life import Life


class _Here(threading.local):
    """``birth``: the life that is making its actor just now, for `Actor.__new__` to find."""

    cell: Cell | None = None
    birth: Life | None = None


here = _Here()
