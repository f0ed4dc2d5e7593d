"""Copy-on-write and read-only disks: against a model, killed anywhere, and for real clients."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import Faults, System
from actors.threads import Threads
from examples.block import plan
from examples.block import protocol as p
from examples.block.block_map import BlockMap, map_bytes
from examples.block.copy_on_write import CopyOnWriteFilter
from examples.block.disk import Disk
from examples.block.load import Load
from examples.block.oracle import Oracle
from examples.block.read_only import ReadOnlyFilter
from hypervisor import DOMAIN_FAULTS, DomainStartError, Machine
from tests.block.helpers import Killer, need, run, serving
from tests.simulation import machine_load
from transport import (
    BackEnd,
    Completion,
    DelayFilter,
    Filter,
    FrontEnd,
    LocalMemory,
    Offloaded,
    RemoteBuffer,
    RemoteError,
    Request,
    connect,
    stack,
)

BLOCK = 4096
SIZE = 5 * BLOCK + 512  # the last block is a short one
RUNTIME = Threads()
BASE = random.Random(4).randbytes(SIZE)


class Offloading(Filter):
    """Whatever is below does all in offloaded work."""

    def on_request(self, request: Request) -> Any:
        return self.offload(self._serve, request)

    def _serve(self, request: Request) -> Any:
        result = self.below.on_request(request)
        return result.run() if type(result) is Offloaded else result


class Bare:
    """A stack without a machine: requests are calls, and its process can die with it."""

    def __init__(self, *layers: Any) -> None:
        program, *args = stack(*layers)
        self.driver: BackEnd = program()
        self.driver.runtime = RUNTIME
        self.driver.on_start(*args)

    def ask(
        self, operation: int, offset: int, length: int, flags: int = 0, data: bytes = b""
    ) -> Any:
        """Returns the result, or what the buffer has then if there is one."""
        size = {p.READ: length, p.WRITE: length, p.BLOCK_STATUS: p.EXTENT_BYTES}.get(operation)
        memory = LocalMemory(size or 0)
        memory.view(0, len(data))[:] = data
        buffers = () if size is None else (RemoteBuffer(memory, 0, size),)
        result = self.driver.on_request(Request((operation, offset, length, flags), buffers))
        if type(result) is Offloaded:
            result = result.run()
        if operation == p.BLOCK_STATUS:
            return list(p.EXTENT.iter_unpack(memory.view(0, result * p.EXTENT.size)))
        return bytes(memory.view(0, memory.size)) if operation == p.READ else result

    def close(self) -> None:
        """Nothing is written at that, so it is as good as a kill."""
        self.driver.on_stop()


# --- the map --------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 70), st.integers(1, 40)), max_size=8))
def test_a_block_map_is_a_set_of_blocks(marks: list[tuple[int, int]]) -> None:
    blocks = 110
    bits = bytearray(map_bytes(blocks))
    found, model = BlockMap(blocks, bits), set()
    for first, count in marks:
        start, end = found.mark(first, first + count)
        model |= set(range(first, first + count))
        assert start * 8 <= first < first + count <= end * 8
        assert BlockMap(blocks, bits).bits is found.bits
    assert {block for block in range(blocks) if block in found} == model
    for first, stop in ((0, blocks), (3, 50), (64, 65), (7, 7)):
        runs = list(found.runs(first, stop))
        assert [n for a, b, _ in runs for n in range(a, b)] == list(range(first, stop))
        assert all((n in model) == changed for a, b, changed in runs for n in range(a, b))
        assert all(one[2] != two[2] for one, two in itertools.pairwise(runs))


def test_a_map_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="no map of 9 blocks"):
        BlockMap(9, bytearray(1))


# --- the filter against a model -------------------------------------------------------------------

RANGES = st.tuples(st.integers(0, SIZE), st.integers(0, 3 * BLOCK)).map(
    lambda at: (at[0], min(at[1], SIZE - at[0]))
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "zero", "keep", "trim", "read", "status"]), RANGES),
        st.tuples(st.sampled_from(["flush", "reopen"]), st.just((0, 0))),
    ),
    max_size=25,
)


@settings(max_examples=150)
@given(steps=STEPS, offloading=st.booleans(), fua=st.booleans())
def test_a_copy_on_write_disk_is_a_disk_and_its_base_stays_as_it_was(
    steps: list[tuple[str, tuple[int, int]]], offloading: bool, fua: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        base, overlay = Path(folder, "base"), Path(folder, "overlay")
        base.write_bytes(BASE)
        layers = [
            (CopyOnWriteFilter, str(overlay)),
            *([Offloading] if offloading else []),
            (Disk, str(base), True),
        ]
        flags = p.FUA if fua else 0
        model, disk = bytearray(BASE), Bare(*layers)
        try:
            for number, (what, (offset, length)) in enumerate(steps):
                match what:
                    case "write":
                        data = bytes([number + 1]) * length
                        assert disk.ask(p.WRITE, offset, length, flags, data) is None
                        model[offset : offset + length] = data
                    case "zero" | "keep" | "trim":
                        operation = p.TRIM if what == "trim" else p.WRITE_ZEROES
                        keep = p.NO_HOLE if what == "keep" else 0
                        assert disk.ask(operation, offset, length, flags | keep) is None
                        model[offset : offset + length] = bytes(length)
                    case "read":
                        assert disk.ask(p.READ, offset, length) == model[offset : offset + length]
                    case "status" if length:
                        check_extents(
                            disk.ask(p.BLOCK_STATUS, offset, length), model, offset, length
                        )
                    case "flush":
                        assert disk.ask(p.FLUSH, 0, 0) is None
                    case "reopen":
                        disk.close()
                        disk = Bare(*layers)
            assert disk.ask(p.READ, 0, SIZE) == model
            assert disk.ask(p.INFO, 0, 0) == [SIZE, 0]
        finally:
            disk.close()
        assert base.read_bytes() == BASE
        assert sorted(os.listdir(folder)) == ["base", "overlay"]


def check_extents(found: list[tuple[int, int]], model: bytearray, offset: int, length: int) -> None:
    assert found
    assert all(size > 0 for size, _ in found)
    assert sum(size for size, _ in found) <= length
    for size, status in found:
        if status & p.EXTENT_ZERO:
            assert not any(model[offset : offset + size])
        offset += size


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(BASE)
    return path


def layers_on(base: Path) -> list[Any]:
    return [(CopyOnWriteFilter, f"{base}.overlay"), (Disk, str(base), True)]


def test_trimmed_blocks_of_an_overlay_are_holes_and_unchanged_ones_are_those_of_the_base(
    base: Path,
) -> None:
    with contextlib.closing(Bare(*layers_on(base))) as disk:
        assert disk.ask(p.BLOCK_STATUS, 0, SIZE) == [(SIZE, 0)]
        disk.ask(p.TRIM, BLOCK, BLOCK)
        assert disk.ask(p.BLOCK_STATUS, 0, SIZE) == [(BLOCK, 0)]
        assert disk.ask(p.BLOCK_STATUS, BLOCK, SIZE - BLOCK) == [(BLOCK, 3)]
        assert disk.ask(p.CACHE, 0, SIZE) is None


@pytest.mark.parametrize(
    ("operation", "offset", "length"),
    [(p.READ, SIZE - 1, 2), (p.WRITE, -1, 10), (p.TRIM, 0, SIZE + 1), (99, 0, 0), (p.FLUSH, 0, -1)],
)
def test_what_is_not_on_the_disk_or_no_operation_is_refused(
    base: Path, operation: int, offset: int, length: int
) -> None:
    with (
        contextlib.closing(Bare(*layers_on(base))) as disk,
        pytest.raises(OSError, match=r"not all on the disk|this shape") as caught,
    ):
        disk.ask(operation, offset, length)
    assert caught.value.errno == errno.EINVAL


# --- death ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here."""


