"""Chapter 9: the states, the standard requests, the descriptors, halts; packets of a pipe."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples.usb import chapter9 as c9
from examples.usb import descriptors
from examples.usb import protocol as p
from examples.usb.descriptors import BadDescriptor, Endpoint, Identity, Interface
from examples.usb.device import ADDRESS, CONFIGURED, DEFAULT, Device
from examples.usb.function import Function, InPipe
from examples.usb.keyboard import HID_DESCRIPTOR, REPORT_DESCRIPTOR, Keyboard
from examples.usb.mass_storage import MassStorage
from examples.usb.serial import Serial
from tests.usb.parts import IDENTITY, Camera, Memory, configured, control, get, read, write

STALL = (p.STALL, b"")


def setup(
    request_type: int, request: int, value: int = 0, index: int = 0, length: int = 0
) -> c9.Setup:
    return c9.Setup(request_type, request, value, index, length)


def test_a_setup_packet_is_its_eight_bytes() -> None:
    data = bytes.fromhex("80 06 00 01 09 04 12 00")
    assert c9.Setup.of(data) == c9.Setup(0x80, c9.GET_DESCRIPTOR, 0x0100, 0x0409, 18)
    assert c9.Setup.of(data).pack() == data


# --- states ---------------------------------------------------------------------------------------


def test_a_device_is_addressed_then_configured_then_reset() -> None:
    device = Device(IDENTITY, [Keyboard()])
    assert device.state == DEFAULT
    assert control(device, setup(0, c9.SET_CONFIGURATION, 1)) == STALL
    assert control(device, setup(0, c9.SET_ADDRESS, 7)) == (p.OK, b"")
    assert (device.state, device.address) == (ADDRESS, 7)
    assert control(device, setup(0x80, c9.GET_CONFIGURATION, length=1)) == (p.OK, b"\0")
    assert control(device, setup(0, c9.SET_CONFIGURATION, 1)) == (p.OK, b"")
    assert device.state == CONFIGURED
    assert control(device, setup(0x80, c9.GET_CONFIGURATION, length=1)) == (p.OK, b"\1")
    assert control(device, setup(0, c9.SET_ADDRESS, 8)) == STALL
    assert control(device, setup(0, c9.SET_CONFIGURATION, 0)) == (p.OK, b"")
    assert device.state == ADDRESS
    assert control(device, setup(0, c9.SET_ADDRESS, 0)) == (p.OK, b"")
    assert device.state == DEFAULT
    device.reset()
    assert (device.state, device.address) == (DEFAULT, 0)


@pytest.mark.parametrize(
    "request_",
    [
        setup(0, c9.SET_ADDRESS, 128),
        setup(0, c9.SET_ADDRESS, 5, index=1),
        setup(0, c9.SET_CONFIGURATION, 2),
        setup(0, c9.SET_FEATURE, c9.DEVICE_REMOTE_WAKEUP),
        setup(0, c9.SET_DESCRIPTOR),
        setup(0x80, c9.GET_DESCRIPTOR, 0x0101, length=18),
        setup(0x80, c9.GET_DESCRIPTOR, 0x0304, length=255),
        setup(0x80, c9.GET_DESCRIPTOR, 0x0700, length=18),
        setup(0x80, 99, length=1),
        setup(0x81, c9.GET_STATUS, index=1, length=2),
        setup(0x82, c9.GET_STATUS, index=0x82, length=2),
        setup(0x02, c9.CLEAR_FEATURE, 5, index=0x81),
        setup(0x02, c9.SET_FEATURE, c9.ENDPOINT_HALT, index=0),
        setup(0x01, c9.SET_INTERFACE, 1),
        setup(0x01, c9.SET_INTERFACE, 0, index=1),
        setup(0x81, c9.GET_INTERFACE, index=1, length=1),
        setup(0x82, c9.SYNCH_FRAME, index=0x81, length=2),
        setup(0x81, c9.GET_DESCRIPTOR, 0x2300, length=9),
        setup(0x21, 0x33),
        setup(0x21, 0x0A, index=1),
        setup(0x40, 1),
        setup(0xC0, 1, length=1),
        setup(0x22, 1, index=0x85),
    ],
    ids=repr,
)
def test_a_request_that_the_device_does_not_have_stalls_and_the_next_is_served(
    request_: c9.Setup,
) -> None:
    device = configured(Keyboard())
    assert control(device, request_) == STALL
    assert control(device, setup(0x80, c9.GET_STATUS, length=2)) == (p.OK, b"\1\0")


@pytest.mark.parametrize(
    "request_",
    [
        setup(0x81, c9.GET_STATUS, length=2),
        setup(0x82, c9.GET_STATUS, index=0x81, length=2),
        setup(0x81, c9.GET_INTERFACE, length=1),
        setup(0x01, c9.SET_INTERFACE),
        setup(0x81, c9.GET_DESCRIPTOR, REPORT_DESCRIPTOR << 8, length=64),
        setup(0x21, 0x0A),
    ],
    ids=repr,
)
def test_what_belongs_to_an_interface_waits_for_a_configuration(request_: c9.Setup) -> None:
    device = Device(IDENTITY, [Keyboard()])
    control(device, setup(0, c9.SET_ADDRESS, 7))
    assert control(device, request_) == STALL
    control(device, setup(0, c9.SET_CONFIGURATION, 1))
    assert control(device, request_)[0] == p.OK


def test_a_data_phase_has_the_length_that_the_setup_packet_says() -> None:
    device = configured(Keyboard())
    assert (
        device.control(setup(0x80, c9.GET_STATUS, length=2), memoryview(bytearray(3)))[0] == p.INVAL
    )


def test_endpoints_do_not_answer_before_a_configuration() -> None:
    device = Device(IDENTITY, [Keyboard()])
    assert read(device, 0x81, 8) == (p.IOERROR, b"")
    assert read(configured(Keyboard()), 0x82, 8) == (p.IOERROR, b"")
    assert read(configured(Keyboard()), 0x81, 8) == (p.OK, bytes(8))


# --- halts ----------------------------------------------------------------------------------------


def test_a_halted_endpoint_stalls_until_it_is_cleared() -> None:
    device = configured(Keyboard())
    halt = setup(0x02, c9.SET_FEATURE, c9.ENDPOINT_HALT, 0x81)
    status = setup(0x82, c9.GET_STATUS, index=0x81, length=2)
    assert control(device, status) == (p.OK, b"\0\0")
    assert control(device, halt) == (p.OK, b"")
    assert control(device, status) == (p.OK, b"\1\0")
    assert read(device, 0x81, 8) == STALL
    assert read(device, 0x81, 8) == STALL
    assert control(device, setup(0x02, c9.CLEAR_FEATURE, c9.ENDPOINT_HALT, 0x81)) == (p.OK, b"")
    assert read(device, 0x81, 8) == (p.OK, bytes(8))


@pytest.mark.parametrize(
    "ends_it", [setup(0x01, c9.SET_INTERFACE), setup(0, c9.SET_CONFIGURATION, 1)], ids=repr
)
def test_a_new_setting_ends_the_halts_of_its_interface(ends_it: c9.Setup) -> None:
    device = configured(Keyboard(), Keyboard())
    for address in (0x81, 0x82):
        control(device, setup(0x02, c9.SET_FEATURE, c9.ENDPOINT_HALT, address))
    control(device, ends_it)
    assert read(device, 0x81, 8)[0] == p.OK
    other = p.STALL if ends_it.recipient == c9.INTERFACE else p.OK
    assert read(device, 0x82, 8)[0] == other


def test_an_endpoint_that_refused_says_when_it_is_ready_once() -> None:
    device = configured(Keyboard(), Keyboard())
    for address in (0x81, 0x82):
        read(device, address, 8)
        assert read(device, address, 8) == (p.NAK, b"")
    assert device.take_ready() == ()
    device.input(1, b"x")
    assert device.take_ready() == (0x82,)
    assert device.take_ready() == ()
    control(device, setup(0x02, c9.SET_FEATURE, c9.ENDPOINT_HALT, 0x81))
    assert device.take_ready() == (0x81,)
    assert read(device, 0x81, 8) == STALL


# --- descriptors ----------------------------------------------------------------------------------


def test_the_device_descriptor_and_its_strings() -> None:
    device = configured(Keyboard())
    status, data = get(device, c9.DEVICE_DESCRIPTOR << 8)
    assert (status, len(data)) == (p.OK, 18)
    assert data[14:17] == bytes((1, 2, 3))
    found = descriptors.read_device(data)
    assert (found.vendor, found.product, found.release) == (0x1209, 1, 0x0100)
    assert (found.device_class, found.configurations) == (0, 1)
    assert get(device, 0x0300) == (p.OK, bytes((4, 3, 9, 4)))
    for index, text in enumerate(("xenidc", "thing", "0123456789AB"), 1):
        data = get(device, 0x0300 | index, index=0x0409)[1]
        assert data == bytes((2 + 2 * len(text), 3)) + text.encode("utf-16-le")
    assert get(device, c9.DEVICE_QUALIFIER_DESCRIPTOR << 8)[1][:2] == bytes((10, 6))


def test_a_descriptor_is_cut_where_the_host_asks() -> None:
    device = configured(Keyboard())
    for length in (0, 8, 18, 255):
        assert len(get(device, c9.DEVICE_DESCRIPTOR << 8, length)[1]) == min(length, 18)


def test_a_device_without_strings_has_none() -> None:
    device = configured(Keyboard(), identity=Identity(1, 2, manufacturer_name=""))
    assert get(device, c9.DEVICE_DESCRIPTOR << 8)[1][14:17] == bytes(3)
    assert get(device, 0x0301) == STALL


def test_a_composite_device_joins_the_interfaces_of_a_function() -> None:
    device = configured(MassStorage(Memory(), "0" * 12), Keyboard(), Serial(), Camera())
    found = descriptors.read_device(get(device, c9.DEVICE_DESCRIPTOR << 8)[1])
    assert (found.device_class, found.subclass, found.protocol) == (0xEF, 2, 1)
    data = get(device, c9.CONFIGURATION_DESCRIPTOR << 8)[1]
    assert bytes((8, 11, 2, 2, 2, 2, 1, 0)) in data  # serial's two, from number 2 on
    assert data.count(bytes((8, 11))) == 1
    configuration = descriptors.read_configuration(data)
    assert configuration.interfaces == [
        (0, 8, 6, 0x50),
        (1, 3, 1, 1),
        (2, 2, 2, 1),
        (3, 10, 0, 0),
        (4, 0xFF, 0, 0),
    ]
    assert {end.address: (end.kind, end.interface) for end in configuration.endpoints} == {
        0x81: (c9.BULK, 0),
        0x01: (c9.BULK, 0),
        0x82: (c9.INTERRUPT, 1),
        0x83: (c9.INTERRUPT, 2),
        0x84: (c9.BULK, 3),
        0x02: (c9.BULK, 3),
        0x85: (c9.ISOCHRONOUS, 4),
        0x03: (c9.ISOCHRONOUS, 4),
    }
    assert get(device, 0x0304)[1] == descriptors.string("camera")


def test_class_descriptors_come_from_the_interface_that_is_asked() -> None:
    device = configured(Camera(), Keyboard())
    ask = setup(0x81, c9.GET_DESCRIPTOR, REPORT_DESCRIPTOR << 8, 1, 255)
    status, report = control(device, ask)
    assert status == p.OK
    hid = control(device, setup(0x81, c9.GET_DESCRIPTOR, HID_DESCRIPTOR << 8, 1, 255))[1]
    assert int.from_bytes(hid[7:9], "little") == len(report)
    assert hid in get(device, c9.CONFIGURATION_DESCRIPTOR << 8)[1]
    assert control(device, setup(0x81, c9.GET_DESCRIPTOR, REPORT_DESCRIPTOR << 8, 0, 255)) == STALL


def test_more_endpoints_than_there_are_numbers_is_an_error() -> None:
    class Many(Function):
        def interfaces(self, first: int) -> list[Interface]:
            return [Interface(0xFF, 0, 0, (Endpoint(c9.IN, c9.BULK, 512),) * 16)]

    with pytest.raises(ValueError, match="at most 15"):
        Device(IDENTITY, [Many()])


def test_a_string_that_does_not_fit_is_an_error() -> None:
    assert len(descriptors.string("x" * 126)) == 254
    with pytest.raises(ValueError, match="at most 126"):
        descriptors.string("x" * 127)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes((9, 4, 0, 0, 0, 0, 0, 0, 0)),
        bytes((9, 2, 10, 0, 0, 1, 0, 0xC0, 50)),
        bytes((9, 2, 11, 0, 0, 1, 0, 0xC0, 50, 0, 0)),
        bytes((9, 2, 11, 0, 0, 1, 0, 0xC0, 50, 3, 4)),
    ],
)
def test_bytes_that_are_no_configuration_are_an_error(data: bytes) -> None:
    with pytest.raises(BadDescriptor):
        descriptors.read_configuration(data)
    with pytest.raises(BadDescriptor):
        descriptors.read_device(data)


@given(st.binary(max_size=80), st.booleans())
def test_reading_any_bytes_ends_in_a_configuration_or_a_typed_error(
    data: bytes, head: bool
) -> None:
    if head:
        data = bytes((9, 2)) + (len(data) + 9).to_bytes(2, "little") + b"\1\1\0\xc0\0" + data
    with contextlib.suppress(BadDescriptor):
        descriptors.read_configuration(data)


_BYTE, _WORD = st.integers(0, 0xFF), st.integers(0, 0xFFFF)


@given(st.tuples(_BYTE, _BYTE, _WORD, _WORD, st.integers(0, 300)))
def test_no_control_request_does_worse_than_stall(fields: tuple[int, int, int, int, int]) -> None:
    device = configured(MassStorage(Memory(), "0" * 12), Keyboard(), Serial(loopback=True))
    status, _ = control(device, c9.Setup(*fields))
    assert status in (p.OK, p.STALL)


# --- isochronous ----------------------------------------------------------------------------------


def test_isochronous_packets_have_a_result_each_and_none_waits() -> None:
    device = configured(Camera())
    data = bytes(range(100))
    view = memoryview(bytearray(data))
    assert device.packets(0x01, view, [40, 60]) == ((p.OK, 40), (p.OK, 60))
    view = memoryview(bytearray(192))
    assert device.packets(0x81, view, [64, 64, 64]) == ((p.OK, 40), (p.OK, 60), (p.OK, 0))
    assert view[:40] == data[:40]
    assert view[64:124] == data[40:]
    device.reset()
    assert device.packets(0x81, view, [64]) == ((p.IOERROR, 0),)


# --- a pipe ---------------------------------------------------------------------------------------


def fill(pipe: InPipe, length: int) -> tuple[int, int]:
    return pipe.fill(memoryview(bytearray(length)))


@pytest.mark.parametrize(
    ("sizes", "length", "expected"),
    [
        ([], 64, [(p.NAK, 0)]),
        ([5], 64, [(p.OK, 5), (p.NAK, 0)]),  # a short packet ends the transfer
        ([0], 64, [(p.OK, 0), (p.NAK, 0)]),
        ([16], 16, [(p.OK, 16), (p.NAK, 0)]),  # a full one too
        ([16], 24, [(p.NAK, 16)]),  # whole packets do not
        ([16, 0], 24, [(p.OK, 16)]),
        ([16, 3], 24, [(p.OK, 19)]),
        ([3, 3], 24, [(p.OK, 3), (p.OK, 3)]),
        ([40], 16, [(p.OK, 16), (p.OK, 16), (p.NAK, 8)]),
        ([12], 10, [(p.BABBLE, 8), (p.OK, 4)]),  # the packet without room stays
        ([8, 12], 10, [(p.BABBLE, 8), (p.BABBLE, 8), (p.OK, 4)]),
        ([-1], 8, [(p.STALL, 0), (p.NAK, 0)]),
        ([16, -1, 3], 24, [(p.STALL, 16), (p.OK, 3)]),
        ([16, -1, 3], 16, [(p.OK, 16), (p.STALL, 0), (p.OK, 3)]),
        ([8, -1], 16, [(p.STALL, 8)]),
    ],
)
def test_messages_become_packets_and_packets_end_transfers(
    sizes: list[int], length: int, expected: list[tuple[int, int]]
) -> None:
    """Packets of 8 bytes; -1 is a halt."""
    pipe = InPipe(8)
    for size in sizes:
        if size < 0:
            pipe.halt()
        else:
            pipe.put(bytes(size))
    assert [fill(pipe, length) for _ in expected] == expected


def test_a_message_that_ends_its_transfer_needs_no_short_packet() -> None:
    pipe = InPipe(8)
    for _ in range(2):
        pipe.put(bytes(16), end=True)
    assert fill(pipe, 64) == (p.OK, 16)
    assert fill(pipe, 16) == (p.OK, 16)
    assert not pipe


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(1, 8), max_size=40))
def test_every_byte_arrives_once_and_in_order(messages: list[bytes], rooms: list[int]) -> None:
    pipe, got = InPipe(8), b""
    for message in messages:
        pipe.put(message)
    assert pipe.size == sum(map(len, messages))
    for room in rooms:
        view = memoryview(bytearray(8 * room))
        got += bytes(view[: pipe.fill(view)[1]])
    assert b"".join(messages).startswith(got)
    assert pipe.size == sum(map(len, messages)) - len(got)


def test_a_source_that_fails_loses_nothing() -> None:
    pipe, broken = InPipe(8), True

    def source(at: int, view: memoryview) -> None:
        if broken:
            raise OSError(5, "broken")
        view[:] = bytes(range(at, at + len(view)))

    pipe.put_source(4, source)
    with pytest.raises(OSError, match="broken"):
        fill(pipe, 8)
    broken = False
    assert fill(pipe, 8) == (p.OK, 4)


def test_writing_to_an_endpoint_reaches_its_function() -> None:
    device = configured(Keyboard(), Serial())
    assert write(device, 0x01, b"hello") == (p.OK, 5)
    assert device.take_output() == [(1, b"hello")]
    assert device.take_output() == []
