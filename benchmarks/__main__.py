"""``make bench``: all measurements, or those that are named."""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys

from benchmarks import (
    actors,
    event_channels,
    framebuffer,
    nbd,
    pairing,
    recovery,
    round_trip,
    store,
    usb,
)

PARTS = (
    *("actors", "event-channels", "store", "round-trip", "pairing", "nbd", "recovery"),
    *("framebuffer", "usb"),
)


def main(argv: list[str]) -> int:
    """Run the benchmarks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--rounds", type=int, default=5, help="of each measurement")
    parser.add_argument("--seconds", type=float, default=1, help="of each fio run")
    options = parser.parse_args(argv)
    parts = options.parts or PARTS
    for part in parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}; there are {', '.join(PARTS)}")
    logging.getLogger("actors").addHandler(logging.NullHandler())  # kills are on purpose here
    print(f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}")
    if "actors" in parts:
        actors.run(options.rounds)
    if "event-channels" in parts:
        event_channels.run(options.rounds)
    if "store" in parts:
        store.run(options.rounds)
    if "round-trip" in parts:
        round_trip.run(options.rounds)
    if "pairing" in parts:
        pairing.run(options.rounds)
    if "nbd" in parts:
        nbd.run(options.rounds, options.seconds)
    if "recovery" in parts:
        recovery.run(options.rounds)
    if "framebuffer" in parts:
        framebuffer.run(options.rounds)
    if "usb" in parts:
        usb.run(options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
