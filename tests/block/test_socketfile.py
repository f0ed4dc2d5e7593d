"""The unix socket's file: taken over from the dead, refused by the living, never left behind."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from hypervisor import NotASocket, SocketInUse, UnixListener

LISTENER = """
import sys
from hypervisor import UnixListener
listener = UnixListener(sys.argv[1])
print("listening", flush=True)
sys.stdin.read()
"""


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def kill_and_wait_for_all(process: subprocess.Popen[str]) -> None:
    """SIGKILL the process; returns when its children have ended as well, by themselves."""
    descriptors = [os.pidfd_open(child) for child in children(process.pid)]
    assert descriptors, "the listener has no janitor"
    process.kill()
    process.communicate()
    for descriptor in descriptors:
        ended, _, _ = select.select([descriptor], [], [], 10)
        os.close(descriptor)
        assert ended, "a child has outlived the listener"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "socket"


@pytest.fixture
def listening(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process of its own that listens on ``path``."""
    with subprocess.Popen(
        [sys.executable, "-c", LISTENER, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "listening\n"
        yield process
        process.kill()


def test_clients_can_connect_and_the_file_goes_with_the_listener(path: Path) -> None:
    with UnixListener(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        connected, _ = listener.socket.accept()
        connected.close()
    assert not path.exists()


def test_closing_twice_is_closing_once(path: Path) -> None:
    listener = UnixListener(path)
    listener.close()
    path.touch()
    listener.close()
    assert path.exists()


def test_a_live_listener_is_refused_and_stays(path: Path, listening: subprocess.Popen[str]) -> None:
    with pytest.raises(SocketInUse, match=str(path)):
        UnixListener(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_listener_with_a_full_backlog_is_refused(path: Path) -> None:
    with UnixListener(path, backlog=0), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        with pytest.raises(SocketInUse):
            UnixListener(path)


def test_a_dead_listener_is_taken_over(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with UnixListener(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    assert not path.exists()


def test_anything_else_is_left_alone(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(NotASocket, match=str(path)):
        UnixListener(path)
    assert path.read_text() == "precious"


def test_a_link_is_not_followed_to_a_socket(tmp_path: Path, path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "elsewhere"))
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NotASocket):
        UnixListener(path)


@pytest.mark.parametrize("name", ["missing/socket", "a" * 200])
def test_an_impossible_path_is_an_os_error_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    with pytest.raises(OSError):
        UnixListener(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_sigkill_removes_the_file_too(path: Path, listening: subprocess.Popen[str]) -> None:
    assert path.exists()
    kill_and_wait_for_all(listening)
    assert not path.exists()


def test_ctrl_c_does_not_reach_the_janitor(path: Path, listening: subprocess.Popen[str]) -> None:
    (janitor,) = children(listening.pid)
    assert os.getsid(janitor) == janitor != os.getsid(listening.pid)


def test_a_janitor_that_is_killed_is_not_missed_in_an_orderly_end(path: Path) -> None:
    with UnixListener(path):
        for janitor in children(os.getpid()):
            os.kill(janitor, signal.SIGKILL)
    assert not path.exists()


def test_a_successor_keeps_its_file_when_the_janitor_comes_late(
    path: Path, listening: subprocess.Popen[str]
) -> None:
    (janitor,) = children(listening.pid)
    ended = os.pidfd_open(janitor)
    os.kill(janitor, signal.SIGSTOP)
    listening.kill()
    listening.communicate()
    with UnixListener(path), socket.socket(socket.AF_UNIX) as client:
        os.kill(janitor, signal.SIGCONT)
        assert select.select([ended], [], [], 10)[0]
        client.connect(str(path))
    os.close(ended)
    assert not path.exists()


def test_of_many_that_take_over_at_once_one_wins(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    won: list[UnixListener] = []
    lost: list[SocketInUse] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        try:
            won.append(UnixListener(path))
        except SocketInUse as error:
            lost.append(error)

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(won), len(lost)) == (1, 7)
    won[0].close()
    assert not path.exists()
