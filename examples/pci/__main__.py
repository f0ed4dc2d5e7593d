"""The command line: ``python -m examples.pci dump | lspci -F /dev/stdin -vvv``, and three more.

    dump                          every function's configuration space, for the real lspci -F
    list                          functions, BARs with their sizes, capabilities
    read SLOT OFFSET              one register
    write SLOT OFFSET VALUE       one register: what it was, and what it is then

Each starts a machine with one back end, the emulated bus or (``--host``) the host's devices, and
ends it; what was written to an emulated bus ends with it.

Exit codes: 0; 2 for whatever could not be done, which is one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import re
import sys

from actors import ActorError
from examples.command import Parser, complain, log_to_standard_error
from examples.pci import protocol as p
from examples.pci.dump import describe, dump
from examples.pci.emulated import EmulatedBus
from examples.pci.errors import AccessDenied, PciError
from examples.pci.front import PciBus, open_bus
from examples.pci.host import SYSFS, HostBus
from examples.pci.scan import FoundBar, FoundCapability
from hypervisor import DomainStartError, HypervisorError, Machine
from transport import TransportError

_NAME = "examples.pci"
_SLOT = re.compile(r"(?:([0-9a-f]{4,}):)?([0-9a-f]{1,2}):([01]?[0-9a-f])\.([0-7])", re.IGNORECASE)


def run(options: argparse.Namespace) -> int:
    """Do one command; returns the exit code."""
    try:
        with Machine(spares=0) as machine:  # it ends before a spare one would be ready
            if options.host is None:
                machine.start("pci", EmulatedBus, placement=options.placement)
            else:
                machine.start("pci", HostBus, options.host, placement=options.placement)
            with open_bus(machine, "pci") as bus:
                options.command(bus, options)
                sys.stdout.flush()
    except DomainStartError as error:
        return _complain(error.text)
    except BrokenPipeError:  # whoever read us has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        return _complain("interrupted")
    except (PciError, OSError, HypervisorError, TransportError, ActorError) as error:
        return _complain(str(error))
    return 0


def _dump(bus: PciBus, _options: argparse.Namespace) -> None:
    for line in dump(bus, bus.scan()):
        print(line)


def _list(bus: PciBus, _options: argparse.Namespace) -> None:
    for function in bus.scan():
        print(describe(function))
        for bar in bus.bars(function.sbdf):
            print(f"\t{_bar(bar)}")
        try:
            for capability in bus.capabilities(function.sbdf):
                print(f"\t{_capability(capability)}")
        except AccessDenied:
            print("\tcapabilities: access denied")


def _read(bus: PciBus, options: argparse.Namespace) -> None:
    print(_hex(bus.read(options.slot, options.offset, options.size), options.size))


def _write(bus: PciBus, options: argparse.Namespace) -> None:
    before = bus.read(options.slot, options.offset, options.size)
    bus.write(options.slot, options.offset, options.size, options.value)
    after = bus.read(options.slot, options.offset, options.size)
    print(f"{_hex(before, options.size)} -> {_hex(after, options.size)}")


def _hex(value: int, size: int) -> str:
    return f"{value:0{2 * size}x}"


def _bar(bar: FoundBar) -> str:
    kind = "I/O ports" if bar.io else f"memory, {64 if bar.wide else 32} bits"
    size = "of unknown size" if bar.size is None else f"[size={_short(bar.size)}]"
    return f"BAR {bar.index}: {kind} at {bar.base:x}{', prefetchable' * bar.prefetchable} {size}"


def _short(size: int) -> str:
    """As lspci has it: 16K, 8G."""
    step = min((size.bit_length() - 1) // 10, 4)
    return f"{size >> 10 * step}{' KMGT'[step].strip()}"


def _capability(found: FoundCapability) -> str:
    version = f" v{found.version}" if found.version else ""
    return f"[{found.at:x}{version}] {found.name}"


def _complain(text: str) -> int:
    complain(_NAME, text)
    return 2


def _slot(text: str) -> int:
    match = _SLOT.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not [DOMAIN:]BUS:DEVICE.FUNCTION")
    return p.sbdf_of(*(int(part or "0", 16) for part in match.groups()))


def _number(text: str) -> int:
    try:
        number = int(text, 0)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 32 bits (12, 0xc)")
    return number


def _parser() -> argparse.ArgumentParser:
    common = Parser(add_help=False)
    common.add_argument(
        "--host",
        nargs="?",
        const=SYSFS,
        metavar="PATH",
        help=f"the host's devices, which are only read (from {SYSFS})",
    )
    common.add_argument("--placement", choices=["thread", "process"], default="process")
    register = Parser(add_help=False)
    register.add_argument("slot", type=_slot, help="such as 00:01.0")
    register.add_argument("offset", type=_number, help="such as 0x10")
    register.add_argument("--size", type=int, choices=[1, 2, 4], default=4, help="bytes")

    parser = Parser(prog=f"python -m {_NAME}", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    for name, function, parents in (
        ("dump", _dump, [common]),
        ("list", _list, [common]),
        ("read", _read, [common, register]),
        ("write", _write, [common, register]),
    ):
        command = commands.add_parser(name, parents=parents)
        command.set_defaults(command=function)
        if name == "write":
            command.add_argument("value", type=_number)
    return parser


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    log_to_standard_error(_NAME)
    return run(options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
