"""A device that a real kernel has is passed on by the real libusb: only the hardware is not real.

The guest gets a serial line from us, by USB/IP. Our own program runs in it, takes the device from
the guest's kernel and exports it again, and the same kernel attaches that.
"""

from __future__ import annotations

import ctypes.util
from pathlib import Path

import pytest

from tests.guest import python
from tests.guest.booted import linux
from tests.guest.machine import HOST
from tests.guest.test_usb import check_serial
from tests.usb.helpers import exporting_here

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

PROGRAM = "examples.usb.__main__"
IMPORTED_LATER = ("examples.usb.libusb", "transport.backend", "hypervisor.boot")


def libusb() -> Path:
    """The C library of this machine; the test is skipped where it is not installed."""
    name = ctypes.util.find_library("usb-1.0")
    for folder in ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/lib", "/lib"):
        if name is not None and Path(folder, name).exists():
            return Path(folder, name).resolve()
    pytest.skip("libusb-1.0 is not installed: apt-get install libusb-1.0-0")


def test_a_serial_line_is_taken_from_the_kernel_passed_on_and_given_back(tmp_path: Path) -> None:
    files = [
        ("lib/libusb-1.0.so.0", libusb()),
        *python.files(tmp_path, PROGRAM, *IMPORTED_LATER),
    ]
    serve = (
        f"/{python.PYTHON} -m examples.usb serve --host-device 1209:0001 "
        "--tcp 127.0.0.1:3240 --placement thread"
    )
    with exporting_here([["serial", True]]) as served, linux(tmp_path, files=files) as guest:
        guest.run(f"usbip --tcp-port {served.port} attach -r {HOST} -b 1-1")
        guest.run("await '[ -c /dev/ttyACM0 ]'")
        guest.run("mkfifo /tmp/said")
        guest.run(f"{serve} >/tmp/said 2>/tmp/errors & server=$!; exec 6</tmp/said")
        said = guest.run("for n in 1 2; do read -r line <&6; echo $line; done; cat /tmp/errors")
        assert said.startswith("1-1: host device 1209:0001, back end "), said
        guest.run("await '[ ! -e /dev/ttyACM0 ]'")
        guest.run("usbip attach -r 127.0.0.1 -b 1-1")
        guest.run("await '[ -c /dev/ttyACM0 ]'")
        check_serial(guest)
        guest.run("usbip detach -p 1; await '[ ! -e /dev/ttyACM0 ]'")
        guest.run("kill $server; wait $server")
        guest.run("await '[ -c /dev/ttyACM0 ]'")
