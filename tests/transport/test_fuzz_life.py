"""Whatever one end says over the bus, in whatever order: the other end lives, and serves others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Actor, Message
from hypervisor import HypervisorError, Machine, PeerState, Region, XenbusState
from tests.transport.drivers import Echo
from tests.transport.fuzz_programs import Babbler
from transport import ChannelClosed, FrontEnd, RemoteProtocolError, connect, descriptors
from transport.handshake import Acceptance, Offer
from transport.ring import page_size

SECONDS = 10.0  # until a test gives up waiting
NAMES = ("ring-ref", "buffer-ref", "event-channel", "event-channel-epoch", "slots")
INIT_WAIT, INITIALISED, CONNECTED = (
    XenbusState.INIT_WAIT,
    XenbusState.INITIALISED,
    XenbusState.CONNECTED,
)

ANYTHING: Any = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-5, 20),
        st.integers(-(1 << 63), (1 << 64) - 1),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*NAMES, "idempotent"]), inner, max_size=6),
    ),
    max_leaves=6,
)


@given(ANYTHING)
def test_an_offer_is_of_numbers_or_no_correct_peer_made_it(details: Any) -> None:
    with suppress(RemoteProtocolError):
        offer = Offer.of(details)
        assert offer.slots.bit_count() == 1
        assert [offer.ring, offer.buffers] == [details[name] for name in NAMES[:2]]
    with suppress(RemoteProtocolError):
        assert Acceptance.of(details, frozenset()).idempotent is details["idempotent"]


class Door(Actor):
    """Passes on what is said to a channel."""

    def __init__(self, told: SimpleQueue[PeerState]) -> None:
        super().__init__()
        self._told = told

    def on_receive(self, message: Message) -> None:
        if isinstance(message, PeerState):
            self._told.put(message)


class Front:
    """A front end in the test's hands, whose offer would be right if it was made as it is."""

    def __init__(self, machine: Machine, stack: ExitStack) -> None:
        self._guest = guest = machine.guest
        self._told: SimpleQueue[PeerState] = SimpleQueue()
        self.channel = guest.next_channel()
        door = machine.system.start(Door, self._told)
        stack.callback(door.stop)
        guest.connect("echo", self.channel, door)
        stack.callback(guest.disconnect, self.channel)
        said = self.hears(INIT_WAIT)
        self._epoch = said.epoch
        ring = Region(page_size(4, descriptors.RECORD_LIMIT), name="ring", readonly_to_peers=True)
        buffers = Region(1 << 14, name="buffers")
        for region in (ring, buffers):
            stack.callback(region.close)
            stack.callback(guest.withdraw_all, region)
        port = guest.alloc_unbound(said.peer)
        stack.callback(guest.close_port, port)
        self.offer: dict[str, Any] = {
            "ring-ref": guest.grant_access(said.peer, ring, readonly=True),
            "buffer-ref": guest.grant_access(said.peer, buffers),
            "event-channel": port.port,
            "event-channel-epoch": port.epoch,
            "slots": 4,
            "buffer-bytes": buffers.size,
            "copied": False,
            "version": None,
            "features": [],
        }

    def hears(self, state: XenbusState) -> PeerState:
        while (said := self._told.get(timeout=SECONDS)).state != state:
            pass
        return said

    def says(self, state: XenbusState, details: Any) -> None:
        """Whether that is allowed is the bus's business."""
        with suppress(HypervisorError):
            self._guest.switch((0, self.channel), self._epoch, state, details)


@pytest.fixture
def served() -> Iterator[tuple[Machine, FrontEnd]]:
    """A back end, and somebody else whom it serves."""
    with Machine(spares=0) as machine:
        machine.start("echo", Echo, placement="thread")
        with connect(machine, "echo") as channel:
            yield machine, channel


CHANGED = st.dictionaries(st.sampled_from(NAMES), ANYTHING, max_size=3)
WORDS = st.lists(st.tuples(st.sampled_from(list(XenbusState)), ANYTHING), max_size=4)


@settings(max_examples=40)
@given(changed=CHANGED, before=WORDS, after=WORDS)
def _says_anything(machine: Machine, changed: Any, before: Any, after: Any) -> None:
    with ExitStack() as stack:
        front = Front(machine, stack)
        for state, details in [*before, (INITIALISED, front.offer | changed), *after]:
            front.says(state, details)


def test_a_front_end_that_says_anything_is_alone_with_that(
    served: tuple[Machine, FrontEnd],
) -> None:
    machine, other = served
    _says_anything(machine)
    assert other.call("still there") == "still there"
    assert other.statistics().epochs == 1, "its back end has not even been restarted"


@pytest.mark.parametrize(
    "changed",
    [
        {"slots": 0},
        {"slots": 3},
        {"slots": 1 << 31},
        {"slots": 8},
        {"slots": True},
        {"ring-ref": "text"},
        {"buffer-ref": None},
        {"event-channel": -1},
    ],
)
def test_a_front_end_with_a_wrong_offer_hears_why_it_is_refused(
    served: tuple[Machine, FrontEnd], changed: dict[str, Any]
) -> None:
    machine, other = served
    with ExitStack() as stack:
        front = Front(machine, stack)
        front.says(INITIALISED, front.offer | changed)
        assert front.hears(XenbusState.CLOSED).details[0] == "refused"
        assert other.call("x") == "x"
        assert other.statistics().epochs == 1


def test_the_offer_of_these_tests_is_right_when_nothing_is_changed(
    served: tuple[Machine, FrontEnd],
) -> None:
    machine, _ = served
    with ExitStack() as stack:
        front = Front(machine, stack)
        front.says(INITIALISED, front.offer)
        assert Acceptance.of(front.hears(CONNECTED).details, frozenset()).idempotent


@pytest.mark.parametrize(
    "words",
    [
        [(CONNECTED, None)],
        [(CONNECTED, ["a", "list"])],
        [(CONNECTED, {})],
        [(CONNECTED, {"ring-ref": 1 << 63, "idempotent": True})],
        [(CONNECTED, {"ring-ref": "text", "idempotent": True})],
        [(CONNECTED, {"ring-ref": 4095, "idempotent": 1})],
        [(INIT_WAIT, 1), (INITIALISED, {}), (XenbusState.INITIALISING, None)],
        [(XenbusState.CLOSING, {"x": 1})],
        [(XenbusState.RECONFIGURING, None), (XenbusState.RECONFIGURED, None)],
        [(XenbusState.UNKNOWN, None)],
    ],
    ids=str,
)
def test_a_back_end_that_says_anything_is_replaced_and_nobody_notices(
    words: list[tuple[XenbusState, Any]], tmp_path: Path
) -> None:
    with Machine(spares=0, intensity=10, watchdog=1.0) as machine:
        said = [[int(state), details] for state, details in words]
        machine.start("echo", Babbler, str(tmp_path / "flag"), said)
        with connect(machine, "echo") as channel:
            assert channel.call("question", timeout=SECONDS) == "question"


def test_a_back_end_that_refuses_ends_the_channel(tmp_path: Path) -> None:
    with Machine(spares=0, intensity=10) as machine:
        words = [[int(XenbusState.CLOSED), ["refused", "no reason"]]]
        machine.start("echo", Babbler, str(tmp_path / "flag"), words)
        with pytest.raises(ChannelClosed, match="no reason"):
            connect(machine, "echo")
