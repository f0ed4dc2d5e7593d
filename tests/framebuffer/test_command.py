"""The command line: what it prints, how it ends, and what it leaves."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.framebuffer.helpers import Viewer

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "examples.framebuffer"]


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command, and the port that it says."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--tcp", "127.0.0.1:0", "--size", "320x240", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            said = re.fullmatch(
                r"serving 320x240 on 127\.0\.0\.1:(\d+)\n", process.stdout.readline()
            )
            assert said
            yield process, int(said[1])
        finally:
            process.kill()


def refused(*arguments: str) -> tuple[int, str]:
    """The exit code and the standard error of a command that cannot begin."""
    result = subprocess.run(
        [*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=50, check=False
    )
    assert not result.stdout
    return result.returncode, result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("placement", ["thread", "process"])
def test_a_signal_ends_it_in_order(number: signal.Signals, placement: str) -> None:
    with serving("--placement", placement) as (process, port), Viewer(port) as viewer:
        viewer.ask()
        viewer.update()
        process.send_signal(number)
        assert viewer.closed()
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_key_is_seen_on_the_card() -> None:
    with serving("--placement", "thread") as (_, port), Viewer(port) as viewer:
        white = np.uint32(0xFFFFFF)
        while viewer.decoder.picture[10, 10] != white:  # the first of the bars
            viewer.ask()
            viewer.update()
        viewer.press("x")
        before = viewer.decoder.picture.copy()
        viewer.ask()
        viewer.update()
        rows = np.argwhere(viewer.decoder.picture != before)[:, 0]
        assert rows.min() >= 150, "the lower half is where the card writes"


def test_an_animation_moves_while_somebody_looks() -> None:
    with serving("--placement", "thread", "--fps", "50") as (_, port), Viewer(port) as viewer:
        for _ in range(5):  # each is one that something has changed for
            viewer.ask()
            assert viewer.update()


def test_the_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret\nand more\n")
    with serving("--placement", "thread", "--password-file", str(path)) as (_, port):
        with Viewer(port, password=b"secret") as viewer:
            assert viewer.name.startswith("xenidc on ")
        with pytest.raises(PermissionError):
            Viewer(port, password=b"secre")


def test_an_address_in_use_is_one_line_and_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        code, text = refused("serve", "--tcp", where)
    assert code == 2
    assert text == f"examples.framebuffer: cannot listen on {where}: Address already in use\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--size", "0x10"], "'0x10' is not WIDTHxHEIGHT"),
        (["serve", "--size", "99999x10"], "'99999x10' is not WIDTHxHEIGHT"),
        (["serve", "--tcp", "5900"], "'5900' is not HOST:PORT"),
        (["serve", "--tcp", "127.0.0.1:70000"], "'127.0.0.1:70000' is not HOST:PORT"),
        (["serve", "--fps", "101"], "'101' is not a number from 0 to 100"),
        (["serve", "--tcp", "127.0.0.1:0", "--password-file", "/no/such/file"], "No such file"),
        (["serve", "--tcp", "127.0.0.1:0", "--password-file", "/dev/null"], "has no password"),
        ([], "the following arguments are required: command"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments: list[str], said: str) -> None:
    code, text = refused(*arguments)
    assert code == 2
    assert said in text
    assert text.count("\n") == 1


def test_without_numpy_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import sys; sys.modules['numpy'] = None; sys.argv[1:] = ['serve']; "
    run = "import runpy; runpy.run_module('examples.framebuffer', run_name='__main__')"
    result = subprocess.run(
        [sys.executable, "-c", hidden + run],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert result.returncode == 2
    assert result.stderr == (
        "examples.framebuffer: numpy is not installed: pip install 'xenidc[framebuffer]'\n"
    )
