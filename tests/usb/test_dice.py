"""The device of the README runs as it stands."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize

from tests.sources import ROOT

_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


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


def test_it_has_at_most_forty_lines_of_code() -> None:
    text = (ROOT / "examples" / "usb" / "dice.py").read_text()
    said = [
        line
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
    ]
    lines = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _NO_CODE and token.string
        for line in range(token.start[0], token.end[0] + 1)
    }
    assert 20 < len(lines.difference(said)) <= 40
