"""The display end to end: a drawer, a display and viewers, over real sockets."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from examples.framebuffer.encodings import KNOWN
from tests.framebuffer.decoding import COPYRECT, CURSOR, DESKTOP_SIZE, NATIVE, RAW, ZRLE, Format
from tests.framebuffer.helpers import HEIGHT, WIDTH, drawn, shown
from tests.sources import sources
from tests.test_no_polling import findings


@pytest.mark.parametrize("version", [3, 7, 8])
@pytest.mark.parametrize("password", [None, b"secret"])
def test_every_version_with_and_without_a_password(version: int, password: bytes | None) -> None:
    with (
        shown(password=password) as screen,
        screen.viewer(version=version, password=password) as viewer,
    ):
        assert viewer.name == "test"
        viewer.until(drawn())


def test_a_wrong_password_is_refused_and_others_go_on() -> None:
    with shown(password=b"secret") as screen, screen.viewer(password=b"secret") as viewer:
        with pytest.raises(PermissionError):
            screen.viewer(password=b"Secret")
        viewer.press("1")
        viewer.until(drawn("1"))


@pytest.mark.parametrize("encoding", KNOWN)
def test_every_encoding_is_exact_and_stays_so(encoding: int) -> None:
    with shown() as screen, screen.viewer(encodings=[encoding, DESKTOP_SIZE]) as viewer:
        viewer.until(drawn())
        for keys in ("1", "12", "126", "1263", "12634", "126345"):
            viewer.press(keys[-1])
            viewer.until(drawn(keys))
        assert set(viewer.decoder.seen) == {encoding, DESKTOP_SIZE}


@pytest.mark.parametrize("encoding", KNOWN)
@pytest.mark.parametrize(
    "wanted",
    [
        Format(8, 8, tops=(7, 7, 3), shifts=(0, 3, 6)),
        Format(16, 16, big=True, tops=(31, 63, 31), shifts=(11, 5, 0)),
        Format(32, 24, big=True, shifts=(24, 16, 8)),
    ],
    ids=["8", "16", "32"],
)
def test_every_pixel_format_is_exact(encoding: int, wanted: Format) -> None:
    with shown() as screen, screen.viewer(encodings=[encoding], wanted=wanted) as viewer:
        viewer.until(drawn())


def test_the_pixel_format_can_change_at_any_time() -> None:
    with shown() as screen, screen.viewer(encodings=[ZRLE]) as viewer:
        viewer.until(drawn())
        for wanted in (Format(16, 15, tops=(31, 31, 31), shifts=(10, 5, 0)), NATIVE):
            viewer.set_format(wanted)
            viewer.ask(incremental=False)
            viewer.update()
            viewer.until(drawn())


def test_a_colour_map_is_told_before_pixels_that_need_it() -> None:
    wanted = Format(8, 8, true=False, tops=(7, 7, 3), shifts=(5, 2, 0))
    with shown() as screen, screen.viewer(wanted=wanted) as viewer:
        viewer.until(drawn())
        first, colours = viewer.colours
        assert (first, len(colours)) == (0, 256)
        assert list(colours[0]) == [0, 0, 0]
        assert list(colours[255]) == [65535, 65535, 65535]
        assert list(colours[0b111_000_00]) == [65535, 0, 0]


def test_a_screen_of_depth_16_is_shown_too() -> None:
    with shown(depth=16) as screen, screen.viewer() as viewer:
        viewer.until(drawn(depth=16))


def test_only_what_changed_is_sent() -> None:
    with shown() as screen, screen.viewer() as viewer:
        viewer.until(drawn())
        viewer.press("1")
        viewer.ask()
        assert viewer.update() == [RAW]
        assert np.array_equal(viewer.decoder.picture, drawn("1"))


def test_a_scroll_is_a_copy_for_who_knows_it_and_pixels_for_others() -> None:
    with shown() as screen, screen.viewer() as knows, screen.viewer(encodings=[RAW]) as not_:
        for viewer in (knows, not_):
            viewer.until(drawn())
        knows.press("2")
        for viewer, encodings in ((knows, {COPYRECT}), (not_, {RAW})):
            viewer.ask()
            assert set(viewer.update()) == encodings
            assert np.array_equal(viewer.decoder.picture, drawn("2"))


def test_a_new_mode_is_a_new_size_for_who_knows_it() -> None:
    with shown() as screen, screen.viewer() as knows, screen.viewer(encodings=[RAW]) as not_:
        for viewer in (knows, not_):
            viewer.until(drawn())
        knows.press("3")
        knows.until(drawn("3"))
        not_.until(drawn("3")[:HEIGHT, :WIDTH])
        knows.press("4")
        knows.until(drawn("34"))
        padded = np.zeros((HEIGHT, WIDTH), dtype=np.uint32)
        padded[:130, :120] = drawn("34")
        not_.until(padded)


def test_the_pointer_has_a_shape() -> None:
    with shown() as screen, screen.viewer(encodings=[RAW, CURSOR]) as viewer:
        viewer.until(drawn())
        assert viewer.decoder.cursor == (11, 14)
        assert viewer.decoder.seen.count(CURSOR) == 1


def test_the_pointer_and_its_buttons_reach_the_drawer() -> None:
    with shown() as screen, screen.viewer() as viewer:
        viewer.until(drawn())
        viewer.point(50, 60)
        expected = drawn()
        expected[60:63, 50:53] = 0xFF0000
        viewer.until(expected)
        viewer.point(10, 10, buttons=8)  # the wheel, up
        expected[10:13, 10:13] = 0xFF0001
        viewer.until(expected)


def test_several_viewers_see_the_same() -> None:
    with shown() as screen:
        viewers = [screen.viewer(encodings=[encoding]) for encoding in KNOWN]
        for viewer in viewers:
            viewer.until(drawn())
        viewers[0].press("1")
        for viewer in viewers:
            viewer.until(drawn("1"))
            viewer.__exit__()


def test_who_asks_and_reads_nothing_keeps_nobody_waiting() -> None:
    with shown() as screen, screen.viewer(receive_buffer=4096) as lazy, screen.viewer() as viewer:
        for _ in range(20):
            lazy.ask(incremental=False)
        viewer.until(drawn())
        for keys in ("1", "12", "121", "1216"):
            viewer.press(keys[-1])
            viewer.until(drawn(keys))
        lazy.until(drawn("1216"))  # and it has skipped what was in between


def test_before_there_is_a_drawer_the_screen_is_black() -> None:
    with shown(drawing=False, size=(64, 48)) as screen, screen.viewer() as viewer:
        viewer.ask()
        viewer.update()
        assert not viewer.decoder.picture.any()


def test_requests_that_overlap_are_one() -> None:
    with shown() as screen, screen.viewer() as viewer:
        viewer.until(drawn())
        for n in range(50):
            viewer.send(struct.pack(">BBHHHH", 3, 1, n, n, 100, 100))
        viewer.press("1")
        viewer.until(drawn("1"))


def test_nothing_wakes_it_but_what_happens() -> None:
    """The only timers are a viewer's deadlines, and the animation that a drawer asks for."""
    found = {
        where
        for source in sources("examples")
        if source.name.startswith("examples.framebuffer.")
        for where, _ in findings(source)
    }
    assert found == {
        "examples.framebuffer.display.Display._on_connect",
        "examples.framebuffer.display.Display._watch_for_a_stall",
        "examples.framebuffer.drawer.DrawerActor._settle",
    }
