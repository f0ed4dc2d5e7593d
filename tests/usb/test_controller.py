"""The host controller: every URB ends once, in order, whatever dies; nothing is done twice."""

from __future__ import annotations

import itertools
import struct
from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb.controller import ATTACHED, BUSY, GONE, Connected, Disconnected, Output
from examples.usb.descriptors import Endpoint, Interface
from examples.usb.function import Function, Result
from examples.usb.keyboard import Keyboard
from examples.usb.mass_storage import MassStorage
from examples.usb.serial import CAPACITY, GET_LINE_CODING, SET_LINE_CODING, Serial
from examples.usb.urb import Urb
from tests.usb.parts import Camera, Memory
from tests.usb.wire import Wire


def loopback() -> Sequence[Function]:
    return [Serial(loopback=True)]


NOTIFICATION, IN, OUT = 0x81, 0x82, 0x01  # a serial line's


def attached(make: object = loopback) -> Wire:
    wire = Wire(make)  # type: ignore[arg-type]
    assert wire.controller.state == BUSY
    wire.run()
    assert wire.controller.state == ATTACHED
    return wire


def statuses(wire: Wire) -> list[int]:
    return [urb.status for urb in wire.ended]


def test_a_device_is_enumerated_and_configured() -> None:
    wire = attached()
    (connected,) = wire.events
    assert isinstance(connected, Connected)
    assert (connected.device.vendor, connected.speed, connected.again) == (
        0x1209,
        p.SPEED_HIGH,
        False,
    )
    assert [one[1] for one in connected.configuration.interfaces] == [2, 10]
    assert wire.back_end.device.state == "configured"
    assert (wire.controller.kind(IN), wire.controller.kind(0x85)) == (c9.BULK, None)


def test_transfers_of_every_kind() -> None:
    wire = attached(lambda: [Camera(), Keyboard()])
    control = wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    interrupt = wire.submit(0x82, 8)
    sent = wire.submit(0x01, b"abcde", packets=(2, 3))
    got = wire.submit(0x81, 192, packets=(64, 64, 64))
    wire.run()
    assert (control.status, control.received) == (p.OK, b"\1\0")
    assert (interrupt.status, interrupt.received) == (p.OK, bytes(8))
    assert (sent.status, sent.results, sent.actual) == (p.OK, ((p.OK, 2), (p.OK, 3)), 5)
    assert sent.received == b""
    assert (got.status, got.results, got.actual) == (p.OK, ((p.OK, 2), (p.OK, 3), (p.OK, 0)), 5)
    assert got.received[:2] == b"ab"
    assert got.received[64:67] == b"cde"
    assert len(got.received) == 192


def test_urbs_wait_for_the_device_to_be_attached() -> None:
    wire = Wire(loopback)
    urb = wire.submit(0, 2, setup=c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2).pack(), kind=c9.CONTROL)
    wire.run()
    assert (urb.status, urb.received) == (p.OK, b"\1\0")


def test_a_urb_that_is_refused_waits_and_is_sent_once_it_can_be_served() -> None:
    wire = attached()
    urb = wire.submit(IN, 512)
    wire.run()
    assert wire.ended == []
    wire.submit(OUT, b"hello")
    wire.run()
    assert (urb.status, urb.received) == (p.OK, b"hello")


