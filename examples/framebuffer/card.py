"""The test card: what the example shows. Bars, ramps, text, and what viewers do.

A key or a click is written down where one sees it, the pointer leaves a mark, Page Up and Page Down
change the mode, and Down scrolls the text's field (a COPY). With frames per second a box moves.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from examples.framebuffer.canvas import Canvas
from examples.framebuffer.damage import Rect
from examples.framebuffer.drawer import Drawer, Screen

_BARS: Final = (0xFFFFFF, 0xFFFF00, 0x00FFFF, 0x00FF00, 0xFF00FF, 0xFF0000, 0x0000FF, 0x000000)
_PAPER: Final = 0x202830
_INK: Final = 0xE0E8F0
_MARK: Final = 0xFF8000
_PAGE_UP, _PAGE_DOWN, _DOWN = 104, 109, 108  # linux/input-event-codes.h
_LINE: Final = 14  # rows of a line of the log
_BOX: Final = 32  # pixels of the moving box


class TestCard(Drawer):
    """Start arguments: width, height, depth (32 or 16), and frames per second or 0."""

    __test__ = False  # it is no test, whatever its name

    def on_start(
        self, screen: Screen, width: int = 1280, height: int = 720, depth: int = 32, fps: int = 0
    ) -> None:
        self._screen = screen
        self._canvas = Canvas(screen)
        self._sizes = [(width, height), (max(width // 2, 1), max(height // 2, 1))]
        self._depth = depth
        screen.set_mode(width, height, depth)
        if fps:
            screen.animate(1 / fps)
        self._paint()

    def on_key(self, keycode: int, pressed: bool) -> None:
        if pressed and keycode in (_PAGE_UP, _PAGE_DOWN):
            self._screen.set_mode(*self._sizes[keycode == _PAGE_DOWN], self._depth)
            self._paint()
        elif pressed and keycode == _DOWN:
            self._scroll()
        else:
            self._log(f"key {keycode} {'down' if pressed else 'up'}")

    def on_pointer(self, x: int, y: int, z: int) -> None:
        self._canvas.fill(Rect(x - 2, y - 2, 5, 5), _MARK)
        if z:
            self._log(f"wheel {z:+d}")

    def on_frame(self) -> None:
        self._canvas.fill(self._box(), _PAPER)
        self._step += 4
        self._canvas.fill(self._box(), _MARK)

    def _paint(self) -> None:
        mode, canvas = self._screen.mode, self._canvas
        self._step = 0
        canvas.fill(mode.whole, _PAPER)
        top, bar = mode.height // 3, -(-mode.width // len(_BARS))
        for place, colour in enumerate(_BARS):
            canvas.fill(Rect(place * bar, 0, bar, top), colour)
        levels = np.arange(mode.width, dtype=np.uint32) * 255 // max(mode.width - 1, 1)
        for place, shift in enumerate((16, 8, 0)):
            ramp = np.broadcast_to(levels << shift, (mode.height // 18, mode.width))
            canvas.image(0, top + place * ramp.shape[0], ramp)
        canvas.outline(mode.whole, _INK)
        title = f"xenidc {mode.width}x{mode.height}x{mode.depth}"
        canvas.text(8, mode.height // 2 + 8, title, _INK, scale=3)
        self._row = self._field().y

    def _field(self) -> Rect:
        """Where the log is."""
        mode = self._screen.mode
        y = mode.height // 2 + 32
        return Rect(8, y, mode.width - 16, max(mode.height - y - _BOX - 8, 0))

    def _box(self) -> Rect:
        mode = self._screen.mode
        track = max(mode.width - _BOX - 2, 1)
        return Rect(1 + self._step % track, mode.height - _BOX - 2, _BOX, _BOX)

    def _log(self, line: str) -> None:
        field = self._field()
        if self._row + _LINE > field.bottom:
            self._scroll()
        if self._row + _LINE <= field.bottom:
            self._canvas.text(field.x, self._row, line, _INK)
            self._row += _LINE

    def _scroll(self) -> None:
        """Move the log up by a line."""
        field = self._field()
        if field.height >= 2 * _LINE:
            below = Rect(field.x, field.y + _LINE, field.width, field.height - _LINE)
            self._screen.copy(below, field.x, field.y)
            self._canvas.fill(Rect(field.x, field.bottom - _LINE, field.width, _LINE), _PAPER)
            self._row = max(self._row - _LINE, field.y)
