"""Debian packages that a guest is made of: downloaded and unpacked, never installed.

They are kept in .cache/guest, so that they are downloaded once; remove it to have newer ones. What
is missing (a program, the network, Debian itself) is a reason for `Missing`, which tests are
skipped with.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.sources import ROOT

CACHE = ROOT / ".cache" / "guest"
PACKAGES = ("busybox-static", "usbip", "usbutils")
KERNEL = "linux-image-amd64"  # depends on the present version of the kernel that is not "cloud"
PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "ldd": "libc-bin",
}
"""Programs of this machine, and the packages that have them."""

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class Missing(Exception):
    """There can be no guest here; the text says what is missing."""


def program(name: str) -> str:
    """The path of a program of this machine.

    Raises:
        Missing: it is not installed.
    """
    found = shutil.which(name, path=_PATH)
    if found is None:
        package = PROGRAMS.get(name)
        advice = f": apt-get install {package}" if package else ""
        raise Missing(f"{name} is not installed{advice}")
    return found


def unpacked() -> Path:
    """The directory that all packages are unpacked in, downloaded now if need be.

    Raises:
        Missing: they cannot be had, or what is needed beside them.
    """
    for name in PROGRAMS:
        program(name)
    root = CACHE / "root"
    if not root.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as temporary:
            _download(Path(temporary))
            os.rename(Path(temporary, "root"), root)
    return root


def _download(directory: Path) -> None:
    needs = _output(directory, program("apt-cache"), "depends", KERNEL)
    image = re.search(r"Depends: (linux-image-\S+)", needs)
    if image is None:
        raise Missing(f"{KERNEL} is not in the package lists")
    _output(directory, program("apt-get"), "-qq", "download", image[1], *PACKAGES)
    for package in directory.glob("*.deb"):
        _output(directory, program("dpkg-deb"), "--extract", package.name, "root")


def _output(directory: Path, *command: str) -> str:
    ended = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise Missing(f"{' '.join(command)}: {ended.stderr.strip() or ended.returncode}")
    return ended.stdout
