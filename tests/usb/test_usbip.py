"""USB/IP, byte by byte: what is read of a client, what it is told, and the rules of a session."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb import usbip
from examples.usb.urb import Urb
from examples.usb.usbip import Devlist, Exported, Import, Submit, Unlink
from examples.usb.usbip_session import (
    BYTES_LIMIT,
    CLOSING,
    IMPORTING,
    URBS,
    URBS_LIMIT,
    List,
    Session,
    Submitted,
    Unlinked,
    Wanted,
)
from transport import RemoteProtocolError

DEVICE = Exported(
    path="/sys/devices/xenidc/usb1/1-2",
    busid="1-2",
    busnum=1,
    devnum=3,
    speed=3,
    vendor=0x1209,
    product=2,
    release=0x100,
    device_class=0,
    subclass=0,
    protocol=0,
    configuration=1,
    configurations=1,
    interfaces=((8, 6, 0x50), (3, 1, 1)),
)
DEVID = 1 << 16 | 3
KINDS = {0: c9.CONTROL, 0x81: c9.BULK, 0x01: c9.BULK, 0x82: c9.INTERRUPT, 0x83: c9.ISOCHRONOUS}
DEVLIST = struct.pack(">HHI", 0x0111, 0x8005, 0)


def req_import(busid: bytes) -> bytes:
    return struct.pack(">HHI32s", 0x0111, 0x8003, 0, busid)


def submit(
    seqnum: int,
    endpoint: int,
    length: int,
    data: bytes = b"",
    *,
    is_in: bool = True,
    setup: bytes = bytes(8),
    packets: int = -1,
    tail: bytes = b"",
    flags: int = 0,
    devid: int = DEVID,
) -> bytes:
    head = struct.pack(">IIIII", 1, seqnum, devid, is_in, endpoint)
    return head + struct.pack(">Iiiii8s", flags, length, 0, packets, 0, setup) + data + tail


def unlink(seqnum: int, target: int, devid: int = DEVID) -> bytes:
    return struct.pack(">IIIIII24x", 2, seqnum, devid, 0, 0, target)


# --- the codec ------------------------------------------------------------------------------------


def test_operations_are_read() -> None:
    assert usbip.operation(DEVLIST + b"more") == (Devlist(), 8)
    assert usbip.operation(req_import(b"1-2") + b"more") == (Import("1-2"), 40)
    assert usbip.operation(req_import(b"1-2\0rubbish")) == (Import("1-2"), 40)
    assert usbip.operation(req_import(b"\xff" * 32)) == (Import("\\xff" * 32), 40)


def test_the_example_of_the_specification_is_read() -> None:
    """A command captured from a wire, section EXAMPLE."""
    data = bytes.fromhex(
        "00000001 00000d05 0001000f 00000001 00000001 00000200 00000040 ffffffff 00000000"
        "00000004 00000000 00000000"
    )
    command = Submit(0xD05, 0x1000F, True, 1, 0x200, 64, bytes(8), b"", (), 0)
    assert usbip.command(data) == (command, 48)


def test_commands_are_read() -> None:
    setup = bytes(range(8))
    assert usbip.command(submit(5, 0, 18, setup=setup)) == (
        Submit(5, DEVID, True, 0, 0, 18, setup, b"", ()),
        48,
    )
    assert usbip.command(submit(5, 1, 3, b"abc", is_in=False, flags=1, packets=0) + b"x") == (
        Submit(5, DEVID, False, 1, 1, 3, bytes(8), b"abc", (), 0),
        51,
    )
    tail = struct.pack(">IIIIIIII", 0, 4, 0, 0, 6, 2, 0, 0)
    assert usbip.command(submit(5, 3, 8, b"abcdefgh", is_in=False, packets=2, tail=tail)) == (
        Submit(5, DEVID, False, 3, 0, 8, bytes(8), b"abcdefgh", ((0, 4), (6, 2)), 2),
        88,
    )
    assert usbip.command(unlink(6, 5)) == (Unlink(6, DEVID, 5), 48)


@pytest.mark.parametrize(
    "data",
    [
        DEVLIST,
        req_import(b"1-2"),
    ],
    ids=["devlist", "import"],
)
def test_an_operation_that_is_not_complete_is_waited_for(data: bytes) -> None:
    for end in range(len(data)):
        assert usbip.operation(data[:end]) is None


def test_a_command_that_is_not_complete_is_waited_for() -> None:
    tail = struct.pack(">IIII", 0, 4, 0, 0)
    for data in (unlink(6, 5), submit(5, 3, 4, b"abcd", is_in=False, packets=1, tail=tail)):
        for end in range(len(data)):
            assert usbip.command(data[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">HHI", 0x0106, 0x8005, 0),
        struct.pack(">HHI", 0x0111, 0x8004, 0),
        struct.pack(">HHI", 0x0111, 0x0005, 0),
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_is_no_operation_is_an_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        usbip.operation(data)


@pytest.mark.parametrize(
    "data",
    [
        bytes(48),
        struct.pack(">I44x", 3),
        submit(1, 16, 0),
        struct.pack(">IIIII28x", 1, 1, DEVID, 2, 0),
        submit(1, 1, -1),
        submit(1, 1, p.URB_LIMIT + 1),
        submit(1, 1, 0x7FFFFFFF, is_in=False),
        submit(1, 3, 0, packets=-2),
        submit(1, 3, 0, packets=usbip.PACKET_LIMIT + 1),
        submit(1, 3, 0, packets=0x7FFFFFFF),
        submit(1, 3, 4, packets=1, tail=struct.pack(">IIII", 1, 4, 0, 0)),
        submit(1, 3, 4, packets=1, tail=struct.pack(">IIII", 0xFFFFFFFF, 1, 0, 0)),
    ],
)
def test_what_is_no_command_is_an_error(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        usbip.command(data)


@given(st.binary(max_size=200))
def test_any_bytes_are_incomplete_or_read_or_a_typed_error(data: bytes) -> None:
    for read in (usbip.operation, usbip.command):
        try:
            found = read(data)
        except RemoteProtocolError:
            continue
        assert found is None or found[1] <= len(data)


def test_the_list_has_the_layout_of_the_specification() -> None:
    data = usbip.devlist([DEVICE, DEVICE])
    assert data[:12] == struct.pack(">HHII", 0x0111, 5, 0, 2)
    one = data[12 : 12 + 0x138 + 8]
    assert len(data) == 12 + 2 * len(one)
    assert one[:256].rstrip(b"\0") == DEVICE.path.encode()
    assert one[256:288].rstrip(b"\0") == b"1-2"
    assert struct.unpack_from(">IIIHHHBBBBBB", one, 288) == (
        1,
        3,
        3,
        0x1209,
        2,
        256,
        *bytes(3),
        1,
        1,
        2,
    )
    assert one[0x138:] == bytes((8, 6, 0x50, 0, 3, 1, 1, 0))
    assert usbip.devlist([]) == struct.pack(">HHII", 0x0111, 5, 0, 0)
    imported = usbip.imported(DEVICE)
    assert imported == struct.pack(">HHI", 0x0111, 3, 0) + one[:0x138]
    assert usbip.refused(1) == struct.pack(">HHI", 0x0111, 3, 1)


def test_ends_have_the_layout_of_the_specification() -> None:
    read = Urb(1, 0x81, c9.BULK, 8, status=p.OK, actual=3, received=b"abc")
    head = struct.pack(">IIIIIiiiii8x", 3, 7, 0, 0, 0, 0, 3, 0, -1, 0)
    command = Submit(7, DEVID, True, 1, 0, 8, bytes(8), b"")
    assert usbip.submitted(command, read) == head + b"abc"
    stalled = Urb(1, 0x01, c9.BULK, 3, b"abc", status=p.STALL)
    head = struct.pack(">IIIIIiiiii8x", 3, 7, 0, 0, 0, -32, 0, 0, -1, 0)
    assert usbip.submitted(command, stalled) == head
    assert usbip.unlinked(8, -104) == struct.pack(">IIIIIi24x", 4, 8, 0, 0, 0, -104)


def test_isochronous_data_come_back_without_gaps() -> None:
    results = ((p.OK, 2), (p.IOERROR, 0), (p.OK, 1))
    urb = Urb(1, 0x83, c9.ISOCHRONOUS, 12, packets=(4, 4, 4), actual=3, results=results)
    urb.received = b"ab......c..."
    spans = ((0, 4), (10, 4), (20, 4))
    command = Submit(7, DEVID, True, 3, 0, 24, bytes(8), b"", spans, 3)
    head = struct.pack(">IIIIIiiiii8x", 3, 7, 0, 0, 0, 0, 3, 0, 3, 1)
    told = [(0, 4, 2, 0), (10, 4, 0, 0xFFFFFFB9), (20, 4, 1, 0)]
    tail = b"".join(struct.pack(">IIII", *one) for one in told)
    assert usbip.submitted(command, urb) == head + b"abc" + tail
    unlinked = Urb(1, 0x83, c9.ISOCHRONOUS, 12, packets=(4, 4, 4), status=p.CONNRESET)
    assert len(usbip.submitted(command, unlinked)) == 48 + 3 * 16


# --- sessions -------------------------------------------------------------------------------------


def begun() -> Session:
    session = Session(9)
    assert session.receive(req_import(b"1-2")) == ([Wanted("1-2")], b"")
    assert session.state == IMPORTING
    assert session.imported(DEVICE, KINDS.get) == usbip.imported(DEVICE)
    assert session.state == URBS
    return session


def urb_of(session: Session, data: bytes) -> Urb:
    ((event,), output) = session.receive(data)
    assert isinstance(event, Submitted)
    assert output == b""
    return event.urb


def end(session: Session, urb: Urb, status: int = p.OK) -> bytes:
    urb.status = status
    events, told = session.ended(urb)
    assert events == []
    return told


def test_a_list_ends_the_session() -> None:
    session = Session(9)
    assert session.receive(DEVLIST) == ([List()], b"")
    assert session.state == CLOSING
    assert session.receive(DEVLIST) == ([], b"")


def test_a_refused_import_ends_the_session() -> None:
    session = Session(9)
    session.receive(req_import(b"1-2"))
    assert session.refused(usbip.ST_NA) == usbip.refused(1)
    assert session.state == CLOSING


def test_commands_that_come_before_the_import_is_answered_wait_for_it() -> None:
    session = Session(9)
    assert session.receive(req_import(b"1-2") + submit(1, 1, 8)) == ([Wanted("1-2")], b"")
    session.imported(DEVICE, KINDS.get)
    assert urb_of(session, b"").id == (9, 1)


def test_commands_become_urbs() -> None:
    session = begun()
    setup = c9.Setup(0x80, 6, 0x100, 0, 18).pack()
    control = urb_of(session, submit(1, 0, 18, setup=setup))
    assert (control.kind, control.endpoint, control.setup) == (c9.CONTROL, 0, setup)
    bulk = urb_of(session, submit(2, 1, 8, flags=1))
    assert (bulk.kind, bulk.endpoint, bulk.length, bulk.short_not_ok) == (c9.BULK, 0x81, 8, True)
    out = urb_of(session, submit(3, 1, 2, b"ab", is_in=False))
    assert (out.endpoint, out.data, out.is_in, out.short_not_ok) == (0x01, b"ab", False, False)
    unknown = urb_of(session, submit(4, 9, 8))
    assert (unknown.endpoint, unknown.kind) == (0x89, c9.BULK)
    tail = struct.pack(">IIIIIIII", 0, 4, 0, 0, 6, 2, 0, 0)
    stream = urb_of(session, submit(5, 3, 8, b"abcdefgh", is_in=False, packets=2, tail=tail))
    assert (stream.packets, stream.data, stream.length) == ((4, 2), b"abcdgh", 6)


def test_every_submit_has_one_end() -> None:
    session = begun()
    urb = urb_of(session, submit(1, 1, 8))
    assert end(session, urb)[:8] == struct.pack(">II", usbip.RET_SUBMIT, 1)
    assert session.receive(unlink(2, 1)) == ([], usbip.unlinked(2, p.OK))
    urb_of(session, submit(1, 1, 8))  # the number is free again


def test_an_unlinked_urb_ends_in_an_unlink_alone() -> None:
    session = begun()
    urb = urb_of(session, submit(1, 1, 8))
    assert session.receive(unlink(2, 1)) == ([Unlinked((9, 1))], b"")
    assert end(session, urb, p.CONNRESET) == usbip.unlinked(2, p.CONNRESET)


def test_an_unlink_that_comes_too_late_is_told_behind_the_end() -> None:
    session = begun()
    urb = urb_of(session, submit(1, 1, 8))
    session.receive(unlink(2, 1))
    told = end(session, urb, p.STALL)
    assert (len(told), told[20:24]) == (96, struct.pack(">i", p.STALL))
    assert told[48:] == usbip.unlinked(2, p.OK)


def test_unlinking_what_never_was_is_answered() -> None:
    assert begun().receive(unlink(2, 77)) == ([], usbip.unlinked(2, p.OK))


def test_pieces_of_any_size_make_the_same_session() -> None:
    data = submit(1, 1, 8) + submit(2, 1, 3, b"abc", is_in=False) + unlink(3, 1) + unlink(4, 99)
    whole = begun().receive(data)
    session = begun()
    events, output = [], b""
    for byte in data:
        some, told = session.receive(bytes((byte,)))
        events += some
        output += told
    assert len(events) == len(whole[0]) == 3
    assert output == whole[1]


@pytest.mark.parametrize(
    "data",
    [
        submit(1, 1, 8, devid=7),
        unlink(1, 1, devid=7),
        submit(1, 1, 8) + submit(1, 1, 8),
        bytes(48),
    ],
)
def test_commands_that_make_no_sense_end_the_session(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        begun().receive(data)


def test_what_a_client_may_have_under_way_is_bounded() -> None:
    session = begun()
    for number in range(URBS_LIMIT):
        urb_of(session, submit(number, 1, 0))
    with pytest.raises(RemoteProtocolError, match="under way"):
        session.receive(submit(URBS_LIMIT, 1, 0))
    session = begun()
    count = BYTES_LIMIT // p.URB_LIMIT
    urbs = [urb_of(session, submit(number, 1, p.URB_LIMIT)) for number in range(count)]
    end(session, urbs[0])
    urb_of(session, submit(count, 1, p.URB_LIMIT))
    with pytest.raises(RemoteProtocolError, match="under way"):
        session.receive(submit(count + 1, 1, 1))
