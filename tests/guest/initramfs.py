"""The guest's file system: an archive in memory that the kernel unpacks before its first program.

Pure but for reading the files that go into it. Format: Linux, buffer-format.rst ("newc" cpio).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Archive:
    """A cpio archive; directories come by themselves."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._names: set[str] = set()

    def directory(self, name: str) -> None:
        """Add a directory and those above it; nothing if it is there."""
        if name and name not in self._names:
            self.directory(os.path.dirname(name))
            self._entry(name, stat.S_IFDIR | 0o755)

    def file(self, name: str, content: bytes | Path) -> None:
        """Add an executable file of these bytes, or of another file's; nothing if it is there."""
        if name not in self._names:
            self.directory(os.path.dirname(name))
            data = content.read_bytes() if isinstance(content, Path) else content
            self._entry(name, stat.S_IFREG | 0o755, data)

    def link(self, name: str, target: str) -> None:
        """Add a symbolic link."""
        self.directory(os.path.dirname(name))
        self._entry(name, stat.S_IFLNK | 0o777, target.encode())

    def device(self, name: str, major: int, minor: int) -> None:
        """Add a character device."""
        self.directory(os.path.dirname(name))
        self._entry(name, stat.S_IFCHR | 0o600, device=(major, minor))

    def pack(self) -> bytes:
        """The whole archive."""
        self._entry("TRAILER!!!", 0)
        return bytes(self._data)

    def _entry(
        self, name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)
    ) -> None:
        self._names.add(name)
        encoded = name.encode() + b"\0"
        inode = len(self._names)
        fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        head = b"070701" + b"".join(b"%08x" % field for field in fields)
        for part in (head + encoded, data):
            self._data += part
            self._data += bytes(-len(self._data) % 4)
