"""README.md keeps its word: its snippets run, and the commands that it names exist.

A snippet is a ```python block; it runs in a process of its own, in an empty folder with a small
image called disk.img, since a driver must be importable from a file. One that is a test is run by
pytest. Commands are looked for in
```console and ```sh blocks and in `inline code`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT

README = ROOT / "README.md"
TEXT = README.read_text() if README.exists() else ""
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
BLOCKS = re.findall(r"^```(?:console|sh)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
PROSE = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
CODE = "\n".join([*BLOCKS, *re.findall(r"`([^`]+)`", PROSE)])
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_there_is_a_readme_with_a_driver_in_it() -> None:
    assert SNIPPETS, "README.md has no python snippet"


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_runs_as_it_stands(snippet: str, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(snippet)
    (tmp_path / "disk.img").write_bytes(os.urandom(1 << 20))
    runner = ["-m", "pytest", "-q"] if "\ndef test_" in snippet else []
    run = subprocess.run(
        [sys.executable, "-W", "error", *runner, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_every_make_target_that_is_named_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)\b", CODE))
    assert named <= TARGETS
    assert "demo" in named


def test_every_module_that_is_to_be_run_exists() -> None:
    for module in re.findall(r"python3? -m ([a-z_.]+)", TEXT):
        base = ROOT / module.replace(".", "/")
        assert (base / "__main__.py").exists() or base.with_suffix(".py").exists(), module


def test_the_makefile_explains_every_target() -> None:
    printed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("demo", "test", "check", "bench", "stress", "clean"):
        assert f"make {target} " in printed
