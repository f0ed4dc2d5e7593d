"""The interpreter that runs the tests, and the modules of a program, for a guest.

Modules are packed as bytecode without source, which a guest under software emulation has not the
time to compile. What a program imports only later has to be named with it.
"""

from __future__ import annotations

import json
import py_compile
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from tests.sources import ROOT

PYTHON = "py/bin/python3"  # in the guest
_LIBRARY = f"py/lib/python{sys.version_info.major}.{sys.version_info.minor}"

_LIST = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
print(json.dumps(sorted(filter(None, found))))
"""


def interpreter() -> Path:
    """The program itself."""
    return Path(sys.executable).resolve()


def files(directory: Path, *modules: str) -> Iterator[tuple[str, Path]]:
    """Each file's name in the guest, and what it is here; bytecode is made in ``directory``."""
    listed = subprocess.run(
        [sys.executable, "-c", _LIST, "os", "site", "encodings.ascii", "encodings.idna", *modules],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    yield PYTHON, interpreter()
    for text in json.loads(listed.stdout):
        path = Path(text)
        name = _name(path)
        if path.suffix == ".py":
            made = directory / name.replace("/", "+")
            py_compile.compile(str(path), cfile=str(made), doraise=True)
            yield str(Path(name).with_suffix(".pyc")), made
        else:
            yield name, path


def _name(path: Path) -> str:
    """Where a module's file belongs in the guest: as here, below what it was found in."""
    paths = sysconfig.get_paths()
    for folder, place in (
        (paths["purelib"], f"{_LIBRARY}/site-packages"),
        (paths["platlib"], f"{_LIBRARY}/site-packages"),
        (str(ROOT), f"{_LIBRARY}/site-packages"),
        (paths["stdlib"], _LIBRARY),
        (paths["platstdlib"], _LIBRARY),
    ):
        if path.is_relative_to(folder):
            return f"{place}/{path.relative_to(folder)}"
    raise AssertionError(f"{path} is in none of the places that modules are in")
