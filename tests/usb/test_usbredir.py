"""usbredir: hellos, descriptions, transfers, and what a session answers to what makes no sense."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb import usbredir as r
from examples.usb.descriptors import EndpointRead
from examples.usb.urb import Urb
from examples.usb.usbip import Exported
from examples.usb.usbip_session import CLOSING, URBS, Event, Reset, Submitted, Unlinked, Wanted
from examples.usb.usbredir_session import RedirSession
from tests.usb.helpers import exporting_here
from transport import RemoteProtocolError

ALL = r.CAPABILITIES
DEVICE = Exported(
    "", "1-1", 1, 2, p.SPEED_HIGH, 0x1209, 3, 0x100, 0xEF, 2, 1, 1, 1,
    ((8, 6, 0x50), (3, 1, 1)),
    (
        EndpointRead(0x81, c9.BULK, 512, 0, 0),
        EndpointRead(0x01, c9.BULK, 512, 0, 0),
        EndpointRead(0x82, c9.INTERRUPT, 8, 7, 1),
    ),
)  # fmt: skip


def hello(capabilities: int = ALL) -> bytes:
    return r.packet(r.HELLO, 0, struct.pack("<64sI", b"a test", capabilities), 0)


def begun(capabilities: int = ALL) -> RedirSession:
    session = RedirSession(9)
    assert session.receive(hello(capabilities)) == ([Wanted(None)], b"")
    session.imported(DEVICE, None)
    assert session.state == URBS
    return session


def packets(data: bytes, capabilities: int = ALL) -> list[r.Packet]:
    found = []
    while data:
        one = r.read(data, capabilities)
        assert one is not None
        found.append(one[0])
        data = data[one[1] :]
    return found


def say(session: RedirSession, kind: int, number: int, body: bytes = b"") -> list[Event]:
    events, output = session.receive(r.packet(kind, number, body, ALL))
    assert output == b""
    return events


def submitted(events: list[Event]) -> Urb:
    (event,) = events
    assert isinstance(event, Submitted)
    return event.urb


def end(session: RedirSession, urb: Urb, status: int = p.OK, data: bytes = b"") -> list[r.Packet]:
    urb.status, urb.received = status, data
    urb.actual = len(data) if urb.is_in else (urb.length if status == p.OK else 0)
    events, told = session.ended(urb)
    assert events == []
    return packets(told)


def control(setup: c9.Setup, data: bytes = b"") -> bytes:
    endpoint = setup.request_type & 0x80
    head = struct.pack(
        "<BBBBHHH",
        endpoint,
        setup.request,
        setup.request_type,
        0,
        setup.value,
        setup.index,
        setup.length,
    )
    return head + data


def bulk(endpoint: int, length: int, data: bytes = b"") -> bytes:
    return struct.pack("<BBHIH", endpoint, 0, length & 0xFFFF, 0, length >> 16) + data


GET_STATUS = c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2)


def test_a_hello_is_said_first_and_a_hello_wants_a_device() -> None:
    session = RedirSession(9)
    (greeting,) = packets(session.greeting, 0)
    assert (greeting.kind, len(greeting.body)) == (r.HELLO, 68)
    assert session.receive(hello()) == ([Wanted(None)], b"")
    described = packets(session.imported(DEVICE, None))
    assert [one.kind for one in described] == [r.INTERFACE_INFO, r.EP_INFO, r.DEVICE_CONNECT]
    interfaces, ends, connect = (one.body for one in described)
    assert (len(interfaces), interfaces[:4]) == (132, b"\2\0\0\0")
    assert interfaces[4:6] == b"\0\1"
    assert [interfaces[4 + 32 * n : 6 + 32 * n] for n in (1, 2, 3)] == [
        b"\x08\3",
        b"\6\1",
        b"\x50\1",
    ]
    assert len(ends) == 32 * 5
    assert ends[:3] == bytes((c9.CONTROL, c9.BULK, 255))
    assert ends[16:19] == bytes((c9.CONTROL, c9.BULK, c9.INTERRUPT))
    assert (ends[32 + 18], ends[64 + 18]) == (7, 1)
    assert struct.unpack_from("<HH", ends, 96 + 2 * 17) == (512, 8)
    assert connect == struct.pack("<BBBBHHH", 2, 0xEF, 2, 1, 0x1209, 3, 0x100)


def test_a_client_that_can_less_gets_less() -> None:
    session = RedirSession(9)
    session.receive(hello(0))
    described = packets(session.imported(DEVICE, None), 0)
    assert [len(one.body) for one in described] == [132, 96, 8]
    events, _ = session.receive(r.packet(r.BULK_PACKET, 5, struct.pack("<BBHI", 0x81, 0, 8, 0), 0))
    urb = submitted(events)
    assert urb.length == 8
    urb.received, urb.actual = b"ab", 2
    assert session.ended(urb)[1] == r.packet(
        r.BULK_PACKET, 5, struct.pack("<BBHI", 0x81, 0, 2, 0) + b"ab", 0
    )


def test_control_transfers_go_both_ways() -> None:
    session = begun()
    urb = submitted(say(session, r.CONTROL_PACKET, 7, control(GET_STATUS)))
    assert (urb.kind, urb.setup, urb.length) == (c9.CONTROL, GET_STATUS.pack(), 2)
    (told,) = end(session, urb, data=b"\1\0")
    assert told == r.Packet(r.CONTROL_PACKET, 7, control(GET_STATUS) + b"\1\0")
    setup = c9.Setup(0x21, 9, 0x200, 0, 1)
    urb = submitted(say(session, r.CONTROL_PACKET, 8, control(setup, b"\2")))
    assert urb.data == b"\2"
    (told,) = end(session, urb, p.STALL)
    assert (told.body[3], told.body[8:]) == (r.STALL, b"\0\0")


def test_bulk_transfers_go_both_ways_and_may_be_long() -> None:
    session = begun()
    urb = submitted(say(session, r.BULK_PACKET, 7, bulk(0x81, 0x20003)))
    assert (urb.endpoint, urb.length) == (0x81, 0x20003)
    (told,) = end(session, urb, data=b"x" * 0x10001)
    assert told.body == bulk(0x81, 0x10001) + b"x" * 0x10001
    urb = submitted(say(session, r.BULK_PACKET, 8, bulk(0x01, 3, b"abc")))
    assert urb.data == b"abc"
    assert end(session, urb) == [r.Packet(r.BULK_PACKET, 8, bulk(0x01, 3))]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (p.STALL, r.STALL),
        (p.IOERROR, r.IOERROR),
        (p.NODEV, r.IOERROR),
        (p.SHUTDOWN, r.IOERROR),
        (p.INVAL, r.INVAL),
        (p.BABBLE, r.BABBLE),
        (p.CONNRESET, r.CANCELLED),
    ],
)
def test_ends_have_their_status(status: int, told: int) -> None:
    session = begun()
    urb = submitted(say(session, r.BULK_PACKET, 7, bulk(0x81, 8)))
    if status == p.CONNRESET:
        assert say(session, r.CANCEL_DATA_PACKET, 7) == [Unlinked(urb.id)]
    (packet,) = end(session, urb, status)
    assert (packet.id, packet.body[1]) == (7, told)
    assert say(session, r.CANCEL_DATA_PACKET, 7) == []


def test_what_was_cancelled_may_be_there_again_before_it_has_ended() -> None:
    session = begun()
    first = submitted(say(session, r.BULK_PACKET, 7, bulk(0x81, 8)))
    with pytest.raises(RemoteProtocolError, match="packet 7 has not ended, and is there again"):
        say(session, r.BULK_PACKET, 7, bulk(0x81, 8))
    say(session, r.CANCEL_DATA_PACKET, 7)
    second = submitted(say(session, r.BULK_PACKET, 7, bulk(0x81, 8)))
    (told,) = end(session, first, p.CONNRESET)
    assert (told.id, told.body[1]) == (7, r.CANCELLED)
    assert say(session, r.CANCEL_DATA_PACKET, 7) == [Unlinked(second.id)]
    third = submitted(say(session, r.BULK_PACKET, 7, bulk(0x81, 8)))
    (told,) = end(session, second, data=b"x" * 8)  # it was too late to cancel it
    assert (told.id, told.body) == (7, bulk(0x81, 8) + b"x" * 8)
    assert [told.id for told in end(session, third)] == [7]


def test_configurations_and_settings_are_asked_of_the_device() -> None:
    session = begun()
    urb = submitted(say(session, r.SET_CONFIGURATION, 3, b"\1"))
    assert c9.Setup.of(urb.setup) == c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0)
    told = end(session, urb)
    assert [one.kind for one in told] == [r.INTERFACE_INFO, r.EP_INFO, r.CONFIGURATION_STATUS]
    assert told[2] == r.Packet(r.CONFIGURATION_STATUS, 3, b"\0\1")
    urb = submitted(say(session, r.GET_CONFIGURATION, 4))
    assert end(session, urb, data=b"\1") == [r.Packet(r.CONFIGURATION_STATUS, 4, b"\0\1")]
    urb = submitted(say(session, r.SET_ALT_SETTING, 5, b"\1\2"))
    assert end(session, urb, p.STALL) == [r.Packet(r.ALT_SETTING_STATUS, 5, bytes((4, 1, 2)))]
    urb = submitted(say(session, r.GET_ALT_SETTING, 6, b"\1"))
    assert end(session, urb, data=b"\0") == [r.Packet(r.ALT_SETTING_STATUS, 6, b"\0\1\0")]
    assert say(session, r.RESET, 0) == [Reset()]
    assert session.receive(r.packet(r.START_ISO_STREAM, 1, b"\x83\1\1", ALL)) == (
        [],
        r.packet(r.ISO_STREAM_STATUS, 1, bytes((r.INVAL, 0x83)), ALL),
    )


def started(session: RedirSession) -> Urb:
    start = r.packet(r.START_INTERRUPT_RECEIVING, 3, b"\x82", ALL)
    events, output = session.receive(start)
    status = r.Packet(r.INTERRUPT_RECEIVING_STATUS, 3, b"\0\x82")
    assert packets(output) == [status]
    return submitted(events)


def test_interrupts_are_received_until_they_are_not_wanted() -> None:
    session = begun()
    urb = started(session)
    assert (urb.endpoint, urb.length) == (0x82, 8)
    for number in range(3):
        urb.received, urb.actual = bytes((number,)) * 8, 8
        events, output = session.ended(urb)
        body = struct.pack("<BBH", 0x82, 0, 8) + bytes((number,)) * 8
        assert packets(output) == [r.Packet(r.INTERRUPT_PACKET, number, body)]
        urb = submitted(events)
    events, output = session.receive(r.packet(r.STOP_INTERRUPT_RECEIVING, 4, b"\x82", ALL))
    assert events == [Unlinked(urb.id)]
    assert packets(output) == [r.Packet(r.INTERRUPT_RECEIVING_STATUS, 4, b"\0\x82")]
    assert end(session, urb, p.CONNRESET) == []


def test_receiving_that_is_stopped_and_started_at_once_goes_on() -> None:
    session = begun()
    urb = started(session)
    session.receive(r.packet(r.STOP_INTERRUPT_RECEIVING, 4, b"\x82", ALL))
    session.receive(r.packet(r.START_INTERRUPT_RECEIVING, 5, b"\x82", ALL))
    urb.status = p.CONNRESET
    events, output = session.ended(urb)
    assert output == b""
    assert submitted(events).endpoint == 0x82


def test_receiving_ends_with_an_error_that_is_told() -> None:
    session = begun()
    told = end(session, started(session), p.STALL)
    assert told == [r.Packet(r.INTERRUPT_RECEIVING_STATUS, 3, bytes((r.STALL, 0x82)))]
    started(session)


def test_receiving_from_what_is_no_interrupt_endpoint_is_refused() -> None:
    for endpoint in (0x81, 0x01, 0x85, 0):
        start = r.packet(r.START_INTERRUPT_RECEIVING, 3, bytes((endpoint,)), ALL)
        events, output = begun().receive(start)
        assert events == []
        assert packets(output)[0].body == bytes((r.INVAL, endpoint))


def test_no_device_closes() -> None:
    session = RedirSession(9)
    session.receive(hello())
    assert session.refused(1) == b""
    assert session.state == CLOSING


@pytest.mark.parametrize(
    "data",
    [
        r.packet(r.BULK_PACKET, 1, bulk(0x81, 8), ALL) * 2,
        r.packet(r.BULK_PACKET, 1, bulk(0x81, 8, b"x"), ALL),
        r.packet(r.BULK_PACKET, 1, bulk(0x01, 8, b"x"), ALL),
        r.packet(r.BULK_PACKET, 1, bulk(0x81, p.URB_LIMIT + 1), ALL),
        r.packet(r.BULK_PACKET, 1, b"\x81", ALL),
        r.packet(r.CONTROL_PACKET, 1, b"\x80", ALL),
        r.packet(r.CONTROL_PACKET, 1, control(GET_STATUS) + b"x", ALL),
        r.packet(r.CONTROL_PACKET, 1, b"\0" + control(GET_STATUS)[1:], ALL),
        r.packet(r.SET_CONFIGURATION, 1, b"", ALL),
        r.packet(r.SET_ALT_SETTING, 1, b"\1", ALL),
        r.packet(r.DEVICE_CONNECT, 1, bytes(10), ALL),
        r.packet(r.ISO_PACKET, 1, bytes(4), ALL),
        r.packet(99, 1, b"", ALL),
        struct.pack("<IIQ", r.BULK_PACKET, 0xFFFFFFFF, 1),
    ],
)
def test_packets_that_make_no_sense_end_the_session(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        begun().receive(data)


def test_what_comes_before_a_hello_is_an_error() -> None:
    with pytest.raises(RemoteProtocolError, match="before the hello"):
        RedirSession(9).receive(r.packet(r.RESET, 0, b"", 0))


@given(st.binary(max_size=120), st.sampled_from([*range(28), *range(100, 105)]))
def test_any_bytes_are_understood_or_a_typed_error(data: bytes, kind: int) -> None:
    for sent in (data, r.packet(kind, 1, data, ALL)):
        with contextlib.suppress(RemoteProtocolError):
            begun().receive(sent)
        with contextlib.suppress(RemoteProtocolError):
            RedirSession(9).receive(sent)


# --- at the server --------------------------------------------------------------------------------


class Client:
    """A usbredir client of our own."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.settimeout(20)
        self.common = 0
        self.socket.sendall(hello())
        assert self.packet().kind == r.HELLO
        self.common = ALL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def packet(self) -> r.Packet:
        data = b""
        while (found := r.read(data, self.common)) is None:
            piece = self.socket.recv(1)
            if not piece:
                raise EOFError
            data += piece
        return found[0]

    def send(self, kind: int, body: bytes, number: int = 0) -> None:
        self.socket.sendall(r.packet(kind, number, body, ALL))

    def ask_status(self, kind: int, body: bytes) -> int:
        """The status in the answer to a packet that starts or stops something."""
        self.send(kind, body)
        return self.packet().body[0]

    def ask(self, kind: int, number: int, body: bytes) -> r.Packet:
        self.send(kind, body, number)
        packet = self.packet()
        assert (packet.kind, packet.id) == (kind, number)
        return packet


def test_clients_get_the_devices_that_are_free() -> None:
    with exporting_here([["serial", True]], [["keyboard"]]) as served:
        with Client(served.redir_port) as serial, Client(served.redir_port) as keyboard:
            kinds = [serial.packet().kind for _ in range(3)]
            assert kinds == [r.INTERFACE_INFO, r.EP_INFO, r.DEVICE_CONNECT]
            for _ in range(3):
                keyboard.packet()
            with Client(served.redir_port) as third, pytest.raises(EOFError):
                third.packet()
            assert serial.ask(r.BULK_PACKET, 5, bulk(0x01, 5, b"hello")).body == bulk(0x01, 5)
            assert serial.ask(r.BULK_PACKET, 6, bulk(0x82, 64)).body[10:] == b"hello"
            start = r.packet(r.START_INTERRUPT_RECEIVING, 1, b"\x81", ALL)
            keyboard.socket.sendall(start)
            assert keyboard.packet().kind == r.INTERRUPT_RECEIVING_STATUS
            assert keyboard.packet().body[4:] == bytes(8)
            served.worlds[1][0].write(b"a")
            assert keyboard.packet().body[4 + 2] == 4
        with served.client() as client:
            assert list(client.devices()) == ["1-1", "1-2"]
