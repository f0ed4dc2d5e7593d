"""What the tests of the framebuffer share: a drawer to control, a shown screen, a viewer."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from actors import Fd
from examples.framebuffer.canvas import Canvas
from examples.framebuffer.damage import Rect
from examples.framebuffer.des import vnc_response
from examples.framebuffer.display import Display
from examples.framebuffer.drawer import Drawer, Screen
from examples.framebuffer.surface import Picture
from hypervisor import Machine
from tests.framebuffer.decoding import COPYRECT, DESKTOP_SIZE, NATIVE, Decoder, Format, Grid

WIDTH, HEIGHT = 300, 200
MEMORY: Final = 4 * 400 * 300


class Painter(Drawer):
    """Draws what the key says, so that a viewer controls it; see `SCRIPTS`."""

    def on_start(self, screen: Screen, width: int, height: int, depth: int) -> None:
        self.screen = screen
        self.canvas = Canvas(screen)
        screen.set_mode(width, height, depth, MEMORY)
        self.scene()

    def on_key(self, keycode: int, pressed: bool) -> None:
        if pressed:
            SCRIPTS[keycode](self)

    def on_pointer(self, x: int, y: int, z: int) -> None:
        self.canvas.fill(Rect(x, y, 3, 3), 0xFF0000 + z)

    def scene(self) -> None:
        """Something for every kind of tile."""
        mode, canvas = self.screen.mode, self.canvas
        canvas.fill(mode.whole, 0x203040)
        x = np.arange(mode.width, dtype=np.uint32)
        y = np.arange(mode.height // 2, dtype=np.uint32)[:, None]
        ramps = (x * 7 % 256 << 16) | (y * 5 % 256 << 8) | (x * y) % 256
        canvas.image(0, 0, ramps.astype(np.uint32))
        canvas.image(30, 120, np.random.default_rng(3).integers(0, 1 << 24, (50, 70), np.uint32))
        canvas.text(5, 105, "Hello, (World)! 0123456789", 0xFFFFFF)
        canvas.outline(Rect(110, 120, 80, 60), 0x00FF00, 3)

    def fill(self) -> None:
        self.canvas.fill(Rect(10, 20, 50, 30), 0xABCDEF)

    def scroll(self) -> None:
        whole = self.screen.mode.whole
        self.screen.copy(Rect(0, 16, whole.width, whole.height - 16), 0, 0)

    def larger(self) -> None:
        self.screen.set_mode(400, 300)
        self.scene()

    def smaller(self) -> None:
        self.screen.set_mode(120, 130)
        self.scene()

    def shallower(self) -> None:
        self.screen.set_mode(WIDTH, HEIGHT, 16)
        self.scene()

    def many(self) -> None:
        for n in range(2000):
            self.canvas.fill(Rect(n * 7 % WIDTH, n * 11 % HEIGHT, 2, 2), n * 999)

    def fail(self) -> None:
        raise RuntimeError("it was told to fail")


SCRIPTS: Final[dict[int, Callable[[Painter], None]]] = {  # by the codes of the keys 1 to 7
    2: Painter.fill,
    3: Painter.scroll,
    4: Painter.larger,
    5: Painter.smaller,
    6: Painter.shallower,
    7: Painter.many,
    8: Painter.fail,
}


def drawn(keys: str = "", width: int = WIDTH, height: int = HEIGHT, depth: int = 32) -> Grid:
    """What the painter's screen looks like after these keys, as 0xRRGGBB."""
    painter, screen = Painter(), Screen()
    painter.on_start(screen, width, height, depth)
    for key in keys:
        painter.on_key(int(key) + 1, True)
    pixels, _ = Picture(screen.surface.region.view).cut(screen.mode.whole)
    screen.surface.region.close()
    return pixels


@dataclass
class Shown:
    """A machine with a display and a painter."""

    machine: Machine
    listener: socket.socket
    password: bytes | None
    size: tuple[int, int]
    placement: str

    @property
    def port(self) -> int:
        return int(self.listener.getsockname()[1])

    def show(self) -> None:
        """Start the display."""
        with contextlib.closing(Fd(os.dup(self.listener.fileno()))) as fd:
            args = (fd, self.password, "test", *self.size)
            self.machine.start("display", Display, *args, placement=self.placement)

    def viewer(self, **options: Any) -> Viewer:
        return Viewer(self.port, **options)


