"""The demo as a whole, small: it passes on a good driver, and fails on a bad one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from examples.block import demo
from examples.block import protocol as p
from examples.block.disk import Disk
from tests.sources import ROOT
from transport import RemoteBuffer, Request

SMALL = ["--seed", "7", "--size", "8", "--kills", "3", "--seconds", "0"]


class LyingDisk(Disk):
    """Turns over one bit of every tenth write."""

    def on_start(self, path: str, read_only: bool = False) -> None:
        super().on_start(path, read_only)
        self.writes = 0

    def write(self, buffer: RemoteBuffer, offset: int, flags: int) -> None:
        super().write(buffer, offset, flags)
        self.writes += 1
        if self.writes % 10 == 0:
            first = os.pread(self.image, 1, offset)[0]
            os.pwrite(self.image, bytes([first ^ 1]), offset)


class ForgetfulDisk(Disk):
    """Acknowledges writes that it never makes, a few."""

    def on_request(self, request: Request) -> Any:
        operation, offset, _, _ = request.body
        if operation == p.WRITE and offset % 64 == 0 and offset // p.SECTOR % 16 == 3:
            return None
        return super().on_request(request)


class FailingDisk(Disk):
    """Fails every flush."""

    def sync(self) -> None:
        raise OSError(5, "the disk is gone")


def row(text: str, name: str) -> str:
    (line,) = [line for line in text.splitlines() if line.strip().startswith(name)]
    return line.split()[-1]


def test_a_small_run_loses_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main(SMALL) == 0
    printed = capsys.readouterr().out
    assert (row(printed, "lost"), row(printed, "wrong")) == ("0", "0")
    assert (row(printed, "killed"), row(printed, "hung")) == ("3", "1")
    assert "nothing lost, nothing wrong" in printed


@pytest.mark.parametrize("program", [LyingDisk, ForgetfulDisk])
def test_a_driver_that_corrupts_is_found_out(
    program: type[Disk], capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo.main([*SMALL, "--kills", "1"], program) == 1
    printed = capsys.readouterr().out
    assert int(row(printed, "wrong").replace(",", "")) > 0
    assert "FAILED" in printed


def test_a_driver_that_fails_is_found_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.main([*SMALL, "--kills", "1"], FailingDisk) == 1
    printed = capsys.readouterr().out
    assert int(row(printed, "lost").replace(",", "")) > 0
    assert "the disk is gone" in printed


def test_the_command_line_runs_it() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "examples.block", "demo", *SMALL, "--kills", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stderr == ""  # no bar where there is no terminal
    assert row(run.stdout, "lost") == "0"


@pytest.mark.parametrize(
    "bad", [["--kills", "-1"], ["--size", "0"], ["--seed", "x"], ["--seconds", ""], ["more"]]
)
def test_bad_options_are_one_line_and_exit_code_2(
    bad: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        demo.main(bad)
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_no_room_for_the_image_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = os.statvfs_result([4096, 4096, 0, 0, 0, 0, 0, 0, 0, 255])
    monkeypatch.setattr("shutil.os.statvfs", lambda path: nothing)
    assert demo.main(SMALL) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: no room for an image of 8 MiB")


def test_a_run_leaves_no_image_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert demo.main([*SMALL, "--kills", "0"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_of_a_run_that_was_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.block", "demo", "--size", "8", "--seconds", "60"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline().startswith(b"a 8 MiB disk")
        assert run.stdout.readline().startswith(b"the first back end is process")
        run.kill()
        run.stdout.read()  # ends when the last process that could write there has ended
    assert list(tmp_path.iterdir()) == []


@pytest.mark.stress
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", range(10))
def test_a_hundred_kills_lose_nothing(seed: int) -> None:
    options = ["--seed", str(seed), "--size", "64", "--kills", "100", "--seconds", "0"]
    assert demo.main(options) == 0
