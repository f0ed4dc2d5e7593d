"""The back end of the host's devices: what the kernel shows, and nothing that changes anything."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from examples.pci import protocol as p
from examples.pci.errors import AccessDenied, InvalidOffset, NotImplementedOperation
from examples.pci.front import PciBus, open_bus
from examples.pci.host import SYSFS, HostBus
from hypervisor import DomainStartError, Machine
from tests.pci.helpers import LINE, command, kill, need

DEVICE = p.sbdf_of(0, 0, 3, 1)
FAR = p.sbdf_of(0x10000, 0x42, 0x1F, 0)
HOST = sorted(os.listdir(SYSFS)) if os.path.isdir(SYSFS) else []
on_a_host_with_devices = pytest.mark.skipif(not HOST, reason="the host shows no PCI devices")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two devices and something else: function 3.1 of bus 0, and one of a far domain."""
    rng = random.Random(3)
    for name, size in (("0000:00:03.1", 256), ("10000:42:1f.0", 4096)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config").write_bytes(rng.randbytes(size))
    (tmp_path / "something").mkdir()
    return tmp_path


@contextmanager
def host(path: str | Path, placement: str = "thread") -> Iterator[tuple[Machine, PciBus]]:
    with Machine() as machine:
        machine.start("pci", HostBus, str(path), placement=placement)
        with open_bus(machine, "pci", on_reset="all-ones") as bus:
            yield machine, bus


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_reads_are_the_bytes_of_the_kernels_files(tree: Path, placement: str) -> None:
    with host(tree, placement) as (_, bus):
        assert bus.roots == ((0, 0), (0x10000, 0x42))
        for sbdf, name in ((DEVICE, "0000:00:03.1"), (FAR, "10000:42:1f.0")):
            data = (tree / name / "config").read_bytes()
            for size in (1, 2, 4):
                read = [bus.read(sbdf, at, size) for at in range(0, 256, size)]
                assert b"".join(value.to_bytes(size, "little") for value in read) == data[:256]
        assert bus.read(DEVICE, 0x100, 4) == 0xFFFFFFFF
        assert bus.read(FAR, 0xFFC, 4) == int.from_bytes(data[-4:], "little")


def test_where_there_is_no_device_reads_are_all_ones(tree: Path) -> None:
    with host(tree) as (_, bus):
        assert bus.read(p.sbdf_of(0, 0, 3, 0), 0, 2) == 0xFFFF
        assert bus.read(p.sbdf_of(5, 9, 3, 0), 0, 4) == 0xFFFFFFFF


def test_a_device_that_goes_away_reads_all_ones_and_answers_again_when_it_is_back(
    tree: Path,
) -> None:
    config = tree / "0000:00:03.1" / "config"
    data = config.read_bytes()
    config.unlink()
    config.mkdir()  # opens, and cannot be read
    with host(tree) as (_, bus):
        assert bus.read(DEVICE, 0, 4) == 0xFFFFFFFF
        config.rmdir()
        config.write_bytes(data)
        assert bus.read(DEVICE, 0, 4) == int.from_bytes(data[:4], "little")


def test_everything_but_a_read_is_refused_and_changes_nothing(tree: Path) -> None:
    before = (tree / "0000:00:03.1" / "config").read_bytes()
    with host(tree) as (_, bus):
        for refused in (
            lambda: bus.write(DEVICE, LINE, 1, 0xFF),
            lambda: bus.enable_msi(DEVICE),
            lambda: bus.enable_msix(DEVICE, [0]),
            lambda: bus.disable_msi(DEVICE),
            lambda: bus.disable_msix(DEVICE),
        ):
            with pytest.raises(AccessDenied, match="only read"):
                refused()
        with pytest.raises(NotImplementedOperation):
            bus.aer_listen()
        with pytest.raises(InvalidOffset):
            bus.read(DEVICE, 3, 4)
    assert (tree / "0000:00:03.1" / "config").read_bytes() == before
    assert HostBus().is_idempotent((p.CONF_READ, 0, 0, 0, 0, 0))
    assert not HostBus().is_idempotent((p.CONF_WRITE, 0, 0, 0, 0, 0))


def test_nobody_notices_that_the_back_end_died(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with host(tree, "process") as (machine, bus):
        before = bus.read(DEVICE, 0, 4)
        kill(machine)
        assert bus.read(DEVICE, 0, 4) == before
        assert [record for record in caplog.records if record.name == "examples.pci"] == []


@pytest.mark.parametrize("path", ["", "missing"])
def test_a_host_without_devices_is_an_error_at_the_start(tmp_path: Path, path: str) -> None:
    with Machine() as machine, pytest.raises(DomainStartError) as caught:
        machine.start("pci", HostBus, str(tmp_path / path), placement="thread")
    assert caught.value.error == "NoDevices"


@on_a_host_with_devices
def test_the_hosts_own_devices_are_found() -> None:
    with host(SYSFS, "process") as (_, bus):
        found = bus.scan()
        # A function 0 that is hidden hides its others from whoever enumerates.
        assert {p.slot_name(each.sbdf) for each in found} <= set(HOST)
        assert found
        for each in found:
            folder = Path(SYSFS, p.slot_name(each.sbdf))
            assert each.vendor == int((folder / "vendor").read_text(), 16)
            assert each.device == int((folder / "device").read_text(), 16)
            assert each.kind == int((folder / "class").read_text(), 16)
            assert all(bar.size is None for bar in bus.bars(each.sbdf))


@on_a_host_with_devices
def test_who_is_not_root_reads_the_header_and_is_told_about_the_rest() -> None:
    need("setpriv", "util-linux")
    less = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    dumped = command("dump", "--host", prefix=less)
    assert (dumped.returncode, dumped.stderr) == (0, "")
    for block in dumped.stdout.strip().split("\n\n"):
        assert [line[:3] for line in block.splitlines()[1:]] == ["00:", "10:", "20:", "30:"]
    refused = command("read", HOST[0], "0x40", "--host", prefix=less)
    assert refused.returncode == 2
    assert refused.stderr == "examples.pci: who is not root reads 64 bytes of each device\n"
    assert "capabilities: access denied" in command("list", "--host", prefix=less).stdout
