"""A real device passed on: everything but the C library is what runs with hardware."""

from __future__ import annotations

import contextlib
import ctypes.util
import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.usb import chapter9 as c9
from examples.usb import protocol as p
from examples.usb.controller import Disconnected, Giveback
from examples.usb.function import Function
from examples.usb.host import Host
from examples.usb.host_device import HostDevice, located
from examples.usb.keyboard import Keyboard
from examples.usb.serial import Serial
from examples.usb.urb import Urb
from hypervisor import DomainStartError, Machine
from tests.sources import ROOT
from tests.usb.fake_libusb import FakeBus, FakeDevice, plugged
from tests.usb.helpers import serve_command
from tests.usb.parts import Camera
from tests.usb.test_host import Port
from transport import connect

WHERE = "1209:0001"
BULK_IN, BULK_OUT, KEYS, ISO_IN, ISO_OUT = 0x82, 0x01, 0x83, 0x84, 0x02
_ids = itertools.count(1000)


def functions() -> list[Function]:
    return [Serial(loopback=True), Keyboard(), Camera()]


@pytest.fixture
def device() -> FakeDevice:
    return FakeDevice(functions())


@pytest.fixture
def bus(device: FakeDevice) -> Iterator[FakeBus]:
    with plugged(device) as bus:
        yield bus


@contextlib.contextmanager
def passing(where: str = WHERE) -> Iterator[Port]:
    with Machine() as machine:
        machine.start("usb1", HostDevice, where, placement="thread")
        with connect(machine, "usb1") as channel:
            port = Port(machine, Host(channel))
            served(port)  # also all that enumerates it
            yield port


@pytest.fixture
def port(bus: FakeBus) -> Iterator[Port]:
    with passing() as port:
        yield port


def submit(port: Port, endpoint: int, length: int, **fields: object) -> Urb:
    kind = port.host.controller.kind(endpoint)
    assert kind is not None
    urb = Urb(next(_ids), endpoint, kind, length, **fields)  # type: ignore[arg-type]
    port.host.submit(urb)
    return urb


def served(port: Port) -> None:
    """All that was submitted so far has reached the device: a control transfer has come behind."""
    assert port.control(c9.Setup(c9.IN, c9.GET_STATUS, 0, 0, 2)).status == p.OK


@pytest.mark.parametrize("where", [WHERE, "1-4"])
def test_a_device_is_taken_from_the_kernel_and_given_back(
    where: str, bus: FakeBus, device: FakeDevice
) -> None:
    assert device.drivers == {0, 1, 2, 3}
    with passing(where) as port:
        assert device.drivers == set()
        assert device.claimed == {0, 1, 2, 3}
        assert port.host.controller.holds
        served(port)
    assert device.drivers == {0, 1, 2, 3}
    assert device.claimed == set()


def test_a_kind_of_device_is_located_once_for_all_back_ends(bus: FakeBus) -> None:
    assert located(WHERE) == located("1-4") == "1-4"
    with pytest.raises(OSError, match="no USB device is 1209:0002"):
        located("1209:0002")


def test_descriptors_are_those_of_the_device(port: Port, device: FakeDevice) -> None:
    setup = c9.Setup(c9.IN, c9.GET_DESCRIPTOR, c9.CONFIGURATION_DESCRIPTOR << 8, 0, 1024)
    assert port.control(setup).received == device.configuration
    assert port.control(c9.Setup(c9.IN, 0x77, 0, 0, 4)).status == p.STALL


def test_control_and_bulk_transfers_go_both_ways(port: Port) -> None:
    coding = bytes.fromhex("00960000000008")  # 38400 8N1
    assert port.control(c9.Setup(0x21, 0x20, 0, 0, 7), coding).status == p.OK
    assert port.control(c9.Setup(0xA1, 0x21, 0, 0, 7)).received == coding
    sent = port.transfer(BULK_OUT, b"hello")
    assert (sent.status, sent.actual) == (p.OK, 5)
    came = port.transfer(BULK_IN, 64)
    assert (came.status, came.received) == (p.OK, b"hello")


def test_a_transfer_without_data_is_one(port: Port) -> None:
    sent = port.transfer(BULK_OUT, b"")
    assert (sent.status, sent.actual) == (p.OK, 0)


def test_a_read_is_held_until_the_device_has_something_and_keeps_nobody_waiting(
    port: Port, device: FakeDevice
) -> None:
    assert port.transfer(KEYS, 8).received == bytes(8)
    read = submit(port, KEYS, 8)
    assert port.transfer(BULK_OUT, b"x").status == p.OK
    device.input(1, b"a")
    port.until(Giveback, read)
    assert read.received == bytes((0, 0, 4, 0, 0, 0, 0, 0))


