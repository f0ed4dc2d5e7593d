"""How a driver's class is found by another process, and what is said where it cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hypervisor import DomainStartError, Machine
from tests.sources import ROOT

DRIVER = """\
from hypervisor import Machine
from transport import BackEnd, connect

class Echo(BackEnd):
    def on_request(self, request):
        return request.body

"""
USE = """\
with Machine(spares=0) as machine:
    machine.start("echo", Echo)
    with connect(machine, "echo") as echo:
        print(echo.call("heard"))
"""


def run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", *arguments]
    return subprocess.run(
        command, cwd=ROOT, input=text, capture_output=True, text=True, check=False
    )


def test_a_file_that_makes_a_machine_when_it_is_loaded_is_told_what_to_do(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DRIVER + USE)
    done = run(str(script))
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("hypervisor.errors.DomainStartError: domain 'echo' could not start: ")
    assert last.endswith('put that behind: if __name__ == "__main__":')


@pytest.mark.parametrize("spares", [0, 1])
def test_a_module_that_is_not_there_is_named(spares: int) -> None:
    with (
        Machine(spares=spares) as machine,
        pytest.raises(DomainStartError, match="No module named 'nowhere'"),
    ):
        machine.start("echo", "nowhere:Echo")


def test_a_driver_from_standard_input_is_refused_with_advice() -> None:
    done = run("-", text=DRIVER + USE)
    assert done.returncode == 1
    assert (
        "Echo is not defined in a file; put it into one (NAME.py)" in done.stderr.splitlines()[-1]
    )
