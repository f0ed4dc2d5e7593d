"""The bus: who is at either end of a channel, and what the store shows of it.

What may be said when is xenbus.py's, and tested there.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hypervisor import (
    Bus,
    HypercallError,
    IllegalTransition,
    Notice,
    StaleEpoch,
    XenbusState,
)
from hypervisor.bus import NOBODY, Effect, Front, Removed
from hypervisor.store_log import Seen
from hypervisor.store_mirror import picture, words
from hypervisor.xenbus import (
    BACK,
    CLOSED,
    CLOSING,
    CONNECTED,
    FRONT,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    UNKNOWN,
    EndEpoch,
    Tell,
)

CHANNEL = (0, 7)


def told(effects: list[Effect]) -> list[tuple[int, int, int, XenbusState]]:
    """(to, peer, epoch, state) of each notice; what else there is comes first or last."""
    kinds = [type(effect) for effect in effects if not isinstance(effect, Notice)]
    assert kinds in ([], [EndEpoch], [Removed], [EndEpoch, Removed])
    return [(e.to, e.peer, e.epoch, e.state) for e in effects if isinstance(e, Notice)]


def paired(back: int = 5, front: Front = CHANNEL) -> Bus:
    bus = Bus()
    bus.advertise(back, "disk")
    bus.connect(front, "disk")
    return bus


def connected() -> Bus:
    bus = paired()
    for domid, state in ((5, INIT_WAIT), (0, INITIALISED), (5, CONNECTED), (0, CONNECTED)):
        bus.switch(domid, CHANNEL, 1, state, None)
    return bus


@pytest.mark.parametrize("front_first", [True, False])
def test_whoever_comes_second_both_are_told_of_their_pairing(front_first: bool) -> None:
    bus = Bus()
    if front_first:
        assert bus.connect(CHANNEL, "disk") == []
        effects = bus.advertise(5, "disk")
    else:
        assert bus.advertise(5, "disk") == []
        effects = bus.connect(CHANNEL, "disk")
    assert told(effects) == [(0, 5, 1, INITIALISING), (5, 0, 1, INITIALISING)]


def test_every_word_is_passed_to_the_other_end_with_its_details() -> None:
    bus = paired()
    assert told(bus.switch(5, CHANNEL, 1, INIT_WAIT, None)) == [(0, 5, 1, INIT_WAIT)]
    (offer,) = bus.switch(0, CHANNEL, 1, INITIALISED, ["ring"])
    assert offer == Notice(5, BACK, "disk", CHANNEL, 0, 1, INITIALISED, ["ring"])
    (answer,) = bus.switch(5, CHANNEL, 1, CONNECTED, [9])
    assert answer == Notice(0, FRONT, "disk", CHANNEL, 5, 1, CONNECTED, [9])
    assert bus.back_end_of(CHANNEL, 1) == 5


def test_every_pairing_of_the_machine_has_an_epoch_of_its_own() -> None:
    bus = Bus()
    for front in ((0, 1), (0, 2), (3, 1)):
        bus.connect(front, "disk")
    epochs = [epoch for _, _, epoch, _ in told(bus.advertise(5, "disk"))]
    assert epochs == [1, 1, 2, 2, 3, 3]
    bus.domain_died(5, "killed", returns=True)
    assert {epoch for _, _, epoch, _ in told(bus.advertise(6, "disk"))} == {4, 5, 6}


def test_nobody_is_paired_with_a_back_end_that_is_about_to_end() -> None:
    bus = paired()
    bus.unadvertise(6, "disk")  # not its device
    bus.unadvertise(5, "disk")
    for side in (5, 0):
        bus.switch(side, CHANNEL, 1, CLOSED, None)
    assert bus.connect(CHANNEL, "disk") == []
    assert bus.connect((0, 8), "disk") == []
    assert told(bus.domain_died(5, "ended", returns=True)) == []
    assert told(bus.advertise(6, "disk")) == [
        *((0, 6, 2, INITIALISING), (6, 0, 2, INITIALISING)),
        *((0, 6, 3, INITIALISING), (6, 0, 3, INITIALISING)),
    ]
    assert told(bus.connect((0, 9), "disk"))[0] == (0, 6, 4, INITIALISING)


def test_a_word_of_an_ended_epoch_is_stale_whoever_says_it() -> None:
    bus = paired()
    effects = bus.domain_died(5, "killed", returns=True)
    assert effects[0] == EndEpoch(1)
    assert told(effects) == [(0, 5, 1, CLOSED)]
    assert bus.is_over(CHANNEL, 1)
    with pytest.raises(StaleEpoch):
        bus.back_end_of(CHANNEL, 1)
    bus.advertise(6, "disk")
    for domid in (0, 5, 6, 9):
        with pytest.raises(StaleEpoch):
            bus.switch(domid, CHANNEL, 1, CONNECTED, None)
    assert bus.back_end_of(CHANNEL, 2) == 6
    with pytest.raises(StaleEpoch):
        bus.switch(0, (0, 8), 2, CLOSED, None)


@pytest.mark.parametrize(
    ("domid", "state", "error", "text"),
    [
        (9, CLOSED, HypercallError, "domain 9 is not an end"),
        (0, 9, HypercallError, "9 is not a state"),
        (0, -1, HypercallError, "-1 is not a state"),
        (0, CONNECTED, IllegalTransition, "the front end's fault"),
        (5, INITIALISED, IllegalTransition, "the back end's fault"),
    ],
)
def test_nobody_says_what_is_not_his_to_say(
    domid: int, state: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        paired().switch(domid, CHANNEL, 1, state, None)


def test_a_back_end_that_will_not_return_is_unknown_to_its_front_ends_for_good() -> None:
    bus = paired()
    assert told(bus.domain_died(5, "stopped", returns=False)) == [(0, 5, 1, UNKNOWN)]
    assert bus.advertise(6, "disk") == []
    with pytest.raises(HypercallError, match="connected already"):
        bus.connect(CHANNEL, "disk")
    assert bus.disconnect(CHANNEL, "closed") == [Removed("disk", CHANNEL, 5)]
    assert told(bus.connect(CHANNEL, "disk")) == [(0, 6, 2, INITIALISING), (6, 0, 2, INITIALISING)]


def test_waiting_front_ends_hear_that_the_machine_gave_up() -> None:
    bus = Bus()
    bus.connect((0, 1), "b")
    bus.connect((0, 2), "a")
    assert told(bus.withdraw_all("why")) == [(0, NOBODY, 0, UNKNOWN), (0, NOBODY, 0, UNKNOWN)]
    assert bus.withdraw_all("again") == []
    assert bus.advertise(5, "a") == []


def test_a_front_end_that_is_gone_is_unknown_to_its_back_end_and_nothing_is_left() -> None:
    bus = connected()
    effects = bus.disconnect(CHANNEL, "closed")
    assert effects[0] == EndEpoch(1)
    assert effects[-1] == Removed("disk", CHANNEL, 5)
    assert told(effects) == [(5, 0, 1, UNKNOWN)]
    assert bus.disconnect(CHANNEL, "closed") == []
    bus.connect((3, 1), "disk")
    assert told(bus.domain_died(3, "killed", returns=True)) == [(5, 3, 2, UNKNOWN)]
    assert bus.domain_died(3, "killed", returns=True) == []


def test_a_front_end_that_closed_may_connect_again_while_its_back_end_lives() -> None:
    bus = connected()
    bus.switch(0, CHANNEL, 1, CLOSING, None)
    with pytest.raises(HypercallError, match="connected already"):
        bus.connect(CHANNEL, "disk")
    effects = bus.switch(0, CHANNEL, 1, CLOSED, "enough")
    assert effects[0] == EndEpoch(1)
    assert bus.switch(5, CHANNEL, 1, CLOSED, None) == []  # the same of its own end, to no effect
    with pytest.raises(HypercallError, match="connected already"):
        bus.connect(CHANNEL, "another")
    assert told(bus.connect(CHANNEL, "disk")) == [(0, 5, 2, INITIALISING), (5, 0, 2, INITIALISING)]


def test_a_device_has_one_back_end_and_a_channel_one_device() -> None:
    bus = paired()
    with pytest.raises(HypercallError, match="domain 5 serves"):
        bus.advertise(6, "disk")
    with pytest.raises(HypercallError, match="connected already"):
        bus.connect(CHANNEL, "disk")


def test_a_domain_is_not_its_own_back_end() -> None:
    bus = paired()
    with pytest.raises(HypercallError, match="domain 5 serves 'disk' itself"):
        bus.connect((5, 1), "disk")
    bus.connect((5, 1), "net")
    with pytest.raises(HypercallError, match="domain 5 uses 'net' itself"):
        bus.advertise(5, "net")
    assert told(bus.advertise(6, "net")) == [(5, 6, 2, INITIALISING), (6, 5, 2, INITIALISING)]


# --- whatever comes -------------------------------------------------------------------------------


class Machine(RuleBasedStateMachine):
    """Domains come, speak out of turn and die; what each end was told is always a good story."""

    def __init__(self) -> None:
        super().__init__()
        self.bus = Bus()
        self.living = 5
        self.heard: dict[tuple[int, Front], tuple[int, XenbusState]] = {}
        self.running: set[int] = set()

    def take(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, EndEpoch):
                assert effect.epoch in self.running, "an epoch ends once, and began before"
                self.running.remove(effect.epoch)
            if not isinstance(effect, Notice):
                continue
            before, state = self.heard.get((effect.to, effect.front), (0, CLOSED))
            assert effect.epoch >= before
            if effect.state is INITIALISING:
                assert effect.epoch > before
                assert state is CLOSED, "a new epoch only after the end of the old one"
                self.running.add(effect.epoch)
            else:
                assert effect.epoch == before
                assert effect.epoch in self.running or effect.state in (CLOSED, UNKNOWN)
            self.heard[effect.to, effect.front] = effect.epoch, effect.state
            assert effect.to not in (effect.peer, NOBODY)

    def attempt(self, call: Any, *args: Any, **kwargs: Any) -> bool:
        try:
            effects = call(*args, **kwargs)
        except HypercallError:
            return False
        self.take(effects)
        return True

    @rule(device=st.sampled_from("ab"))
    def start(self, device: str) -> None:
        self.living += 1
        self.attempt(self.bus.advertise, self.living, device)

    @rule(back=st.integers(0, 2), device=st.sampled_from("ab"))
    def take_no_more(self, back: int, device: str) -> None:
        self.bus.unadvertise(self.living - back, device)

    @rule(channel=st.integers(1, 3), device=st.sampled_from("ab"))
    def connect(self, channel: int, device: str) -> None:
        self.attempt(self.bus.connect, (0, channel), device)

    @rule(channel=st.integers(1, 3))
    def disconnect(self, channel: int) -> None:
        self.attempt(self.bus.disconnect, (0, channel), "closed")
        self.heard.pop((0, (0, channel)), None)
        for domid, front in list(self.heard):
            if front == (0, channel):
                del self.heard[domid, front]

    @rule(back=st.integers(0, 3), returns=st.booleans())
    def die(self, back: int, returns: bool) -> None:
        self.attempt(self.bus.domain_died, self.living - back, "killed", returns=returns)

    @rule(
        back=st.none() | st.integers(0, 2),
        channel=st.integers(1, 3),
        behind=st.integers(0, 2),
        state=st.sampled_from(XenbusState),
    )
    def speak(self, back: int | None, channel: int, behind: int, state: XenbusState) -> None:
        domid = 0 if back is None else self.living - back
        epoch = self.heard.get((domid, (0, channel)), (0, CLOSED))[0] - behind
        said = self.attempt(self.bus.switch, domid, (0, channel), epoch, state, None)
        if said and state is CLOSED:  # whoever ends an epoch himself knows it
            self.heard[domid, (0, channel)] = epoch, CLOSED

    @invariant()
    def an_epoch_that_runs_has_a_back_end(self) -> None:
        for (domid, front), (epoch, _) in self.heard.items():
            if domid == 0 and epoch in self.running:
                assert not self.bus.is_over(front, epoch)
                assert self.bus.back_end_of(front, epoch) > 5


TestWhateverComes = Machine.TestCase
TestWhateverComes.settings = settings(max_examples=150, stateful_step_count=40)


# --- what the store shows of it -------------------------------------------------------------------

HERE, THERE = "/local/domain/0/device/disk/7", "/local/domain/5/backend/disk/0/7"


def notice(side: Any, state: XenbusState, details: Any = None, device: str = "disk") -> Notice:
    ends = (0, 5) if side is FRONT else (5, 0)
    return Notice(ends[0], side, device, CHANNEL, ends[1], 3, state, details)


def test_a_pairing_shows_each_end_where_the_other_is() -> None:
    values, readers = picture(notice(FRONT, INITIALISING))
    assert values == {
        f"{HERE}/backend": THERE,
        f"{HERE}/backend-id": "5",
        f"{HERE}/epoch": "3",
        f"{HERE}/state": "1",
        f"{HERE}/otherend": "epoch=3 state=1 peer=5",
    }
    assert sorted(readers) == [0, 5]
    assert picture(notice(BACK, INITIALISING)).values[f"{THERE}/frontend"] == HERE


def test_a_word_is_the_speakers_state_and_the_hearers_last_change() -> None:
    details = {"ring-ref": 8, "event-channel": 9, "path": "/etc", "UP": 1, "state": 4, "on": True}
    values, _ = picture(notice(BACK, INITIALISED, details))
    assert list(values.items()) == [
        (f"{HERE}/ring-ref", "8"),
        (f"{HERE}/event-channel", "9"),
        (f"{HERE}/state", "3"),
        (f"{THERE}/otherend", "epoch=3 state=3 peer=0 ring-ref=8 event-channel=9"),
    ]


def test_nothing_is_written_where_a_domain_may_be_gone() -> None:
    values, readers = picture(notice(FRONT, UNKNOWN, "killed"))
    assert readers == [0]
    assert list(values) == [f"{HERE}/state", f"{HERE}/otherend"]
    assert values[f"{HERE}/state"] == "6"


def test_what_a_domain_says_cannot_fill_the_store_or_name_its_paths() -> None:
    values, _ = picture(notice(BACK, INITIALISED, {f"k{n}": n for n in range(1000)}, "a/../b é"))
    assert len(values) < 40
    assert all("/device/a____b__/7/" in path or "/backend/a____b__/" in path for path in values)


@pytest.mark.parametrize("side", [FRONT, BACK])
@pytest.mark.parametrize("state", XenbusState)
def test_the_words_are_read_back_as_they_were_told(side: Any, state: XenbusState) -> None:
    values, _ = picture(notice(side, state, {"ring-ref": 8}))
    changes = [
        Seen(40 + number, path, None, value.encode(), 0)
        for number, (path, value) in enumerate(values.items())
    ]
    removed = changes[-1]._replace(revision=99, old=changes[-1].new, new=None)
    assert words([*changes, removed]) == [
        (changes[-1].revision, Tell(side, 3, state, {"ring-ref": 8}))
    ]