def test_a_read_that_is_held_is_unlinked_and_takes_nothing_with_it(
    port: Port, device: FakeDevice
) -> None:
    port.transfer(KEYS, 8)
    first, second = submit(port, KEYS, 8), submit(port, KEYS, 8)
    served(port)
    port.host.unlink(first.id)
    port.until(Giveback, first)
    assert (first.status, first.actual) == (p.CONNRESET, 0)
    device.input(1, b"a")
    port.until(Giveback, second)
    assert second.received[2] == 4


def test_isochronous_transfers_go_both_ways_several_at_a_time(
    port: Port, device: FakeDevice
) -> None:
    sent = submit(port, ISO_OUT, 5, data=b"abbcc", packets=(1, 2, 2))
    port.until(Giveback, sent)
    assert sent.results == ((p.OK, 1), (p.OK, 2), (p.OK, 2))
    device.deaf.add(ISO_IN)
    reads = [submit(port, ISO_IN, 128, packets=(64, 64)) for _ in range(3)]
    served(port)
    assert len(device.waiting) == 3
    device.deaf.clear()
    device.input(2, b"")
    for read in reads:
        port.until(Giveback, read)
    assert [read.results for read in reads] == [
        ((p.OK, 1), (p.OK, 2)),
        ((p.OK, 2), (p.OK, 0)),
        ((p.OK, 0), (p.OK, 0)),
    ]
    assert reads[0].received[:1] + reads[0].received[64:66] == b"abb"


def test_of_several_that_are_held_one_is_unlinked_and_the_others_are_not(
    port: Port, device: FakeDevice
) -> None:
    device.deaf.add(ISO_IN)
    reads = [submit(port, ISO_IN, 64, packets=(64,)) for _ in range(3)]
    served(port)
    port.host.unlink(reads[1].id)
    port.until(Giveback, reads[1])
    assert reads[1].status == p.CONNRESET
    device.deaf.clear()
    submit(port, ISO_OUT, 1, data=b"x", packets=(1,))
    device.input(2, b"")
    for read in (reads[0], reads[2]):
        port.until(Giveback, read)
        assert read.status == p.OK


def test_a_packet_of_no_bytes_is_refused_as_the_library_refuses_it(port: Port) -> None:
    sent = submit(port, ISO_OUT, 1, data=b"x", packets=(1, 0))
    port.until(Giveback, sent)
    assert sent.status == p.INVAL


def test_the_kernel_is_asked_for_what_it_keeps_books_of(port: Port, device: FakeDevice) -> None:
    device.said.clear()
    assert port.control(c9.Setup(c9.ENDPOINT, c9.SET_FEATURE, 0, BULK_IN, 0)).status == p.OK
    assert port.transfer(BULK_IN, 8).status == p.STALL
    assert port.control(c9.Setup(c9.ENDPOINT, c9.CLEAR_FEATURE, 0, BULK_IN, 0)).status == p.OK
    port.transfer(BULK_OUT, b"again")
    assert port.transfer(BULK_IN, 8).received == b"again"
    assert port.control(c9.Setup(1, c9.SET_INTERFACE, 1, 3, 0)).status == p.OK
    assert port.control(c9.Setup(1, c9.SET_INTERFACE, 2, 3, 0)).status == p.STALL
    assert port.control(c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0)).status == p.OK
    assert device.said == ["clear 0x82", "setting 3 1", "setting 3 2"]


def test_another_configuration_is_chosen_while_nobody_has_an_interface(
    port: Port, device: FakeDevice
) -> None:
    device.said.clear()
    assert port.control(c9.Setup(0, c9.SET_CONFIGURATION, 0, 0, 0)).status == p.OK
    assert device.said == [*(f"release {n}" for n in (3, 2, 1, 0)), "configuration -1"]
    device.said.clear()
    assert port.control(c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0)).status == p.OK
    assert device.said == ["configuration 1", *(f"claim {n}" for n in range(4))]
    assert device.drivers == set()
    assert port.control(c9.Setup(0, c9.SET_CONFIGURATION, 7, 0, 0)).status == p.STALL
    assert device.claimed == {0, 1, 2, 3}


def test_the_present_configuration_begins_again_by_the_settings(
    bus: FakeBus, device: FakeDevice
) -> None:
    other = bytes((9, c9.INTERFACE_DESCRIPTOR, 3, 1, 0, 0xFF, 0, 0, 0))
    device.configuration += other
    with passing() as port:
        device.said.clear()
        assert port.control(c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0)).status == p.OK
        assert device.said == ["setting 3 0"]


