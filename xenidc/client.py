"""The asking side of a control socket: finds the machine, asks, and has the answer or one error."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from xenidc.control import control_directory
from xenidc.errors import ControlError, MachineEnded


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
        self.close()

    def close(self) -> None:
        """Idempotent."""
        self._lines.close()
        self._socket.close()

    def ask(self, do: str, **fields: str) -> Any:
        """One request, and its answer (requests.py).

        Raises:
            MachineEnded: there is no answer.
            ControlError: the machine has refused it.
        """
        with suppress(OSError):  # then there is no answer either
            self._socket.sendall(json.dumps({"do": do, **fields}).encode() + b"\n")
        answer = self._next()
        if answer is None:
            raise MachineEnded(self._ended)
        if "error" in answer:
            raise ControlError(answer["error"])
        return answer["ok"]

    def stream(self, do: str, **fields: str) -> Iterator[dict[str, Any]]:
        """One request that is answered again and again (streams.py), until the connection ends.

        The last item is ``{"end": text}``, which says why.

        Raises:
            ControlError: the machine has refused it, or has ended before it began.
        """
        self.ask(do, **fields)
        yield from self.items()

    def items(self) -> Iterator[dict[str, Any]]:
        """What follows such a request."""
        while (line := self._next()) is not None and "item" in line:
            yield line["item"]
        yield {"end": self._ended} if line is None else line

    @property
    def _ended(self) -> str:
        return f"the machine at {self._path} has ended"

    def _next(self) -> dict[str, Any] | None:
        """The next line; None: there is none."""
        try:
            line = self._lines.readline()
        except OSError:
            return None
        found: dict[str, Any] | None = json.loads(line) if line.endswith(b"\n") else None
        return found
