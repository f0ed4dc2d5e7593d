"""The command line: ``python -m examples.block serve IMAGE --socket PATH``, and ``demo``.

Owns the order in which things start and end, the signals, and what is printed. Otherwise it is a
user of a machine and a channel, as any program would be.

Exit codes: 0 after Ctrl-C or SIGTERM, in order; 1 when serving has failed; 2 when it could not
begin. Every failure is one line on standard error, the last one says why it ends; so is everything
else that somebody who runs a server wants to know, such as the death of a back end.

Signals (examples/command.py): the first one drains, a second one does not wait for clients.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

from actors import System
from examples.block import protocol as p
from examples.block.copy_on_write import CopyOnWriteFilter
from examples.block.disk import Disk
from examples.block.handshake import Export
from examples.block.read_only import ReadOnlyFilter
from examples.block.server import NbdServer
from examples.command import (
    Parser,
    Stop,
    address,
    at_least,
    complain,
    listening,
    log_to_standard_error,
    until_stopped,
)
from hypervisor import Machine, UnixListener
from transport import FrontEnd, connect, stack

_NAME = "examples.block"
_REQUEST_LIMIT = 32 << 20  # bytes; what clients assume that never ask


@contextlib.contextmanager
def _listen(options: argparse.Namespace) -> Iterator[tuple[socket.socket, str]]:
    """The listening socket and how to call it."""
    if options.socket is not None:
        with UnixListener(options.socket) as listener:
            yield listener.socket, listener.path
    else:
        with listening(options.tcp) as found:
            yield found


def _back_end(options: argparse.Namespace) -> tuple[Any, ...]:
    """The driver and its start arguments."""
    image = os.path.abspath(options.image)
    if options.overlay is None:
        return stack((Disk, image, options.read_only))
    layers = (CopyOnWriteFilter, os.path.abspath(options.overlay)), (Disk, image, True)
    return stack(*([ReadOnlyFilter] if options.read_only else []), *layers)


def serve(options: argparse.Namespace, stop: Stop) -> int:
    """Serve the image until a signal or a failure ends it; returns the exit code."""
    with (
        _listen(options) as (listener, where),
        Machine(intensity=options.intensity, period=options.period) as machine,
    ):
        machine.start("disk", *_back_end(options), placement=options.placement)
        with connect(machine, "disk", buffer_bytes=options.buffers << 20) as channel:
            return _run(options, machine, channel, listener, where, stop)


def _run(
    options: argparse.Namespace,
    machine: Machine,
    channel: FrontEnd,
    listener: socket.socket,
    where: str,
    stop: Stop,
) -> int:
    size, read_only = channel.call((p.INFO, 0, 0, 0))
    limit = min(_REQUEST_LIMIT, channel.buffer_limit) // p.PREFERRED * p.PREFERRED
    export = Export(options.export, size, bool(read_only), limit)
    with System("nbd") as system:
        server = system.start(
            NbdServer, listener, channel, export, options.buffers << 20, stop.fd, name="nbd"
        )
        stop.unwinding = False
        back_end = machine.pid("disk") if options.placement == "process" else os.getpid()
        print(
            f"serving {options.image} ({size} bytes{', read-only' * export.read_only}) on {where},"
            f" back end {back_end}",
            flush=True,
        )
        reason = system.wait(server).reason
    if reason.kind == "normal":
        return 0
    complain(_NAME, reason.text)
    return 1


def _power_of_two(text: str) -> int:
    if not text.isdecimal() or int(text).bit_count() != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a power of two")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m examples.block", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    command = commands.add_parser("serve", help="serve an image by NBD until Ctrl-C or SIGTERM")
    command.add_argument("image", help="the disk image: a file or a block device")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="the unix socket to listen on")
    where.add_argument("--tcp", metavar="HOST:PORT", type=address, help="or the TCP address")
    command.add_argument("--read-only", action="store_true", help="let nobody write")
    command.add_argument(
        "--overlay", metavar="FILE", help="keep all changes in FILE, and leave the image as it is"
    )
    command.add_argument("--export", metavar="NAME", default="", help="the export's name")
    command.add_argument("--placement", choices=["thread", "process"], default="process")
    command.add_argument(
        "--intensity", metavar="N", type=at_least(0), default=10, help="restarts allowed..."
    )
    command.add_argument(
        "--period", metavar="S", type=at_least(1), default=5, help="...within so many seconds"
    )
    command.add_argument(
        "--buffers",
        metavar="MiB",
        type=_power_of_two,
        default=32,
        help="memory for data in flight, a power of two; a request may have a quarter of it",
    )
    commands.add_parser("demo", help="kill the back end under a verified load", add_help=False)
    return parser


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    if argv[:1] == ["demo"]:
        from examples.block import demo  # noqa: PLC0415 - the server does without its dependencies

        return demo.main(argv[1:])
    options = _parser().parse_args(argv)
    log_to_standard_error(_NAME)
    return until_stopped(_NAME, partial(serve, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
