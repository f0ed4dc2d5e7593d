"""Viewers that we did not write: what they have of the screen is the screen, pixel by pixel.

vncsnapshot writes JPEG alone, so there it is almost the screen. Each is skipped where it is not
installed, and says how to change that.
"""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from tests.framebuffer.decoding import HEXTILE, RAW, ZRLE, Grid
from tests.framebuffer.helpers import HEIGHT, WIDTH, Shown, drawn, shown

PACKAGES = {
    "vncsnapshot": "vncsnapshot",
    "gvnccapture": "gvncviewer",
    "xtigervncviewer": "tigervnc-viewer",
    "Xvfb": "xvfb",
}
VNCDO = """
import sys
from vncdotool import client, command, rfb
client.VNCDoToolClient.encoding = rfb.Encoding(int(sys.argv.pop(1)))
command.vncdo()
"""
ASYNCVNC = """
import asyncio, sys
import asyncvnc, numpy
async def capture(port, path):
    async with asyncvnc.connect("127.0.0.1", port) as client:
        numpy.save(path, await client.screenshot())
asyncio.run(capture(int(sys.argv[1]), sys.argv[2]))
"""


def need(*programs: str) -> None:
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: apt-get install {PACKAGES[program]}")


def need_module(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install {name}")


def run(*command: str | Path) -> None:
    """Run a program to its end; it must succeed."""
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 0, f"{command} ended with {result.returncode}:\n{result.stdout}"


def python(script: str, *arguments: str | Path) -> None:
    """Run a script with this interpreter, and what it can import."""
    run(sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{script}", *arguments)


def png(path: Path) -> Grid:
    """The pixels of a PNG file of 8 bits for each of red, green, blue (and alpha): 0xRRGGBB."""
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, packed, header = 8, b"", b""
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        chunk = data[at + 8 : at + 8 + length]
        header = chunk if kind == b"IHDR" else header
        packed += chunk if kind == b"IDAT" else b""
        at += length + 12
    width, height, depth, colours, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    assert (depth, interlaced) == (8, 0)
    size = {2: 3, 6: 4}[colours]
    rows = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * size)
    out = np.zeros((height + 1, width + 1, size), dtype=np.int64)
    for y in range(height):
        how, row = int(rows[y, 0]), rows[y, 1:].reshape(width, size).astype(np.int64)
        up = out[y, 1:]
        if how in (0, 2):
            out[y + 1, 1:] = row + (up if how == 2 else 0) & 0xFF
        else:
            for x in range(width):
                left, above, corner = out[y + 1, x], out[y, x + 1], out[y, x]
                guess = left if how == 1 else (left + above) // 2
                if how == 4:
                    p = left + above - corner
                    a, b, c = abs(p - left), abs(p - above), abs(p - corner)
                    guess = np.where((a <= b) & (a <= c), left, np.where(b <= c, above, corner))
                out[y + 1, x + 1] = row[x] + guess & 0xFF
    rgb = out[1:, 1:, :3].astype(np.uint32)
    return (rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]).astype(np.uint32)


@pytest.fixture
def screen() -> Iterator[Shown]:
    with shown() as screen:
        yield screen


@pytest.mark.parametrize("encoding", [RAW, HEXTILE, ZRLE])
def test_vncdotool(screen: Shown, encoding: int, tmp_path: Path) -> None:
    need_module("vncdotool")
    where = f"127.0.0.1::{screen.port}"
    path = tmp_path / "screen.png"
    python(VNCDO, str(encoding), "-s", where, "--nocursor", "capture", path)
    assert np.array_equal(png(path), drawn())


def test_vncdotool_types_and_sees_what_that_does(screen: Shown, tmp_path: Path) -> None:
    need_module("vncdotool")
    where = f"127.0.0.1::{screen.port}"
    python(VNCDO, "16", "-s", where, "key", "1", "key", "2")
    with screen.viewer() as viewer:
        viewer.until(drawn("12"))
    python(VNCDO, "5", "-s", where, "--nocursor", "capture", tmp_path / "screen.png")
    assert np.array_equal(png(tmp_path / "screen.png"), drawn("12"))


@pytest.mark.parametrize("password", ["secret", "longer than eight"])
def test_vncdotool_with_a_password(password: str, tmp_path: Path) -> None:
    need_module("vncdotool")
    with shown(password=password.encode()) as screen:
        where = f"127.0.0.1::{screen.port}"
        path = tmp_path / "screen.png"
        python(VNCDO, "16", "-s", where, "-p", password, "--nocursor", "capture", path)
        assert np.array_equal(png(path), drawn())


