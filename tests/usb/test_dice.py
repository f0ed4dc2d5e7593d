"""The device of the README runs as it stands."""

from __future__ import annotations

import subprocess
import sys

from tests.sources import ROOT


def test_a_device_in_forty_lines_runs_as_it_stands() -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.usb.dice"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    interfaces, thrown = run.stdout.splitlines()
    assert interfaces == "((255, 0, 0),)"
    assert 1 <= int(thrown) <= 6
