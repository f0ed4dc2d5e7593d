"""What a viewer gets and when. The model: a screen, a viewer's picture, and a queue of events."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.framebuffer import protocol as p
from examples.framebuffer.damage import Rect
from examples.framebuffer.messages import UpdateRequest
from examples.framebuffer.pace import BAND_HEIGHT, BAND_WIDTH, Pace
from transport import RemoteProtocolError

COPYRECT, CURSOR, DESKTOP_SIZE = 1, -239, -223
WHOLE = Rect(0, 0, 64, 48)


def asking(rect: Rect = WHOLE, *, incremental: bool = True) -> UpdateRequest:
    return UpdateRequest(incremental, rect)


def taken(pace: Pace) -> list[Rect]:
    """Begin an update and take all its bands."""
    update = pace.begin()
    bands = []
    while pace.busy:
        bands.append(pace.band)
        pace.next_band(0)
    assert len(bands) == (update.bands if update else 0)
    return bands


@pytest.fixture
def pace() -> Pace:
    """A viewer that has seen everything."""
    pace = Pace(64, 48)
    pace.set_encodings((COPYRECT, DESKTOP_SIZE))
    pace.request(asking(incremental=False))
    assert taken(pace) == [WHOLE]
    return pace


def test_nothing_is_sent_unasked(pace: Pace) -> None:
    pace.damaged(Rect(1, 1, 2, 2))
    assert pace.begin() is None
    pace.request(asking())
    assert taken(pace) == [Rect(1, 1, 2, 2)]


def test_nothing_is_sent_where_nothing_changed(pace: Pace) -> None:
    pace.request(asking())
    assert pace.begin() is None
    pace.damaged(Rect(60, 40, 20, 20))  # what is off its screen does not concern it
    assert taken(pace) == [Rect(60, 40, 4, 8)]
    assert pace.begin() is None


def test_a_request_that_is_not_incremental_gets_everything(pace: Pace) -> None:
    pace.request(asking(Rect(3, 4, 5, 6), incremental=False))
    assert taken(pace) == [Rect(3, 4, 5, 6)]


def test_requests_and_changes_add_up_while_an_update_is_under_way(pace: Pace) -> None:
    pace.damaged(Rect(0, 0, 4, 4))
    pace.request(asking())
    assert pace.begin() is not None
    for n in range(10):
        pace.damaged(Rect(n, 10, 1, 1))
        pace.request(asking())
        assert pace.begin() is None
    pace.next_band(0)
    assert sum(band.width * band.height for band in taken(pace)) == 10
    assert pace.begin() is None


def test_what_is_damaged_outside_of_the_request_is_kept(pace: Pace) -> None:
    pace.damaged(Rect(0, 0, 64, 10))
    pace.request(asking(Rect(0, 0, 32, 48)))
    assert taken(pace) == [Rect(0, 0, 32, 10)]
    pace.request(asking())
    assert taken(pace) == [Rect(32, 0, 32, 10)]


@pytest.mark.parametrize(
    "rect", [(0, 0, 0, 10), (0, 0, 10, 0), (0, 0, 65, 48), (60, 0, 10, 1), (65535, 0, 1, 1)]
)
def test_a_request_for_nothing_or_too_much_is_an_error(
    pace: Pace, rect: tuple[int, int, int, int]
) -> None:
    with pytest.raises(RemoteProtocolError):
        pace.request(asking(Rect(*rect)))


def test_large_rectangles_come_in_bands() -> None:
    pace = Pace(5000, 150)
    pace.request(asking(Rect(0, 0, 5000, 150)))
    bands = taken(pace)
    assert sum(band.width * band.height for band in bands) == 5000 * 150
    assert all(band.width <= BAND_WIDTH and band.height <= BAND_HEIGHT for band in bands)


def test_the_cursor_is_told_once_and_again_after_it_was_not_wanted(pace: Pace) -> None:
    pace.set_encodings((CURSOR,))
    pace.request(asking())
    update = pace.begin()
    assert update is not None
    assert (update.cursor, update.rectangles) == (True, 1)
    pace.set_encodings((CURSOR,))
    pace.request(asking())
    assert pace.begin() is None
    pace.set_encodings(())
    pace.set_encodings((CURSOR,))
    assert pace.begin() is not None


def test_a_new_size_is_told_alone_and_all_is_sent_again(pace: Pace) -> None:
    pace.damaged(Rect(0, 0, 4, 4))
    pace.renewed(32, 100)
    pace.request(asking())
    update = pace.begin()
    assert update is not None
    assert (update.resize, update.rectangles) == ((32, 100), 1)
    assert pace.begin() is None
    pace.request(asking())  # it has not heard of the new size yet
    assert sum(band.height for band in taken(pace)) == 48
    pace.request(asking(Rect(0, 0, 32, 100)))
    assert sum(band.height for band in taken(pace)) == 52


def test_who_does_not_know_about_sizes_keeps_the_old_one(pace: Pace) -> None:
    pace.set_encodings(())
    pace.renewed(32, 100)
    pace.request(asking())
    assert taken(pace) == [WHOLE]


def test_a_copy_is_made_by_the_viewer(pace: Pace) -> None:
    pace.copied(p.Copy(Rect(0, 0, 10, 10), 20, 20, 1))
    pace.damaged(Rect(40, 40, 1, 1))
    pace.request(asking())
    update = pace.begin()
    assert update is not None
    assert [copy.source for copy in update.copies] == [Rect(20, 20, 10, 10)]
    assert update.bands == 1


def test_what_a_copy_covers_need_not_be_sent(pace: Pace) -> None:
    pace.damaged(Rect(2, 2, 5, 5))
    pace.copied(p.Copy(Rect(0, 0, 10, 10), 20, 20, 1))
    pace.request(asking())
    update = pace.begin()
    assert update is not None
    assert (len(update.copies), update.bands) == (1, 0)


@pytest.mark.parametrize("reason", ["unknown", "newer", "partly asked", "outside", "many"])
def test_a_copy_becomes_pixels_where_that_is_not_exact(pace: Pace, reason: str) -> None:
    copy = p.Copy(Rect(0, 0, 10, 10), 20, 20, 1)
    wanted = WHOLE
    match reason:
        case "unknown":
            pace.set_encodings(())
        case "newer":
            pace.encoded = 1
        case "partly asked":
            wanted = Rect(0, 0, 64, 20)
        case "outside":
            copy = p.Copy(Rect(0, 0, 10, 10), 60, 20, 1)
        case "many":
            for _ in range(16):
                pace.copied(p.Copy(Rect(30, 0, 1, 1), 20, 20, 1))
    pace.copied(copy)
    pace.request(asking(wanted))
    update = pace.begin()
    assert update is not None
    assert copy not in update.copies
    assert update.bands == 1


RECTS = st.builds(
    Rect, st.integers(0, 40), st.integers(0, 30), st.integers(1, 24), st.integers(1, 18)
)
STEPS = st.one_of(
    st.tuples(st.just("draw"), RECTS),
    st.tuples(st.just("copy"), RECTS, st.integers(0, 40), st.integers(0, 30)),
    st.tuples(st.just("deliver")),
    st.tuples(st.just("ask"), st.one_of(st.just(WHOLE), RECTS)),
    st.tuples(st.just("begin")),
    st.tuples(st.just("band")),
)


class Model:
    """A drawer, a display and a viewer, whose steps come in any order."""

    def __init__(self) -> None:
        self.screen = np.zeros((48, 64), dtype=np.uint32)
        self.seen = np.zeros((48, 64), dtype=np.uint32)
        self.pace = Pace(64, 48)
        self.pace.set_encodings((COPYRECT,))
        self.events: deque[p.OutEvent] = deque()
        self.sequence = self.colour = self.copies = 0

    def draw(self, rect: Rect) -> None:
        self.colour += 1
        self.screen[rect.y : rect.bottom, rect.x : rect.right] = self.colour
        self.events.append(p.Update(rect))

    def copy(self, source: Rect, x: int, y: int) -> None:
        target = Rect(x, y, source.width, source.height)
        if target.clipped(WHOLE) != target:
            return
        self.sequence += 1
        part = self.screen[source.y : source.bottom, source.x : source.right].copy()
        self.screen[target.y : target.bottom, target.x : target.right] = part
        self.events.append(p.Copy(target, source.x, source.y, self.sequence))

    def deliver(self) -> None:
        if self.events:
            match self.events.popleft():
                case p.Update(rect):
                    self.pace.damaged(rect)
                case p.Copy() as copy:
                    self.pace.copied(copy)

    def ask(self, rect: Rect) -> None:
        self.pace.request(asking(rect))

    def begin(self) -> None:
        update = self.pace.begin()
        for copy in update.copies if update else ():
            self.copies += 1
            source, rect = copy.source, copy.rect
            part = self.seen[source.y : source.bottom, source.x : source.right].copy()
            self.seen[rect.y : rect.bottom, rect.x : rect.right] = part

    def band(self) -> None:
        if self.pace.busy:
            at = self.pace.band
            part = self.screen[at.y : at.bottom, at.x : at.right]
            self.seen[at.y : at.bottom, at.x : at.right] = part
            self.pace.next_band(self.sequence)

    def finish(self) -> None:
        """Everything arrives, and the viewer asks until there is nothing more."""
        while self.events:
            self.deliver()
        for _ in range(3):
            while self.pace.busy:
                self.band()
            self.ask(WHOLE)
            self.begin()
        assert not self.pace.busy


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=400)
def test_in_the_end_the_viewer_has_the_screen(steps: list[tuple[Any, ...]]) -> None:
    model = Model()
    for name, *arguments in steps:
        getattr(model, name)(*arguments)
    model.finish()
    assert np.array_equal(model.seen, model.screen)


def test_the_model_does_copy() -> None:
    model = Model()
    model.finish()
    model.draw(Rect(0, 0, 10, 10))
    model.copy(Rect(0, 0, 10, 10), 30, 20)
    model.draw(Rect(5, 5, 10, 10))
    model.finish()
    assert model.copies == 1
    assert np.array_equal(model.seen, model.screen)
