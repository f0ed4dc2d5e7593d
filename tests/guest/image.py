"""What the guest boots: Debian's own kernel, its modules for USB, and a shell that takes commands.

The shell reads a line from the first serial port, runs it, and answers with what that prints and a
byte 1, its exit status and a newline. The kernel's log goes to the second serial port.

Nothing in the guest polls either: `uevent` runs from the beginning, and the shell function ``await
CONDITION`` looks again whenever the kernel has said that a device came or went.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.guest.initramfs import Archive
from tests.guest.packages import program

MODULES = (
    *("e1000", "vhci_hcd", "xhci_pci", "usb_storage", "sd_mod", "usbhid", "hid_generic"),
    *("cdc_acm", "evdev", "ext4", "crc32c_generic"),
)
READY = "the shell reads"
_ELF = b"\x7fELF"

_INIT = """#!/bin/sh
export PATH=/bin LD_LIBRARY_PATH=/lib
busybox mount -t proc proc /proc
busybox --install -s /bin
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkfifo /run/news
exec 3<>/run/news
uevent sh -c 'echo >/run/news' &
await() { until eval "$1"; do read -r news <&3; done; }
for module in MODULES; do insmod /modules/$module.ko; done
ln -s /proc/mounts /etc/mtab
ifconfig lo up
ifconfig eth0 10.0.2.15 up
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo -onlcr
printf 'READY\\001%d\\n' 0
while read -r line; do
    eval "$line" </dev/null
    printf '\\001%d\\n' $?
done
"""


def kernel_of(root: Path) -> Path:
    """The kernel among unpacked packages."""
    (kernel,) = root.glob("boot/vmlinuz-*")
    return kernel


def build(root: Path, modules: Iterable[str] = (), files: Iterable[tuple[str, Path]] = ()) -> bytes:
    """The initial file system, of unpacked packages and this machine's e2fsprogs.

    Args:
        modules: of the kernel, to be loaded beside the usual ones.
        files: what else is to be there, name and file; with the libraries that programs need.
    """
    archive = Archive()
    for name in ("proc", "sys", "dev", "tmp", "mnt", "run", "var/run", "etc", "usr/share/hwdata"):
        archive.directory(name)
    archive.device("dev/console", 5, 1)
    archive.file("usr/share/misc/usb.ids", b"")
    archive.file("usr/share/hwdata/usb.ids", b"")
    archive.file("bin/busybox", root / "bin/busybox")
    archive.link("bin/sh", "busybox")
    libraries = _libraries_of(root)
    programs = [
        root / "usr/sbin/usbip",
        root / "usr/bin/usbreset",
        Path(program("mkfs.ext4")),
        Path(program("e2fsck")),
    ]
    chosen = [(f"bin/{path.name}", path) for path in programs]
    for name, path in (*chosen, *files):
        archive.file(name, path)
        if path.read_bytes()[:4] != _ELF:
            continue
        for library in _needed(path, libraries):
            folder = "lib64" if library.name.startswith("ld-linux") else "lib"
            archive.file(f"{folder}/{library.name}", library.resolve())
    order: list[str] = []
    found = {path.stem.replace("-", "_"): path for path in root.glob("lib/modules/**/*.ko")}
    for module in (*MODULES, *modules):
        order += [name for name in _in_order(module, found) if name not in order]
    for name in order:
        archive.file(f"modules/{name}.ko", found[name])
    init = _INIT.replace("MODULES", " ".join(order)).replace("READY", READY)
    archive.file("init", init.encode())
    return archive.pack()


def _libraries_of(root: Path) -> dict[str, str]:
    folders = f"{root}/usr/lib/x86_64-linux-gnu:{root}/lib/x86_64-linux-gnu"
    return {**os.environ, "LD_LIBRARY_PATH": folders}


def _needed(path: Path, environment: dict[str, str]) -> Iterator[Path]:
    """The shared libraries that a program is linked with."""
    shown = subprocess.run(
        [program("ldd"), str(path)], env=environment, capture_output=True, text=True, check=True
    )
    for found in re.finditer(r"(/\S+) \(0x", shown.stdout):
        yield Path(found[1])


def _in_order(module: str, found: dict[str, Path]) -> Iterator[str]:
    """A module after those that it needs; none for one that is built into the kernel."""
    if module in found:
        depends = re.search(rb"\0depends=([^\0]*)\0", found[module].read_bytes())
        for name in depends[1].decode().split(",") if depends else ():
            yield from _in_order(name.replace("-", "_"), found)
        yield module