CHANGES = [
    (p.WRITE, 100, 200, 0),
    (p.WRITE, BLOCK - 10, 2 * BLOCK + 20, 0),
    (p.WRITE, BLOCK, BLOCK, p.FUA),
    (p.WRITE, SIZE - 100, 100, 0),
    (p.TRIM, 10, 2 * BLOCK, 0),
    (p.WRITE_ZEROES, BLOCK + 1, 50, p.FUA),
]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_is_killed_at_any_system_call_is_in_whole_blocks_or_not_there(
    base: Path, change: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    operation, offset, length, flags = change
    data = b"n" * length if operation == p.WRITE else b""
    new = bytearray(BASE)
    new[offset : offset + length] = data or bytes(length)
    left = 0

    def killed_after(call: Any) -> Any:
        def counted(*args: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            return call(*args)

        return counted

    for calls in range(100):
        Path(f"{base}.overlay").unlink(missing_ok=True)
        with contextlib.closing(Bare(*layers_on(base))) as disk, monkeypatch.context() as patch:
            left = calls
            for name in ("pwrite", "pwritev", "fdatasync"):
                patch.setattr(os, name, killed_after(getattr(os, name)))
            try:
                disk.ask(operation, offset, length, flags, data)
                survived = True
            except Killed:
                survived = False
        with contextlib.closing(Bare(*layers_on(base))) as disk:
            found = disk.ask(p.READ, 0, SIZE)
            assert found == new if survived else found in (new, BASE)
            disk.ask(operation, offset, length, flags, data)  # sent again
            assert disk.ask(p.READ, 0, SIZE) == new
        if survived:
            return
    pytest.fail("it never ends")


def crash_the_machine(overlay: Path) -> None:
    """The next boot has another id."""
    contents = bytearray(overlay.read_bytes())
    at = contents.index(b"xenidc overlay 1") + 28
    contents[at : at + 36] = b"0" * 36
    overlay.write_bytes(contents)


def test_after_a_crash_of_the_machine_only_what_was_flushed_is_believed(base: Path) -> None:
    overlay = Path(f"{base}.overlay")
    with contextlib.closing(Bare(*layers_on(base))) as disk:
        disk.ask(p.WRITE, 10, 20, 0, b"f" * 20)
        disk.ask(p.FLUSH, 0, 0)
        disk.ask(p.WRITE, 2 * BLOCK, 20, p.FUA, b"u" * 20)
        disk.ask(p.WRITE, 4 * BLOCK, 20, 0, b"l" * 20)
    expected = bytearray(BASE)
    expected[10:30], expected[2 * BLOCK : 2 * BLOCK + 20] = b"f" * 20, b"u" * 20
    crash_the_machine(overlay)
    for _ in range(2):  # the second time it is the same boot
        with contextlib.closing(Bare(*layers_on(base))) as disk:
            assert disk.ask(p.READ, 0, SIZE) == expected
    with contextlib.closing(Bare(*layers_on(base))) as disk:
        disk.ask(p.WRITE, 4 * BLOCK + 50, 1, 0, b"x")
        expected[4 * BLOCK + 50] = ord("x")
        assert disk.ask(p.READ, 0, SIZE) == expected, "nothing of what was lost comes back"


def test_a_flush_writes_the_map_between_two_syncs(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.closing(Bare(*layers_on(base))) as disk:
        disk.ask(p.WRITE, 0, BLOCK, 0, b"x" * BLOCK)
        calls: list[str] = []

        def recorded(name: str) -> Any:
            real = getattr(os, name)

            def call(*args: Any) -> Any:
                calls.append(name)
                return real(*args)

            return call

        for name in ("pwrite", "fdatasync"):
            monkeypatch.setattr(os, name, recorded(name))
        disk.ask(p.FLUSH, 0, 0)
        assert calls == ["fdatasync", "pwrite", "fdatasync"]
        disk.ask(p.FLUSH, 0, 0)
        assert calls[3:] == ["fdatasync"], "the map has not changed since"


def test_an_overlay_that_cannot_be_used_is_an_error_at_the_start(base: Path) -> None:
    overlay = Path(f"{base}.overlay")

    def refusal() -> str:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(Exception, match="overlay") as caught:
            Bare(*layers_on(base))
        assert len(os.listdir("/proc/self/fd")) == before
        return str(caught.value)

    overlay.write_bytes(b"something else" * 1000)
    assert refusal() == f"{overlay} is no overlay of an image of {SIZE} bytes"
    overlay.write_bytes(b"")
    assert refusal() == f"{overlay} is no overlay of an image of {SIZE} bytes"
    overlay.unlink()
    with contextlib.closing(Bare(*layers_on(base))):
        assert refusal() == f"overlay {overlay} is in use"
    base.write_bytes(BASE + bytes(512))
    assert refusal() == f"{overlay} is no overlay of an image of {SIZE + 512} bytes"
    overlay.unlink()
    overlay.mkdir()
    assert refusal() == f"overlay {overlay} cannot be used: Is a directory"


# --- read-only ------------------------------------------------------------------------------------


@pytest.mark.parametrize("above", [[], [(DelayFilter, 0.0)]])
@pytest.mark.parametrize("below", [[], [(DelayFilter, 0.0)]])
def test_a_read_only_disk_can_be_read_and_not_changed(
    base: Path, above: list[Any], below: list[Any]
) -> None:
    layers = [*above, ReadOnlyFilter, *below, (Disk, str(base))]
    with contextlib.closing(Bare(*layers)) as disk:
        assert disk.ask(p.INFO, 0, 0) == [SIZE, 1]
        assert disk.ask(p.READ, 5, 100) == BASE[5:105]
        for operation in (p.WRITE, p.TRIM, p.WRITE_ZEROES, 77):
            with pytest.raises(OSError, match="read-only") as caught:
                disk.ask(operation, 0, 512)
            assert caught.value.errno == errno.EROFS
        assert disk.ask(p.FLUSH, 0, 0) is None
    assert base.read_bytes() == BASE


# --- on machines ----------------------------------------------------------------------------------


@pytest.mark.simulate(seeds=15, faults=[])
def test_changes_of_parts_of_one_block_at_the_same_time_are_all_there(
    system: System, base: Path
) -> None:
    overlay = Path(f"{base}.overlay")
    overlay.unlink(missing_ok=True)
    layers = (CopyOnWriteFilter, str(overlay)), (DelayFilter, 0.5), (Disk, str(base), True)
    with Machine(system=system, watchdog=100.0) as machine:
        machine.start("disk", *stack(*layers))
        with connect(machine, "disk", slots=16, buffer_bytes=1 << 17) as channel:
            requests = []
            for number in range(6):
                buffer = channel.buffer(500)
                buffer.view[:] = bytes([number]) * 500
                requests.append(channel.submit((p.WRITE, 600 * number, 500, 0), buffer))
            settle(channel, requests)
            expected = bytearray(BASE[:BLOCK])
            for number in range(6):
                expected[600 * number : 600 * number + 500] = bytes([number]) * 500
            with channel.buffer(BLOCK) as buffer:
                settle(channel, [channel.submit((p.READ, 0, BLOCK, 0), buffer)])
                assert buffer.view == expected


def settle(channel: FrontEnd, requests: list[Completion]) -> None:
    channel.push()
    while not all(request.done for request in requests):
        assert channel.wait(1000)
        channel.reap()
    assert all(request.error is None for request in requests)


@pytest.mark.simulate(seeds=20, faults=Faults(DOMAIN_FAULTS, rate=0.002))
def test_a_copy_on_write_disk_keeps_its_promises_whatever_happens(
    system: System, tmp_path: Path
) -> None:
    size = 128 << 10
    image, overlay = tmp_path / "disk.img", tmp_path / "overlay"
    overlay.unlink(missing_ok=True)
    contents = b"".join(plan.contents(1, size))
    image.write_bytes(contents)
    layers = (CopyOnWriteFilter, str(overlay)), (Disk, str(image), True)
    with Machine(system=system, intensity=1000) as machine:
        machine_load.start(machine, *stack(*layers))
        with connect(machine, "disk", slots=32, buffer_bytes=1 << 20) as channel:
            load = Load(channel, Oracle(contents))
            load.run(
                plan.steps(1, size),
                [(20, plan.KILL)],
                lambda _: machine.kill("disk"),
                seconds=0,
                progress=lambda _: None,
            )
            load.verify(lambda _: None)
            assert not load.stuck
            assert (load.oracle.lost, load.oracle.wrong, load.oracle.failed) == (0, 0, 0)
    assert image.read_bytes() == contents


def test_nbdcopy_to_an_overlay_under_a_killer_and_from_it_read_only(
    image: Path, tmp_path: Path
) -> None:
    need("nbdcopy")
    before = image.read_bytes()
    overlay, fresh, copy = f"{image}.overlay", tmp_path / "fresh.img", tmp_path / "copy.img"
    fresh.write_bytes(random.Random(9).randbytes(len(before)))
    with (
        serving(image, "--overlay", overlay, "--intensity", "1000") as server,
        Killer(server) as killer,
    ):
        while killer.kills < 4:
            run("nbdcopy", "--flush", fresh, server.uri)
            run("nbdcopy", server.uri, copy)
            assert copy.read_bytes() == fresh.read_bytes()
    assert image.read_bytes() == before
    with serving(image, "--overlay", overlay, "--read-only") as server:
        assert server.read_only
        run("nbdcopy", server.uri, copy)
    assert copy.read_bytes() == fresh.read_bytes()


def test_qemu_io_changes_an_overlay_in_parts_of_blocks_under_a_killer(image: Path) -> None:
    need("qemu-io")
    before = image.read_bytes()
    commands = [
        "write -P 5 1049088 300032",
        "write -z 3145900 32000",
        "discard 1300k 4k",
        "write -f -P 9 5242980 3000",
        "flush",
        "read -P 5 1049088 282000",
        "read -P 0 3145900 32000",
        "read -P 9 5242980 3000",
    ]
    with (
        serving(image, "--overlay", f"{image}.overlay", "--intensity", "1000") as server,
        Killer(server) as killer,
    ):
        while killer.kills < 4:
            output = run(
                "qemu-io",
                "-f",
                "raw",
                "-t",
                "none",
                *(f"-c{text}" for text in commands),
                server.uri,
            )
            assert "failed" not in output
    assert image.read_bytes() == before


def test_an_overlay_that_is_none_is_said_by_the_machine(base: Path) -> None:
    Path(f"{base}.overlay").write_bytes(b"none")
    with Machine(spares=0) as machine, pytest.raises(DomainStartError, match="is no overlay"):
        machine.start("disk", *stack(*layers_on(base)), placement="thread")


def test_an_error_below_is_that_of_the_request(base: Path) -> None:
    with Machine(spares=0) as machine:
        machine.start("disk", *stack(*layers_on(base)), placement="thread")
        with connect(machine, "disk") as channel, channel.buffer(BLOCK) as buffer:
            os.truncate(base, BLOCK)
            for operation in (p.READ, p.WRITE):
                with pytest.raises(RemoteError) as caught:
                    channel.call((operation, 2 * BLOCK + 5, 100, 0), buffer[:100])
                assert caught.value.errno == errno.EIO
            channel.call((p.READ, 0, BLOCK, 0), buffer)
            assert buffer.view == BASE[:BLOCK]
