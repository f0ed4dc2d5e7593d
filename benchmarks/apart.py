"""Contestants and their peers in processes of their own: ``with apart("module:factory") as ...``.

A factory is a context manager that yields one function. The process says so when it is there, then
calls the function with what it is told, and says what that returned; both as lines of JSON. So no
contestant shares an interpreter, its lock and its processor with another one, and one that would
spin does nothing but when it is its turn. A process ends with its `apart`, and with its parent.

Placement, for a contestant: with ``cpus=(here, there)`` the thread that calls the function runs on
the one, and everything that the factory starts, its peers in the first place, on the other.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any

_PATIENCE = 30.0  # seconds for an orderly end
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_missing: set[str] = set()  # modules of which that has been said


class Apart:
    """The parent's end of such a process."""

    def __init__(self, factory: str, process: subprocess.Popen[str]) -> None:
        self._factory = factory
        self._process = process

    @property
    def pid(self) -> int:
        """The process's."""
        return self._process.pid

    def tell(self, *args: Any) -> None:
        """Have the function called; what it returns is to be heard."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(args) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """What it returned. RuntimeError: the process has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self._factory} has ended")
        return json.loads(line)

    def ask(self, *args: Any) -> Any:
        """`tell`, and `hear`."""
        self.tell(*args)
        return self.hear()


@contextmanager
def apart(
    factory: str,
    *args: Any,
    cpus: tuple[int, int] | None = None,
    descriptors: Iterable[int] = (),
    **options: Any,
) -> Iterator[Apart]:
    """A process of ``factory(*args, **options)``, with these descriptors of ours."""
    said = [json.dumps(each) for each in (cpus, args, options)]
    with subprocess.Popen(
        [sys.executable, "-m", "benchmarks.apart", factory, *said],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=tuple(descriptors),
    ) as process:
        try:
            started = Apart(factory, process)
            started.hear()
            yield started
            assert process.stdin is not None
            process.stdin.close()
            process.wait(_PATIENCE)
        finally:
            process.kill()  # nothing, if it has ended


def installed(module: str) -> bool:
    """Whether a peer is there to be measured; says once that it is not."""
    found = find_spec(module) is not None
    if not found and module not in _missing:
        _missing.add(module)
        print(f"{module} is not installed (extra `bench`); left out")
    return found


def main(factory: str, cpus: str, args: str, options: str) -> None:
    """Be such a process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and ends this
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # whatever a library prints is no answer
        placed = json.loads(cpus)
        if placed:
            os.sched_setaffinity(0, {placed[1]})
        module, _, name = factory.partition(":")
        make = getattr(import_module(module), name)
        with make(*json.loads(args), **json.loads(options)) as function:
            if placed:
                os.sched_setaffinity(0, {placed[0]})
            print("null", file=answers, flush=True)
            for line in sys.stdin:
                print(json.dumps(function(*json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
