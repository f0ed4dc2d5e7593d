"""``make demo``: a disk whose back end is killed again and again under a load that checks it all.

Owns the run from the image to the table: makes the image, puts the machine together, lets `Load` do
its work, and judges. The exit code is 0 only if nothing was lost, nothing was wrong, and everything
that was planned has happened; 1 if not; 2 for bad options.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, NoReturn, Protocol

from actors import ActorError
from examples.block import plan
from examples.block.disk import Disk
from examples.block.load import Load
from examples.block.oracle import Oracle
from hypervisor import HypervisorError, Machine
from transport import BackEnd, Statistics, TransportError, connect

WATCHDOG = 0.5  # seconds that a hung back end is given
_MEAN_REQUESTS = 5  # between two faults, for each MiB of the disk: a large one gets a long run
_SMALLEST_IMAGE = 1 << 20
_ROOM = 64 << 20  # bytes that have to stay free beside the image


class _Bar(Protocol):
    """What this uses of tqdm."""

    n: float

    def refresh(self) -> object: ...
    def set_description_str(self, desc: str) -> None: ...


@dataclass
class Outcome:
    """What a run came to; `text` is the table, `good` the verdict."""

    oracle: Oracle
    load: Load
    statistics: Statistics
    planned: int
    seconds: float
    load_bytes: int

    @property
    def good(self) -> bool:
        return not (
            self.oracle.lost
            or self.oracle.wrong
            or self.load.stuck
            or len(self.load.recoveries) < self.planned
        )

    def text(self) -> str:
        """The table, as it is printed."""
        oracle = self.oracle
        kills = [each.seconds for each in self.load.recoveries if each.kind == plan.KILL]
        hangs = [each.seconds for each in self.load.recoveries if each.kind == plan.HANG]
        revokes = self.statistics.revoke_seconds
        rows = [
            ("requests done", f"{oracle.requests:,}"),
            ("bytes read and checked", _mib(oracle.bytes_read)),
            ("bytes written", _mib(oracle.bytes_written)),
            ("throughput under faults", f"{_mib(self.load_bytes / self.seconds)}/s"),
            ("killed (SIGKILL)", f"{len(kills)}"),
            ("hung (SIGSTOP)", f"{len(hangs)}"),
            ("back ends replaced", f"{self.statistics.epochs - 1}"),
            ("requests sent again", f"{self.statistics.resent:,}"),
            ("kill to next request done", _spread(kills)),
            ("hang to next request done", _spread(hangs)),
            ("revoking the old grants", _spread(revokes)),
            ("lost", f"{oracle.lost}"),
            ("wrong", f"{oracle.wrong}"),
        ]
        lines = [f"  {name:<27}{value}" for name, value in rows]
        lines += [f"  ! {note}" for note in oracle.notes]
        if self.load.stuck:
            lines.append(f"  ! nothing was answered for {self.load.patience:g} s; gave up")
        return "\n".join(lines)


def run(options: argparse.Namespace, program: type[BackEnd] = Disk) -> Outcome:
    """Make the image, run the load with its faults, and compare the whole disk at the end."""
    size = options.size << 20
    with (
        # Without a name, so that nothing is left of it even when this process is killed; the back
        # end opens it through us.
        tempfile.TemporaryFile(dir=_room_for(size)) as image,
        _progress() as progress,
        Machine(intensity=options.kills + 10, period=10.0, watchdog=WATCHDOG) as machine,
    ):
        oracle = _make_image(image, options.seed, size, progress)
        machine.start("disk", program, f"/proc/{os.getpid()}/fd/{image.fileno()}")
        with connect(machine, "disk") as channel:
            load = Load(channel, oracle)
            mean = max(100, _MEAN_REQUESTS * options.size)
            faults = plan.faults(options.seed, options.kills, mean)

            def strike(kind: str) -> None:
                number = signal.SIGKILL if kind == plan.KILL else signal.SIGSTOP
                os.kill(machine.pid("disk"), number)

            print(f"the first back end is process {machine.pid('disk')}", flush=True)
            began = time.monotonic()
            load.run(
                plan.steps(options.seed, size),
                faults,
                strike,
                seconds=options.seconds,
                progress=lambda share: progress("load", share),
            )
            seconds = time.monotonic() - began
            load_bytes = oracle.bytes_read + oracle.bytes_written
            load.verify(lambda share: progress("compare", share))
            return Outcome(oracle, load, channel.statistics(), len(faults), seconds, load_bytes)


def main(argv: list[str], program: type[BackEnd] = Disk) -> int:
    """Run the demo with these command line options; returns the exit code.

    Args:
        program: the driver; tests put a faulty one here, to see that the demo would notice.
    """
    options = _parser().parse_args(argv)
    if options.seed is None:
        options.seed = secrets.randbelow(1_000_000)
    print(
        f"a {options.size} MiB disk, {options.kills} kills and a hang, seed {options.seed}",
        flush=True,
    )
    # Every kill would be a line of the log: they are what is wanted here, and the table has them.
    log, quiet = logging.getLogger("actors"), logging.NullHandler()
    log.addHandler(quiet)
    try:
        outcome = run(options, program)
    except (OSError, ActorError, HypervisorError, TransportError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    finally:
        log.removeHandler(quiet)
    print(outcome.text())
    print("nothing lost, nothing wrong" if outcome.good else "FAILED", flush=True)
    return 0 if outcome.good else 1


def _make_image(image: IO[bytes], seed: int, size: int, progress: Progress) -> Oracle:
    contents = bytearray()
    for piece in plan.contents(seed, size):
        image.write(piece)
        contents += piece
        progress("image", len(contents) / size)
    image.flush()
    return Oracle(contents)


def _room_for(size: int) -> str:
    """A folder for temporary files on a file system with room for the image."""
    folders = [tempfile.gettempdir(), "/var/tmp", os.getcwd()]  # noqa: S108 - only its file system
    for folder in folders:
        if os.path.isdir(folder) and shutil.disk_usage(folder).free > size + _ROOM:
            return folder
    raise OSError(f"no room for an image of {size >> 20} MiB in {', '.join(folders)}")


class Progress(Protocol):
    """Told which part of the run is how far, 0 to 1."""

    def __call__(self, part: str, share: float) -> None: ...


@contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on a terminal, if tqdm is there to draw it; otherwise quiet."""
    if not sys.stderr.isatty() or importlib.util.find_spec("tqdm") is None:
        yield lambda part, share: None  # noqa: ARG005 - the Protocol's names
        return
    from tqdm import tqdm  # noqa: PLC0415 - only where there is a terminal

    tqdm.monitor_interval = 0  # it would start a thread that polls
    with tqdm(total=100, leave=False, bar_format="{desc:<8}{percentage:3.0f}% |{bar}|") as bar:
        yield _Drawing(bar)


class _Drawing:
    """Draws on a tqdm bar, a whole percent at a time."""

    def __init__(self, bar: _Bar) -> None:
        self._bar = bar
        self._drawn = ("", -1)

    def __call__(self, part: str, share: float) -> None:
        state = (part, int(share * 100))
        if state != self._drawn:
            self._drawn = state
            self._bar.set_description_str(part)
            self._bar.n = state[1]
            self._bar.refresh()


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    ordered = sorted(seconds)
    if len(ordered) == 1:
        return _ms(ordered[0])
    p50, p99 = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] for share in (0.5, 0.99))
    return f"p50 {_ms(p50)}, p99 {_ms(p99)}, max {_ms(ordered[-1])}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _mib(count: float) -> str:
    return f"{count / (1 << 20):,.0f} MiB"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def _at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {minimum}")
        return int(text)

    return number


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m examples.block demo", description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=_at_least(0), help="repeats a run's choices")
    parser.add_argument("--size", metavar="MiB", type=_at_least(_SMALLEST_IMAGE >> 20), default=256)
    parser.add_argument("--kills", metavar="N", type=_at_least(0), default=20)
    parser.add_argument(
        "--seconds", metavar="S", type=_at_least(0), default=15, help="of load, at least"
    )
    return parser
