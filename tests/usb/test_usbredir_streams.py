"""Isochronous streams by usbredir: to the host, to the device, their ends, and what is refused."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb import usbredir as r
from examples.usb.descriptors import EndpointRead
from examples.usb.urb import Urb
from examples.usb.usbip_session import Event, Unlinked, Wanted
from examples.usb.usbredir_session import RedirSession
from tests.usb.helpers import exporting_here
from tests.usb.parts import CameraDevice
from tests.usb.test_usbredir import ALL, DEVICE, Client, end, hello, packets, submitted
from transport import RemoteProtocolError

IN, OUT = 0x83, 0x03
SIZE = 8
CAMERA = replace(
    DEVICE,
    endpoints=(
        *DEVICE.endpoints,
        EndpointRead(IN, c9.ISOCHRONOUS, SIZE, 1, 1),
        EndpointRead(OUT, c9.ISOCHRONOUS, SIZE, 1, 1),
        EndpointRead(0x84, c9.ISOCHRONOUS, 0x1400, 1, 1, setting=2),  # three of 1024 bytes
    ),
)


def begun() -> RedirSession:
    session = RedirSession(9)
    assert session.receive(hello()) == ([Wanted(None)], b"")
    session.imported(CAMERA, None)
    return session


def say(
    session: RedirSession, kind: int, number: int, body: bytes
) -> tuple[list[Event], list[r.Packet]]:
    events, output = session.receive(r.packet(kind, number, body, ALL))
    return events, packets(output)


def start(session: RedirSession, endpoint: int, per_transfer: int, transfers: int) -> list[Urb]:
    """Start a stream; the transfers that this makes."""
    body = bytes((endpoint, per_transfer, transfers))
    events, told = say(session, r.START_ISO_STREAM, 5, body)
    assert told == [r.Packet(r.ISO_STREAM_STATUS, 5, bytes((r.SUCCESS, endpoint)))]
    return [submitted([event]) for event in events]


def iso(endpoint: int, data: bytes, status: int = 0) -> bytes:
    return struct.pack("<BBH", endpoint, status, len(data)) + data


def put(session: RedirSession, data: bytes) -> list[Urb]:
    """A packet for the device; the transfers that this makes."""
    events, told = say(session, r.ISO_PACKET, 0, iso(OUT, data))
    assert told == []
    return [submitted([event]) for event in events]


def ended(session: RedirSession, urb: Urb, *results: tuple[int, bytes]) -> list[r.Packet]:
    """A transfer to the host ends with these packets; what the client is told."""
    urb.results = tuple((status, len(data)) for status, data in results)
    urb.received = b"".join(data.ljust(SIZE, b"\0") for _, data in results)
    urb.actual = sum(len(data) for _, data in results)
    events, told = session.ended(urb)
    again = submitted(events)
    assert (again.endpoint, again.packets) == (urb.endpoint, urb.packets)
    return packets(told)


def test_a_stream_to_the_host_is_transfers_one_after_another_and_a_number_for_each_packet() -> None:
    session = begun()
    urbs = start(session, IN, 2, 3)
    assert [(urb.kind, urb.endpoint, urb.packets) for urb in urbs] == [
        (c9.ISOCHRONOUS, IN, (SIZE, SIZE))
    ] * 3
    assert ended(session, urbs[0], (p.OK, b"a"), (p.OK, b"")) == [
        r.Packet(r.ISO_PACKET, 0, iso(IN, b"a")),
        r.Packet(r.ISO_PACKET, 1, iso(IN, b"")),
    ]
    assert ended(session, urbs[1], (p.IOERROR, b""), (p.OK, b"12345678")) == [
        r.Packet(r.ISO_PACKET, 2, iso(IN, b"", r.IOERROR)),
        r.Packet(r.ISO_PACKET, 3, iso(IN, b"12345678")),
    ]


def test_a_stream_to_the_device_begins_half_full_and_makes_transfers_of_its_packets() -> None:
    session = begun()
    assert start(session, OUT, 2, 4) == []
    for data in (b"a", b"bb", b"ccc"):
        assert put(session, data) == []
    first, second = put(session, b"")
    assert (first.packets, first.data) == ((1, 2), b"abb")
    assert (second.packets, second.data, second.length) == ((3, 0), b"ccc", 3)
    assert put(session, b"d") == []
    (third,) = put(session, b"e")
    assert third.data == b"de"
    for urb in (first, second, third):
        assert end(session, urb) == []
    for data in (b"f", b"g", b"h"):  # it ran dry, and begins half full again
        assert put(session, data) == []
    assert [urb.data for urb in put(session, b"i")] == [b"fg", b"hi"]


def test_packets_that_come_while_all_transfers_are_full_are_dropped() -> None:
    session = begun()
    start(session, OUT, 1, 2)
    (first,), (second,) = put(session, b"1"), put(session, b"2")
    assert put(session, b"3") == []
    end(session, first)
    end(session, second)
    (fourth,) = put(session, b"4")
    assert fourth.data == b"4"


@pytest.mark.parametrize("endpoint", [IN, OUT])
def test_a_stream_is_stopped_and_what_comes_of_it_later_is_not_told(endpoint: int) -> None:
    session = begun()
    urbs = start(session, endpoint, 1, 2) or put(session, b"1")
    events, told = say(session, r.STOP_ISO_STREAM, 6, bytes((endpoint,)))
    assert {event.id for event in events if isinstance(event, Unlinked)} == {urb.id for urb in urbs}
    assert told == [r.Packet(r.ISO_STREAM_STATUS, 6, bytes((r.SUCCESS, endpoint)))]
    again = start(session, endpoint, 1, 2)
    for urb in urbs:
        assert end(session, urb, p.CONNRESET) == []
    for urb in again:
        assert ended(session, urb, (p.OK, b"x"))[0].body == iso(IN, b"x")


@pytest.mark.parametrize("endpoint", [IN, OUT])
def test_a_stream_that_fails_is_told_as_a_stall_and_can_be_started_again(endpoint: int) -> None:
    session = begun()
    urbs = start(session, endpoint, 1, 2) or put(session, b"1") + put(session, b"2")
    urbs[0].status = p.IOERROR
    events, told = session.ended(urbs[0])
    assert events == [Unlinked(urbs[1].id)]
    assert packets(told)[0].body == bytes((r.STALL, endpoint))
    assert end(session, urbs[1], p.CONNRESET) == []
    if endpoint == OUT:
        assert put(session, b"late") == []
    start(session, endpoint, 1, 2)


@pytest.mark.parametrize(
    "body",
    [
        b"\x81\1\1",
        b"\x85\1\1",
        b"\0\1\1",
        bytes((IN, 0, 1)),
        bytes((OUT, 1, 0)),
        bytes((IN, 129, 1)),
    ],
)
def test_a_stream_that_cannot_be_is_refused(body: bytes) -> None:
    events, told = say(begun(), r.START_ISO_STREAM, 5, body)
    assert events == []
    assert told == [r.Packet(r.ISO_STREAM_STATUS, 5, bytes((r.INVAL, body[0])))]


def test_a_stream_that_is_started_twice_is_refused_and_goes_on() -> None:
    session = begun()
    (urb,) = start(session, IN, 1, 1)
    events, told = say(session, r.START_ISO_STREAM, 6, bytes((IN, 1, 1)))
    assert (events, told[0].body) == ([], bytes((r.INVAL, IN)))
    assert ended(session, urb, (p.OK, b"x")) == [r.Packet(r.ISO_PACKET, 0, iso(IN, b"x"))]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (r.ISO_PACKET, iso(IN, b"x")),
        (r.ISO_PACKET, iso(0x01, b"x")),
        (r.ISO_PACKET, iso(OUT, b"x" * (SIZE + 1))),
        (r.ISO_PACKET, iso(OUT, b"x") + b"x"),
        (r.ISO_PACKET, b"\x03"),
        (r.START_ISO_STREAM, b"\x83"),
        (r.STOP_ISO_STREAM, b""),
    ],
)
def test_packets_of_streams_that_make_no_sense_end_the_session(kind: int, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        begun().receive(r.packet(kind, 1, body, ALL))


def test_endpoints_are_those_of_the_setting_that_was_chosen() -> None:
    session = begun()
    events, told = say(session, r.START_ISO_STREAM, 5, b"\x84\1\1")
    assert told[0].body == bytes((r.INVAL, 0x84))
    events, _ = say(session, r.SET_ALT_SETTING, 6, b"\1\2")
    told = end(session, submitted(events))
    assert [one.kind for one in told] == [r.INTERFACE_INFO, r.EP_INFO, r.ALT_SETTING_STATUS]
    kinds = told[1].body[:32]
    assert (kinds[16 + 1], kinds[16 + 3], kinds[16 + 4]) == (c9.BULK, 255, c9.ISOCHRONOUS)
    (urb,) = start(session, 0x84, 1, 1)
    assert urb.packets == (3 * 1024,)
    events, _ = say(session, r.RESET, 7, b"")
    _, told = say(session, r.START_ISO_STREAM, 8, b"\x84\1\1")
    assert told[0].body == bytes((r.INVAL, 0x84))


def test_what_is_streamed_to_a_device_comes_back_in_order() -> None:
    with (
        exporting_here([["camera"]], driver=CameraDevice) as served,
        Client(served.redir_port) as client,
    ):
        for _ in range(3):
            client.packet()
        assert client.ask_status(r.START_ISO_STREAM, b"\x01\2\2") == r.SUCCESS
        for data in (b"one", b"two", b"three", b"four"):
            client.send(r.ISO_PACKET, iso(0x01, data))
        assert client.ask_status(r.START_ISO_STREAM, b"\x81\2\2") == r.SUCCESS
        heard: list[bytes] = []
        number = 0
        while len(heard) < 4:
            packet = client.packet()
            assert (packet.kind, packet.id) == (r.ISO_PACKET, number)
            number += 1
            heard += [packet.body[4:]] if packet.body[4:] else []
        assert heard == [b"one", b"two", b"three", b"four"]
        client.send(r.STOP_ISO_STREAM, b"\x81")
        while (packet := client.packet()).kind == r.ISO_PACKET:
            pass
        assert packet.body == bytes((r.SUCCESS, 0x81))
