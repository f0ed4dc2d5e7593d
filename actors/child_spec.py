"""What a supervisor must know to start a child, and to start it again.

A spec is a message, so it names its actor class ("package.module:Class") and its arguments are what
messages may hold; each start unpacks them afresh, so no incarnation sees what another did to them.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import field
from typing import Any

from actors.actor import Actor
from actors.message import Message

BRUTAL_KILL = 0.0
"""A child's ``shutdown``: it is killed at once."""

INFINITY = None
"""A child's ``shutdown``: it gets as long as it needs."""

_RESTARTS = ("permanent", "transient", "temporary")


class Backoff(Message, kind="actors.backoff"):
    """How long to wait before a child is started again, all in seconds.

    The first restart waits ``initial``, each further one in a row ``factor`` times as long, none
    longer than ``maximum``. A child that was up for ``reset`` starts from ``initial`` again.
    """

    initial: float = 0.1
    maximum: float = 30.0
    factor: float = 2.0
    reset: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.initial <= self.maximum < math.inf:
            raise ValueError(
                f"a backoff grows from more than 0 s to a finite maximum, not from "
                f"{self.initial} s to {self.maximum} s"
            )
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"a backoff does not shrink: its factor cannot be {self.factor}")
        if not self.reset > 0:
            raise ValueError(f"reset is a time that a child must be up, not {self.reset} s")

    def delay(self, consecutive: int) -> float:
        """Before the restart that follows so many failures in a row (1: the first)."""
        try:
            return min(self.maximum, self.initial * self.factor ** (consecutive - 1))
        except OverflowError:
            return self.maximum


class ChildSpec(Message, kind="actors.child_spec"):
    """``restart``: "permanent", "transient" or "temporary".

    ``shutdown``: seconds that the child gets to end in order before it is killed; INFINITY: as long
    as it needs; BRUTAL_KILL: it is killed at once.
    ``significant``: its end can be the end of its supervisor (see `Flags.auto_shutdown`).
    ``registered``: its name is registered in the system, so that a reference by name reaches each
    incarnation.
    ``backoff``: how long its restarts wait; None: not at all.
    """

    name: str
    target: str
    args: list[Any]
    restart: str = "permanent"
    shutdown: float | None = 5.0
    kwargs: dict[str, Any] = field(default_factory=dict)
    significant: bool = False
    registered: bool = False
    backoff: Backoff | None = None

    def __post_init__(self) -> None:
        if self.restart not in _RESTARTS:
            raise ValueError(f"restart is one of {', '.join(_RESTARTS)}, not {self.restart!r}")
        if self.shutdown is not None and not self.shutdown >= 0:
            raise ValueError(f"shutdown cannot be {self.shutdown} s")
        if self.significant and self.restart == "permanent":
            raise ValueError(
                f"{self.name!r} is permanent and always started again: it cannot be significant"
            )

    @classmethod
    def of(
        cls,
        name: str,
        actor_class: type[Actor],
        /,
        *args: Any,
        restart: str = "permanent",
        shutdown: float | str | None = "default",
        significant: bool = False,
        registered: bool = False,
        backoff: Backoff | None = None,
        **kwargs: Any,
    ) -> ChildSpec:
        """The spec of a class. Raises ValueError if it cannot be found by its name.

        ``shutdown`` may also be "brutal_kill", "infinity" or "default": the class's own
        ``default_shutdown``.
        """
        if "<locals>" in actor_class.__qualname__:
            raise ValueError(f"{actor_class.__qualname__} is local: no spec can name it")
        if isinstance(shutdown, str):
            words = {
                "default": actor_class.default_shutdown,
                "brutal_kill": BRUTAL_KILL,
                "infinity": INFINITY,
            }
            if shutdown not in words:
                raise ValueError(f"shutdown is seconds or one of {', '.join(words)}: {shutdown!r}")
            shutdown = words[shutdown]
        target = f"{actor_class.__module__}:{actor_class.__qualname__}"
        return cls(
            name, target, list(args), restart, shutdown, kwargs, significant, registered, backoff
        )

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