def test_asyncvnc(screen: Shown, tmp_path: Path) -> None:
    """It knows Raw and Zlib."""
    need_module("asyncvnc")
    path = tmp_path / "screen.npy"
    python(ASYNCVNC, str(screen.port), path)
    rgb = np.load(path)[..., :3].astype(np.uint32)
    assert np.array_equal(rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2], drawn())


def test_gvnccapture(screen: Shown, tmp_path: Path) -> None:
    need("gvnccapture")
    path = tmp_path / "screen.png"
    run("gvnccapture", "-q", f"127.0.0.1:{display_of(screen)}", path)
    assert np.array_equal(png(path), drawn())


@pytest.mark.parametrize("encoding", ["raw", "hextile", "zlib", "tight"])
def test_vncsnapshot(screen: Shown, encoding: str, tmp_path: Path) -> None:
    need("vncsnapshot")
    pytest.importorskip("PIL", reason="Pillow is not installed: pip install pillow")
    from PIL import Image

    path = tmp_path / "screen.jpg"
    where = f"127.0.0.1:{display_of(screen)}"
    run("vncsnapshot", "-quiet", "-nocursor", "-encodings", encoding, "-nojpeg", where, path)
    expected = drawn()
    rgb = np.stack([expected >> shift & 0xFF for shift in (16, 8, 0)], axis=2).astype(np.int64)
    with Image.open(path) as picture:
        off = abs(np.asarray(picture).astype(np.int64) - rgb)
    assert off.max() <= 4, "JPEG of the best quality is not that far off"


def display_of(screen: Shown) -> int:
    """Ports as these two know them: beyond 99 they take it for a port, below it is from 5900 on."""
    return screen.port - 5900


@pytest.fixture(scope="module")
def x_screen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An X server without a monitor: its name, and the file that its pixels are in."""
    need("Xvfb", "xtigervncviewer")
    folder = tmp_path_factory.mktemp("xvfb")
    with subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-fbdir", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdout is not None
        try:
            yield f":{server.stdout.readline().strip()}", folder / "Xvfb_screen0"
        finally:
            server.terminate()


def xwd(path: Path) -> npt.NDArray[np.uint32]:
    """The pixels of an X window dump of 32 bits per pixel."""
    data = path.read_bytes()
    head = struct.unpack_from(">25I", data)
    size, width, height, stride, colours = head[0], head[4], head[5], head[12], head[19]
    rows = np.frombuffer(data, "<u4", stride // 4 * height, size + 12 * colours)
    return (rows.reshape(height, stride // 4)[:, :width] & 0xFFFFFF).astype(np.uint32)


@pytest.mark.parametrize("encoding", ["Raw", "Hextile", "ZRLE", "Tight"])
def test_tigervnc(screen: Shown, encoding: str, x_screen: tuple[str, Path], tmp_path: Path) -> None:
    """The picture, and what happens to it, somewhere on the viewer's own screen."""
    name, dump = x_screen
    command = ["xtigervncviewer", "-display", name, "-AutoSelect=0", "-NoJPEG=1", "-FullColor=1"]
    command += ["-PreferredEncoding", encoding, "-AlertOnFatalError=0", "-RemoteResize=0"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen([*command, f"127.0.0.1::{screen.port}"], stdout=log, stderr=log) as viewer,
    ):
        try:
            for keys in ("", "1", "12"):
                with screen.viewer() as ours:
                    ours.press(keys[-1:])
                    ours.until(drawn(keys))
                until_it_shows(viewer, dump, drawn(keys))
        finally:
            viewer.terminate()


def until_it_shows(viewer: subprocess.Popen[bytes], dump: Path, expected: Grid) -> None:
    """Look at the X server's pixels, which nothing announces, until the picture is among them.

    The window's place is its own business, so the picture's left upper corner is looked for.
    """
    while not any(
        np.array_equal(pixels[y : y + HEIGHT, x : x + WIDTH], expected)
        for pixels in [xwd(dump)]
        for y, x in np.argwhere(pixels[:-HEIGHT, :-WIDTH] == expected[0, 0])
        if pixels[y, x + 1] == expected[0, 1] and pixels[y + 1, x] == expected[1, 0]
    ):
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"the viewer has ended: {viewer.wait(0.05)}")
