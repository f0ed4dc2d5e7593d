"""The pure tables: grants, the bus."""

from __future__ import annotations

import pytest

from hypervisor import (
    CLOSED,
    CONNECTED,
    GONE,
    INIT_WAIT,
    INITIALISED,
    BadGrant,
    Bus,
    GrantTable,
    HypercallError,
    StaleEpoch,
)


def test_only_the_grantee_may_map_a_grant() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 4096, readonly=True)
    entry = table.map_grant_ref(gref, 2)
    assert (entry.memory, entry.length, entry.readonly) == ("pages", 4096, True)
    with pytest.raises(BadGrant):
        table.map_grant_ref(gref, 3)
    with pytest.raises(BadGrant):
        table.map_grant_ref(gref + 1, 2)


def test_a_mapped_grant_cannot_be_ended_but_can_be_revoked() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 1, readonly=False)
    table.map_grant_ref(gref, 2)
    with pytest.raises(HypercallError, match="in use by domain 2"):
        table.end_access(gref)
    revoked = table.revoke(gref)
    assert revoked is not None
    assert revoked.memory == "pages"
    assert table.revoke(gref) is None
    assert not table.unmap_grant_ref(gref, 2)
    with pytest.raises(BadGrant):
        table.map_grant_ref(gref, 2)


def test_a_grant_ends_after_its_last_mapping() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 1, readonly=False)
    table.map_grant_ref(gref, 2)
    table.map_grant_ref(gref, 2)
    assert not table.unmap_grant_ref(gref, 2)
    assert not table.unmap_grant_ref(gref, 3)
    assert table.unmap_grant_ref(gref, 2)
    assert table.end_access(gref) == "pages"
    assert len(table) == 0
    with pytest.raises(BadGrant):
        table.end_access(gref)


def test_the_mappings_of_a_dead_grantee_are_gone() -> None:
    table: GrantTable[str] = GrantTable(1)
    gref = table.grant_access(2, "pages", 0, 1, readonly=False)
    table.map_grant_ref(gref, 2)
    table.grantee_died(2)
    assert table.end_access(gref) == "pages"


def test_a_dead_granter_loses_every_grant_and_references_are_never_reused() -> None:
    table: GrantTable[str] = GrantTable(1)
    first = table.grant_access(2, "a", 0, 1, readonly=False)
    assert [entry.gref for entry in table.revoke_all()] == [first]
    assert table.grant_access(2, "b", 0, 1, readonly=False) != first
    with pytest.raises(HypercallError, match="not a range"):
        table.grant_access(2, "c", -1, 1, readonly=False)


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


def test_a_revoked_device_tells_both_ends_that_it_is_over_and_pairs_them_anew() -> None:
    bus = Bus()
    bus.advertise(5, "disk")
    other = (3, 1)
    assert bus.connect((0, 9), "net") == []  # not paired, and not the device
    (one,), (two,) = bus.connect(FRONT, "disk"), bus.connect(other, "disk")
    notices = bus.revoke("disk", "why")
    for front, old in ((FRONT, one), (other, two)):
        told = [n for n in notices if n.front == front]
        assert [(n.to, n.peer, n.state) for n in told] == [
            (front[0], 5, CLOSED),
            (5, front[0], CLOSED),
            (front[0], 5, INIT_WAIT),
        ]
        assert [n.epoch for n in told[:2]] == [old.epoch] * 2
        assert told[2].epoch > two.epoch
        with pytest.raises(StaleEpoch):
            bus.switch(5, front, old.epoch, CONNECTED, None)
    assert bus.revoke("net", "why") == []
    assert bus.revoke("nobody's", "why") == []


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