@contextlib.contextmanager
def shown(
    *,
    password: bytes | None = None,
    placement: str = "thread",
    size: tuple[int, int] = (WIDTH, HEIGHT),
    depth: int = 32,
    drawing: bool = True,
    seen: bool = True,
) -> Iterator[Shown]:
    """Show the painter's picture; if ``seen``, a viewer has seen it before the test begins."""
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        Machine(intensity=10, spares=placement == "process") as machine,
    ):
        found = Shown(machine, listener, password, size, placement)
        found.show()
        if drawing:
            machine.start("painter", Painter, *size, depth, placement=placement)
        if drawing and seen:
            with found.viewer(password=password) as viewer:
                viewer.until(drawn("", *size, depth))
        yield found


class Viewer:
    """A viewer that says exactly what a test wants it to.

    Args:
        version: the minor one of RFB 3.
        encodings: the best first.
        wanted: a pixel format to ask for.
        handshake: False: only connect.
    """

    def __init__(
        self,
        port: int,
        *,
        version: int = 8,
        password: bytes | None = None,
        encodings: Sequence[int] = (0, COPYRECT, DESKTOP_SIZE),
        wanted: Format | None = None,
        handshake: bool = True,
        receive_buffer: int | None = None,
    ) -> None:
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(("127.0.0.1", port))
        self.file = self.socket.makefile("rb")
        try:
            if handshake:
                self.handshake(version, password)
                self.set_encodings(*encodings)
            if wanted is not None:
                self.set_format(wanted)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.socket.close()

    def handshake(self, version: int = 8, password: bytes | None = None) -> None:
        assert self.read(12) == b"RFB 003.008\n"
        self.socket.sendall(b"RFB 003.00%d\n" % version)
        kind = 1 if password is None else 2
        if version == 3:
            assert self.read(4) == bytes([0, 0, 0, kind])
        else:
            assert self.read(2) == bytes([1, kind])
            self.socket.sendall(bytes([kind]))
        if password is not None:
            self.socket.sendall(vnc_response(password, self.read(16)))
        if password is not None or version == 8:
            result = self.read(4)
            if result != bytes(4):
                raise PermissionError
        self.socket.sendall(b"\1")
        width, height, form, length = struct.unpack(">HH16sI", self.read(24))
        assert form == NATIVE.pack()
        self.name = self.read(length).decode()
        self.decoder = Decoder(width, height)

    def read(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) < count:
            raise ConnectionError("the display has closed the connection")
        return data

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def set_encodings(self, *encodings: int) -> None:
        self.send(struct.pack(f">BxH{len(encodings)}i", 2, len(encodings), *encodings))

    def set_format(self, wanted: Format) -> None:
        self.send(b"\0\0\0\0" + wanted.pack())
        self.decoder.format = wanted

    def press(self, keys: str) -> None:
        for key in keys:
            for down in (1, 0):
                self.send(struct.pack(">BBxxI", 4, down, ord(key)))

    def point(self, x: int, y: int, buttons: int = 0) -> None:
        self.send(struct.pack(">BBHH", 5, buttons, x, y))

    def ask(self, *, incremental: bool = True, rect: Sequence[int] | None = None) -> None:
        where = rect or (0, 0, self.decoder.width, self.decoder.height)
        self.send(struct.pack(">BBHHHH", 3, incremental, *where))

    def update(self) -> list[int]:
        """Receive an update; the encodings of its rectangles."""
        kind = self.read(2)[0]
        while kind == 1:
            first, count = struct.unpack(">HH", self.read(4))
            self.colours = (first, np.frombuffer(self.read(6 * count), ">u2").reshape(count, 3))
            kind = self.read(2)[0]
        assert kind == 0
        before = len(self.decoder.seen)
        for _ in range(int.from_bytes(self.read(2), "big")):
            self.decoder.rectangle(self.read)
        return self.decoder.seen[before:]

    def until(self, expected: Grid) -> None:
        """Ask for updates until the picture is exactly that."""
        wanted = self.decoder.format.of(expected)
        while not np.array_equal(self.decoder.picture, wanted):
            self.ask()
            self.update()

    def closed(self) -> bool:
        """Wait for the display to close this connection; whatever it sends before is dropped."""
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            while self.socket.recv(1 << 16):
                pass
        return True
