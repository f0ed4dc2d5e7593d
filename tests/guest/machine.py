"""A Linux machine under QEMU (software emulation) that a test or a benchmark gives commands.

Owns the QEMU process: it ends with the `with` block. Commands go to the guest's shell by a serial
line (image.py). What the guest says, and that it ends, is waited for with a deadline of `PATIENCE`
seconds of silence, which is only there for a guest that hangs.

The host's 127.0.0.1 is `HOST` in the guest.
"""

from __future__ import annotations

import re
import select
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from tests.guest import image
from tests.guest.packages import program, unpacked

HOST = "10.0.2.2"
PATIENCE = 60.0  # seconds

_STATUS = re.compile(rb"(.*)\x01(\d+)\n", re.DOTALL)


class GuestFailed(Exception):
    """The guest has ended, hangs, or a command in it failed."""


class Linux:
    """A guest with files in ``directory``.

    Args:
        devices: more of QEMU's command line.
        modules, files: see `image.build`.

    Raises:
        Missing: what is needed for it is not here.
    """

    def __init__(
        self,
        directory: Path,
        *devices: str,
        modules: Iterable[str] = (),
        files: Iterable[tuple[str, Path]] = (),
    ) -> None:
        root = unpacked()
        initramfs = directory / "initramfs"
        initramfs.write_bytes(image.build(root, modules, files))
        self._log = directory / "console"
        self._heard = b""
        self._process = subprocess.Popen(
            [
                *(program("qemu-system-x86_64"), "-nodefaults", "-display", "none", "-no-reboot"),
                *("-kernel", str(image.kernel_of(root)), "-initrd", str(initramfs)),
                *("-append", "console=ttyS1 panic=-1", "-m", "512"),
                *("-serial", "stdio", "-serial", f"file:{self._log}"),
                *("-netdev", "user,id=net", "-device", "e1000,netdev=net,romfile="),
                *devices,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            booted = list(self._answer("boot"))
            if image.READY not in booted:
                raise GuestFailed(f"it did not boot: {booted}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it, without a shutdown. Idempotent."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def run(self, command: str) -> str:
        """What a command of the shell prints.

        Raises:
            GuestFailed: its status is not 0.
        """
        return "\n".join(self.lines(command))

    def lines(self, command: str) -> Iterator[str]:
        """The same line by line, as they come; all of them must be taken."""
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self._answer(command)

    @property
    def log(self) -> str:
        """What the guest's kernel has said."""
        return self._log.read_text(errors="replace")

    def _answer(self, command: str) -> Iterator[str]:
        heard = []
        while True:
            line = self._line(command)
            status = _STATUS.fullmatch(line)
            shown = (line if status is None else status[1]).rstrip(b"\r\n").decode(errors="replace")
            if shown or status is None:
                heard.append(shown)
                yield shown
            if status is not None:
                if status[2] != b"0":
                    raise self._failure(f"{command!r} ended with {int(status[2])}: {heard}")
                return

    def _line(self, command: str) -> bytes:
        assert self._process.stdout is not None
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        while b"\n" not in self._heard:
            if not poller.poll(PATIENCE * 1000):
                raise self._failure(f"{command!r}: silent for {PATIENCE:g} s")
            piece = self._process.stdout.read1(65536)  # type: ignore[attr-defined]
            if not piece:
                raise self._failure(f"{command!r}: the guest has ended")
            self._heard += piece
        line, _, self._heard = self._heard.partition(b"\n")
        return line + b"\n"

    def _failure(self, text: str) -> GuestFailed:
        last = "\n".join(self.log.splitlines()[-30:])
        return GuestFailed(f"{text}\nThe kernel's last words:\n{last}")
