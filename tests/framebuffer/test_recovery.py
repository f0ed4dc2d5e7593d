"""Either side dies and comes back; the picture is what it was."""

from __future__ import annotations

import numpy as np
import pytest

from examples.framebuffer.card import TestCard
from tests.framebuffer.helpers import HEIGHT, WIDTH, Painter, Shown, Viewer, drawn, shown

PLACEMENTS = pytest.mark.parametrize("placement", ["thread", "process"])


def see(screen: Shown, keys: str) -> None:
    """Have a new viewer see that."""
    with screen.viewer() as viewer:
        viewer.until(drawn(keys))


@PLACEMENTS
def test_the_picture_survives_the_display(placement: str) -> None:
    with shown(placement=placement) as screen:
        for keys in ("1", "13"):
            with screen.viewer() as viewer:
                viewer.press(keys[-1])
                viewer.until(drawn(keys))
                screen.machine.kill("display")
                assert viewer.closed()
            see(screen, keys)


@PLACEMENTS
def test_the_last_picture_survives_the_drawer(placement: str) -> None:
    with shown(placement=placement, drawing=False) as screen, screen.viewer() as viewer:
        args = (WIDTH, HEIGHT, 32)
        screen.machine.start("one", Painter, *args, placement=placement, restart="temporary")
        viewer.until(drawn())
        viewer.press("1")
        viewer.until(drawn("1"))
        screen.machine.kill("one")
        see(screen, "1")
        viewer.ask(incremental=False)
        viewer.update()
        assert np.array_equal(viewer.decoder.picture, drawn("1"))
        screen.machine.start("two", Painter, *args, placement=placement)
        viewer.until(drawn())
        viewer.press("3")
        viewer.until(drawn("3"))
        see(screen, "3")


@PLACEMENTS
def test_a_drawer_that_fails_starts_again(placement: str) -> None:
    with shown(placement=placement) as screen, screen.viewer() as viewer:
        viewer.until(drawn())
        viewer.press("1")
        viewer.until(drawn("1"))
        viewer.press("7")
        viewer.until(drawn())
        viewer.press("2")
        viewer.until(drawn("2"))


def test_both_die() -> None:
    with shown(placement="process") as screen:
        screen.machine.kill("display")
        screen.machine.kill("painter")
        see(screen, "")


def test_who_connects_while_the_display_is_away_is_served_by_the_next() -> None:
    """The drawer is told that the display is gone for good, and waits for another all the same."""
    with shown() as screen:
        screen.machine.shutdown("display")
        with Viewer(screen.port, handshake=False) as early:
            screen.show()
            early.handshake()
            early.until(drawn())


def test_a_second_drawer_is_refused_and_the_first_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with shown() as screen, screen.viewer() as viewer:
        viewer.until(drawn())
        screen.machine.start(
            "card", TestCard, 64, 48, 32, 0, placement="thread", restart="temporary"
        )
        viewer.press("1")
        viewer.until(drawn("1"))
