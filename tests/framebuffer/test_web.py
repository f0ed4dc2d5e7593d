"""noVNC in a browser, through websockify: what one sees on the page is the screen."""

from __future__ import annotations

import contextlib
import functools
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import examples.framebuffer
from tests.framebuffer.helpers import HEIGHT, WIDTH, drawn, shown
from tests.framebuffer.test_clients import png, run

PACKAGES = {"chromium": "apt-get install chromium", "websockify": "apt-get install websockify"}
PAGE = Path(examples.framebuffer.__file__).parent / "web" / "index.html"

FRAME = """<!doctype html>
<style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; height: {height}px }}</style>
<iframe src="/index.html?port={port}"></iframe><img src="/shown" hidden>
<script>
const sum = (data) => data.reduce((all, value, at) => at % 4 == 3 ? all : all + value, 0);
function look() {{
  const page = document.querySelector("iframe").contentDocument;
  const canvas = [...(page?.querySelectorAll("canvas") ?? [])].find((one) => one.width == {width});
  const whole = canvas?.getContext("2d").getImageData(0, 0, {width}, {height}).data;
  if (whole && sum(whole) == {sum}) fetch("/now"); else requestAnimationFrame(look);
}}
look();
</script>"""


def need_all() -> Path:
    """Where the registry's noVNC is; skips where something is not installed."""
    for program, how in PACKAGES.items():
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: {how}")
    if shutil.which("npm") is not None:
        root = subprocess.run(["npm", "root", "-g"], capture_output=True, text=True, check=True)
        package = Path(root.stdout.strip()) / "@novnc" / "novnc"
        if package.exists():
            return package
    pytest.skip("noVNC is not installed: npm install -g @novnc/novnc")


class Pages(SimpleHTTPRequestHandler):
    """The page, noVNC, and a frame around both that has loaded when the picture is shown."""

    frame: bytes
    shown: threading.Event

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/":
                self._answer(self.frame)
            case "/index.html":
                self._answer(PAGE.read_bytes())
            case "/now":
                self.shown.set()
                self._answer(b"")
            case "/shown":
                self.shown.wait(50)
                self._answer(b"")
            case _:
                super().do_GET()

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def pages(package: Path, frame: str) -> Iterator[int]:
    """Serve the pages; the port."""
    handler = type("Handler", (Pages,), {"frame": frame.encode(), "shown": threading.Event()})
    with ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(package))
    ) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def websockify(port: int) -> Iterator[int]:
    """A web socket for that port; its port, which was free a moment before."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        number = int(free.getsockname()[1])
    command = ["websockify", f"127.0.0.1:{number}", f"127.0.0.1:{port}"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any("proxying" in line for line in process.stdout)
            yield number
        finally:
            process.terminate()


def test_novnc_in_a_browser(tmp_path: Path) -> None:
    package = need_all()
    expected = drawn()
    total = sum(int((expected >> shift & 0xFF).sum()) for shift in (0, 8, 16))
    with shown() as screen, websockify(screen.port) as port:
        frame = FRAME.format(width=WIDTH, height=HEIGHT, port=port, sum=total)
        with pages(package, frame) as web:
            run(
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--force-device-scale-factor=1", "--force-color-profile=srgb"),
                *("--window-size=800,600", f"--user-data-dir={tmp_path / 'profile'}"),
                *(f"--screenshot={tmp_path / 'screen.png'}", f"http://127.0.0.1:{web}/"),
            )
    assert np.array_equal(png(tmp_path / "screen.png")[:HEIGHT, :WIDTH], expected)
