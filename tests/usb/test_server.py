"""The USB/IP server: its manners with several clients and devices, bad input, and its ends."""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from examples.usb import chapter9 as c9
from examples.usb import mass_storage as ms
from examples.usb import protocol as p
from examples.usb import scsi, usbip
from tests.usb.helpers import Client, Ended, exporting, exporting_here, need_usbip, refused
from tests.usb.parts import CameraDevice
from tests.usb.test_usbip import req_import, submit, unlink

DISK = [["block", "disk"]]
KEYBOARD = [["keyboard"]]
LOOPBACK = [["serial", True]]
SERIAL = [["serial", False]]
IN, OUT = 2, 1  # a serial line's data endpoints
BLOCK = scsi.BLOCK


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(1 << 20))
    return path


def readable(fd: int) -> bytes:
    """What comes out of a descriptor, once something does."""
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    poller.poll()
    return os.read(fd, 4096)


def read_blocks(client: Client, lba: int, blocks: int) -> bytes:
    cdb = struct.pack(">BBIBHB", scsi.READ_10, 0, lba, 0, blocks, 0)
    length = blocks * BLOCK
    head = ms.CBW.pack(ms.CBW_SIGNATURE, 7, length, 0x80, 0, len(cdb), cdb)
    assert client.transfer(1, head).status == p.OK
    data = client.transfer(1, length)
    status = client.transfer(1, 13)
    assert ms.CSW.unpack(status.data) == (ms.CSW_SIGNATURE, 7, 0, ms.PASSED)
    return data.data


def test_isochronous_transfers_end_in_order_with_what_became_of_each_packet() -> None:
    with (
        exporting_here([["camera"]], driver=CameraDevice) as served,
        served.client("1-1") as client,
    ):
        sent = client.submit(1, b"abbccc", packets=(1, 2, 3))
        first = client.submit(1, 128, packets=(64, 64))
        second = client.submit(1, 128, packets=(64, 64))
        ends = dict(client.ret() for _ in range(3))
        assert list(ends) in ([sent, first, second], [first, sent, second], [first, second, sent])
        assert ends[sent] == Ended(p.OK, 6, b"", ((0, 1, 1, 0), (1, 2, 2, 0), (3, 3, 3, 0)))
        assert ends[first] == Ended(p.OK, 3, b"abb", ((0, 64, 1, 0), (64, 64, 2, 0)))
        assert ends[second] == Ended(p.OK, 3, b"ccc", ((0, 64, 3, 0), (64, 64, 0, 0)))


def test_an_isochronous_transfer_whose_time_is_long_is_unlinked_at_once() -> None:
    with (
        exporting_here([["camera"]], driver=CameraDevice) as served,
        served.client("1-1") as client,
    ):
        packets = [1] * p.PACKET_LIMIT  # 16 ms, and for the last of them 500 times that
        *_, last = (client.submit(1, sum(packets), packets=packets) for _ in range(500))
        client.ret()
        unlink = client.unlink(last)
        while (answer := client.ret())[0] != unlink:
            assert answer[0] != last
        assert answer[1] == p.CONNRESET


def test_the_longest_isochronous_transfers_fit_and_longer_ones_are_refused() -> None:
    with (
        exporting_here([["camera"]], driver=CameraDevice) as served,
        served.client("1-1") as client,
    ):
        for count, status in ((p.PACKET_LIMIT, p.OK), (p.PACKET_LIMIT + 1, p.INVAL)):
            number = client.submit(1, bytes(count * 1000), packets=[1000] * count)
            answered, end = client.ret()
            assert answered == number
            assert isinstance(end, Ended)
            assert end.status == status
            assert len(end.packets) == count
        assert client.control(c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2)).status == p.OK


def test_more_than_fits_into_one_request_comes_from_the_world_and_goes_there() -> None:
    with exporting_here(SERIAL) as served, served.client("1-1") as client:
        source, out = served.worlds[0]
        said = random.Random(2).randbytes(3000)
        source.write(said)
        heard = b""
        while len(heard) < len(said):
            heard += client.transfer(IN, 4096).data
        assert heard == said
        assert client.transfer(OUT, said).actual == len(said)
        written = b""
        while len(written) < len(said):
            written += readable(out)
        assert written == said


