"""What a path of the store may look like, and how paths lie to each other.

Rules (docs/misc/xenstore.txt): names of ASCII alphanumerics and ``-_@`` between single slashes, no
slash at the end except for the root, at most 3072 bytes. A path without a slash in front is
relative to the caller's home, /local/domain/<domid>, and has at most 2048 bytes of its own. What
begins with @ is no path but the name of a special watch; only who watches, or says who may, can use
it. Whatever breaks a rule is EINVAL.

Everything but `canonical` takes canonical paths for granted.
"""

from __future__ import annotations

import re

from hypervisor.store_errors import StoreError

ABSOLUTE_MAX = 3072
RELATIVE_MAX = 2048

_NAMES = r"[A-Za-z0-9\-_@]+(?:/[A-Za-z0-9\-_@]+)*"
_ABSOLUTE = re.compile(rf"/(?:{_NAMES})?")
_RELATIVE = re.compile(_NAMES)


def home(domid: int) -> str:
    """Where the relative paths of a domain begin."""
    return f"/local/domain/{domid}"


def is_special(path: str) -> bool:
    return path[:1] == "@"


def is_relative(path: str) -> bool:
    return path[:1] not in ("/", "@")


def canonical(path: str, domid: int, *, special: bool = False) -> str:
    """The absolute path that ``domid`` means by ``path``.

    Raises:
        StoreError: EINVAL.
    """
    if path[:1] == "/":
        good = _ABSOLUTE.fullmatch(path)
    elif path[:1] == "@":
        good = _RELATIVE.fullmatch(path) if special else None
    else:
        good = _RELATIVE.fullmatch(path) if len(path) <= RELATIVE_MAX else None
        path = f"{home(domid)}/{path}"
    if good is None or len(path) > ABSOLUTE_MAX:
        raise StoreError("EINVAL", f"{path[:80]!r} is not a path")
    return path


def names(path: str) -> list[str]:
    """The names on the way from the root; none for the root itself."""
    return path[1:].split("/") if path != "/" else []


def parent(path: str) -> str:
    """The root is its own parent."""
    return path[: path.rindex("/")] or "/"


def join(path: str, name: str) -> str:
    return f"{path}/{name}" if path != "/" else f"/{name}"


def step(path: str, top: str) -> str:
    """The first path on the way from ``top`` to ``path``, which is below it."""
    end = path.find("/", len(top) + 1)
    return path if end < 0 else path[:end]


def prefixes(path: str, most: int = ABSOLUTE_MAX) -> list[str]:
    """The root, and then every node on the way to ``path``, which is the last; ``most`` of them."""
    found = ["/"]
    if path != "/" and most > 1:
        end = path.find("/", 1)
        while end > 0 and len(found) < most - 1:
            found.append(path[:end])
            end = path.find("/", end + 1)
        found.append(path if end < 0 else path[:end])
    return found


def is_below(path: str, top: str) -> bool:
    """Whether ``path`` is ``top``, or is somewhere below it."""
    return top in ("/", path) or path.startswith(f"{top}/")


def names_below(path: str, top: str) -> list[str]:
    """The names on the way from ``top`` to ``path``, which is at or below it."""
    if top == "/":
        return names(path)
    return path[len(top) + 1 :].split("/") if len(path) > len(top) else []
