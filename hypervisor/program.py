"""How a driver class is named, so that another process can find it.

A program is written ``module:QualName``; for a class of the script that is being run,
``/path/of/script.py:QualName``, because ``__main__`` means something else in every process. The
class has an attribute ``runner``, the name of the actor class that runs it (transport names its
endpoint there), which is started as ``runner(guest, program_class, args)``.
"""

from __future__ import annotations

import importlib
import pkgutil
import runpy
import sys
from typing import Any

from actors import Actor
from hypervisor.errors import HypervisorError


def name_of(program: type) -> str:
    """The name by which `load` finds ``program``, in this process and in others.

    Raises:
        HypervisorError: the class is local to a function, or from an interactive session.
    """
    qualname = program.__qualname__
    if "<locals>" in qualname:
        raise HypervisorError(
            f"{qualname} is defined inside a function; a program must be importable"
        )
    module = program.__module__
    if module != "__main__":
        return f"{module}:{qualname}"
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return f"{spec.name}:{qualname}"
    path = getattr(main, "__file__", None)
    if path is None:
        raise HypervisorError(f"{qualname} is defined interactively; put it into a file")
    return f"{path}:{qualname}"


def load(program: str) -> tuple[type[Actor], type]:
    """The (runner, program) classes of a program's name."""
    found = _find(program)
    runner: type[Actor] = pkgutil.resolve_name(found.runner)
    return runner, found


def modules_of(program: str) -> list[str]:
    """The modules that a spare process should import to be ready for ``program``."""
    module = program.rpartition(":")[0]
    return [] if module.endswith(".py") else [module]


_scripts: dict[str, dict[str, Any]] = {}


def _find(program: str) -> Any:
    module, _, qualname = program.rpartition(":")
    if not module.endswith(".py"):
        return pkgutil.resolve_name(f"{importlib.import_module(module).__name__}:{qualname}")
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == module:
        return pkgutil.resolve_name(f"__main__:{qualname}")
    if module not in _scripts:
        # Under another name than __main__, so that the script's own guarded part does not run.
        _scripts[module] = runpy.run_path(module, run_name="__domain__")
    found: Any = _scripts[module][qualname.partition(".")[0]]
    for part in qualname.split(".")[1:]:
        found = getattr(found, part)
    return found
