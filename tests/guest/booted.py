"""A guest for a test, which is skipped where there can be none."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.guest.machine import Linux
from tests.guest.packages import Missing


def linux(
    directory: Path,
    *devices: str,
    modules: Iterable[str] = (),
    files: Iterable[tuple[str, Path]] = (),
) -> Linux:
    """See `Linux`."""
    try:
        return Linux(directory, *devices, modules=modules, files=files)
    except Missing as missing:
        pytest.skip(f"no guest: {missing}")
