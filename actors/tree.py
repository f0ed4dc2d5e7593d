"""The live tree of a system as text, and every actor's stack, for people.

    system main: 4 actors
    top          idle       0 restarts  0 queued     12.3 s  one_for_one, intensity 1 in 5 s
      worker     busy       2 restarts  7 queued      1.0 s

Everything is read from outside, without stopping anybody: a line may be a moment older than the
next one.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import traceback
import weakref
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, TextIO

from actors.statistics import Statistics
from actors.supervisor import Supervisor

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.system import System

systems: weakref.WeakSet[System] = weakref.WeakSet()
"""All of this process that have not been stopped."""

_MANY = 10  # restarts, multiplied over nested supervisors, that are worth a warning


def picture(system: System) -> str:
    """All actors of ``system``, a line each; supervisors say how often a child can be started."""
    rows, warnings = [], []
    for cell, depth in _walk(system.top(), 0):
        rows.append((f"{'  ' * depth}{cell.name}", Statistics.of(cell), _words(cell)))
        levels, starts = _escalation(cell)
        if levels > 1 and starts > _MANY:
            warnings.append(
                f"warning: nested intensities multiply: a child of {cell.name} that fails for ever "
                f"is started {starts} times before the topmost of {levels} supervisors gives up"
            )
    count = len(rows)
    width = max((len(name) for name, _, _ in rows), default=0)
    lines = [f"system {system.name}: {count} actor{'' if count == 1 else 's'}"]
    for name, of, words in rows:
        restarts = f"{of.restarts} restart{' ' if of.restarts == 1 else 's'}"
        line = f"{name:<{width}}  {of.state:<8}  {restarts:>12}  {of.queued:>6} queued"
        lines.append(f"{line}  {of.uptime:>9.1f} s  {words}".rstrip())
    return "\n".join([*lines, *warnings])


def actor_rows(system: System) -> list[tuple[int, Statistics, str]]:
    """Depth, figures and own words of every actor of ``system``, a parent before its children."""
    return [(depth, Statistics.of(cell), _words(cell)) for cell, depth in _walk(system.top(), 0)]


def dump(file: TextIO | None = None) -> None:
    """Print every system's tree, and the stack of each actor that runs or waits in a thread."""
    out = sys.stderr if file is None else file
    frames = sys._current_frames()  # noqa: SLF001 - documented, for debuggers
    for system in sorted(systems, key=lambda system: system.name):
        print(picture(system), file=out)
        at_work = {cell: ident for ident, cell in system.runtime.at_work().items()}
        for cell, _ in _walk(system.top(), 0):
            ident = at_work.get(cell) if cell.thread is None else cell.thread.ident
            frame = None if ident is None else frames.get(ident)
            if frame is not None:
                print(f"\n{cell.name} ({Statistics.of(cell).state}):", file=out)
                print("".join(traceback.format_stack(frame)), end="", file=out)
    out.flush()


def dump_on_signal(signum: int = signal.SIGUSR1) -> Callable[[], None]:
    """Have ``signum`` do `dump` to descriptor 2; returns what undoes that.

    Call it in the main thread, as Python demands for signal handlers (ValueError otherwise).
    """

    def handle(_signum: int, _frame: FrameType | None) -> None:
        # Whatever was interrupted may hold a lock, or be in the middle of writing to sys.stderr.
        text = io.StringIO()
        dump(text)
        left = text.getvalue().encode("utf-8", "backslashreplace")
        while left:
            left = left[os.write(2, left) :]

    before = signal.signal(signum, handle)

    def undo() -> None:
        signal.signal(signum, before)

    return undo


def _walk(cells: list[Cell], depth: int) -> Iterator[tuple[Cell, int]]:
    for cell in cells:
        yield cell, depth
        yield from _walk(list(cell.children), depth + 1)


def _words(cell: Cell) -> str:
    actor = None if cell.life is None else cell.life.actor
    try:
        return "" if actor is None else actor.describe()
    except Exception as error:  # noqa: BLE001 - the others are to be seen nevertheless
        return f"(its describe: {type(error).__name__}: {error})"


def _escalation(cell: Cell | None) -> tuple[int, int]:
    """How many supervisors there are up from this one, itself included (0: it is none), and how
    often a child of it is started before the topmost gives up.
    """
    levels, starts = 0, 1
    while cell is not None:
        actor = None if cell.life is None else cell.life.actor
        if isinstance(actor, Supervisor):
            levels, starts = levels + 1, starts * (actor.flags.intensity + 1)
        elif levels == 0:
            break
        cell = cell.parent
    return levels, starts
