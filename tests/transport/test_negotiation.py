"""Item 5: the life of a channel: who comes first, what both have, refusals, half close, an end.

The tables of states are in test_lifecycle.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hypervisor import Machine
from tests.transport.conftest import Opens
from tests.transport.device import Device, Older
from tests.transport.hostile import BadDetails
from transport import (
    ChannelClosed,
    DeadlineExceeded,
    RemoteProtocolError,
    VersionMismatch,
    connect,
)
from transport.handshake import Acceptance, Offer, agree, refusal

# --- the words themselves -------------------------------------------------------------------------

OFFER = Offer(1, 2, 3, 4, 8, 1 << 16, copied=False, version=None, features=frozenset("ab"))
ACCEPTANCE = Acceptance(1, idempotent=True, version=2, features=frozenset("a"))
NUMBERS = st.integers(-(1 << 64), 1 << 64)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text() | st.binary() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=8,
)
DETAILS = VALUES | st.builds(
    lambda details, changed: {**details, **changed},
    st.sampled_from([OFFER.details(), ACCEPTANCE.details()]),
    st.dictionaries(st.sampled_from(sorted({*OFFER.details(), *ACCEPTANCE.details()})), VALUES),
)


def test_what_is_told_is_what_is_heard() -> None:
    assert Offer.of(OFFER.details()) == OFFER
    assert Acceptance.of(ACCEPTANCE.details(), frozenset("ab")) == ACCEPTANCE


@given(DETAILS)
def test_whatever_is_told_is_heard_or_is_the_tellers_fault(details: Any) -> None:
    for hear in (Offer.of, lambda told: Acceptance.of(told, frozenset("ab"))):
        try:
            heard = hear(details)
        except RemoteProtocolError:
            continue
        else:
            told = {name: details.get(name) for name in heard.details()}
            told["features"] = sorted(set(told["features"]))
            assert heard.details() == told


@pytest.mark.parametrize("name", sorted(OFFER.details()))
@pytest.mark.parametrize("value", [None, -1, "1", 1 << 63, [1], 1.5, b""])
def test_a_front_end_tells_everything_as_it_should(name: str, value: Any) -> None:
    if (name, value) == ("version", None):
        return  # whichever
    with pytest.raises(RemoteProtocolError):
        Offer.of({**OFFER.details(), name: value})
    if name != "version":
        with pytest.raises(RemoteProtocolError):
            Offer.of({key: told for key, told in OFFER.details().items() if key != name})


def test_a_back_end_cannot_have_what_nobody_asked_for() -> None:
    with pytest.raises(RemoteProtocolError, match="nobody asked"):
        Acceptance.of(ACCEPTANCE.details(), frozenset("b"))


def test_the_features_of_a_channel_are_those_of_both() -> None:
    assert agree(OFFER, 7, frozenset("bc")) == {"b"}
    with pytest.raises(VersionMismatch):
        agree(replace(OFFER, version=1), 2, frozenset())


@given(VALUES)
def test_only_a_refusal_is_one(details: Any) -> None:
    refused = refusal("disk", details)
    told = details if isinstance(details, list) else []
    assert (refused is not None) == (
        len(told) == 2 and told[0] in ("refused", "version") and isinstance(told[1], str)
    )


# --- on a machine ---------------------------------------------------------------------------------


def test_a_front_end_learns_the_version_and_what_both_have(opens: Opens) -> None:
    channel = opens(Device, features=["flush", "barrier"], version=3)
    assert (channel.version, sorted(channel.features)) == (3, ["flush"])
    assert channel.call("x") == "x"


def test_another_version_is_refused_and_harms_nobody(opens: Opens, host: Machine) -> None:
    good = opens(Device)
    with pytest.raises(VersionMismatch, match="version 3 is served, not 2"):
        connect(host, "device", version=2)
    assert good.call("x") == "x"
    assert connect(host, "device", version=3).call("y") == "y"


def test_the_features_are_agreed_anew_with_the_next_back_end(opens: Opens, host: Machine) -> None:
    channel = opens(Device, features=["flush", "discard"])
    assert channel.features == {"flush", "discard"}
    host.shutdown("device")
    with pytest.raises(ChannelClosed):
        channel.call("x")
    again = opens(Older, device="other", features=["flush", "discard"])
    assert (again.version, sorted(again.features)) == (2, ["flush"])


WRONG: dict[str, Any] = {
    "nothing": None,
    "no map": [1, 2],
    "no slots": {"slots": None},
    "too many slots": {"slots": 1 << 40},
    "slots that are no power of two": {"slots": 3},
    "more slots than its page has": {"slots": 1 << 12},
    "a text for a reference": {"ring-ref": "x"},
    "a copy of too much memory": {"copied": True, "buffer-bytes": 1 << 40},
    "features that are none": {"features": 7},
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_a_front_end_that_offers_nonsense_is_refused_with_the_reason(
    opens: Opens, host: Machine, monkeypatch: pytest.MonkeyPatch, wrong: Any
) -> None:
    good = opens(Device)
    honest = Offer.details

    def details(offer: Offer) -> Any:
        return {**honest(offer), **wrong} if isinstance(wrong, dict) else wrong

    with monkeypatch.context() as patch:
        patch.setattr(Offer, "details", details)
        with pytest.raises(ChannelClosed, match="refused us"):
            connect(host, "device", slots=8, buffer_bytes=1 << 14)
    assert good.call("still there") == "still there"
    assert connect(host, "device").call("new") == "new"


@pytest.mark.parametrize("place", ["process"], indirect=True)
@pytest.mark.parametrize("wrong", ["nothing", "no reference", "features", "small page"])
def test_a_back_end_that_accepts_with_nonsense_is_replaced(
    host: Machine, tmp_path: Path, wrong: str
) -> None:
    host.start("bad", BadDetails, wrong, str(tmp_path / "flag"))
    channel = connect(host, "bad")
    assert channel.call("question") == "honest"
    assert channel.statistics().faults == 1


# --- half close -----------------------------------------------------------------------------------


def test_a_channel_that_is_drained_ends_what_is_in_flight_and_is_closed(opens: Opens) -> None:
    channel = opens(Device, slots=64)
    told: list[Any] = []
    requests = [channel.submit(number, token=number) for number in range(40)]
    for number in range(20):
        channel.submit(number, callback=lambda each: told.append(each.result))
    channel.drain()
    assert [each.result for each in requests] == list(range(40))
    assert told == list(range(20))
    assert [each.token for each in channel.reap()] == list(range(40))
    with pytest.raises(ChannelClosed):
        channel.call("late")
    with pytest.raises(ChannelClosed):
        channel.buffer(1)
    channel.drain()
    channel.close()


def test_a_channel_that_is_driven_by_its_endpoint_can_be_drained(opens: Opens) -> None:
    channel = opens(Device)
    futures = [channel.future(number) for number in range(30)]
    channel.drain()
    assert [future.result(10) for future in futures] == list(range(30))


def test_nothing_new_is_taken_by_a_channel_that_could_not_be_drained_in_time(
    machine: Machine, tmp_path: Path
) -> None:
    from tests.transport.test_coupling import Holds

    holds = Holds(tmp_path)
    holds.make("one", "two")
    machine.start("device", Device, str(tmp_path), placement="thread")
    channel = connect(machine, "device", slots=2)
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(channel.call, ("hold", name)) for name in ("one", "two")]
        for name in ("one", "two"):  # which is all of its slots
            holds.await_running(name)
        waits = pool.submit(channel.call, "there is no slot for it")
        with pytest.raises(DeadlineExceeded, match="not ended"):
            channel.drain(timeout=0.05)
        with pytest.raises(ChannelClosed, match="being closed"):
            channel.submit("new")
        with pytest.raises(ChannelClosed, match="being closed"):
            waits.result()
        for name in ("one", "two"):
            holds.let_go(name)
        assert [each.result() for each in held] == ["held", "held"]
    channel.drain(timeout=10)


def test_a_back_end_that_restarts_holds_up_no_drain(machine: Machine) -> None:
    machine.start("device", Device)
    channel = connect(machine, "device")
    machine.kill("device")
    request = channel.submit("x")
    channel.drain(timeout=30)
    assert request.result == "x"
