"""What the command lines of the examples share: how they end, and one line for each failure.

Signals: the interpreter's own handler writes to a pipe that a server watches (wakeup descriptor);
no code of ours runs at a random place while it serves. Before the server runs, and where there is
none, nothing is to be ended in order: the first signal unwinds.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from actors import ActorError
from hypervisor import DomainStartError, HypervisorError
from transport import TransportError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_FAILURES = (OSError, HypervisorError, TransportError, ActorError)


class _Interrupted(BaseException):
    """A signal asked us to end while nothing was served."""


class Stop:
    """Where signals go: ``fd`` becomes readable; while ``unwinding``, the first one raises, too."""

    def __init__(self) -> None:
        self.fd, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.unwinding = True
        self._handlers = {number: signal.signal(number, self._signalled) for number in _SIGNALS}
        self._wakeup = signal.set_wakeup_fd(self._write)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self.unwinding:
            self.unwinding = False  # what unwinds is not to be interrupted in its turn
            raise _Interrupted

    def close(self) -> None:
        """Signals do again what they did before."""
        self.unwinding = False
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)


def until_stopped(name: str, serve: Callable[[Stop], int], *failures: type[Exception]) -> int:
    """Run ``serve``; returns its exit code, 0 if a signal came before, and 2 if it could not begin.

    ``failures`` are errors of its own that are told in one line, beside the runtime's and OSError.
    """
    told: tuple[type[Exception], ...] = (*_FAILURES, *failures)
    stop = Stop()
    try:
        return serve(stop)
    except _Interrupted:
        return 0
    except DomainStartError as error:
        complain(name, error.text)
    except told as error:
        complain(name, str(error))
    finally:
        stop.close()
    return 2


def complain(name: str, text: str) -> None:
    """One line on standard error."""
    print(f"{name}: {text}", file=sys.stderr, flush=True)


class _OneLine(logging.Formatter):
    """The first line of what is logged: the rest is a traceback, for who embeds this."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        return f"{self._name}: {record.getMessage().splitlines()[0]}"


def log_to_standard_error(name: str) -> None:
    """Warnings and errors, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine(name))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


class Parser(argparse.ArgumentParser):
    """One line for a wrong command line, not the usage as well."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def address(text: str) -> tuple[str, int]:
    """An option's HOST:PORT."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def at_least(minimum: int) -> Callable[[str], int]:
    """An option's decimal number."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {minimum}")
        return int(text)

    return number


@contextlib.contextmanager
def listening(where: tuple[str, int]) -> Iterator[tuple[socket.socket, str]]:
    """A listening socket that does not block, and how to call it: the port may have been 0."""
    host, port = where
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        number = error.errno or 0
        text = os.strerror(number) if number > 0 else error.strerror  # a name that nobody knows
        raise OSError(f"cannot listen on {host}:{port}: {text}") from error
    with listener:
        listener.setblocking(False)
        shown = f"[{host}]" if ":" in host else host
        yield listener, f"{shown}:{listener.getsockname()[1]}"
