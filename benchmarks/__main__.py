"""``make bench``: all measurements, or those that are named."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
from importlib import import_module
from importlib.util import find_spec

from benchmarks.effort import QUICK, Effort

PARTS = {
    "round-trip": "round_trip",
    "bulk": "bulk",
    "recovery": "recovery",
    "growth": "growth",
    "pci": "pci",
    "nbd": "nbd",
    "framebuffer": "framebuffer",
    "usb": "usb",
    "actors": "actors",
    "event-channels": "event_channels",
    "store": "store",
}
"""The name of each part, and its module, which has a ``run``."""
NEEDS = {"bulk": "numpy", "framebuffer": "numpy"}


def main(argv: list[str]) -> int:
    """Run the benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, help=f"of each measurement ({Effort.rounds})")
    parser.add_argument("--seconds", type=float, help=f"of each timed run ({Effort.seconds:g})")
    parser.add_argument("--quick", action="store_true", help="only to see that everything runs")
    options = parser.parse_args(argv)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    usual = QUICK if options.quick else Effort()
    effort = Effort(options.rounds or usual.rounds, options.seconds or usual.seconds, usual.share)
    logging.getLogger("actors").addHandler(logging.NullHandler())  # kills are on purpose here
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    try:
        _measure(options.parts or list(PARTS), effort)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 2
    return 0


def _measure(parts: list[str], effort: Effort) -> None:
    for part in parts:
        needed = NEEDS.get(part)
        if needed is not None and find_spec(needed) is None:
            print(f"{part}: {needed} is not installed (extra `bench`); left out")
            continue
        import_module(f"benchmarks.{PARTS[part]}").run(effort)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