def test_a_urb_that_is_served_in_part_goes_on_where_it_was() -> None:
    wire = attached()
    data = bytes(range(256)) * (2 * CAPACITY // 256)
    sent = wire.submit(OUT, data)
    wire.run()
    assert (wire.ended, sent.actual) == ([], CAPACITY)
    first = wire.submit(IN, CAPACITY)
    wire.run()
    second = wire.submit(IN, CAPACITY)
    wire.run()
    assert sent.status == p.OK
    assert first.received + second.received == data


def test_urbs_of_an_endpoint_keep_their_order() -> None:
    wire = attached()
    reads = [wire.submit(IN, 512) for _ in range(5)]
    for number in range(5):
        wire.submit(OUT, bytes((number,)))
    wire.run()
    assert [urb.received for urb in reads] == [b"\0\1\2\3\4"[n : n + 1] for n in range(5)]


def test_a_short_read_is_an_error_where_the_urb_says_so() -> None:
    wire = attached()
    wire.submit(OUT, b"hello")
    short = wire.submit(IN, 512, short_not_ok=True)
    wire.run()
    assert (short.status, short.received) == (p.REMOTEIO, b"hello")


@pytest.mark.parametrize(
    "urb",
    [
        Urb(0, 0x85, c9.BULK, 0),
        Urb(0, OUT, c9.INTERRUPT, 0),
        Urb(0, OUT, c9.BULK, 2, b"x"),
        Urb(0, IN, c9.BULK, 1, b"x"),
        Urb(0, IN, c9.BULK, -1),
        Urb(0, IN, c9.BULK, p.URB_LIMIT + 1),
        Urb(0, 0, c9.CONTROL, 2, setup=c9.Setup(0x80, 0, 0, 0, 1).pack()),
    ],
    ids=repr,
)
def test_a_urb_that_makes_no_sense_ends_at_once(urb: Urb) -> None:
    wire = attached()
    wire.perform(wire.controller.submit(urb))
    assert wire.ended == [urb]
    assert urb.status == p.INVAL
    assert not wire.requests


def test_an_id_that_is_in_use_is_an_error() -> None:
    wire = attached()
    wire.perform(wire.controller.submit(Urb("a", IN, c9.BULK, 1)))
    with pytest.raises(ValueError, match="has not ended"):
        wire.controller.submit(Urb("a", IN, c9.BULK, 1))


# --- unlinking ------------------------------------------------------------------------------------


def test_a_urb_that_waits_is_unlinked_at_once() -> None:
    wire = attached()
    urbs = [wire.submit(IN, 512) for _ in range(3)]
    wire.run()
    wire.perform(wire.controller.unlink(urbs[0].id))
    wire.perform(wire.controller.unlink(urbs[2].id))
    assert wire.ended == [urbs[0], urbs[2]]
    assert statuses(wire) == [p.CONNRESET] * 2
    wire.submit(OUT, b"x")
    wire.run()
    assert urbs[1].received == b"x"


@pytest.mark.parametrize("has_data", [True, False])
def test_a_urb_that_is_sent_ends_as_the_device_says_or_unlinked(has_data: bool) -> None:
    wire = attached()
    if has_data:
        wire.submit(OUT, b"x")
        wire.run()
        wire.ended.clear()
    urb = wire.submit(IN, 512)
    wire.perform(wire.controller.unlink(urb.id))
    assert wire.ended == []
    wire.run()
    assert wire.ended == [urb]
    assert (urb.status, urb.received) == ((p.OK, b"x") if has_data else (p.CONNRESET, b""))


def test_unlinking_what_has_ended_does_nothing() -> None:
    wire = attached()
    urb = wire.submit(OUT, b"x")
    wire.run()
    assert wire.controller.unlink(urb.id) == []
    assert wire.controller.unlink("never") == []


def test_all_are_unlinked_when_a_client_goes() -> None:
    wire = attached()
    urbs = [wire.submit(endpoint, 16) for endpoint in (IN, IN, IN, NOTIFICATION, NOTIFICATION)]
    wire.run()
    wire.perform(wire.controller.unlink_all())
    assert not wire.requests
    assert Counter(wire.ended) == Counter(urbs)
    wire.submit(IN, 64)
    wire.submit(OUT, b"x")
    wire.run()
    assert wire.ended[-1].received == b"x"
    assert wire.controller.unlink_all() == []


# --- the back end dies ----------------------------------------------------------------------------


def settled(wire: Wire) -> None:
    """Make the controller notice that the back end died."""
    wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    wire.run()
    wire.ended.clear()


def test_a_dead_back_end_is_replaced_and_what_can_be_repeated_is() -> None:
    wire = attached(lambda: [Keyboard()])
    wire.submit(0x81, 8)
    wire.run()
    waiting = wire.submit(0x81, 8)
    wire.run()
    asked = wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    wire.kill(carried_out=1)
    wire.run()
    assert (asked.status, asked.received) == (p.OK, b"\1\0")
    assert (waiting.status, waiting.received) == (p.OK, bytes(8))  # the new one's present state
    assert wire.controller.restarts == 1
    assert wire.back_end.device.state == "configured"
    assert isinstance(wire.events[-1], Connected)
    assert wire.events[-1].again


@pytest.mark.parametrize("carried_out", [0, 1])
def test_a_bulk_transfer_under_way_ends_in_an_error_once(carried_out: int) -> None:
    wire = attached()
    lost = wire.submit(OUT, b"lost")
    wire.kill(carried_out)
    wire.run()
    assert lost.status == p.IOERROR
    sent = wire.submit(OUT, b"sent")
    broken = wire.submit(IN, 64)
    got = wire.submit(IN, 64)
    wire.run()
    assert (sent.status, broken.status) == (p.OK, p.IOERROR)
    assert (got.status, got.received) == (p.OK, b"sent")


def test_a_bulk_transfer_that_waited_ends_in_an_error() -> None:
    wire = attached()
    waited = [wire.submit(IN, 64), wire.submit(IN, 64)]
    wire.run()
    wire.kill()
    wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    wire.run()
    assert [urb in wire.ended for urb in waited] == [True, False]
    assert waited[0].status == p.IOERROR


@pytest.mark.parametrize(
    "mends",
    [
        c9.Setup(c9.ENDPOINT, c9.CLEAR_FEATURE, c9.ENDPOINT_HALT, OUT, 0),
        c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0),
        c9.Setup(1, c9.SET_INTERFACE, 0, 1, 0),
        None,
    ],
    ids=repr,
)
def test_a_driver_that_resets_an_endpoint_has_no_error_any_more(mends: c9.Setup | None) -> None:
    wire = attached()
    wire.kill()
    settled(wire)
    if mends is None:
        wire.perform(wire.controller.reset())
    else:
        wire.control(mends)
    wire.run()
    sent = wire.submit(OUT, b"x")
    wire.run()
    assert sent.status == p.OK


