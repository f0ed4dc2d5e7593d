"""Drawing on a `Screen`: rectangles, text and images, each followed by its update.

Colours are 0xRRGGBB, whatever the screen's depth. What lies outside the screen is cut off.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from examples.framebuffer import font
from examples.framebuffer.damage import Rect
from examples.framebuffer.drawer import Screen


class Canvas:
    """Draws on ``screen``."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def fill(self, rect: Rect, colour: int) -> None:
        """A rectangle of one colour."""
        inside = rect.clipped(self._screen.mode.whole)
        if not inside.empty:
            self._view(inside)[:] = self._pixels(np.array(colour, dtype=np.uint32))
            self._screen.update(inside)

    def outline(self, rect: Rect, colour: int, width: int = 1) -> None:
        """Its border only, ``width`` pixels wide."""
        inner = Rect(
            rect.x + width, rect.y + width, rect.width - 2 * width, rect.height - 2 * width
        )
        for side in rect.without(inner):
            self.fill(side, colour)

    def image(self, x: int, y: int, pixels: npt.NDArray[np.uint32]) -> None:
        """An array of 0xRRGGBB, [row, column], with its left upper corner there."""
        height, width = pixels.shape
        inside = Rect(x, y, width, height).clipped(self._screen.mode.whole)
        if not inside.empty:
            part = pixels[inside.y - y : inside.bottom - y, inside.x - x : inside.right - x]
            self._view(inside)[:] = self._pixels(part)
            self._screen.update(inside)

    def text(
        self, x: int, y: int, text: str, colour: int, *, scale: int = 2, paper: int | None = None
    ) -> Rect:
        """A line of text, ``scale`` times the font's size; with ``paper`` also its background.

        Returns:
            Where it is.
        """
        ink = np.kron(font.glyphs(text), np.ones((scale, scale), dtype=bool))
        height, width = ink.shape
        rect = Rect(x, y, width, height)
        inside = rect.clipped(self._screen.mode.whole)
        if not inside.empty:
            part = ink[inside.y - y : inside.bottom - y, inside.x - x : inside.right - x]
            view = self._view(inside)
            if paper is not None:
                view[:] = self._pixels(np.array(paper, dtype=np.uint32))
            view[part] = self._pixels(np.array(colour, dtype=np.uint32))
            self._screen.update(inside)
        return rect

    def _view(self, rect: Rect) -> npt.NDArray[Any]:
        return self._screen.pixels[rect.y : rect.bottom, rect.x : rect.right]

    def _pixels(self, colours: npt.NDArray[np.uint32]) -> npt.NDArray[Any]:
        if self._screen.mode.depth == 32:
            return colours
        red, green, blue = colours >> 16 & 0xFF, colours >> 8 & 0xFF, colours & 0xFF
        return (red >> 3 << 11 | green >> 2 << 5 | blue >> 3).astype(np.uint16)
