"""The surface from both sides, and the events beside it; no domains here."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest

from actors import Fd
from examples.framebuffer import protocol as p
from examples.framebuffer.canvas import Canvas
from examples.framebuffer.damage import Rect
from examples.framebuffer.drawer import Drawer, Screen
from examples.framebuffer.event_ring import EventRing
from examples.framebuffer.surface import HEADER_BYTES, Mode, Picture, Surface, packed_mode
from hypervisor import EventChannel, Region, clear_event, new_event
from transport import RemoteProtocolError, page_size


@pytest.fixture
def surface() -> Iterator[Surface]:
    surface = Surface(packed_mode(40, 30), 4 * 80 * 60)
    yield surface
    surface.region.close()


def test_what_is_drawn_is_seen(surface: Surface) -> None:
    picture = Picture(surface.region.view)
    surface.pixels[3, 4] = 0x123456
    pixels, _ = picture.cut(Rect(4, 3, 2, 1))
    assert pixels.tolist() == [[0x123456, 0]]


def test_what_is_outside_is_black(surface: Surface) -> None:
    surface.pixels[:] = 7
    pixels, _ = Picture(surface.region.view).cut(Rect(38, 28, 4, 4))
    assert pixels.tolist() == [[7, 7, 0, 0]] * 2 + [[0] * 4] * 2
    far, _ = Picture(surface.region.view).cut(Rect(100, 100, 2, 1))
    assert far.tolist() == [[0, 0]]


def test_a_new_mode_is_noticed_once(surface: Surface) -> None:
    picture = Picture(surface.region.view)
    assert not picture.look()
    surface.set_mode(packed_mode(80, 60))
    surface.pixels[59, 79] = 9
    assert picture.look()
    assert not picture.look()
    assert picture.mode == packed_mode(80, 60)
    assert picture.cut(Rect(79, 59, 1, 1))[0][0, 0] == 9


def test_a_mode_that_is_just_changing_is_left_alone(surface: Surface) -> None:
    picture, words = Picture(surface.region.view), surface.region.view[:HEADER_BYTES].cast("Q")
    words[1] += 1
    words[2] = 20
    assert not picture.look()
    assert picture.mode.width == 40
    words[1] += 1
    assert picture.look()
    assert picture.mode.width == 20


def test_five_six_five_becomes_the_nearest_of_eight_bits() -> None:
    surface = Surface(packed_mode(4, 1, 16))
    surface.pixels[0] = [0xFFFF, 0xF800, 0x07E0, 0x001F]
    pixels, _ = Picture(surface.region.view).cut(Rect(0, 0, 4, 1))
    surface.region.close()
    assert pixels.tolist() == [[0xFFFFFF, 0xFF0000, 0x00FF00, 0x0000FF]]


def test_what_is_kept_needs_no_surface() -> None:
    surface = Surface(packed_mode(2, 1))
    surface.pixels[0] = [1, 2]
    surface.begin_copy()
    picture = Picture(surface.region.view)
    assert picture.sequence == 1
    picture.keep()
    surface.pixels[0] = [3, 4]
    surface.region.close()
    assert picture.cut(Rect(0, 0, 2, 1))[0].tolist() == [[1, 2]]
    assert not picture.look()
    assert picture.sequence == 0


@pytest.mark.parametrize(("width", "height", "depth"), [(0, 1, 32), (1, 20000, 32), (1, 1, 24)])
def test_a_mode_that_is_none_cannot_be_made(width: int, height: int, depth: int) -> None:
    with pytest.raises(ValueError, match="not a mode"):
        packed_mode(width, height, depth)


def test_a_mode_beyond_the_memory_is_refused_and_nothing_changes(surface: Surface) -> None:
    with pytest.raises(ValueError, match="more memory"):
        surface.set_mode(packed_mode(800, 600))
    assert surface.mode == packed_mode(40, 30)
    assert Picture(surface.region.view).mode == packed_mode(40, 30)


def test_something_else_is_no_surface() -> None:
    for bad in (memoryview(bytearray(100)), memoryview(bytearray(8192))):
        with pytest.raises(RemoteProtocolError):
            Picture(bad)


def test_rows_may_have_gaps() -> None:
    surface = Surface(Mode(3, 2, 64, 32, HEADER_BYTES))
    surface.pixels[1] = [5, 6, 7]
    assert Picture(surface.region.view).cut(Rect(0, 0, 3, 2))[0].tolist() == [[0] * 3, [5, 6, 7]]
    surface.region.close()


class Ends:
    """Two rings, joined as a drawer's and a display's are."""

    def __init__(self) -> None:
        self.pages = [Region(page_size(1, p.RING_BYTES)) for _ in range(2)]
        self.bells = [new_event(), new_event()]
        views = [page.view for page in self.pages]
        self.rings = []
        for here, there in ((0, 1), (1, 0)):
            channel = EventChannel(1, 1, self._fd(here), self._fd(there))
            self.rings.append((EventRing(views[here], views[there], channel), channel))
        self.drawer, self.display = self.rings[0][0], self.rings[1][0]

    def _fd(self, number: int) -> Fd:
        import os

        return Fd(os.dup(self.bells[number].fileno()))

    def rang(self, number: int) -> bool:
        """Whether that side was signalled since the last time."""
        return clear_event(self.bells[number].fileno())

    def close(self) -> None:
        for _, channel in self.rings:
            channel.close_signals()
        for bell in self.bells:
            bell.close()
        for page in self.pages:
            page.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    with closing(Ends()) as ends:
        yield ends


def test_events_arrive_in_order_and_ring(ends: Ends) -> None:
    assert ends.display.receive() == []
    sent = [p.Update(Rect(n, 0, 1, 1)) for n in range(5)]
    for event in sent:
        ends.drawer.send(event)
    assert not ends.rang(1)
    ends.drawer.flush()
    assert ends.rang(1)
    assert [p.out_event(data) for data in ends.display.receive()] == sent
    ends.display.send(p.Key(True, 30))
    ends.display.flush()
    assert ends.drawer.receive() == [p.Key(True, 30).pack()]


def test_what_finds_no_room_waits_and_room_is_announced(ends: Ends) -> None:
    sent = [p.Update(Rect(n, 0, 1, 1)).pack() for n in range(1000)]
    for n in range(1000):
        ends.drawer.send(p.Update(Rect(n, 0, 1, 1)))
    ends.drawer.flush()
    assert ends.drawer.waiting > 800
    got = []
    while ends.drawer.waiting:
        got += ends.display.receive()
        assert ends.rang(0), "the drawer has to hear that there is room"
        ends.drawer.flush()
    assert got + ends.display.receive() == sent


def test_half_an_event_is_an_error(ends: Ends) -> None:
    ends.drawer._outgoing.write(b"x" * 50)
    ends.drawer._outgoing.publish()
    with pytest.raises(RemoteProtocolError):
        ends.display.receive()


def test_a_drawer_that_is_not_heard_says_in_short_that_all_has_changed(ends: Ends) -> None:
    screen = Screen()
    screen.set_mode(64, 48)
    screen.events = ends.drawer
    for n in range(5000):
        screen.update(Rect(n % 64, n % 48, 1, 1))
    assert ends.drawer.waiting <= 256
    got = []
    while True:
        ends.drawer.flush()
        data = ends.display.receive()
        if not data:
            break
        got += [p.out_event(each) for each in data]
    assert p.Update(screen.mode.whole) in got
    assert got[got.index(p.Update(screen.mode.whole)) - 1] == p.Resize(*screen.mode)
    screen.surface.region.close()


@pytest.fixture(params=[32, 16])
def screen(request: pytest.FixtureRequest) -> Iterator[Screen]:
    screen = Screen()
    screen.set_mode(20, 10, request.param)
    yield screen
    screen.surface.region.close()


def seen(screen: Screen) -> list[list[int]]:
    pixels, _ = Picture(screen.surface.region.view).cut(screen.mode.whole)
    return [[int(pixel) for pixel in row] for row in pixels]


def test_a_canvas_cuts_off_what_is_outside(screen: Screen) -> None:
    canvas = Canvas(screen)
    canvas.fill(Rect(-5, -5, 7, 6), 0xFF0000)
    canvas.image(18, 8, np.full((5, 5), 0x0000FF, dtype=np.uint32))
    canvas.fill(Rect(100, 0, 5, 5), 0xFFFFFF)
    canvas.image(100, 100, np.zeros((1, 1), dtype=np.uint32))
    expected = [[0] * 20 for _ in range(10)]
    expected[0][:2] = [0xFF0000] * 2
    for y in (8, 9):
        expected[y][18:] = [0x0000FF] * 2
    assert seen(screen) == expected


def test_text_is_ink_on_paper_or_on_what_is_there(screen: Screen) -> None:
    canvas = Canvas(screen)
    assert canvas.text(1, 1, "I", 0xFFFFFF, scale=1, paper=0x0000FF) == Rect(1, 1, 4, 5)
    ink = {(y, x) for y, row in enumerate(seen(screen)) for x, p in enumerate(row) if p == 0xFFFFFF}
    assert ink == {(1, 1), (1, 2), (1, 3), (2, 2), (3, 2), (4, 2), (5, 1), (5, 2), (5, 3)}
    assert seen(screen)[2][1] == 0x0000FF
    canvas.text(17, 7, "II", 0x00FF00, scale=3)
    assert seen(screen)[9][19] == 0x00FF00


def test_an_outline_is_a_border_only(screen: Screen) -> None:
    Canvas(screen).outline(Rect(1, 1, 6, 5), 0xFFFFFF, 2)
    assert sum(pixel == 0xFFFFFF for row in seen(screen) for pixel in row) == 6 * 5 - 2 * 1


def test_a_copy_that_is_not_on_the_screen_is_refused(screen: Screen) -> None:
    for source, x, y in (
        (Rect(0, 0, 5, 5), 16, 0),
        (Rect(18, 0, 5, 5), 0, 0),
        (Rect(0, 0, 0, 1), 0, 0),
    ):
        with pytest.raises(ValueError, match="not on the screen"):
            screen.copy(source, x, y)


def test_a_copy_may_overlap_itself(screen: Screen) -> None:
    canvas = Canvas(screen)
    for x in range(20):
        canvas.fill(Rect(x, 0, 1, 1), x << 19)
    before = seen(screen)[0]
    screen.copy(Rect(0, 0, 15, 1), 3, 0)
    assert seen(screen)[0] == before[:3] + before[:15] + before[18:]


def test_a_drawer_without_a_mode_is_told_so() -> None:
    with pytest.raises(ValueError, match="set a mode first"):
        Screen().pixels  # noqa: B018
    with pytest.raises(NotImplementedError):
        Drawer().on_start(Screen())