def test_another_interfaces_endpoint_is_not_mended() -> None:
    wire = attached()
    wire.kill()
    settled(wire)
    wire.control(c9.Setup(1, c9.SET_INTERFACE, 0, 0, 0))
    sent = wire.submit(OUT, b"x")
    wire.run()
    assert sent.status == p.IOERROR


def test_what_a_driver_has_set_is_set_again() -> None:
    wire = attached()
    coding = struct.pack("<IBBB", 115200, 0, 0, 8)
    wire.control(c9.Setup(0x21, SET_LINE_CODING, 0, 0, 7), coding)
    wire.run()
    wire.kill()
    got = wire.control(c9.Setup(0xA1, GET_LINE_CODING, 0, 0, 7))
    wire.run()
    assert got.received == coding


def test_settings_are_made_again_in_the_order_of_the_last_time() -> None:
    wire = attached()
    for rate in (50, 115200):
        coding = struct.pack("<IBBB", rate, 0, 0, 8)
        wire.control(c9.Setup(0x21, SET_LINE_CODING, 0, 0, 7), coding)
        if rate == 50:
            wire.control(c9.Setup(1, c9.SET_INTERFACE, 0, 1, 0))  # which resets the line
    wire.run()
    wire.kill()
    got = wire.control(c9.Setup(0xA1, GET_LINE_CODING, 0, 0, 7))
    wire.run()
    assert got.received == coding


