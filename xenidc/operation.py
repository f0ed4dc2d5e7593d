"""What a request does, in a word, as far as its body tells. Pure."""

from __future__ import annotations

from typing import Any

_LIMIT = 64


def operation_of(body: Any) -> str:
    """The body itself if it is a text; the first part of a list if that is a text or a number, as
    most drivers have it; else the name of its type.
    """
    first = body[0] if isinstance(body, list | tuple) and body else body
    if isinstance(first, str) or (first is not body and type(first) is int):
        return str(first)[:_LIMIT]
    return type(body).__name__
