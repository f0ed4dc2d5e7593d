"""From what viewers do with keyboard and mouse to kbdif's events. Pure.

Every viewer has its own keys and buttons down. What the drawer hears is one keyboard and one mouse:
a key goes down with the first viewer that presses it, and up with the last one that lets go. One
that disconnects lets go of all.

RFB's buttons 4 and 5 are the wheel: they have no code, and are steps of the pointer's z.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from examples.framebuffer import protocol as p
from examples.framebuffer.keymap import KEYCODES
from examples.framebuffer.messages import KeyEvent, PointerEvent
from examples.framebuffer.surface import Mode

_BUTTONS: Final = {1: p.BTN_LEFT, 2: p.BTN_MIDDLE, 4: p.BTN_RIGHT}
_WHEEL: Final = {8: 1, 16: -1}


class Held:
    """What each viewer, known by its number, holds down."""

    def __init__(self) -> None:
        self._down: dict[int, set[int]] = {}
        self._masks: dict[int, int] = {}

    def events(
        self, viewer: int, said: Iterable[KeyEvent | PointerEvent], mode: Mode
    ) -> Iterator[p.InEvent]:
        """What the drawer hears of what a viewer has done."""
        for event in said:
            match event:
                case KeyEvent(down, keysym):
                    code = KEYCODES.get(keysym)
                    if code is not None:
                        yield from self._press(viewer, code, down)
                case PointerEvent(mask, x, y):
                    changed = mask ^ self._masks.get(viewer, 0)
                    self._masks[viewer] = mask
                    turned = sum(z for bit, z in _WHEEL.items() if changed & mask & bit)
                    yield p.Position(min(x, mode.width - 1), min(y, mode.height - 1), turned)
                    for bit, code in _BUTTONS.items():
                        if changed & bit:
                            yield from self._press(viewer, code, bool(mask & bit))

    def gone(self, viewer: int) -> Iterator[p.InEvent]:
        """The viewer has disconnected."""
        self._masks.pop(viewer, None)
        for code in sorted(self._down.get(viewer, ())):
            yield from self._press(viewer, code, False)
        self._down.pop(viewer, None)

    def _press(self, viewer: int, code: int, down: bool) -> Iterator[p.InEvent]:
        mine = self._down.setdefault(viewer, set())
        by_others = any(code in held for other, held in self._down.items() if other != viewer)
        if down == (code in mine):
            if down:
                yield p.Key(True, code)  # it repeats
            return
        if down:
            mine.add(code)
        else:
            mine.discard(code)
        if not by_others:
            yield p.Key(down, code)
