"""The leak check itself: it sees each kind of leak, names it, is silent when all is put away."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

from tests import leaks

HERE = Path(__file__).parent


def test_nothing_is_reported_when_nothing_is_left() -> None:
    before = leaks.snapshot()
    os.close(os.eventfd(0))
    assert leaks.leaked_since(before) == []


def test_an_open_descriptor_is_named_with_what_it_points_at() -> None:
    before = leaks.snapshot()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    assert leaks.leaked_since(before) == [f"descriptor {descriptor} -> /dev/null"]
    os.close(descriptor)


def test_a_descriptor_replaced_under_the_same_number_is_seen() -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    before = leaks.snapshot()
    os.close(descriptor)
    assert os.open("/dev/zero", os.O_RDONLY) == descriptor
    assert leaks.leaked_since(before) == [f"descriptor {descriptor} -> /dev/zero"]
    os.close(descriptor)


def test_a_running_thread_is_named() -> None:
    before = leaks.snapshot()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten")
    thread.start()
    assert leaks.leaked_since(before) == ["thread 'forgotten'"]
    end.set()
    thread.join()
    assert leaks.leaked_since(before) == []


def test_a_child_that_nobody_waited_for_is_named_even_when_it_has_ended() -> None:
    before = leaks.snapshot()
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    (line,) = leaks.leaked_since(before)
    assert line.startswith(f"child process {child.pid} (")
    child.wait()
    assert leaks.leaked_since(before) == []


def test_a_mapping_of_a_memfd_is_seen_after_its_descriptor_is_closed() -> None:
    before = leaks.snapshot()
    descriptor = os.memfd_create("kept")
    os.ftruncate(descriptor, 8192)
    mapping = mmap.mmap(descriptor, 8192)
    os.close(descriptor)
    lines = leaks.leaked_since(before)
    assert any(line.startswith("8192 bytes mapped of /memfd:kept") for line in lines), lines
    mapping.close()
    assert leaks.leaked_since(before) == []


# Tests beside this one look at /dev/shm itself; hence a folder in its place.
def test_an_entry_in_dev_shm_is_named(tmp_path: Path) -> None:
    before = leaks.snapshot(str(tmp_path))
    entry = tmp_path / "left"
    entry.touch()
    try:
        assert leaks.leaked_since(before) == [str(entry)]
    finally:
        entry.unlink()


def test_an_entry_in_dev_shm_that_another_process_has_open_is_its_own(tmp_path: Path) -> None:
    before = leaks.snapshot(str(tmp_path))
    entry = tmp_path / "left"
    with (
        entry.open("w") as file,
        subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[file.fileno()]) as other,
    ):
        file.close()
        try:
            assert [line for line in leaks.leaked_since(before) if str(entry) in line] == []
        finally:
            entry.unlink()
            assert other.stdin is not None
            other.stdin.close()


def test_a_descriptor_owned_by_garbage_in_a_cycle_is_not_a_leak() -> None:
    class Owner:
        def __init__(self) -> None:
            self.descriptor = os.open("/dev/null", os.O_RDONLY)
            self.itself = self

        def __del__(self) -> None:
            os.close(self.descriptor)

    before = leaks.snapshot()
    Owner()
    assert leaks.leaked_since(before) == []


def test_a_leaking_test_fails_under_the_fixture_and_a_clean_one_passes(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "leaks.py", "conftest.py"):
        shutil.copy(HERE / name, tmp_path / "tests")
    (tmp_path / "tests" / "test_sample.py").write_text(
        "import os\n"
        "def test_leaks(): os.open('/dev/null', os.O_RDONLY)\n"
        "def test_is_clean(): os.close(os.open('/dev/null', os.O_RDONLY))\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "-> /dev/null" in run.stdout
    assert "2 passed, 1 error" in run.stdout
