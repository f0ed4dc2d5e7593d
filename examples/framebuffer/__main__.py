"""The command line: ``python -m examples.framebuffer serve --tcp 127.0.0.1:5900``.

Owns the listening socket, the order in which things start and end, and the signals.

Exit codes: 0 after Ctrl-C or SIGTERM; 1 when the machine has given up; 2 when it could not begin.
Every failure is one line on standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from functools import partial
from typing import Final

from actors import Fd
from examples.command import (
    Parser,
    Stop,
    address,
    complain,
    listening,
    log_to_standard_error,
    until_stopped,
)
from hypervisor import Machine

_NAME: Final = "examples.framebuffer"
_PASSWORD_MOST: Final = 8  # bytes; VNC authentication looks at no more


def serve(options: argparse.Namespace, _stop: Stop) -> int:
    """Serve the test card until a signal or a failure ends it; returns the exit code."""
    try:
        from examples.framebuffer.card import TestCard  # noqa: PLC0415 - says what is missing
        from examples.framebuffer.display import Display  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "numpy":
            raise
        complain(_NAME, "numpy is not installed: pip install 'xenidc[framebuffer]'")
        return 2
    width, height = options.size
    password = None if options.password_file is None else _password(options.password_file)
    with (
        listening(options.tcp) as (listener, where),
        Machine(intensity=10, period=5) as machine,
    ):
        name = f"xenidc on {socket.gethostname()}"
        with contextlib.closing(Fd(os.dup(listener.fileno()))) as shared:
            args = (shared, password, name, width, height)
            machine.start("display", Display, *args, placement=options.placement)
        card = (width, height, options.depth, options.fps)
        machine.start("card", TestCard, *card, placement=options.placement)
        print(f"serving {width}x{height} on {where}", flush=True)
        complain(_NAME, machine.wait().reason.text)
        return 1


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
        complain(
            _NAME, f"of the password the first {_PASSWORD_MOST} bytes count, as always with VNC"
        )
    return password


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
    parser = Parser(prog=f"python -m {_NAME}", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    command = commands.add_parser("serve", help="show a test card by VNC until Ctrl-C or SIGTERM")
    command.add_argument(
        "--tcp", metavar="HOST:PORT", type=address, default=("127.0.0.1", 5900), help="where"
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
    log_to_standard_error(_NAME)
    return until_stopped(_NAME, partial(serve, options), ValueError)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
