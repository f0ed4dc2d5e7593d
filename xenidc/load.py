"""A topology's file: it is run, with what was set for its options, and gives its one `Topology`.

Whatever goes wrong is a `TopologyError` of one line, with the last line of that file that was
involved: also a wrong keyword, which Python itself refuses.

As with a script that Python runs, modules are looked for beside the file first: by this process
from then on, and by the domains of machines that it makes.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Mapping

from hypervisor import run_script
from xenidc.errors import Problem, TopologyError
from xenidc.place import Place
from xenidc.topology import Topology, settings


def load_topology(
    path: str | os.PathLike[str], values: Mapping[str, str] | None = None
) -> Topology:
    """Run a file, and return the topology that it has made.

    Args:
        values: for its options (`Topology.option`), as text.

    Raises:
        TopologyError: the file cannot be read or run, has no topology or more than one, or has no
            such option, or an option cannot have that value.
    """
    file = os.path.abspath(path)
    folder = os.path.dirname(file)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    with settings(values or {}) as given:
        try:
            names = run_script(file)
        except SyntaxError as error:
            place = Place(error.filename or file, error.lineno or 0)
            raise TopologyError([Problem(place, f"SyntaxError: {error.msg}")]) from error
        except OSError as error:
            if error.filename is None or os.path.abspath(error.filename) != file:
                raise _failed(file, error) from error
            raise TopologyError([Problem(Place(file), f"{error.strerror}")]) from error
        except Exception as error:
            raise _failed(file, error) from error
    found = {id(value): value for value in names.values() if isinstance(value, Topology)}
    if len(found) != 1:
        text = "it makes no topology" if not found else f"it makes {len(found)} topologies, not one"
        raise TopologyError([Problem(Place(file), text)])
    (topology,) = found.values()
    problems = [Problem(place, text) for place, text in given.problems]
    known = ", ".join(option.name for option in topology.options) or "none"
    problems += [
        Problem(topology.place, f"there is no option {name!r}; there are: {known}")
        for name in given.values
    ]
    if problems:
        raise TopologyError(problems)
    return topology


def _failed(file: str, error: Exception) -> TopologyError:
    lines = [
        frame.lineno or 0
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file
    ]
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return TopologyError([Problem(Place(file, lines[-1] if lines else 0), text)])
