"""The command line, and what the real lspci makes of its dump."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from examples.pci import devices, regs
from examples.pci import protocol as p
from examples.pci.dump import dump
from examples.pci.host import SYSFS
from examples.pci.scan import FoundBar
from tests.pci.helpers import command, emulated, need

HOST = sorted(os.listdir(SYSFS)) if os.path.isdir(SYSFS) else []


@pytest.fixture(scope="module")
def decoded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What lspci -vvv says about each function of our dump, by its address."""
    need("lspci", "pciutils")
    return lspci(tmp_path_factory.mktemp("pci"), command("dump").stdout, "-vvv")


def lspci(folder: Path, dumped: str, *options: str) -> dict[str, str]:
    """The paragraphs of the real program's reading of a dump."""
    path = folder / "dump"
    path.write_text(dumped)
    said = subprocess.run(
        ["lspci", "-F", path, "-D", "-nn", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # "Unable to load libkmod resources", where there are none
        text=True,
        timeout=20,
        check=True,
    )
    paragraphs = said.stdout.strip().split("\n\n")
    return {paragraph.split()[0]: paragraph for paragraph in paragraphs}


def region(index: int, bar: FoundBar) -> str:
    """A BAR as lspci writes it; a dump has no sizes."""
    if bar.io:
        return f"Region {index}: I/O ports at {bar.base:04x} [disabled]"
    width = 64 if bar.wide else 32
    prefetch = "prefetchable" if bar.prefetchable else "non-prefetchable"
    return f"Region {index}: Memory at {bar.base:08x} ({width}-bit, {prefetch}) [disabled]"


def test_lspci_finds_every_function_with_its_numbers(decoded: dict[str, str]) -> None:
    assert list(decoded) == [p.slot_name(sbdf) for sbdf in sorted(devices.MODELS)]
    for sbdf, model in devices.MODELS.items():
        who, text = model.identity, decoded[p.slot_name(sbdf)]
        name = regs.CLASS_NAMES[who.kind >> 8]
        assert f"{name} [{who.kind >> 8:04x}]:" in text
        assert f"[{who.vendor:04x}:{who.device:04x}]" in text
        if who.subsystem:
            assert f"[{who.subsystem_vendor:04x}:{who.subsystem:04x}]" in text


def test_lspci_reads_the_bars_and_capabilities_that_we_read(decoded: dict[str, str]) -> None:
    with emulated("thread") as (_, bus):
        for sbdf in devices.MODELS:
            text = decoded[p.slot_name(sbdf)]
            listed = re.findall(
                r"Capabilities: \[(\w+)(?: v(\d))?\] ([A-Z][\w-]*(?: [A-Z]\w+)*)", text
            )
            ours = bus.capabilities(sbdf)
            assert [(int(at, 16), int(version or 0)) for at, version, _ in listed] == [
                (each.at, each.version) for each in ours
            ]
            for (_, _, theirs), each in zip(listed, ours, strict=True):
                assert theirs.startswith(each.name)
            shown = re.findall(r"Region \d: .*", text)
            # lspci -F shows the upper half of a 64-bit BAR that is not 0 as one more.
            assert [line for line in shown if "<unassigned>" not in line] == [
                region(bar.index, bar) for bar in bus.bars(sbdf)
            ]


def test_lspci_reads_what_the_capabilities_say(decoded: dict[str, str]) -> None:
    network, storage = decoded["0000:00:01.0"], decoded["0000:01:00.0"]
    for text, words in (
        (network, "MSI: Enable- Count=1/4 Maskable+ 64bit+"),
        (network, "MSI-X: Enable- Count=5 Masked-"),
        (network, "Vector table: BAR=3 offset=00000000"),
        (network, "PBA: BAR=3 offset=00002000"),
        (network, "Express (v2) Root Complex Integrated Endpoint"),
        (storage, "Express (v2) Endpoint"),
        (storage, "MSI-X: Enable- Count=33 Masked-"),
        (storage, "LnkSta:	Speed 8GT/s, Width x4"),
        (storage, "PME(D0+,D1-,D2-,D3hot+,D3cold-)"),
        (storage, "UESvrt:	DLP+ SDES+ TLP- FCP+ CmpltTO- CmpltAbrt- UnxCmplt- RxOF+ MalfTLP+"),
        (decoded["0000:00:02.0"], "Bus: primary=00, secondary=01, subordinate=01"),
        (decoded["0000:00:02.0"], "Memory behind bridge: fe800000-fe9fffff [size=2M]"),
        (decoded["0000:00:02.0"], "Express (v2) Root Port"),
    ):
        assert words in text


def test_lspci_decodes_the_state_that_the_front_end_made(tmp_path: Path) -> None:
    need("lspci", "pciutils")
    with emulated("thread") as (_, bus):
        bus.write(0x100, regs.COMMAND, 2, regs.COMMAND_MEMORY | 1 << 2)
        bus.enable_msix(0x100, [1, 2])
        bus.enable_msi(0x08, 4)
        decoded = lspci(tmp_path, "\n".join(dump(bus, bus.scan())), "-vvv")
    assert "Control: I/O- Mem+ BusMaster+" in decoded["0000:01:00.0"]
    assert "[disabled]" not in decoded["0000:01:00.0"]
    assert "MSI-X: Enable+ Count=33 Masked-" in decoded["0000:01:00.0"]
    assert "MSI: Enable+ Count=4/4 Maskable+ 64bit+" in decoded["0000:00:01.0"]


@pytest.mark.skipif(not HOST, reason="the host shows no PCI devices")
def test_lspci_reads_from_our_dump_of_the_host_what_it_reads_from_the_host(tmp_path: Path) -> None:
    need("lspci", "pciutils")
    ours = lspci(tmp_path, command("dump", "--host").stdout, "-vvv")
    straight = subprocess.run(
        ["lspci", "-D", "-xxxx"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    theirs = lspci(tmp_path, straight.stdout, "-vvv")
    assert ours == {slot: theirs[slot] for slot in ours}
    assert ours


@pytest.mark.parametrize("placement", ["thread", "process"])
def test_the_list_has_functions_bars_with_sizes_and_capabilities(placement: str) -> None:
    listed = command("list", "--placement", placement)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert listed.stdout.splitlines()[-10:] == [
        "0000:01:00.0 Non-Volatile memory controller [0108]: 1b36:0010 (rev 02)",
        "\tBAR 0: memory, 64 bits at fe800000 [size=16K]",
        "\tBAR 2: memory, 64 bits at 3800000000, prefetchable [size=8G]",
        "\tBAR 5: memory, 32 bits at fe900000, prefetchable [size=1M]",
        "\t[40] Power Management",
        "\t[48] MSI-X",
        "\t[54] MSI",
        "\t[6c] Express",
        "\t[a8] Vendor Specific Information",
        "\t[100 v2] Advanced Error Reporting",
    ]
    assert "\tBAR 2: I/O ports at c000 [size=32]" in listed.stdout


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["read", "00:01.0", "0x10"], "feb80000"),
        (["read", "0000:1:0.0", "8", "--size", "1"], "02"),
        (["read", "00:1f.7", "0", "--size", "2"], "ffff"),
        (["write", "00:01.0", "0x3c", "0x1ff", "--size", "1"], "00 -> ff"),
        (["write", "00:01.0", "0", "0", "--size", "2"], "1b36 -> 1b36"),
    ],
)
def test_a_register_is_read_and_written(arguments: list[str], output: str) -> None:
    done = command(*arguments, "--placement", "thread")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{output}\n", "")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "required"),
        (["lis"], "invalid choice"),
        (["read", "00:20.0", "0"], "is not [DOMAIN:]BUS:DEVICE.FUNCTION"),
        (["read", "00:01.0", "-1"], "argument"),
        (["read", "00:01.0", "many"], "'many' is not a number"),
        (["read", "00:01.0", "0x11"], "offset 0x11 is not aligned to 4 bytes"),
        (["read", "00:01.0", "0x1000"], "offset 0x1000 is outside of configuration space"),
        (["read", "00:01.0", "0", "--size", "3"], "invalid choice: 3"),
        (["list", "--host", "/missing"], "there are no PCI devices in /missing"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(arguments: list[str], words: str) -> None:
    done = command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert words in done.stderr


@pytest.mark.skipif(not HOST, reason="the host shows no PCI devices")
def test_a_device_of_the_host_is_not_written_to() -> None:
    done = command("write", HOST[0], "0x3c", "0", "--size", "1", "--host")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "examples.pci: the host's devices are only read\n"
