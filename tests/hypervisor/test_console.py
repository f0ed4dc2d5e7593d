"""Lines out of bytes, and reading pipes without ever waiting for them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import Fd
from hypervisor.console import LINE_LIMIT, Console, Lines


@pytest.mark.parametrize(
    ("data", "lines", "rest"),
    [
        (b"", [], []),
        (b"one\ntwo", ["one"], ["two"]),
        (b"\n\n", ["", ""], []),
        (b"windows\r\n", ["windows"], []),
        (b"50%\r100%\n", ["50%\\r100%"], []),
        (b"a\tb\n", ["a\tb"], []),
        (b"\xff\x00\x1b[0m\n", ["\\xff\\x00\\x1b[0m"], []),
        (b"x" * LINE_LIMIT + b"\n", ["x" * LINE_LIMIT], []),
        (b"x" * (LINE_LIMIT + 1) + b"\n", ["x" * LINE_LIMIT, "x"], []),
        (b"x" * (LINE_LIMIT * 2 + 1), ["x" * LINE_LIMIT] * 2, ["x"]),
    ],
)
def test_bytes_become_lines(data: bytes, lines: list[str], rest: list[str]) -> None:
    stream = Lines()
    assert stream.feed(data) == lines
    assert stream.end() == rest
    assert stream.end() == []


@given(st.lists(st.binary(max_size=3 * LINE_LIMIT) | st.sampled_from([b"\n", b"x" * LINE_LIMIT])))
def test_lines_are_the_same_however_the_bytes_were_cut(parts: list[bytes]) -> None:
    whole, cut = Lines(), Lines()
    at_once = whole.feed(b"".join(parts)) + whole.end()
    one_by_one = [line for part in parts for line in cut.feed(part)] + cut.end()
    assert one_by_one == at_once


@given(st.binary(max_size=3 * LINE_LIMIT))
def test_every_line_can_be_printed_and_is_bounded(data: bytes) -> None:
    stream = Lines()
    for line in stream.feed(data) + stream.end():
        assert all(letter.isprintable() or letter == "\t" for letter in line)
        assert len(line) <= 4 * LINE_LIMIT


class Pipes:
    """A console, what it kept, and the ends that a domain would write to."""

    def __init__(self) -> None:
        self.kept: list[str] = []
        (out, self.out), (err, self.err) = os.pipe(), os.pipe()
        os.set_blocking(out, False)
        os.set_blocking(err, False)
        self.console = Console("d", Fd(out), Fd(err), self.kept.extend)
        self.stdout, self.stderr = self.console.streams


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    pipes = Pipes()
    yield pipes
    for number in (pipes.out, pipes.err):
        os.close(number)


def test_reading_never_waits(pipes: Pipes) -> None:
    assert pipes.console.read(pipes.stdout)
    os.write(pipes.out, b"one\n")
    assert pipes.console.read(pipes.stdout)
    assert pipes.kept == ["one"]
    pipes.console.drain()


def test_the_end_of_a_pipe_is_said() -> None:
    pipes = Pipes()
    os.close(pipes.out)
    assert not pipes.console.read(pipes.stdout)
    os.close(pipes.err)
    pipes.console.drain()


def test_a_drain_takes_what_is_left_of_both_though_somebody_holds_the_pipes(pipes: Pipes) -> None:
    os.write(pipes.out, b"one\ntwo")
    os.write(pipes.err, b"three")
    pipes.console.drain()
    assert pipes.kept == ["one", "two", "three"]


def test_a_drain_is_bounded_and_says_so(pipes: Pipes, caplog: pytest.LogCaptureFixture) -> None:
    import fcntl

    caplog.set_level(logging.CRITICAL, "xenidc.domain")
    size = fcntl.fcntl(pipes.out, fcntl.F_SETPIPE_SZ, 1 << 20)
    os.write(pipes.out, b"x" * (size - 1))
    pipes.console.drain()
    assert "was not read" in pipes.kept[-1]
    assert len(pipes.kept) < size // LINE_LIMIT
