"""Tracebacks as text, quickly: each failure of an actor has one, and its restart waits for it.

Like `traceback.format_exception`, without what costs most there and says least: no look at the
file system for each file, no carets, and not the frames of the runtime that lie between the actor's
thread and its handler. What is rare (chained exceptions, groups, notes) is left to the library.
"""

from __future__ import annotations

import linecache
import traceback
from types import TracebackType

_RUNTIME = frozenset({__file__.replace("traceback_text", name) for name in ("life", "threads")})


def format_exception(exception: BaseException) -> str:
    """All of it, with line ends. Raises what the exception's `__str__` raises."""
    if (
        exception.__cause__ is not None
        or (exception.__context__ is not None and not exception.__suppress_context__)
        or isinstance(exception, (BaseExceptionGroup, SyntaxError))
        or getattr(exception, "__notes__", None)
    ):
        return "".join(traceback.format_exception(exception))
    kind, text = type(exception), str(exception)
    name = kind.__qualname__
    if kind.__module__ not in ("builtins", "__main__"):
        name = f"{kind.__module__}.{name}"
    last = f"{name}: {text}\n" if text else f"{name}\n"
    frames = _frames(exception.__traceback__)
    return "".join(["Traceback (most recent call last):\n", *frames, last])


def _frames(trace: TracebackType | None) -> list[str]:
    lines = []
    while trace is not None:
        code, number = trace.tb_frame.f_code, trace.tb_lineno
        file = code.co_filename
        if file not in _RUNTIME:
            lines.append(f'  File "{file}", line {number}, in {code.co_name}\n')
            source = linecache.getline(file, number, trace.tb_frame.f_globals).strip()
            if source:
                lines.append(f"    {source}\n")
        trace = trace.tb_next
    return lines
