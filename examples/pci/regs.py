"""Numbers and names of configuration space: PCI Local Bus 3.0, PCIe 3.0 (linux/pci_regs.h).

Facts only; who needs a layout that one place alone uses has it there.
"""

from __future__ import annotations

from typing import Final

CONVENTIONAL_SIZE: Final = 0x100  # bytes of a function's space without and with PCIe
EXTENDED_SIZE: Final = 0x1000

VENDOR_ID: Final = 0x00
COMMAND: Final = 0x04
STATUS: Final = 0x06
CLASS_REVISION: Final = 0x08
HEADER_TYPE: Final = 0x0E
BAR_0: Final = 0x10
SECONDARY_BUS: Final = 0x19  # of a bridge
CAPABILITY_LIST: Final = 0x34

NO_VENDOR: Final = 0xFFFF
COMMAND_IO: Final = 1 << 0
COMMAND_MEMORY: Final = 1 << 1
STATUS_CAPABILITIES: Final = 1 << 4
MULTI_FUNCTION: Final = 1 << 7  # in HEADER_TYPE
HEADER_NORMAL, HEADER_BRIDGE = 0, 1
BARS: Final = {HEADER_NORMAL: 6, HEADER_BRIDGE: 2}

BAR_IO: Final = 1 << 0
BAR_64: Final = 2 << 1
BAR_TYPE: Final = 3 << 1
BAR_PREFETCH: Final = 1 << 3
BAR_IO_FLAGS: Final = 0x3
BAR_MEMORY_FLAGS: Final = 0xF

CAP_PM: Final = 0x01
CAP_MSI: Final = 0x05
CAP_VENDOR: Final = 0x09
CAP_EXPRESS: Final = 0x10
CAP_MSIX: Final = 0x11
EXT_CAP_AER: Final = 0x0001

CAPABILITY_NAMES: Final = {
    CAP_PM: "Power Management",
    CAP_MSI: "MSI",
    CAP_VENDOR: "Vendor Specific Information",
    CAP_EXPRESS: "Express",
    CAP_MSIX: "MSI-X",
}
EXTENDED_NAMES: Final = {EXT_CAP_AER: "Advanced Error Reporting"}

CLASS_NAMES: Final = {
    0x0106: "SATA controller",
    0x0108: "Non-Volatile memory controller",
    0x0200: "Ethernet controller",
    0x0600: "Host bridge",
    0x0604: "PCI bridge",
}
