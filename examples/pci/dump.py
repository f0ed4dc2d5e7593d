"""Configuration space as text that ``lspci -F`` reads: its own ``-xxxx`` format.

Pure but for the accesses. A function is a line with its address, and 16 bytes a line in
hexadecimal; what the back end lets nobody read is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from examples.pci import regs
from examples.pci.errors import AccessDenied
from examples.pci.protocol import slot_name
from examples.pci.scan import Config, Found, size_of_space

_HEADER = 64  # bytes, which everybody may read


def describe(function: Found) -> str:
    """One line about a function, as lspci -n has it."""
    name = regs.CLASS_NAMES.get(function.kind >> 8, "Device")
    return (
        f"{slot_name(function.sbdf)} {name} [{function.kind >> 8:04x}]:"
        f" {function.vendor:04x}:{function.device:04x} (rev {function.revision:02x})"
    )


def dump(config: Config, functions: Iterable[Found]) -> Iterator[str]:
    """The lines, without their ends."""
    for function in functions:
        yield describe(function)
        yield from _bytes(config, function.sbdf)
        yield ""


def _bytes(config: Config, sbdf: int) -> Iterator[str]:
    try:
        yield from _rows(config, sbdf, range(0, _HEADER, 16))
        yield from _rows(config, sbdf, range(_HEADER, size_of_space(config, sbdf), 16))
    except AccessDenied:
        return


def _rows(config: Config, sbdf: int, places: range) -> Iterator[str]:
    for at in places:
        words = (config.read(sbdf, at + word, 4) for word in range(0, 16, 4))
        row = b"".join(word.to_bytes(4, "little") for word in words)
        yield f"{at:02x}: {row.hex(' ')}"
