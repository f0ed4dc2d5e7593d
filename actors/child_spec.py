"""What a supervisor must know to start a child, and to start it again.

A spec is a message, so it names its actor class ("package.module:Class") and its arguments are what
messages may hold; each start unpacks them afresh, so no incarnation sees what another did to them.
"""

from __future__ import annotations

import importlib
from typing import Any

from actors.actor import Actor
from actors.message import Message

_RESTARTS = ("permanent", "transient", "temporary")


class ChildSpec(Message, kind="actors.child_spec"):
    """``restart``: "permanent", "transient" or "temporary".

    ``shutdown``: seconds that the child gets to end in order before it is killed; None: as long
    as it needs; 0: it is killed at once (OTP's brutal_kill).
    """

    name: str
    target: str
    args: list[Any]
    restart: str = "permanent"
    shutdown: float | None = 5.0

    def __post_init__(self) -> None:
        if self.restart not in _RESTARTS:
            raise ValueError(f"restart is one of {', '.join(_RESTARTS)}, not {self.restart!r}")
        if self.shutdown is not None and not self.shutdown >= 0:
            raise ValueError(f"shutdown cannot be {self.shutdown} s")

    @classmethod
    def of(
        cls,
        name: str,
        actor_class: type[Actor],
        *args: Any,
        restart: str = "permanent",
        shutdown: float | None = 5.0,
    ) -> ChildSpec:
        """The spec of a class. Raises ValueError if it cannot be found by its name."""
        if "<locals>" in actor_class.__qualname__:
            raise ValueError(f"{actor_class.__qualname__} is local: no spec can name it")
        target = f"{actor_class.__module__}:{actor_class.__qualname__}"
        return cls(name, target, list(args), restart, shutdown)

    def load(self) -> type[Actor]:
        """The class. Raises ImportError, AttributeError, ValueError, TypeError."""
        module, _, path = self.target.partition(":")
        if not module or not path:
            raise ValueError(f"{self.target!r} is not of the form package.module:Class")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        if not isinstance(found, type) or not issubclass(found, Actor):
            raise TypeError(f"{self.target} is not an Actor class")
        return found
