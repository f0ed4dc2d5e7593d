"""xenidc/COOKBOOK.md keeps its word: all of its tests run as they stand, as a user's would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.sources import ROOT

TEXT = (ROOT / "xenidc" / "COOKBOOK.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def test_there_are_eight_recipes_and_each_has_a_test() -> None:
    recipes = re.split(r"^## \d\. ", TEXT, flags=re.MULTILINE)[1:]
    assert len(recipes) == 8
    assert all("def test_" in recipe for recipe in recipes)


def test_all_of_them_run(tmp_path: Path) -> None:
    script = tmp_path / "test_recipes.py"
    script.write_text("\n\n".join(SNIPPETS))
    plugins = ["-p", "no:xenidc-machines", "-p", "xenidc.pytest_plugin"]  # however it is installed
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-q", *plugins, str(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