def test_half_a_transfer_of_a_dead_device_is_forgotten() -> None:
    wire = attached(lambda: [Keyboard()])
    urb = wire.submit(0x81, 16)
    wire.run()
    assert (wire.ended, urb.actual) == ([], 8)
    wire.kill()
    wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    wire.run()
    assert urb.actual == 8
    wire.perform(wire.controller.input(0, b"a"))
    wire.run()
    assert urb.received == bytes((*bytes(8), 0, 0, 4, 0, 0, 0, 0, 0))


@pytest.mark.parametrize("steps", range(6))
def test_a_reset_keeps_what_waits_whatever_is_under_way(steps: int) -> None:
    wire = attached()
    waiting = wire.submit(IN, 64)
    wire.run()
    for _ in range(2):  # the second one replaces the first
        wire.perform(wire.controller.reset())
        for _ in range(steps):
            wire.step()
    wire.run()
    assert wire.controller.state == ATTACHED
    wire.submit(OUT, b"x")
    wire.run()
    assert (waiting.status, waiting.received) == (p.OK, b"x")


def test_a_setting_that_was_under_way_is_made_once_more() -> None:
    wire = attached()
    coding = struct.pack("<IBBB", 115200, 0, 0, 8)
    urb = wire.control(c9.Setup(0x21, SET_LINE_CODING, 0, 0, 7), coding)
    wire.kill(carried_out=1)
    wire.run()
    assert urb.status == p.OK
    got = wire.control(c9.Setup(0xA1, GET_LINE_CODING, 0, 0, 7))
    wire.run()
    assert got.received == coding


def test_a_request_that_cannot_be_repeated_ends_in_an_error() -> None:
    wire = attached(lambda: [MassStorage(Memory(), "0" * 12)])
    urb = wire.control(c9.Setup(0x21, 0xFF, 0, 0, 0))
    wire.kill(carried_out=1)
    wire.run()
    assert urb.status == p.IOERROR


def test_a_device_that_dies_while_it_is_restored_is_restored_again() -> None:
    wire = attached()
    wire.kill()
    urb = wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    for steps in range(7):
        for _ in range(steps):
            wire.step()
        wire.kill()
    wire.run()
    assert (urb.status, urb.received) == (p.OK, b"\1\0")
    assert wire.controller.state == ATTACHED


def test_a_device_that_dies_while_it_is_attached_is_attached_in_the_end() -> None:
    for steps in range(6):
        wire = Wire(loopback)
        for _ in range(steps):
            wire.step()
        wire.kill()
        wire.run()
        assert wire.controller.state in (ATTACHED, BUSY)
        urb = wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
        wire.run()
        assert (urb.status, urb.received) == (p.OK, b"\1\0")


def test_another_device_in_its_place_is_a_disconnect() -> None:
    wire = attached()
    waiting = wire.submit(IN, 64)
    wire.run()
    wire.make = lambda: [Keyboard()]
    wire.kill()
    asked = wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2))
    wire.run()
    assert wire.events[-1] == Disconnected("another device came back in its place")
    assert (waiting.status, asked.status) == (p.NODEV, p.NODEV)
    late = wire.submit(OUT, b"x")
    assert late.status == p.NODEV
    assert wire.controller.state == GONE


def test_a_device_without_sense_is_a_disconnect() -> None:
    wire = Wire(loopback)
    wire.back_end.device._configuration = b"\0" * 40
    wire.run()
    (event,) = wire.events
    assert isinstance(event, Disconnected)
    assert event.reason.startswith("it does not enumerate")


def test_the_end_of_the_channel_ends_everything() -> None:
    wire = attached()
    urbs = [wire.submit(IN, 64), wire.submit(IN, 64), wire.submit(OUT, b"x")]
    wire.perform(wire.controller.closed("the machine failed"))
    assert Counter(wire.ended) == Counter(urbs)
    assert set(statuses(wire)) == {p.SHUTDOWN}
    assert wire.events[-1] == Disconnected("the machine failed")
    assert wire.controller.closed("again") == []