def test_a_reset_cancels_what_is_held_and_resets_the_device(port: Port, device: FakeDevice) -> None:
    port.transfer(KEYS, 8)
    read = submit(port, KEYS, 8)
    served(port)
    device.said.clear()
    port.host.reset()
    port.until(Giveback, read)
    assert read.status == p.IOERROR
    assert port.transfer(KEYS, 8).received == bytes(8)  # the first report after a reset
    assert device.said == ["reset"]


def test_a_device_that_is_unplugged_is_gone_for_all(port: Port, device: FakeDevice) -> None:
    port.transfer(KEYS, 8)
    read = submit(port, KEYS, 8)
    served(port)
    device.unplug()
    port.until(Giveback, read)
    assert read.status == p.NODEV
    assert port.until(Disconnected).reason == "it was unplugged"
    assert port.transfer(BULK_OUT, b"x").status == p.NODEV


def test_a_device_that_is_unplugged_while_nothing_is_held_is_gone_at_the_next_transfer(
    port: Port, device: FakeDevice
) -> None:
    device.unplug()
    assert port.transfer(BULK_OUT, b"x").status == p.NODEV
    port.until(Disconnected)


def test_a_device_that_comes_back_from_a_reset_as_another_is_gone(
    port: Port, device: FakeDevice
) -> None:
    device.changes = True
    port.host.reset()
    assert "does not enumerate" in port.until(Disconnected).reason


def test_what_is_held_keeps_nothing_from_ending(bus: FakeBus, device: FakeDevice) -> None:
    with passing() as port:
        port.transfer(KEYS, 8)
        submit(port, KEYS, 8)
        served(port)
    assert device.waiting == []
    assert device.drivers == {0, 1, 2, 3}


def test_a_connection_that_is_lost_is_made_again_although_something_was_held(
    port: Port, device: FakeDevice
) -> None:
    port.transfer(KEYS, 8)
    read = submit(port, KEYS, 8)
    served(port)
    port.machine.revoke("usb1")
    assert port.transfer(BULK_OUT, b"x").status in (p.OK, p.IOERROR)
    device.input(1, b"a")
    port.until(Giveback, read)
    assert read.status in (p.OK, p.IOERROR)


def test_a_successor_takes_the_device_again(port: Port, device: FakeDevice) -> None:
    port.machine.reboot("usb1")
    assert port.control(c9.Setup(c9.IN, c9.GET_STATUS, 0, 0, 2)).status == p.OK
    assert port.host.controller.restarts == 1
    assert device.claimed == {0, 1, 2, 3}


def _deny(device: FakeDevice) -> None:
    device.denied = True


def _take(device: FakeDevice) -> None:
    device.drivers.clear()
    device.claimed.add(2)


def _speed_up(device: FakeDevice) -> None:
    device.speed = 4


@pytest.mark.parametrize(
    ("where", "spoil", "text"),
    [
        ("1209:0002", lambda _device: None, "no USB device is 1209:0002; lsusb shows"),
        ("1-5", lambda _device: None, "no USB device is 1-5"),
        (WHERE, FakeDevice.unplug, "no USB device is 1209:0001"),
        (WHERE, _deny, "1209:0001 cannot be used: no permission"),
        (WHERE, _take, "1209:0001 cannot be used: another program has it"),
        (WHERE, _speed_up, "1209:0001 speaks USB 3: plug it into a port of USB 2"),
    ],
)
def test_a_device_that_cannot_be_had_is_a_clear_error(
    where: str, spoil: Callable[[FakeDevice], None], text: str, bus: FakeBus, device: FakeDevice
) -> None:
    spoil(device)
    with Machine() as machine, pytest.raises(DomainStartError) as caught:
        machine.start("usb1", HostDevice, where, placement="thread")
    assert text in caught.value.text


def refused_line(directory: Path, *options: str) -> str:
    run = subprocess.run(
        serve_command(*options, "--tcp", "127.0.0.1:0", "--placement", "thread"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(directory)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    (line,) = run.stderr.splitlines()
    return line


def test_the_program_says_what_to_install(tmp_path: Path) -> None:
    hidden = "raise ModuleNotFoundError(\"No module named 'usb1'\", name='usb1')\n"
    (tmp_path / "usb1.py").write_text(hidden)
    line = refused_line(tmp_path, "--host-device", "dead:beef")
    assert line == "examples.usb: a host device needs libusb1: pip install 'xenidc[libusb]'"


def test_the_program_with_the_real_library_says_that_there_is_no_such_device(
    tmp_path: Path,
) -> None:
    if ctypes.util.find_library("usb-1.0") is None:
        pytest.skip("libusb-1.0 is not installed: apt-get install libusb-1.0-0")
    line = refused_line(tmp_path, "--host-device", "DEAD:BEEF")
    assert line == "examples.usb: no USB device is dead:beef; lsusb shows those that there are"
