"""The back end of the host's own devices: configuration space as the kernel shows it, to read.

Reads the ``config`` files under /sys/bus/pci/devices; no device is ever written to, so everything
but a read is refused (`AccessDenied`, and `NotImplementedOperation` where a host has nothing of the
kind). The state is the hardware's and not this process's: an incarnation is like another one (0).

Files are opened at the first access and kept. A device that goes away answers no more
(`DeviceNotFound`), and is looked for again at the next access. Who is not root may read 64 bytes of
each, for a longer read the kernel says end of file: `AccessDenied`, not all ones, which would look
like a device's answer. Behind the end of the file there really is nothing: all ones.

Source: linux Documentation/PCI/sysfs-pci.rst.
"""

from __future__ import annotations

import os
import re

from examples.pci import protocol as p
from examples.pci.emulated import SPIN
from examples.pci.errors import (
    SUCCESS,
    AccessDenied,
    DeviceNotFound,
    NotImplementedOperation,
    PciError,
)
from examples.pci.space import check_access
from transport import BackEnd, Request

SYSFS = "/sys/bus/pci/devices"
_SLOT = re.compile(r"([0-9a-f]{4,}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")
_REFUSED = frozenset({p.CONF_WRITE, p.ENABLE_MSI, p.DISABLE_MSI, p.ENABLE_MSIX, p.DISABLE_MSIX})


class NoDevices(Exception):
    """The host shows no PCI devices; the text says where they were looked for."""


class HostBus(BackEnd):
    """Serves what is under ``path``, and raises `NoDevices` when there is nothing."""

    def on_start(self, path: str = SYSFS) -> None:
        self._path = path
        self._files: dict[int, tuple[int, int]] = {}  # sbdf -> descriptor, size
        if not self._roots():
            raise NoDevices(f"there are no PCI devices in {path}")

    def on_stop(self) -> None:
        for sbdf in list(self._files):
            self._close(sbdf)

    spin = SPIN

    def is_idempotent(self, body: p.Body) -> bool:
        """Whether a request may be executed again after a crash of the back end."""
        return p.is_idempotent(body)

    def on_request(self, request: Request) -> p.Answer:
        operation, _incarnation, sbdf, offset, size, _value = request.body
        try:
            if operation == p.CONF_READ:
                return SUCCESS, self._read(sbdf, offset, size)
            if operation == p.ROOTS:
                return SUCCESS, (0, self._roots())
            if operation in _REFUSED:
                raise AccessDenied("the host's devices are only read")
            raise NotImplementedOperation(f"operation {operation!r:.80}")
        except PciError as error:
            return p.refusal(error)

    def _roots(self) -> tuple[tuple[int, int], ...]:
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return ()
        found = (_SLOT.fullmatch(name) for name in names)
        return tuple(sorted({(int(slot[1], 16), int(slot[2], 16)) for slot in found if slot}))

    def _read(self, sbdf: int, offset: int, size: int) -> int:
        check_access(offset, size)
        descriptor, length = self._files.get(sbdf) or self._open(sbdf)
        if offset >= length:
            return p.all_ones(size)
        try:
            data = os.pread(descriptor, size, offset)
        except OSError as error:
            self._close(sbdf)
            raise DeviceNotFound(f"{p.slot_name(sbdf)}: {error}") from error
        if len(data) < size:
            raise AccessDenied("who is not root reads 64 bytes of each device")
        return int.from_bytes(data, "little")

    def _open(self, sbdf: int) -> tuple[int, int]:
        name = p.slot_name(sbdf)
        try:
            descriptor = os.open(f"{self._path}/{name}/config", os.O_RDONLY | os.O_CLOEXEC)
        except PermissionError as error:
            raise AccessDenied(f"{name}: {error}") from error
        except OSError as error:
            raise DeviceNotFound(f"nothing answers at {name}") from error
        self._files[sbdf] = descriptor, os.fstat(descriptor).st_size
        return self._files[sbdf]

    def _close(self, sbdf: int) -> None:
        os.close(self._files.pop(sbdf)[0])