def test_an_error_of_the_driver_ends_the_urb() -> None:
    wire = attached()
    urb = wire.submit(OUT, b"x")
    send, _ = wire.requests.popleft()
    wire.perform(wire.controller.failed(send.token, "ZeroDivisionError: no"))
    assert urb.status == p.IOERROR


# --- the world ------------------------------------------------------------------------------------


def test_input_reaches_the_device_in_order_and_output_comes_out() -> None:
    wire = attached(lambda: [Keyboard(), Serial()])
    for character in b"ab":
        wire.perform(wire.controller.input(0, bytes((character,))))
    reports = [wire.submit(0x81, 8) for _ in range(5)]
    wire.submit(0x01, b"out")
    wire.run()
    assert [urb.received[2] for urb in reports] == [0, 4, 0, 5, 0]
    assert wire.events[1:] == [Output(1, b"out")]


def test_input_for_a_device_that_died_is_lost_and_counted() -> None:
    wire = attached(lambda: [Keyboard()])
    wire.perform(wire.controller.input(0, b"a"))
    wire.perform(wire.controller.input(0, b"b"))
    wire.kill(carried_out=1)
    reports = [wire.submit(0x81, 8) for _ in range(3)]
    wire.run()
    assert [urb.received[2] for urb in reports] == [0, 5, 0]
    assert wire.controller.lost == 1


# --- all of it ------------------------------------------------------------------------------------


class Recorder(Function):
    """Remembers what it was sent, in the test's own list; gives numbers that nobody gave before."""

    def __init__(self, log: list[bytes], numbers: itertools.count[int]) -> None:
        self.log = log
        self.numbers = numbers

    def interfaces(self, first: int) -> list[Interface]:
        ends = (Endpoint(c9.IN, c9.BULK, 512), Endpoint(0, c9.BULK, 512))
        return [Interface(0xFF, 0, 0, ends)]

    def send(self, endpoint: int, view: memoryview) -> Result:
        view[:4] = struct.pack("<I", next(self.numbers))
        return p.OK, 4

    def receive(self, endpoint: int, view: memoryview) -> Result:
        self.log.append(bytes(view))
        return p.OK, len(view)


@given(
    st.lists(
        st.sampled_from(
            ["out", "in", "status", "step", "step", "unlink", "kill", "kill1", "reset"]
        ),
        max_size=60,
    )
)
def test_every_urb_ends_once_and_nothing_is_done_twice(actions: list[str]) -> None:
    log: list[bytes] = []
    numbers = itertools.count()
    wire = Wire(lambda: [Recorder(log, numbers)])
    wire.run()
    submitted: list[Urb] = []
    for number, action in enumerate(actions):
        match action:
            case "out":
                submitted.append(wire.submit(0x01, struct.pack("<I", number)))
            case "in":
                submitted.append(wire.submit(0x81, 64))
            case "status":
                submitted.append(wire.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2)))
            case "step":
                wire.step()
            case "unlink" if submitted:
                wire.perform(wire.controller.unlink(submitted[number % len(submitted)].id))
            case "kill":
                wire.kill()
            case "kill1":
                wire.kill(carried_out=number % 4)
            case "reset":
                wire.perform(wire.controller.reset())
    wire.run()
    wire.run()
    assert Counter(wire.ended) == Counter(submitted)
    assert len(set(log)) == len(log)
    done = [urb.data for urb in wire.ended if urb.endpoint == 0x01 and urb.status == p.OK]
    assert set(done) <= set(log)
    assert [data for data in log if data in done] == done
    got = [bytes(urb.received) for urb in wire.ended if urb.endpoint == 0x81 and urb.actual]
    assert len(set(got)) == len(got)
    assert {urb.status for urb in wire.ended} <= {p.OK, p.IOERROR, p.CONNRESET}


