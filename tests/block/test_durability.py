"""FLUSH and FUA reach fdatasync before they are answered, also across the death of the back end."""

from __future__ import annotations

import contextlib
import os
import random
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from examples.block import protocol as p
from hypervisor import Machine
from tests.block.recording import EVENTS, PERMITS, FailingDisk, RecordingDisk
from transport import Completion, FrontEnd, RemoteError, connect

SECONDS = 20  # until a test gives up waiting


@dataclass
class Recorder:
    """A recording disk's channel, its events, and the say over its syncs."""

    machine: Machine
    channel: FrontEnd
    image: Path
    events: int
    permits: int
    _text: bytes = b""

    def event(self) -> str:
        """The next thing that the disk did."""
        while b"\n" not in self._text:
            assert select.select([self.events], [], [], SECONDS)[0], "nothing happens"
            self._text += os.read(self.events, 65536)
        line, _, self._text = self._text.partition(b"\n")
        return line.decode()

    def permit_a_sync(self) -> None:
        os.write(self.permits, b".")

    def begin(self, operation: int, offset: int = 0, data: bytes = b"", flags: int = 0) -> None:
        """Submit a request."""
        buffer = None
        if data:
            buffer = self.channel.buffer(len(data))
            buffer.view[:] = data
        self.channel.submit((operation, offset, len(data), flags), buffer)
        self.channel.push()

    def end(self) -> bytes:
        """Wait for the one submitted request to end well; what its buffer has then."""
        completions: list[Completion] = []
        while not completions:  # the descriptor may also be readable without one
            assert select.select([self.channel.fileno()], [], [], SECONDS)[0], "no answer"
            completions = self.channel.reap()
        (completion,) = completions
        assert completion.error is None
        if completion.buffer is None:
            return b""
        with completion.buffer as buffer:
            return bytes(buffer.view)

    def write(self, offset: int, data: bytes) -> None:
        self.begin(p.WRITE, offset, data)
        self.end()
        assert self.event() == f"write {offset}"

    def read(self, offset: int, length: int) -> bytes:
        self.channel.submit((p.READ, offset, length, 0), self.channel.buffer(length))
        self.channel.push()
        return self.end()


@pytest.fixture
def recorder(image: Path) -> Iterator[Recorder]:
    with contextlib.ExitStack() as stack:
        ends = []
        for name in (EVENTS, PERMITS):
            os.mkfifo(f"{image}{name}")
            ends.append(os.open(f"{image}{name}", os.O_RDWR | os.O_CLOEXEC))
            stack.callback(os.close, ends[-1])
        machine = stack.enter_context(Machine(intensity=100))
        machine.start("disk", RecordingDisk, str(image))
        channel = stack.enter_context(connect(machine, "disk"))
        recorder = Recorder(machine, channel, image, ends[0], ends[1])
        assert recorder.event() == "start"
        yield recorder


@pytest.mark.parametrize(
    ("operation", "data", "flags"),
    [
        (p.FLUSH, b"", 0),
        (p.WRITE, b"x" * 4096, p.FUA),
        (p.TRIM, b"", p.FUA),
        (p.WRITE_ZEROES, b"", p.FUA),
    ],
    ids=["FLUSH", "WRITE", "TRIM", "WRITE_ZEROES"],
)
def test_a_sync_comes_before_the_answer(
    recorder: Recorder, operation: int, data: bytes, flags: int
) -> None:
    if operation in (p.TRIM, p.WRITE_ZEROES):
        recorder.channel.submit((operation, 0, 4096, flags))
        recorder.channel.push()
    else:
        recorder.begin(operation, 0, data, flags)
    if operation == p.WRITE:
        assert recorder.event() == "write 0"
    assert recorder.event() == "sync begins"
    recorder.write(8192, b"y" * 512)  # others are served meanwhile, this one is not answered
    recorder.permit_a_sync()
    assert recorder.event() == "sync ends"
    recorder.end()


def test_a_write_without_fua_does_not_wait_for_the_disk(recorder: Recorder) -> None:
    recorder.write(0, b"x" * 4096)


def test_what_was_acknowledged_before_a_flush_is_there_after_a_restart(recorder: Recorder) -> None:
    """Writes are acknowledged, the back end dies before any sync, and its successor is flushed."""
    rng = random.Random(5)
    expected = bytearray(recorder.image.read_bytes())
    for _ in range(3):
        for _ in range(20):
            data, offset = rng.randbytes(4096), rng.randrange(1000) * 4096
            recorder.write(offset, data)
            expected[offset : offset + 4096] = data
        recorder.machine.kill("disk")
        assert recorder.event() == "start"
        recorder.begin(p.FLUSH)
        assert recorder.event() == "sync begins"
        recorder.permit_a_sync()
        assert recorder.event() == "sync ends"
        recorder.end()
        assert recorder.read(0, 4 << 20) == expected[: 4 << 20]
    assert recorder.image.read_bytes() == expected


def test_a_flush_that_was_in_flight_at_the_kill_is_sent_again(recorder: Recorder) -> None:
    recorder.write(0, b"x" * 4096)
    recorder.begin(p.FLUSH)
    assert recorder.event() == "sync begins"
    recorder.machine.kill("disk")
    assert [recorder.event(), recorder.event()] == ["start", "sync begins"]
    assert recorder.channel.statistics().resent == 1
    recorder.permit_a_sync()
    assert recorder.event() == "sync ends"
    recorder.end()


def test_a_write_with_fua_that_was_in_flight_at_the_kill_is_written_and_synced_again(
    recorder: Recorder,
) -> None:
    recorder.begin(p.WRITE, 4096, b"z" * 4096, p.FUA)
    assert [recorder.event(), recorder.event()] == ["write 4096", "sync begins"]
    recorder.machine.kill("disk")
    assert [recorder.event() for _ in range(3)] == ["start", "write 4096", "sync begins"]
    recorder.permit_a_sync()
    assert recorder.event() == "sync ends"
    recorder.end()
    assert recorder.read(4096, 4096) == b"z" * 4096


def test_after_a_failed_sync_no_flush_succeeds_any_more(image: Path) -> None:
    with Machine() as machine:
        machine.start("disk", FailingDisk, str(image))
        with connect(machine, "disk") as channel:
            for text in ("the disk is gone", "an earlier flush failed"):
                with pytest.raises(RemoteError, match=text):
                    channel.call((p.FLUSH, 0, 0, 0))
