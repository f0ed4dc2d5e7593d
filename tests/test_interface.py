"""The table of the interface in hypervisor/README.md: every name and every test in it exists."""

from __future__ import annotations

import re
from pathlib import Path

import hypervisor

ROOT = Path(__file__).parent.parent
TABLE = (ROOT / "hypervisor" / "README.md").read_text()
ROWS = [line for line in TABLE.splitlines() if line.startswith("| ") and "---" not in line]


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split(" | ")]


def test_each_row_has_four_cells() -> None:
    assert len(ROWS) > 40
    assert [row for row in ROWS if len(cells(row)) != 4] == []


def test_every_test_that_it_names_is_there() -> None:
    missing = []
    for row in ROWS:
        if row.startswith("| Xen |"):
            continue
        for entry in cells(row)[3].split(", "):
            file, _, name = entry.partition(": ")
            path = ROOT / file if "/" in file else ROOT / "tests" / "hypervisor" / file
            if not path.exists() or (name and f"def {name}(" not in path.read_text()):
                missing.append(entry)
    assert missing == []


def test_every_method_that_it_names_is_there() -> None:
    missing = []
    for owner, name in re.findall(r"`([A-Z]\w+)\.(\w+)", TABLE):
        if not hasattr(getattr(hypervisor, owner), name):
            missing.append(f"{owner}.{name}")
    assert missing == []