# --- isochronous transfers, and devices that hold transfers ---------------------------------------

ISO_IN = 0x81


def camera() -> Sequence[Function]:
    return [Camera()]


def test_isochronous_transfers_are_sent_ahead_and_end_in_order() -> None:
    wire = attached(camera)
    urbs = [wire.submit(ISO_IN, 64, packets=(64,)) for _ in range(9)]
    assert len(wire.requests) == 4
    wire.step()
    assert len(wire.requests) == 4
    wire.run()
    assert wire.ended == urbs


def test_isochronous_transfers_that_were_sent_to_a_dead_device_fail_and_the_others_go_on() -> None:
    wire = attached(camera)
    urbs = [wire.submit(ISO_IN, 64, packets=(64,)) for _ in range(6)]
    wire.kill(carried_out=2)
    wire.run()
    assert wire.controller.restarts == 1
    assert wire.ended == urbs
    assert statuses(wire) == [p.IOERROR] * 4 + [p.OK] * 2


class Holding(Wire):
    """A device that is hardware: its back end answers when a test says so."""

    def hold(self) -> None:
        self.controller.holds = True

    def answer(self, urb: Urb | None, status: int) -> None:
        """The device ends that transfer, or (None) has let go of others."""
        place = next(at for at, (send, _) in enumerate(self.requests) if send.token.urb is urb)
        send, _ = self.requests[place]
        del self.requests[place]
        self.perform(self.controller.answered(send.token, (status, 0, (), (), ()), b""))

    def asked(self) -> list[tuple[int, int]]:
        """Operation and endpoint of each request."""
        return [(send.body[0], send.body[2]) for send, _ in self.requests]


def holding() -> Holding:
    wire = Holding(camera)
    wire.run()
    wire.hold()
    return wire


def test_a_device_that_holds_a_transfer_is_told_to_let_go_of_it() -> None:
    wire = holding()
    first, second = (wire.submit(ISO_IN, 64, packets=(64,)) for _ in range(2))
    wire.perform(wire.controller.unlink(first.id))
    assert wire.asked() == [(p.SUBMIT, ISO_IN)] * 2 + [(p.UNLINK, ISO_IN)]
    wire.answer(first, p.NAK)
    wire.answer(second, p.NAK)
    assert statuses(wire) == [p.CONNRESET]
    assert wire.asked() == [(p.UNLINK, ISO_IN), (p.SUBMIT, ISO_IN)]  # the second one again
    wire.answer(None, p.OK)
    wire.run()
    assert wire.ended == [first, second]
    assert second.status == p.OK


def test_an_unlink_that_comes_too_late_meets_no_other_transfer() -> None:
    wire = holding()
    first = wire.submit(ISO_IN, 64, packets=(64,))
    wire.perform(wire.controller.unlink(first.id))
    wire.answer(first, p.OK)
    second = wire.submit(ISO_IN, 64, packets=(64,))
    assert first.status == p.OK
    assert wire.asked() == [(p.UNLINK, ISO_IN), (p.SUBMIT, ISO_IN)]
    wire.answer(None, p.OK)
    wire.run()
    assert second.status == p.OK


def test_a_device_that_answers_that_it_is_gone_is_gone_for_all() -> None:
    wire = holding()
    sent = [wire.submit(ISO_IN, 64, packets=(64,)) for _ in range(6)]
    wire.answer(sent[0], p.NODEV)
    assert [urb.status for urb in wire.ended] == [p.NODEV] * 3  # it, and those not sent
    assert isinstance(wire.events[-1], Disconnected)
    for urb in sent[1:4]:
        wire.answer(urb, p.IOERROR)
    assert wire.ended == [sent[0], *sent[4:], *sent[1:4]]
    assert {urb.status for urb in wire.ended} == {p.NODEV}
    assert wire.controller.state == GONE
