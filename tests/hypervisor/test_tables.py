"""The pure table of the bus."""

from __future__ import annotations

import pytest

from hypervisor import (
    CLOSED,
    CONNECTED,
    GONE,
    INIT_WAIT,
    INITIALISED,
    Bus,
    HypercallError,
    StaleEpoch,
)

FRONT = (0, 7)


def test_a_handshake_passes_every_state_to_the_other_side() -> None:
    bus = Bus()
    assert bus.connect(FRONT, "disk") == []
    (hello,) = bus.advertise(5, "disk")
    assert (hello.to, hello.peer, hello.state) == (0, 5, INIT_WAIT)
    (offer,) = bus.switch(0, FRONT, hello.epoch, INITIALISED, ["ring"])
    assert (offer.to, offer.peer, offer.state, offer.details) == (5, 0, INITIALISED, ["ring"])
    (answer,) = bus.switch(5, FRONT, hello.epoch, CONNECTED, [9])
    assert (answer.to, answer.state, answer.details) == (0, CONNECTED, [9])


def test_a_word_of_an_ended_epoch_is_refused() -> None:
    bus = Bus()
    bus.advertise(5, "disk")
    (hello,) = bus.connect(FRONT, "disk")
    (end,) = bus.domain_died(5, "killed", returns=True)
    assert (end.to, end.state, end.epoch) == (0, CLOSED, hello.epoch)
    (again,) = bus.advertise(6, "disk")
    assert again.epoch > hello.epoch
    for domid in (0, 5, 6):
        with pytest.raises(StaleEpoch):
            bus.switch(domid, FRONT, hello.epoch, CONNECTED, None)
    with pytest.raises(StaleEpoch):
        bus.back_end_of(FRONT, hello.epoch)
    assert bus.back_end_of(FRONT, again.epoch) == 6


@pytest.mark.parametrize(
    ("domid", "state"), [(0, CONNECTED), (5, INITIALISED), (9, CLOSED), (0, "nonsense")]
)
def test_nobody_says_a_state_that_is_not_his(domid: int, state: str) -> None:
    bus = Bus()
    bus.advertise(5, "disk")
    (hello,) = bus.connect(FRONT, "disk")
    with pytest.raises(HypercallError, match="may not say"):
        bus.switch(domid, FRONT, hello.epoch, state, None)


def test_a_back_end_that_will_not_return_is_gone_for_its_front_ends() -> None:
    bus = Bus()
    bus.advertise(5, "disk")
    bus.connect(FRONT, "disk")
    closed, gone = bus.domain_died(5, "stopped", returns=False)
    assert (closed.state, gone.state) == (CLOSED, GONE)
    assert bus.advertise(6, "disk") == []


def test_waiting_front_ends_hear_that_the_machine_gave_up() -> None:
    bus = Bus()
    bus.connect((0, 1), "a")
    bus.connect((0, 2), "b")
    assert [(n.front, n.state) for n in bus.withdraw_all("why")] == [((0, 1), GONE), ((0, 2), GONE)]


def test_a_front_end_that_closes_or_dies_is_known_to_its_back_end() -> None:
    bus = Bus()
    bus.advertise(5, "disk")
    (hello,) = bus.connect((0, 1), "disk")
    (closed,) = bus.switch(0, (0, 1), hello.epoch, CLOSED, None)
    assert (closed.to, closed.state) == (5, CLOSED)
    bus.connect((3, 1), "disk")
    (died,) = bus.domain_died(3, "killed", returns=False)
    assert (died.to, died.front, died.state) == (5, (3, 1), CLOSED)


def test_a_device_has_one_back_end_and_a_channel_one_device() -> None:
    bus = Bus()
    bus.advertise(5, "disk")
    with pytest.raises(HypercallError, match="domain 5 serves"):
        bus.advertise(6, "disk")
    bus.connect(FRONT, "disk")
    with pytest.raises(HypercallError, match="connected already"):
        bus.connect(FRONT, "disk")
