"""How a driver class is named, so that another process can find it.

A program is written ``module:QualName``; for a class of the script that is being run,
``/path/of/script.py:QualName``, because ``__main__`` means something else in every process. The
class has an attribute ``runner``, the name of the actor class that runs it (transport names its
endpoint there), which is started as ``runner(guest, program_class, args)``.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import runpy
import sys
from contextvars import ContextVar
from typing import Any

from actors import Actor
from hypervisor.errors import HypervisorError


def run_script(path: str) -> dict[str, Any]:
    """Run a file, and have `load` find its classes by ``path:QualName``; returns its globals.

    Its guarded part (``__main__``) does not run. Other processes run the file themselves.
    """
    path = os.path.abspath(path)
    _scripts[path] = runpy.run_path(path, run_name=_SCRIPT)
    return _scripts[path]


def name_of(program: type | str) -> str:
    """The name by which `load` finds ``program``, in this process and in others; a name is one.

    Raises:
        HypervisorError: the class is local to a function, or of a main program that is no file
            ending in .py: typed in, or read from standard input.
    """
    if isinstance(program, str):
        return program
    qualname = program.__qualname__
    if "<locals>" in qualname:
        raise HypervisorError(
            f"{qualname} is defined inside a function; a program must be importable"
        )
    module = program.__module__
    if module == _SCRIPT:
        for script, names in _scripts.items():
            if _member(names, qualname) is program:
                return f"{script}:{qualname}"
    if module != "__main__":
        return f"{module}:{qualname}"
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return f"{spec.name}:{qualname}"
    path = getattr(main, "__file__", None)
    if path is None or not path.endswith(".py"):
        raise HypervisorError(f"{qualname} is not defined in a file; put it into one (NAME.py)")
    return f"{path}:{qualname}"


def load(program: str) -> tuple[type[Actor], type]:
    """The (runner, program) classes of a program's name."""
    token = _loaded.set(program)
    try:
        found = _find(program)
    finally:
        _loaded.reset(token)
    runner: type[Actor] = pkgutil.resolve_name(found.runner)
    return runner, found


def refuse_while_loading() -> None:
    """For what a program's file does not do when it is loaded by who runs the program.

    Raises:
        HypervisorError: it is just being loaded.
    """
    if (program := _loaded.get()) is not None:
        raise HypervisorError(
            f"the file of {program} makes a machine when it is loaded to run the driver; put that "
            f'behind: if __name__ == "__main__":'
        )


def modules_of(program: str) -> list[str]:
    """The modules that a spare process should import to be ready for ``program``."""
    module = program.rpartition(":")[0]
    return [] if module.endswith(".py") else [module]


_SCRIPT = "__domain__"  # what a script is called that is not the main program
_loaded: ContextVar[str | None] = ContextVar("loaded", default=None)
_scripts: dict[str, dict[str, Any]] = {}


def _find(program: str) -> Any:
    module, _, qualname = program.rpartition(":")
    if not module.endswith(".py"):
        return pkgutil.resolve_name(f"{importlib.import_module(module).__name__}:{qualname}")
    main = sys.modules["__main__"]
    if getattr(main, "__file__", None) == module:
        return pkgutil.resolve_name(f"__main__:{qualname}")
    names = _scripts.get(module)
    found = _member(run_script(module) if names is None else names, qualname)
    if found is None:
        raise AttributeError(f"{module} has no {qualname}")
    return found


def _member(names: dict[str, Any], qualname: str) -> Any:
    top, *parts = qualname.split(".")
    found = names.get(top)
    for part in parts:
        found = getattr(found, part, None)
    return found
