"""An image to serve."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

MiB = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """16 MiB of random bytes."""
    path = tmp_path / "disk.img"
    path.write_bytes(random.Random(1).randbytes(16 * MiB))
    return path