def test_devices_are_listed_attached_and_used(image: Path) -> None:
    with exporting_here(DISK, KEYBOARD, LOOPBACK, image=image) as served:
        with served.client() as client:
            assert client.devices() == {
                "1-1": [(8, 6, 0x50)],
                "1-2": [(3, 1, 1)],
                "1-3": [(2, 2, 1), (10, 0, 0)],
            }
        with served.client("1-1") as disk, served.client("1-3") as line:
            found = disk.control(c9.Setup(0x80, c9.GET_DESCRIPTOR, 0x0100, 0, 64))
            assert (found.status, found.actual, len(found.data)) == (p.OK, 18, 18)
            assert read_blocks(disk, 3, 200) == image.read_bytes()[3 * BLOCK : 203 * BLOCK]
            assert line.transfer(OUT, b"hello") == Ended(p.OK, 5, b"")
            assert line.transfer(IN, 512) == Ended(p.OK, 5, b"hello")


def test_a_device_has_one_client_and_is_free_when_that_goes() -> None:
    with exporting_here(KEYBOARD) as served:
        for _ in range(5):
            with served.client("1-1"), served.client() as other:
                assert other.attach("1-1") == usbip.ST_DEV_BUSY
                assert other.is_closed()
            free(served.port, "1-1").socket.close()


def free(port: int, busid: str) -> Client:
    """Attach as soon as the server has seen that the last client has gone."""
    while True:
        client = Client(port)
        if client.attach(busid) == usbip.ST_OK:
            return client
        assert client.is_closed()
        client.socket.close()


def test_a_device_that_was_let_go_is_as_new_for_the_next_client() -> None:
    with exporting_here(LOOPBACK) as served:
        with served.client("1-1") as first:
            first.transfer(OUT, b"secret")
            first.control(c9.Setup(0x21, 0x20, 0, 0, 7), struct.pack("<IBBB", 50, 0, 0, 8))
            halt = c9.Setup(c9.ENDPOINT, c9.SET_FEATURE, c9.ENDPOINT_HALT, OUT, 0)
            assert first.control(halt).status == p.OK
            for _ in range(10):
                first.submit(IN, 64)
        with free(served.port, "1-1") as second:
            coding = second.control(c9.Setup(0xA1, 0x21, 0, 0, 7)).data
            assert coding == struct.pack("<IBBB", 9600, 0, 0, 8)
            second.transfer(OUT, b"mine")
            assert second.transfer(IN, 64).data == b"mine"


def test_a_transfer_waits_for_the_world_and_the_world_hears_the_device() -> None:
    with exporting_here(KEYBOARD, SERIAL) as served:
        (keys, lights), (line, heard) = served.worlds
        with served.client("1-1") as keyboard, served.client("1-2") as serial:
            keyboard.transfer(1, 8)
            number = keyboard.submit(1, 8)
            keys.write(b"a")
            assert keyboard.ret() == (number, Ended(p.OK, 8, bytes((0, 0, 4, 0, 0, 0, 0, 0))))
            keyboard.control(c9.Setup(0x21, 9, 0x0200, 0, 1), b"\1")
            assert readable(lights) == b"\1"
            number = serial.submit(IN, 64)
            line.write(b"in")
            assert serial.ret() == (number, Ended(p.OK, 2, b"in"))
            serial.transfer(OUT, b"out")
            assert readable(heard) == b"out"
            line.close()  # the end of the input is not the device's
            serial.transfer(OUT, b"still")
            assert readable(heard) == b"still"


def test_unlinked_transfers_have_one_answer() -> None:
    with exporting_here(LOOPBACK) as served, served.client("1-1") as client:
        first, second = client.submit(IN, 64), client.submit(IN, 64)
        unlinking = client.unlink(first)
        assert client.ret() == (unlinking, p.CONNRESET)
        sent = client.submit(OUT, b"x")
        ends = dict(client.ret() for _ in range(2))
        assert ends == {second: Ended(p.OK, 1, b"x"), sent: Ended(p.OK, 1, b"")}
        assert client.ret_of_unlink(second) == p.OK
        assert client.ret_of_unlink(9999) == p.OK


