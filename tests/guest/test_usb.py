"""Linux itself uses our devices, by USB/IP and by QEMU's usb-redir, and they survive kill -9.

Run by `make guest`, since a guest takes its time to boot under software emulation.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest.booted import linux
from tests.guest.machine import HOST, Linux
from tests.usb.helpers import Served, exporting

pytestmark = [pytest.mark.guest, pytest.mark.timeout(600)]

FILES = 8
KEY_H, KEY_I = 35, 23  # linux/input-event-codes.h
_EVENT = 24  # bytes of struct input_event: two longs, type, code, value
_KEY = 1

by = pytest.mark.parametrize("way", ["USB/IP", "usbredir"])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    with path.open("wb") as disk:
        disk.truncate(64 << 20)
    return path


@contextlib.contextmanager
def attached(way: str, directory: Path, *options: str) -> Iterator[tuple[Served, Linux]]:
    """Devices that are served, and a guest that has them all."""
    door = directory / "usbredir.sock"
    more = () if way == "USB/IP" else ("--usbredir", str(door))
    with exporting(directory, *options, *more) as served:
        devices = ["-device", "nec-usb-xhci"]
        for number in range(len(served.devices)):
            devices += ["-chardev", f"socket,id=usb{number},path={door}"]
            devices += ["-device", f"usb-redir,chardev=usb{number}"]
        with linux(directory, *([] if way == "USB/IP" else devices)) as guest:
            if way == "USB/IP":
                for busid in served.devices:
                    attach(guest, served, busid)
            guest.run("await '[ -b /dev/sda ] && [ -c /dev/ttyACM0 ]'")
            guest.run("await 'grep -qs xenidc /sys/class/input/event*/device/name'")
            yield served, guest


def attach(guest: Linux, served: Served, busid: str) -> None:
    guest.run(f"usbip --tcp-port {served.port} attach -r {HOST} -b {busid}")


def make_file_system(guest: Linux) -> None:
    guest.run("mkfs.ext4 -q /dev/sda && mount /dev/sda /mnt")


def check_files(guest: Linux, names: str) -> None:
    """Files in /tmp are in /mnt, as the disk alone knows them, and its file system is clean."""
    guest.run("umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount /dev/sda /mnt")
    for name in names.split():
        guest.run(f"cmp /tmp/{name} /mnt/{name}")
    guest.run("umount /mnt && e2fsck -fn /dev/sda")


def check_keyboard(guest: Linux, served: Served) -> None:
    guest.run(
        "name=$(grep -ls xenidc /sys/class/input/event*/device/name) && "
        "name=${name#/sys/class/input/} && exec 4</dev/input/${name%%/*}"
    )
    assert served.process.stdin is not None
    served.process.stdin.write("hi")
    served.process.stdin.flush()
    events = 4 * 3  # two keys, down and up, each as scan code, key, end of report
    said = bytes.fromhex(guest.run(f"head -c {events * _EVENT} <&4 | xxd -p -c {_EVENT}"))
    keys = [said[at + 16 : at + _EVENT] for at in range(0, len(said), _EVENT)]
    assert [(key[2], key[4]) for key in keys if key[0] == _KEY] == [
        (KEY_H, 1),
        (KEY_H, 0),
        (KEY_I, 1),
        (KEY_I, 0),
    ]
    guest.run("exec 4<&-")


def check_serial(guest: Linux) -> None:
    guest.run("exec 5<>/dev/ttyACM0 && stty raw -echo <&5")
    assert guest.run("printf hello >&5; head -c 5 <&5; echo") == "hello"
    guest.run("exec 5<&-")


@by
def test_linux_uses_a_disk_a_keyboard_and_a_serial_line(
    way: str, image: Path, tmp_path: Path
) -> None:
    options = ("--disk", str(image), "--keyboard", "--serial")
    with attached(way, tmp_path, *options) as (served, guest):
        make_file_system(guest)
        guest.run("dd if=/dev/urandom of=/tmp/a bs=64k count=64 && cp /tmp/a /mnt/a")
        check_files(guest, "a")
        check_keyboard(guest, served)
        check_serial(guest)
        guest.run("usbreset 1209:0001")
        guest.run("mount /dev/sda /mnt && cp /tmp/a /mnt/b && cp /tmp/a /tmp/b")
        check_files(guest, "a b")


def test_a_device_can_be_detached_and_attached_again(image: Path, tmp_path: Path) -> None:
    options = ("--disk", str(image), "--keyboard", "--serial", "--composite")
    with attached("USB/IP", tmp_path, *options) as (served, guest):
        make_file_system(guest)
        guest.run("echo kept >/tmp/a && cp /tmp/a /mnt/a && umount /mnt")
        for _ in range(3):
            guest.run("usbip detach -p 0 && await '[ ! -e /dev/sda ] && [ ! -e /dev/ttyACM0 ]'")
            attach(guest, served, "1-1")
            guest.run("await '[ -b /dev/sda ] && [ -c /dev/ttyACM0 ]'")
            guest.run("mount /dev/sda /mnt")
            check_files(guest, "a")
            check_serial(guest)


@by
def test_no_file_is_harmed_when_the_back_end_is_killed_again_and_again(
    way: str, image: Path, tmp_path: Path
) -> None:
    options = ("--disk", str(image), "--keyboard", "--serial", "--composite")
    with attached(way, tmp_path, *options, "--intensity", "1000") as (served, guest):
        make_file_system(guest)
        guest.run(f"cd /tmp; for n in $(seq {FILES}); do head -c 1m /dev/urandom >f$n; done")
        kills = 0
        # A file is written while its mark is on its way: so the back end dies in the middle.
        for said in guest.lines(
            f"for n in $(seq {FILES}); do cp f$n /mnt/f$n; echo mark; sync; done"
        ):
            assert said == "mark"
            disk, device = back_ends(served, image)
            for pid in ([device], [disk], [disk, device])[kills % 3]:
                os.kill(pid, signal.SIGKILL)
            kills += 1
        assert kills == FILES
        check_files(guest, " ".join(f"f{n}" for n in range(1, FILES + 1)))
        check_keyboard(guest, served)
        check_serial(guest)


def back_ends(served: Served, image: Path) -> tuple[int, int]:
    """The pids of the disk's back end and of the device's: the first has the image open, and both
    have memory of channels, which a spare process has not.
    """
    disks: list[int] = []
    devices: list[int] = []
    for task in Path(f"/proc/{served.process.pid}/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            process = Path(f"/proc/{pid}")
            if "memfd:xenidc-" in (process / "maps").read_text():
                opened = {each.readlink() for each in (process / "fd").iterdir()}
                (disks if image in opened else devices).append(pid)
    (disk,), (device,) = disks, devices
    return disk, device
