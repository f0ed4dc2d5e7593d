"""The asking side of a control socket: finds the machine, asks, and has the answer or one error."""

from __future__ import annotations

import json
import os
import socket
from types import TracebackType
from typing import Any, Self

from xenidc.control import control_directory
from xenidc.errors import ControlError


def socket_of(machine: str | None) -> str:
    """The control socket of a machine of this user, by its name or by a path.

    None: of the only one that there is.

    Raises:
        ControlError: there is none, or more than one.
    """
    if machine is not None and os.sep in machine:
        return machine
    directory = control_directory()
    if machine is not None:
        return os.path.join(directory, f"{machine}.sock")
    found = sorted(name for name in os.listdir(directory) if name.endswith(".sock"))
    if len(found) != 1:
        names = ", ".join(name.removesuffix(".sock") for name in found)
        text = f"which machine? there are {names}" if found else "no machine is running"
        raise ControlError(f"{text} (see --machine)")
    return os.path.join(directory, found[0])


class Client:
    """A connection to a running machine; a context manager that closes it.

    Raises:
        ControlError: nobody listens there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise ControlError(f"no machine answers at {path}: {error.strerror}") from error
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, do: str, **fields: str) -> Any:
        """One request, and its answer (requests.py).

        Raises:
            ControlError: the machine has refused it, or has ended.
        """
        try:
            self._socket.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
            line = self._lines.readline()
        except OSError as error:
            raise ControlError(f"the machine at {self._path} has ended") from error
        if not line.endswith(b"\n"):
            raise ControlError(f"the machine at {self._path} has ended")
        answer = json.loads(line)
        if "error" in answer:
            raise ControlError(answer["error"])
        return answer["ok"]