def test_transfers_that_make_no_sense_are_answered_and_the_client_goes_on() -> None:
    with exporting_here(LOOPBACK) as served, served.client("1-1") as client:
        assert client.transfer(9, 64).status == p.INVAL
        assert client.transfer(9, b"x").status == p.INVAL
        status = c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2)
        assert client.transfer(0, 3, status.pack()).status == p.INVAL
        assert client.transfer(0, b"xx", status.pack()).status == p.INVAL
        assert client.control(c9.Setup(0x80, 99, 0, 0, 2)).status == p.STALL
        assert client.control(status).data == b"\1\0"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
        struct.pack(">HHI", 0x0106, 0x8005, 0),
        struct.pack(">HHI", 0x0111, 0x0001, 0),
        req_import(b"1-1") + bytes(48),
        req_import(b"1-1") + submit(1, 1, 0x7FFFFFFF, is_in=False, devid=0x10002),
        req_import(b"1-1") + submit(1, 1, -1, devid=0x10002),
        req_import(b"1-1") + submit(1, 1, 8, packets=1 << 30, devid=0x10002),
        req_import(b"1-1") + submit(1, 2, 8, devid=0x10002) * 2,
        req_import(b"1-1") + unlink(1, 1, devid=7),
        req_import(b"1-1") + os.urandom(1 << 16),
    ],
    ids=[
        "http",
        "version",
        "code",
        "zeros",
        "huge",
        "negative",
        "packets",
        "twice",
        "devid",
        "noise",
    ],
)
def test_garbage_closes_the_client_that_sent_it_and_nobody_else(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with exporting_here(LOOPBACK, KEYBOARD) as served, served.client("1-2") as other:
        with served.client() as client:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                client.socket.sendall(garbage)
            assert client.is_closed()
        assert other.transfer(1, 8).status == p.OK
        with free(served.port, "1-1") as next_one:
            assert next_one.transfer(OUT, b"x").status == p.OK
    assert sum("is disconnected" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("busid", ["9-9", "", "x" * 32, "1-1\x01"])
def test_an_unknown_bus_id_is_refused(busid: str) -> None:
    with exporting_here(KEYBOARD) as served, served.client() as client:
        assert client.attach(busid) == usbip.ST_NODEV
        assert client.is_closed()


@pytest.mark.parametrize("cut", [1, 8, 39, 40, 41, 40 + 47, 40 + 48 + 100])
def test_a_client_that_vanishes_in_the_middle_leaves_no_trace(cut: int) -> None:
    data = req_import(b"1-1") + submit(1, OUT, 200, b"x" * 200, is_in=False, devid=0x10002)
    with exporting_here(LOOPBACK) as served:
        with served.client() as client:
            client.socket.sendall(data[:cut])
        with free(served.port, "1-1") as next_one:
            number = next_one.submit(IN, 64)
            next_one.transfer(0, 2, c9.Setup(0x80, c9.GET_STATUS, 0, 0, 2).pack())
            assert next_one.unlink(number)
            assert next_one.ret()[1] == p.CONNRESET  # half a transfer did nothing


def test_clients_that_reset_their_connections_mid_transfer_leave_no_trace() -> None:
    with exporting_here(LOOPBACK) as served:
        for _ in range(20):
            with free(served.port, "1-1") as client:
                linger = struct.pack("ii", 1, 0)  # close with a reset
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                for _ in range(20):
                    client.submit(IN, 65536)
                    client.submit(OUT, bytes(5000))
        with free(served.port, "1-1") as client:
            client.transfer(OUT, b"x")
            assert client.transfer(IN, 64).data == b"x"


def test_a_client_that_does_not_read_does_not_stop_the_others(image: Path) -> None:
    with (
        exporting_here(DISK, LOOPBACK, image=image) as served,
        served.client("1-1") as lazy,
        served.client("1-2") as other,
    ):
        ask = c9.Setup(0x80, c9.GET_DESCRIPTOR, 0x0200, 0, 255).pack()
        for _ in range(1000):
            lazy.submit(0, 255, ask)
        for _ in range(50):
            other.transfer(OUT, b"x" * 1000)
            assert other.transfer(IN, 4096).data == b"x" * 1000
        for number in range(1, 1001):  # and gets everything once it does
            assert lazy.ret()[0] == number


def test_a_device_that_is_given_up_closes_its_client_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with exporting_here(KEYBOARD, LOOPBACK) as served:
        with served.client("1-1") as keyboard, served.client("1-2") as line:
            keyboard.transfer(1, 8)
            number = keyboard.submit(1, 8)
            served.machine.shutdown("usb1")
            answered, end = keyboard.ret()
            assert isinstance(end, Ended)
            assert (answered, end.status) == (number, p.SHUTDOWN)
            assert keyboard.is_closed()
            line.transfer(OUT, b"x")
            assert line.transfer(IN, 64).data == b"x"
        with served.client() as client:
            assert list(client.devices()) == ["1-2"]
        with served.client() as client:
            assert client.attach("1-1") == usbip.ST_NODEV
    assert any("device 1-1 is gone" in record.message for record in caplog.records)


# --- the program ----------------------------------------------------------------------------------


def test_the_real_client_lists_the_devices(image: Path, tmp_path: Path) -> None:
    program = need_usbip()
    options = ("--disk", str(image), "--keyboard", "--serial")
    with exporting(tmp_path, *options) as served:
        command = [program, "--tcp-port", str(served.port), "list", "-r", "127.0.0.1"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 0, result.stderr
        for busid, product in (("1-1", "0001"), ("1-2", "0002"), ("1-3", "0003")):
            assert f"{busid}: " in result.stdout
            assert f"(1209:{product})" in result.stdout
        assert "(08/06/50)" in result.stdout
        assert "(03/01/01)" in result.stdout


def test_the_program_types_what_it_is_given_and_ends_in_order(image: Path, tmp_path: Path) -> None:
    options = ("--disk", str(image), "--keyboard", "--serial", "pty", "--composite")
    with exporting(tmp_path, *options) as served:
        assert list(served.devices) == ["1-1"]
        words, _ = served.devices["1-1"]
        terminal = os.open(words.rpartition(" ")[2], os.O_RDWR | os.O_NOCTTY)
        try:
            with served.client("1-1") as client:
                assert read_blocks(client, 0, 8) == image.read_bytes()[: 8 * BLOCK]
                client.transfer(2, 8)
                assert served.process.stdin is not None
                served.process.stdin.write("a")
                served.process.stdin.close()
                assert client.transfer(2, 8).data[2] == 4
                os.write(terminal, b"in")
                assert client.transfer(4, 64).data == b"in"
                client.transfer(2, b"out")
                assert readable(terminal) == b"out"
        finally:
            os.close(terminal)


def test_a_killed_back_end_is_an_error_once_and_then_the_device_goes_on(
    image: Path, tmp_path: Path
) -> None:
    with exporting(tmp_path, "--disk", str(image)) as served, served.client("1-1") as client:
        read_blocks(client, 0, 8)
        os.kill(served.devices["1-1"][1], signal.SIGKILL)
        assert client.control(c9.Setup(0x80, c9.GET_CONFIGURATION, 0, 0, 1)).data == b"\1"
        assert client.transfer(1, b"x" * 31).status == p.IOERROR
        client.control(c9.Setup(0, c9.SET_CONFIGURATION, 1, 0, 0))
        assert read_blocks(client, 0, 8) == image.read_bytes()[: 8 * BLOCK]


def test_a_disk_that_is_read_only_says_so(image: Path, tmp_path: Path) -> None:
    options = ("--disk", str(image), "--read-only")
    with exporting(tmp_path, *options) as served, served.client("1-1") as client:
        cdb = bytes((scsi.MODE_SENSE_6, 0, 0x3F, 0, 4, 0))
        head = ms.CBW.pack(ms.CBW_SIGNATURE, 7, 4, 0x80, 0, len(cdb), cdb)
        client.transfer(1, head)
        assert client.transfer(1, 4).data[2] & 0x80


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--disk", "/none", "--tcp", "127.0.0.1:0"], "image /none does not exist"),
        (["--disk", "/", "--tcp", "127.0.0.1:0"], "image / is a directory"),
        (["--tcp", "127.0.0.1:0"], "nothing to serve: --disk, --keyboard, --serial or"),
        (["--keyboard"], "nowhere to serve: --tcp or --usbredir"),
        (["--host-device", "x:1", "--tcp", "127.0.0.1:0"], "'x:1' is neither VENDOR:PRODUCT nor"),
        (["--host-device", "10000:1", "--tcp", "127.0.0.1:0"], "'10000:1' is neither"),
        (["--keyboard", "--tcp", "here"], "argument --tcp: 'here' is not HOST:PORT"),
        (["--keyboard", "--tcp", "127.0.0.1:99999"], "'127.0.0.1:99999' is not HOST:PORT"),
        (["--keyboard", "--tcp", "127.0.0.1:0", "--intensity", "x"], "'x' is not a number from 0"),
    ],
)
def test_a_server_that_cannot_begin_says_why_in_one_line(options: list[str], text: str) -> None:
    code, errors = refused(*options)
    assert code == 2
    assert errors.count("\n") == 1
    assert text in errors


def test_a_port_that_is_taken_is_an_error(image: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, errors = refused("--disk", str(image), "--tcp", where)
    assert code == 2
    assert "Address already in use" in errors


def test_a_back_end_that_cannot_start_again_is_one_clear_line(image: Path, tmp_path: Path) -> None:
    options = ("--disk", str(image), "--keyboard", "--intensity", "1")
    with exporting(tmp_path, *options) as served, served.client("1-1") as client:
        image.unlink()
        words, _ = served.devices["1-1"]
        os.kill(int(words.rpartition(" ")[2].rstrip(")")), signal.SIGKILL)
        assert client.is_closed()
        assert any("does not exist" in line for line in served.errors.read_text().splitlines())
        assert served.stop() == 0
    lines = served.errors.read_text().splitlines()
    assert all(line.startswith("examples.usb: ") for line in lines)
