"""The emulated bus that the back end serves: a host bridge, a network card, storage behind a port.

    00:00.0  host bridge           no capabilities, 256 bytes of configuration space
    00:01.0  Ethernet controller   integrated; 32-bit memory and I/O BARs; PM, MSI, MSI-X, PCIe, AER
    00:01.1  Ethernet controller   its second port: memory only, MSI
    00:02.0  PCI bridge            root port, bus 01 behind it
    01:00.0  NVM controller        64-bit and prefetchable 64-bit BARs; PM, MSI-X, MSI, PCIe, AER

Vendor and device numbers are those of QEMU's devices (1b36, pci-ids.rst), which no driver takes for
hardware of its own, and which lspci knows by name.
"""

from __future__ import annotations

from examples.pci import capabilities as caps
from examples.pci.bus import Bus
from examples.pci.function import Model
from examples.pci.header import Bar, Identity

_QEMU = 0x1B36
KiB, MiB, GiB = 1 << 10, 1 << 20, 1 << 30

HOST_BRIDGE = Model(Identity(_QEMU, 0x0008, 0x060000, subsystem_vendor=_QEMU, subsystem=0x1100))

NETWORK = Model(
    Identity(_QEMU, 0x0005, 0x020000, 0x03, _QEMU, 0x0001),
    bars={
        0: Bar(128 * KiB, 0xFEB8_0000),
        2: Bar(32, 0xC000, io=True),
        3: Bar(16 * KiB, 0xFEBA_0000),
    },
    capabilities=(
        caps.power_management(),
        caps.msi(vectors=4),
        caps.msix(vectors=5, bar=3, table=0, pending=0x2000),
        caps.express(caps.INTEGRATED_ENDPOINT, speed=1, width=1),
        caps.vendor(),
    ),
    aer=True,
    multi_function=True,
)

NETWORK_SECOND = Model(
    Identity(_QEMU, 0x0005, 0x020000, 0x03, _QEMU, 0x0002),
    bars={0: Bar(4 * KiB, 0xFEBB_0000)},
    capabilities=(caps.power_management(), caps.msi(vectors=1), caps.vendor()),
)

ROOT_PORT = Model(
    Identity(_QEMU, 0x000C, 0x060400),
    capabilities=(caps.power_management(), caps.express(caps.ROOT_PORT, speed=3, width=4)),
    secondary=1,
    window=(0xFE80_0000, 0xFE9F_FFFF),
)

STORAGE = Model(
    Identity(_QEMU, 0x0010, 0x010802, 0x02, _QEMU, 0x1100),
    bars={
        0: Bar(16 * KiB, 0xFE80_0000, wide=True),
        2: Bar(8 * GiB, 0x38_0000_0000, wide=True, prefetchable=True),
        5: Bar(1 * MiB, 0xFE90_0000, prefetchable=True),
    },
    capabilities=(
        caps.power_management(),
        caps.msix(vectors=33, bar=0, table=0x2000, pending=0x3000),
        caps.msi(vectors=32),
        caps.express(caps.ENDPOINT, speed=3, width=4),
        caps.vendor(),
    ),
    aer=True,
)

MODELS = {
    0x0000: HOST_BRIDGE,
    0x0008: NETWORK,
    0x0009: NETWORK_SECOND,
    0x0010: ROOT_PORT,
    0x0100: STORAGE,
}
"""Each model by the address (sbdf) at which the firmware has left it."""


def make_bus() -> Bus:
    """The bus above, after power-on."""
    on_root = {sbdf: model for sbdf, model in MODELS.items() if sbdf < 0x100}
    return Bus(on_root, {0x10: {0x00: STORAGE}})
