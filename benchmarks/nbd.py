"""NBD as fio sees it: this server beside qemu-nbd and nbdkit, on the same image on tmpfs.

The others are started by socket activation: the socket listens before they run, so that nobody
has to wait for them to be ready. Ours says on its output when it serves. Those that are not
installed are named and left out.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.effort import Effort
from benchmarks.report import Aim, aim_cells, interleave, median, progress, table

SIZE = 256 << 20
PLUGIN = Path(__file__).parent / "nbdkit_plugin.py"
PATTERNS = {
    "4 KiB random read, depth 1": ("randread", "4k", 1),
    "4 KiB random read, depth 32": ("randread", "4k", 32),
    "4 KiB random write, depth 1": ("randwrite", "4k", 1),
    "4 KiB random write, depth 32": ("randwrite", "4k", 32),
    "1 MiB sequential read, depth 4": ("read", "1m", 4),
    "1 MiB sequential write, depth 4": ("write", "1m", 4),
}
OURS = "xenidc"
AIMS = {
    "4 KiB random read, depth 32": (Aim.at_least(1.0, "nbdkit python"),),
    "1 MiB sequential read, depth 4": (Aim.at_least(0.9, "nbdkit file"),),
    "1 MiB sequential write, depth 4": (Aim.at_least(0.9, "nbdkit file"),),
}

_PATIENCE = 30.0  # seconds beyond its time after which fio is given up


def run(effort: Effort) -> None:
    """Measure and print; says so if fio is not there."""
    if shutil.which("fio") is None:
        print("\nNBD: fio is not installed (Debian package fio); not measured")
        return
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="xenidc-bench-")))
        image = stack.enter_context(_image())
        commands = _commands(image)
        sockets = {OURS: stack.enter_context(_ours(image, folder / "xenidc.sock"))}
        for name, command in commands.items():
            path = folder / f"{name.replace(' ', '-')}.sock"
            sockets[name] = stack.enter_context(_activated(command, path))
        rows = []
        patterns = list(PATTERNS.items())[: effort.count(len(PATTERNS))]
        for title, (kind, block, depth) in patterns:
            progress(f"NBD: {title}")
            measured = interleave(
                {
                    name: _fio(path, kind, block, depth, effort.seconds)
                    for name, path in sockets.items()
                },
                effort.rounds,
            )
            medians = {name: median(rates) for name, rates in measured.items()}
            cells = (_cell(rate, medians[OURS], block) for rate in medians.values())
            aims = aim_cells(AIMS.get(title, ()), medians[OURS], medians)
            rows.append((title, *cells, *aims))
    head = ("", *sockets, "aim", "met")
    table("NBD by fio (x: ours against it; above 1 is faster)", head, rows)


def _cell(rate: float, ours: float, block: str) -> str:
    text = f"{rate / 1e3:.1f} k/s" if block == "4k" else f"{rate * (1 << 20) / 1e9:.2f} GB/s"
    return text if rate == ours else f"{text} (x {ours / rate:.2f})"


def _commands(image: str) -> dict[str, list[str]]:
    """How to start the others that are installed."""
    found = {}
    if qemu := shutil.which("qemu-nbd"):
        found["qemu-nbd"] = [qemu, "--persistent", "--shared=0", "--format=raw", image]
    if nbdkit := shutil.which("nbdkit"):
        found["nbdkit file"] = [nbdkit, "--foreground", "file", image]
        asked = [nbdkit, "python", "--version"]
        if subprocess.run(asked, capture_output=True, check=False).returncode == 0:
            found["nbdkit python"] = [
                *(nbdkit, "--foreground", "python", str(PLUGIN), f"image={image}")
            ]
    for name, package in {
        "qemu-nbd": "qemu-utils",
        "nbdkit file": "nbdkit",
        "nbdkit python": "nbdkit-plugin-python",
    }.items():
        if name not in found:
            print(f"{name} is not installed (Debian package {package}); left out")
    return found


@contextmanager
def _image() -> Iterator[str]:
    """An image in memory."""
    with tempfile.NamedTemporaryFile(prefix="xenidc-bench-", dir="/dev/shm") as image:
        piece = os.urandom(1 << 20)
        for _ in range(SIZE >> 20):
            image.write(piece)
        image.flush()
        yield image.name


@contextmanager
def _ours(image: str, path: Path) -> Iterator[Path]:
    command = [sys.executable, "-m", "examples.block", "serve", image, "--socket", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            if not process.stdout.readline().startswith("serving"):
                raise RuntimeError("our own server did not start")
            yield path
        finally:
            process.terminate()


@contextmanager
def _activated(command: list[str], path: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        # Descriptor 3 and the process's own pid, as systemd would hand them over.
        script = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); "
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); "
            "os.execv(sys.argv[2], sys.argv[2:])"
        )
        with subprocess.Popen(
            [sys.executable, "-S", "-c", script, str(listener.fileno()), *command],
            pass_fds=[listener.fileno()],
        ) as process:
            listener.close()  # with that process's own it is refused, and not left waiting
            try:
                yield path
            finally:
                process.terminate()


def _fio(path: Path, kind: str, block: str, depth: int, seconds: float) -> Callable[[], float]:
    """Requests per second of one fio run."""
    command = [
        *("fio", "--name=bench", "--ioengine=nbd", f"--uri=nbd+unix:///?socket={path}"),
        *(f"--rw={kind}", f"--bs={block}", f"--iodepth={depth}", f"--size={SIZE}"),
        *("--time_based", f"--runtime={seconds}", "--output-format=json", "--randrepeat=0"),
    ]

    def measure() -> float:
        run = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            cwd=path.parent,
            timeout=seconds + _PATIENCE,
        )
        job = json.loads(run.stdout[run.stdout.index("{") :])["jobs"][0]
        return float(job["read" if "read" in kind else "write"]["iops"])

    return measure
