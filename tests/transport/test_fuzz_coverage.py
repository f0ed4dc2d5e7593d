"""The targets of fuzz_targets.py under libFuzzer, which keeps what reaches new code: `make stress`.

Atheris has wheels for some Pythons only; without it this is skipped and says so.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sources import ROOT
from tests.transport.fuzz_targets import SEEDS, TARGETS

SECONDS = 60  # for each target


@pytest.mark.stress
@pytest.mark.timeout(4 * SECONDS)
@pytest.mark.parametrize("target", TARGETS)
def test_no_input_that_coverage_leads_to_breaks_a_promise(target: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install 'xenidc[fuzz]'")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(SEEDS[target]):
        (corpus / str(number)).write_bytes(seed)
    result = subprocess.run(
        [
            *(sys.executable, "-m", "tests.transport.fuzz_targets", target),
            *(f"-max_total_time={SECONDS}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=2048"),
            f"-artifact_prefix={tmp_path}/",
            str(corpus),
        ],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    assert result.returncode == 0, result.stdout[-4000:]
    assert len(list(corpus.iterdir())) > len(SEEDS[target]), "it never found anything new"
