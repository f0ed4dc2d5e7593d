"""The command line: ``python -m examples.block serve IMAGE --socket PATH``, and ``demo``.

Owns the order in which things start and end, the signals, and what is printed. Otherwise it is a
user of a machine and a channel, as any program would be.

Exit codes: 0 after Ctrl-C or SIGTERM, in order; 1 when serving has failed; 2 when it could not
begin. Every failure is one line on standard error, the last one says why it ends; so is everything
else that somebody who runs a server wants to know, such as the death of a back end.

Signals: the interpreter's own handler writes to a pipe that the server watches (wakeup descriptor);
no code of ours runs at a random place while it serves. The first one drains, a second one does
not wait for clients. Before that there is nothing to drain: the first signal unwinds.
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
from typing import Any, NoReturn

from actors import ActorError, System
from examples.block import protocol as p
from examples.block.copy_on_write import CopyOnWriteFilter
from examples.block.disk import Disk
from examples.block.handshake import Export
from examples.block.read_only import ReadOnlyFilter
from examples.block.server import NbdServer
from hypervisor import DomainStartError, HypervisorError, Machine, UnixListener
from transport import FrontEnd, TransportError, connect, stack

_NAME = "examples.block"
_REQUEST_LIMIT = 32 << 20  # bytes; what clients assume that never ask
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Interrupted(BaseException):
    """A signal asked us to end while there was nothing to drain."""


class _Stop:
    """Where signals go: `fd` becomes readable; while `unwinding`, they raise an exception too."""

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
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self.fd)
        os.close(self._write)


@contextlib.contextmanager
def _listen(options: argparse.Namespace) -> Iterator[tuple[socket.socket, str]]:
    """The listening socket and how to call it."""
    if options.socket is not None:
        with UnixListener(options.socket) as listener:
            yield listener.socket, listener.path
        return
    host, port = options.tcp
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family, backlog=128) as server:
        server.setblocking(False)
        shown = f"[{host}]" if ":" in host else host
        yield server, f"{shown}:{server.getsockname()[1]}"


def _back_end(options: argparse.Namespace) -> tuple[Any, ...]:
    """The driver and its start arguments."""
    image = os.path.abspath(options.image)
    if options.overlay is None:
        return stack((Disk, image, options.read_only))
    layers = (CopyOnWriteFilter, os.path.abspath(options.overlay)), (Disk, image, True)
    return stack(*([ReadOnlyFilter] if options.read_only else []), *layers)


def serve(options: argparse.Namespace) -> int:
    """Serve the image until a signal or a failure ends it; returns the exit code."""
    stop = _Stop()
    try:
        with (
            _listen(options) as (listener, where),
            Machine(intensity=options.intensity, period=options.period) as machine,
        ):
            machine.start("disk", *_back_end(options), placement=options.placement)
            with connect(machine, "disk", buffer_bytes=options.buffers << 20) as channel:
                return _run(options, machine, channel, listener, where, stop)
    except _Interrupted:
        return 0
    except DomainStartError as error:
        _complain(error.text)
    except (OSError, HypervisorError, TransportError, ActorError) as error:
        _complain(str(error))
    finally:
        stop.unwinding = False
        stop.close()
    return 2


def _run(
    options: argparse.Namespace,
    machine: Machine,
    channel: FrontEnd,
    listener: socket.socket,
    where: str,
    stop: _Stop,
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
    _complain(reason.text)
    return 1


def _complain(text: str) -> None:
    print(f"{_NAME}: {text}", file=sys.stderr, flush=True)


class _OneLine(logging.Formatter):
    """The first line of what is logged: the rest is a traceback, for who embeds this."""

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


def _at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {minimum}")
        return int(text)

    return number


def _power_of_two(text: str) -> int:
    if not text.isdecimal() or int(text).bit_count() != 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a power of two")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m examples.block", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=_Parser)
    command = commands.add_parser("serve", help="serve an image by NBD until Ctrl-C or SIGTERM")
    command.add_argument("image", help="the disk image: a file or a block device")
    where = command.add_mutually_exclusive_group(required=True)
    where.add_argument("--socket", metavar="PATH", help="the unix socket to listen on")
    where.add_argument("--tcp", metavar="HOST:PORT", type=_address, help="or the TCP address")
    command.add_argument("--read-only", action="store_true", help="let nobody write")
    command.add_argument(
        "--overlay", metavar="FILE", help="keep all changes in FILE, and leave the image as it is"
    )
    command.add_argument("--export", metavar="NAME", default="", help="the export's name")
    command.add_argument("--placement", choices=["thread", "process"], default="process")
    command.add_argument(
        "--intensity", metavar="N", type=_at_least(0), default=10, help="restarts allowed..."
    )
    command.add_argument(
        "--period", metavar="S", type=_at_least(1), default=5, help="...within so many seconds"
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
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    return serve(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
