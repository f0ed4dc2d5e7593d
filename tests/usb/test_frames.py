"""The time of isochronous transfers: one packet in each period, in order, without gaps."""

from __future__ import annotations

import pytest

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb.descriptors import EndpointRead
from examples.usb.frames import FRAME, MICROFRAME, Frames
from examples.usb.urb import Urb

ENDS = (
    EndpointRead(0x81, c9.ISOCHRONOUS, 64, 1, 0),
    EndpointRead(0x01, c9.ISOCHRONOUS, 64, 4, 0),
    EndpointRead(0x82, c9.BULK, 512, 0, 0),
)


def urb(number: int, endpoint: int = 0x81, packets: int = 8, status: int = p.OK) -> Urb:
    return Urb(
        number, endpoint, c9.ISOCHRONOUS, 64 * packets, packets=(64,) * packets, status=status
    )


@pytest.mark.parametrize(
    ("speed", "endpoint", "period"),
    [
        (p.SPEED_HIGH, 0x81, MICROFRAME),
        (p.SPEED_HIGH, 0x01, 8 * MICROFRAME),
        (p.SPEED_FULL, 0x81, FRAME),
        (p.SPEED_FULL, 0x01, 8 * FRAME),
    ],
)
def test_a_transfer_takes_the_periods_of_its_packets(
    speed: int, endpoint: int, period: float
) -> None:
    frames = Frames(speed, ENDS)
    one = urb(1, endpoint)
    assert frames.hold(one, 5.0)
    assert frames.due == pytest.approx(5.0 + 8 * period)
    assert frames.take(5.0 + 7 * period) == []
    assert frames.take(5.0 + 9 * period) == [one]
    assert frames.due is None


def test_transfers_of_an_endpoint_follow_each_other_and_those_of_others_do_not_wait() -> None:
    frames = Frames(p.SPEED_FULL, ENDS)
    first, second, other = urb(1), urb(2), urb(3, 0x01, 1)
    for one in (first, second, other):
        assert frames.hold(one, 0.0)
    assert frames.take(0.0081) == [first, other]
    assert frames.take(0.0159) == []
    assert frames.take(0.0161) == [second]


def test_a_transfer_that_comes_late_begins_when_it_comes() -> None:
    frames = Frames(p.SPEED_FULL, ENDS)
    frames.hold(urb(1), 0.0)
    assert len(frames.take(1.0)) == 1
    frames.hold(urb(2), 1.0)
    assert frames.due == pytest.approx(1.008)


def test_a_transfer_that_is_held_can_be_unlinked_and_the_others_keep_their_time() -> None:
    frames = Frames(p.SPEED_FULL, ENDS)
    first, second = urb(1), urb(2)
    for one in (first, second):
        frames.hold(one, 0.0)
    assert frames.unlink(1) is first
    assert first.status == p.CONNRESET
    assert frames.unlink(1) is None
    assert frames.due == pytest.approx(0.016)
    frames.clear()
    assert frames.due is None


def test_errors_and_transfers_of_other_kinds_are_not_held() -> None:
    frames = Frames(p.SPEED_FULL, ENDS)
    assert not frames.hold(urb(1, status=p.IOERROR), 0.0)
    assert not frames.hold(Urb(2, 0x82, c9.BULK, 5), 0.0)
    assert not frames.hold(urb(3, 0x05), 0.0)
    assert frames.due is None
