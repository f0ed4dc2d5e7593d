"""The command line: ``python -m examples.framebuffer serve --tcp 127.0.0.1:5900``.

Owns the listening socket, the order in which things start and end, and the signals.

Exit codes: 0 after Ctrl-C or SIGTERM; 1 when the machine has given up; 2 when it could not begin.
Every failure is one line on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import socket
import sys
from types import FrameType
from typing import Final, NoReturn

from actors import ActorError, Fd
from hypervisor import DomainStartError, HypervisorError, Machine

_NAME: Final = "examples.framebuffer"
_PASSWORD_MOST: Final = 8  # bytes; VNC authentication looks at no more


class _Interrupted(BaseException):
    """A signal asked us to end."""


class _Signals:
    """The first SIGINT or SIGTERM unwinds the main thread; what unwinds is not interrupted."""

    def __init__(self) -> None:
        self._armed = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        if self._armed:
            self._armed = False
            raise _Interrupted


def serve(options: argparse.Namespace) -> int:
    """Serve the test card until a signal or a failure ends it; returns the exit code."""
    try:
        from examples.framebuffer.card import TestCard  # noqa: PLC0415 - says what is missing
        from examples.framebuffer.display import Display  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        _complain("numpy is not installed: pip install 'xenidc[framebuffer]'")
        return 2
    _Signals()
    width, height = options.size
    try:
        password = None if options.password_file is None else _password(options.password_file)
        with _listen(*options.tcp) as listener, Machine(intensity=10, period=5) as machine:
            host, port = listener.getsockname()[:2]
            name = f"xenidc on {socket.gethostname()}"
            with contextlib.closing(Fd(os.dup(listener.fileno()))) as shared:
                args = (shared, password, name, width, height)
                machine.start("display", Display, *args, placement=options.placement)
            machine.start(
                "card",
                TestCard,
                width,
                height,
                options.depth,
                options.fps,
                placement=options.placement,
            )
            shown = f"[{host}]" if ":" in host else host
            print(f"serving {width}x{height} on {shown}:{port}", flush=True)
            reason = machine.wait().reason
            _complain(reason.text)
            return 1
    except _Interrupted:
        return 0
    except DomainStartError as error:
        _complain(error.text)
    except (OSError, HypervisorError, ActorError, ValueError) as error:
        _complain(str(error))
    return 2


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=32)
    except OSError as error:
        number = error.errno or 0
        text = os.strerror(number) if number > 0 else error.strerror  # a name that nobody knows
        raise OSError(f"cannot listen on {host}:{port}: {text}") from error


def _password(path: str) -> bytes:
    """The first line of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty.
    """
    with open(path, "rb") as file:
        password = file.readline().rstrip(b"\r\n")
    if not password:
        raise ValueError(f"{path} has no password in its first line")
    if len(password) > _PASSWORD_MOST:
        _complain(f"of the password the first {_PASSWORD_MOST} bytes count, as always with VNC")
    return password


def _complain(text: str) -> None:
    print(f"{_NAME}: {text}", file=sys.stderr, flush=True)


class _OneLine(logging.Formatter):
    """The first line of what is logged: the rest is a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{_NAME}: {record.getMessage().splitlines()[0]}"


class _Parser(argparse.ArgumentParser):
    """One line for a wrong command line, not the usage as well."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 0xFFFF:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.partition("x")
    if separator and width.isdecimal() and height.isdecimal():
        size = int(width), int(height)
        if all(0 < side <= 16384 for side in size):
            return size
    raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT")


def _frames(text: str) -> int:
    if not text.isdecimal() or int(text) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 100")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog=f"python -m {_NAME}", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    command = commands.add_parser("serve", help="show a test card by VNC until Ctrl-C or SIGTERM")
    command.add_argument(
        "--tcp", metavar="HOST:PORT", type=_address, default=("127.0.0.1", 5900), help="where"
    )
    command.add_argument("--password-file", metavar="F", help="its first line is the password")
    command.add_argument("--size", metavar="WxH", type=_size, default=(1280, 720), help="pixels")
    command.add_argument("--depth", type=int, choices=[16, 32], default=32, help="bits per pixel")
    command.add_argument(
        "--fps", metavar="N", type=_frames, default=0, help="animate, while somebody looks"
    )
    command.add_argument("--placement", choices=["thread", "process"], default="process")
    return parser


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    return serve(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
