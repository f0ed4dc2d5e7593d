"""The command line: ``python -m examples.usb serve --disk IMAGE --keyboard --tcp 127.0.0.1:3240``.

Owns the order in which things start and end, the signals, and what is printed. Otherwise it is a
user of a machine and its channels, as any program would be. Each device is a domain of its own, and
so is each disk image: the block driver's back end, which the device uses by a channel.

Exit codes: 0 after Ctrl-C or SIGTERM; 2 when it could not begin; 1 when serving has failed. Every
failure is one line on standard error, the last one says why it ends.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from actors import System
from examples.block.disk import Disk
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
from examples.usb.backend import UsbDevice
from examples.usb.host import Host
from examples.usb.host_device import HostDevice, located
from examples.usb.plug import NotEnumerated, Plug, enumerate_device
from examples.usb.server import Doors, UsbServer
from examples.usb.usbip_session import Session
from examples.usb.usbredir_session import RedirSession
from examples.usb.world import Line
from hypervisor import Machine, UnixListener
from transport import BackEnd, connect

_NAME = "examples.usb"
_VENDOR = 0x1209  # pid.codes, which has 0001 to 000F for tests
_PRODUCTS = {"disk": 0x0001, "keyboard": 0x0002, "serial": 0x0003, "composite": 0x0004}


@dataclass
class _Plan:
    """A device to be served: its name, its functions for the back end, and what they are.

    ``images`` are the disks behind it: the device that each is served as, its path and whether it
    is read-only. ``passed`` is a device of this machine, which is not ours to make.
    """

    name: str
    functions: list[list[Any]]
    words: str
    images: tuple[tuple[str, str, bool], ...] = ()
    passed: str | None = None

    @property
    def program(self) -> type[BackEnd]:
        """Its back end."""
        return UsbDevice if self.passed is None else HostDevice

    @property
    def arguments(self) -> tuple[Any, ...]:
        """Start arguments of its back end. The serial number is the same the next time."""
        if self.passed is not None:
            return (located(self.passed),)
        number = (
            hashlib.sha256(repr((self.name, self.functions, self.images)).encode())
            .hexdigest()[:12]
            .upper()
        )
        return f"xenidc {self.name}", _VENDOR, _PRODUCTS[self.name], number, self.functions


def _plans(options: argparse.Namespace) -> list[_Plan]:
    plans = [
        _Plan(
            "disk",
            [["block", f"disk{number}"]],
            f"disk {image} (disk{number})",
            ((f"disk{number}", os.path.abspath(image), options.read_only),),
        )
        for number, image in enumerate(options.disk, 1)
    ]
    if options.keyboard:
        plans.append(_Plan("keyboard", [["keyboard"]], "keyboard"))
    if options.serial:
        loopback = options.serial == "loopback"
        plans.append(_Plan("serial", [["serial", loopback]], f"serial {options.serial}"))
    if options.composite and len(plans) > 1:
        functions = [function for plan in plans for function in plan.functions]
        words = ", ".join(plan.words for plan in plans)
        plans = [_Plan("composite", functions, words, sum((plan.images for plan in plans), ()))]
    passed = [_Plan("host", [], f"host device {each}", passed=each) for each in options.host_device]
    return plans + passed


def _lines(plan: _Plan, stack: contextlib.ExitStack) -> list[Line]:
    """The world at the device: standard input types, a serial line has a pty."""
    lines = []
    for place, function in enumerate(plan.functions):
        if function == ["keyboard"] and sys.stdin is not None:
            lines.append(Line(place, input=sys.stdin.fileno()))
        elif function == ["serial", False]:
            line = Line.pty(place)
            stack.callback(line.close)
            plan.words = plan.words.replace("serial pty", f"serial {line.path}")
            lines.append(line)
    return lines


@contextlib.contextmanager
def _listen(options: argparse.Namespace) -> Iterator[tuple[Doors, str]]:
    """The listening sockets and how to call them."""
    with contextlib.ExitStack() as stack:
        doors: list[tuple[socket.socket, type[Session | RedirSession]]] = []
        shown = []
        if options.tcp is not None:
            listener, where = stack.enter_context(listening(options.tcp))
            doors.append((listener, Session))
            shown.append(where)
        if options.usbredir is not None:
            if ":" in options.usbredir:
                listener, where = stack.enter_context(listening(address(options.usbredir)))
            else:
                socket_file = stack.enter_context(UnixListener(options.usbredir))
                listener, where = socket_file.socket, socket_file.path
            doors.append((listener, RedirSession))
            shown.append(f"usbredir {where}")
        yield doors, ", ".join(shown)


def serve(options: argparse.Namespace, stop: Stop) -> int:
    """Serve the devices until a signal or a failure ends it; returns the exit code."""
    with (
        _listen(options) as (doors, where),
        Machine(intensity=options.intensity, period=options.period) as machine,
        contextlib.ExitStack() as stack,
    ):
        plugs = []
        plans = _plans(options)
        for number, plan in enumerate(plans, 1):
            name = f"usb{number}"
            for disk, path, read_only in plan.images:
                machine.start(disk, Disk, path, read_only, placement=options.placement)
                if options.placement == "process":
                    pid = machine.pid(disk)
                    plan.words = plan.words.replace(f"({disk})", f"(back end {pid})")
            machine.start(name, plan.program, *plan.arguments, placement=options.placement)
            host = Host(stack.enter_context(connect(machine, name)))
            exported = enumerate_device(host, number)
            plugs.append(Plug(host, exported, _lines(plan, stack)))
        for number, (plan, plug) in enumerate(zip(plans, plugs, strict=True), 1):
            process = options.placement == "process"
            pid = machine.pid(f"usb{number}") if process else os.getpid()
            print(f"{plug.exported.busid}: {plan.words}, back end {pid}")
        return _run(plugs, doors, where, stop)


def _run(plugs: list[Plug], doors: Doors, where: str, stop: Stop) -> int:
    with System("usb") as system:
        server = system.start(UsbServer, doors, plugs, stop.fd, name="usb")
        stop.unwinding = False
        print(f"serving {len(plugs)} devices on {where}", flush=True)
        reason = system.wait(server).reason
    if reason.kind == "normal":
        return 0
    complain(_NAME, reason.text)
    return 1


def _door(text: str) -> str:
    if ":" in text:
        address(text)
    return text


def _passed(text: str) -> str:
    """VENDOR:PRODUCT in four lower hexadecimal digits each, or BUS-DEVICE without zeros."""
    try:
        if ":" in text:
            vendor, product = (int(each, 16) for each in text.split(":"))
            if max(vendor, product) <= 0xFFFF:
                return f"{vendor:04x}:{product:04x}"
        bus, device = map(int, text.split("-"))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither VENDOR:PRODUCT nor BUS-DEVICE, as lsusb shows them"
        ) from None
    return f"{bus}-{device}"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m examples.usb", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, parser_class=Parser)
    command = commands.add_parser("serve", help="export devices until Ctrl-C or SIGTERM")
    command.add_argument(
        "--disk", metavar="IMAGE", action="append", default=[], help="a disk; again for another one"
    )
    command.add_argument("--read-only", action="store_true", help="let nobody write to the disks")
    command.add_argument(
        "--keyboard", action="store_true", help="a keyboard that types what is on standard input"
    )
    command.add_argument(
        "--serial",
        choices=["loopback", "pty"],
        nargs="?",
        const="loopback",
        help="a serial line: to itself, or to a terminal of this machine",
    )
    command.add_argument("--composite", action="store_true", help="all of them in one device")
    command.add_argument(
        "--host-device",
        metavar="VENDOR:PRODUCT|BUS-DEVICE",
        type=_passed,
        action="append",
        default=[],
        help="a device of this machine, by libusb; again for another one",
    )
    command.add_argument("--tcp", metavar="HOST:PORT", type=address, help="listen for USB/IP")
    command.add_argument(
        "--usbredir",
        metavar="SOCKET|HOST:PORT",
        type=_door,
        help="listen for usbredir, QEMU's usb-redir device",
    )
    command.add_argument("--placement", choices=["thread", "process"], default="process")
    command.add_argument(
        "--intensity", metavar="N", type=at_least(0), default=10, help="restarts allowed..."
    )
    command.add_argument(
        "--period", metavar="S", type=at_least(0), default=5, help="...within so many seconds"
    )
    return parser


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not (options.disk or options.keyboard or options.serial or options.host_device):
        parser.error("nothing to serve: --disk, --keyboard, --serial or --host-device")
    if not (options.tcp or options.usbredir):
        parser.error("nowhere to serve: --tcp or --usbredir")
    log_to_standard_error(_NAME)
    return until_stopped(_NAME, partial(serve, options), NotEnumerated)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
