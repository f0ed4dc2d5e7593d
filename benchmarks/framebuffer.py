"""Full-screen updates of a 1280x720 test card for each encoding, and what they cost when idle.

The display and the drawer are processes. The viewer here asks for the whole screen again and again,
and finds the end of each update without decoding pixels. Where x11vnc, Xvfb and TigerVNC's viewer
are installed, x11vnc shows the same picture, the one that the viewer has put on Xvfb's screen.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

from actors import Fd
from benchmarks.effort import Effort
from benchmarks.report import Aim, aim_cells, interleave, median, progress, table
from examples.framebuffer import rfb
from examples.framebuffer.card import TestCard
from examples.framebuffer.display import Display
from hypervisor import Machine

SIZE = (1280, 720)
IDLE_SECONDS = 3.0  # for each of the effort's
IDLE_AIM = Aim("none", 0)
ENCODINGS = {
    "Raw": rfb.RAW,
    "Hextile": rfb.HEXTILE,
    "Zlib": rfb.ZLIB,
    "Tight": rfb.TIGHT,
    "ZRLE": rfb.ZRLE,
}


def run(effort: Effort) -> None:
    """Measure and print."""
    progress("framebuffer")
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        machine = stack.enter_context(Machine())
        with contextlib.closing(Fd(os.dup(listener.fileno()))) as shared:
            machine.start("display", Display, shared, None, "card", *SIZE)
        machine.start("card", TestCard, *SIZE, 32, 0)
        ports = {"ours": listener.getsockname()[1]}
        other = stack.enter_context(_x11vnc(ports["ours"]))
        if other is not None:
            ports["x11vnc"] = other
        viewers = {
            (server, name): stack.enter_context(_Viewer(port, encoding))
            for server, port in ports.items()
            for name, encoding in ENCODINGS.items()
        }
        contestants: dict[str, Callable[[], float]] = {
            f"{server} {name}": partial(viewer.rate, effort.seconds)
            for (server, name), viewer in viewers.items()
        }
        measured = interleave(contestants, effort.rounds)
        rows = []
        for name in ENCODINGS:
            cells = [f"{median(measured[f'{server} {name}']):.1f}/s" for server in ports]
            size = viewers["ours", name].last / 1024
            rows.append([name, *cells, f"{size:.0f} KiB"])
        table(f"full-screen updates of {SIZE[0]}x{SIZE[1]}", ("", *ports, "ours, of each"), rows)
        for viewer in viewers.values():
            viewer.ask(incremental=True)
        pids = {name: machine.pid(name) for name in ("display", "card")}
        before = {name: _ticks(pid) for name, pid in pids.items()}
        seconds = IDLE_SECONDS * effort.seconds
        time.sleep(seconds)
        idle = []
        for name, pid in pids.items():
            used = _ticks(pid) - before[name]
            of = seconds * os.sysconf("SC_CLK_TCK")
            idle.append((name, f"{used} of {of:.0f}", *aim_cells((IDLE_AIM,), used, {})))
        title = f"CPU with nothing changing, {len(viewers)} viewers waiting"
        table(title, ("", "ticks", "aim", "met"), idle)


class _Viewer:
    """Asks for all of the screen, and skips what comes."""

    def __init__(self, port: int, encoding: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.file = self.socket.makefile("rb", 1 << 20)
        self._encoding = encoding
        self.last = 0  # bytes of the last update
        self._read(12)
        self.socket.sendall(b"RFB 003.008\n\1\1")
        self._read(self._read(1)[0] + 4)  # security types, result
        self._width, self._height, _, length = rfb.SERVER_INIT.unpack(self._read(24))
        self._read(length)
        self.socket.sendall(b"\0\0\0\0" + rfb.PIXEL_FORMAT.pack(32, 24, 0, 1, *[255] * 3, 16, 8, 0))
        self.socket.sendall(struct.pack(">BxHi", rfb.SET_ENCODINGS, 1, encoding))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def rate(self, seconds: float) -> float:
        """Updates per second, for about so long."""
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            self.ask(incremental=False)
            self._skip_update()
            count += 1
        return count / (time.perf_counter() - began)

    def ask(self, *, incremental: bool) -> None:
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self._width, self._height))

    def _read(self, count: int) -> bytes:
        data: bytes = self.file.read(count)
        self.last += count
        if len(data) < count:
            raise ConnectionError("the server has closed the connection")
        return data

    def _skip_update(self) -> None:
        while (kind := self._read(1)[0]) != 0:
            assert kind == 3, f"message {kind}"  # ServerCutText: x11vnc has a clipboard
            self._read(*rfb.LENGTH.unpack(self._read(7)[3:]))
        self.last = 0
        for _ in range(int.from_bytes(self._read(3)[1:], "big")):
            _, _, width, height, encoding = rfb.RECTANGLE.unpack(self._read(12))
            if encoding == rfb.RAW:
                self._read(width * height * 4)
            elif encoding == rfb.HEXTILE:
                self._skip_hextile(width, height)
            elif encoding == rfb.TIGHT:
                self._skip_tight(width, height)
            else:
                self._read(*rfb.LENGTH.unpack(self._read(4)))

    def _skip_hextile(self, width: int, height: int) -> None:
        for y in range(0, height, 16):
            for x in range(0, width, 16):
                mask = self._read(1)[0]
                if mask & 1:
                    self._read(4 * min(16, width - x) * min(16, height - y))
                    continue
                self._read(4 * (mask >> 1 & 1) + 4 * (mask >> 2 & 1))
                if mask & 8:
                    self._read(self._read(1)[0] * (6 if mask & 16 else 2))

    def _skip_tight(self, width: int, height: int) -> None:
        control = self._read(1)[0]
        if control >> 4 == 8:
            self._read(3)
            return
        bits = 24
        if control & 0x40 and self._read(1)[0] == 1:
            colours = self._read(1)[0] + 1
            self._read(3 * colours)
            bits = 1 if colours == 2 else 8
        length = (width * bits + 7) // 8 * height
        if length >= 12:
            length = shift = 0
            for shift in (0, 7, 14):
                byte = self._read(1)[0]
                length |= (byte if shift == 14 else byte & 0x7F) << shift
                if not byte & 0x80:
                    break
        self._read(length)


@contextlib.contextmanager
def _x11vnc(ours: int) -> Iterator[int | None]:
    """x11vnc's port, with our picture on the screen that it shows; None if it is not installed."""
    if not all(map(shutil.which, ("Xvfb", "xtigervncviewer", "x11vnc"))):
        yield None
        return
    quiet = partial(
        subprocess.Popen, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True
    )
    screen = f"{SIZE[0]}x{SIZE[1]}x24"
    with contextlib.ExitStack() as stack:

        def start(*command: str) -> subprocess.Popen[str]:
            return stack.enter_context(quiet(command, stdout=subprocess.PIPE))

        server = start("Xvfb", "-displayfd", "1", "-screen", "0", screen, "-nolisten", "tcp")
        try:
            assert server.stdout is not None
            display = f":{server.stdout.readline().strip()}"
            start("xtigervncviewer", "-display", display, "-RemoteResize=0", f"127.0.0.1::{ours}")
            time.sleep(2)  # it has no way to say that its window is there
            other = start(
                *("x11vnc", "-display", display, "-localhost", "-forever", "-shared", "-quiet"),
                *("-nocursor", "-autoport", "5990", "-wait", "1", "-defer", "1"),
            )
            assert other.stdout is not None
            port = next(line for line in other.stdout if line.startswith("PORT="))
            yield int(port.removeprefix("PORT="))
        finally:
            # The end of their display ends the others. Of a SIGTERM x11vnc may never come out.
            server.terminate()


def _ticks(pid: int) -> int:
    """Clock ticks of CPU that the process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
