"""Where the interactive ``xenidc top`` is drawn, and where its keys come from: a terminal.

Its settings are as they were when it ends, however that is.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from xenidc.board import Board, Do, End
from xenidc.client import Client
from xenidc.errors import ControlError
from xenidc.figures import figures

_KEYS = {"\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down"}
_LONGEST = 64  # bytes that are read at a time


def interactive(client: Client, every: float, count: int | None) -> None:
    """Show what the channels do, and obey keys, until "q" or so many times.

    Raises:
        ControlError: the machine has ended.
    """
    board, before, shown = Board(), None, 0
    with _keys() as source:
        while True:
            now = client.ask("top")
            board.take(figures(now, before))
            before, shown = now, shown + 1
            _draw(board)
            if shown == count:
                return
            until = time.monotonic() + every
            while (left := until - time.monotonic()) > 0 and _is_ready(source, left):
                text = os.read(source, _LONGEST).decode("ascii", "replace")
                for key in [_KEYS[text]] if text in _KEYS else text:
                    wanted = board.press(key)
                    if isinstance(wanted, End):
                        return
                    if wanted is not None:
                        _do(client, board, wanted)
                _draw(board)
                if not text:
                    return  # the terminal has gone


def _do(client: Client, board: Board, wanted: Do) -> None:
    try:
        client.ask(wanted.what, domain=wanted.domain)
    except ControlError as error:
        board.said = str(error)
    else:
        board.said = f"{wanted.what} {wanted.domain}: done"


def _is_ready(source: int, seconds: float) -> bool:
    return bool(select.select([source], [], [], seconds)[0])


def _draw(board: Board) -> None:
    width, height = shutil.get_terminal_size()
    lines = [line[:width] for line in board.lines()][: height - 1]
    sys.stdout.write("\033[H" + "".join(f"{line}\033[K\n" for line in lines) + "\033[J")
    sys.stdout.flush()


@contextmanager
def _keys() -> Iterator[int]:
    """The descriptor that gives each key at once."""
    source = sys.stdin.fileno()
    before = termios.tcgetattr(source)
    tty.setcbreak(source)
    try:
        sys.stdout.write("\033[2J")
        yield source
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
