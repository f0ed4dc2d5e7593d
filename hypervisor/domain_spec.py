"""What a machine must know of a domain to start it: a value, as a child spec is to a supervisor.

`Machine.start` makes one of its arguments; `Machine.group` takes several, whose domains are
supervised together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypervisor.hardening import Hardening


@dataclass(frozen=True)
class DomainSpec:
    """See `Machine.start` for what each of them means.

    Attributes:
        program: the driver class, or its name, "package.module:Class" or "/path/of/file.py:Class".
    """

    name: str
    program: type | str
    args: tuple[Any, ...] = ()
    placement: str = "process"
    restart: str = "permanent"
    cpus: Iterable[int] | None = None
    harden: Hardening | None = None
