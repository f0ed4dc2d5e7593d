"""The machine's store as others see it: Debian's xenstore-utils, pyxs, and clients that misbehave.

What the store itself does is tested in its pure parts; here are the socket, the actor, and what a
live machine shows.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyxs import Client, PyXSError

from actors import Ref, StartFailed, System
from hypervisor import Machine, SocketInUse
from hypervisor.store_actor import Introduce, Put, Release, StoreActor
from hypervisor.store_calls import CloseStore, OpenStore
from hypervisor.store_socket import StoreSocket
from hypervisor.xs_wire import Frames, Op, Packet, pack
from tests.actors.parts import Recorder
from tests.transport.drivers import Echo
from transport import connect

PATIENCE = 10.0


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, Ref]]:
    """A store on a socket, and its actor."""
    path = tmp_path / "store.sock"
    with System() as system:
        store = system.start(StoreActor)
        system.start(StoreSocket, store, str(path))
        yield path, store


def xenstore(path: Path, command: str, *args: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which(f"xenstore-{command}")
    if program is None:
        pytest.skip(f"xenstore-{command} is not installed: apt-get install xenstore-utils")
    return subprocess.run(
        [program, *args],
        env={**os.environ, "XENSTORED_PATH": str(path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def dial(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(PATIENCE)
    client.connect(str(path))
    return client


def replies(client: socket.socket, count: int) -> list[Packet]:
    frames, found = Frames(), list[Packet]()
    while len(found) < count:
        data = client.recv(65536)
        assert data, "the store has hung up"
        frames.feed(data)
        while (packet := frames.take()) is not None:
            found.append(packet)
    return found


# --- xenstore-utils -------------------------------------------------------------------------------


def test_xenstore_utils_read_write_list_and_remove(served: tuple[Path, Ref]) -> None:
    path, _ = served
    assert xenstore(path, "write", "/a/b", "hello", "/a/c", "x").returncode == 0
    assert xenstore(path, "read", "/a/b").stdout == "hello\n"
    assert xenstore(path, "list", "/a").stdout == "b\nc\n"
    assert xenstore(path, "exists", "/a/b").returncode == 0
    assert xenstore(path, "exists", "/a/z").returncode == 1
    assert xenstore(path, "chmod", "/a/b", "n0", "r7").returncode == 0
    assert '/a/b = "hello"   (n0,r7)' in xenstore(path, "ls", "-fp").stdout
    assert xenstore(path, "rm", "/a").returncode == 0
    assert xenstore(path, "ls").stdout == ""


def test_xenstore_read_of_nothing_says_so(served: tuple[Path, Ref]) -> None:
    path, _ = served
    result = xenstore(path, "read", "/nothing")
    assert (result.returncode, result.stdout) == (1, "")
    assert "couldn't read path /nothing" in result.stderr


def test_xenstore_watch_is_told_of_each_change(served: tuple[Path, Ref]) -> None:
    path, _ = served
    program = shutil.which("xenstore-watch")
    if program is None:
        pytest.skip("xenstore-watch is not installed: apt-get install xenstore-utils")
    with subprocess.Popen(
        [program, "-n", "3", "/a"],
        env={**os.environ, "XENSTORED_PATH": str(path)},
        stdout=subprocess.PIPE,
        text=True,
    ) as watcher:
        assert watcher.stdout is not None
        assert watcher.stdout.readline() == "/a\n"  # it is told once at the beginning
        xenstore(path, "write", "/b", "not watched", "/a/x", "1")
        assert watcher.stdout.readline() == "/a/x\n"
        xenstore(path, "rm", "/a")
        assert watcher.stdout.readline() == "/a\n"
        assert watcher.wait(PATIENCE) == 0


def test_xenstore_ls_shows_what_a_machine_is_doing(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with Machine(store_socket=path) as machine:
        machine.start("echo", Echo, placement="thread")
        with connect(machine, "echo") as channel:
            channel.call("x")
            shown = xenstore(path, "ls", "-f").stdout
            (number,) = re.findall(r"^/local/domain/0/device/echo/(\d+) =", shown, re.MULTILINE)
            front = f"/local/domain/0/device/echo/{number}"
            back = f"/local/domain/1/backend/echo/0/{number}"
            for line in (
                '/local/domain/0/name = "machine"',
                '/local/domain/1/name = "echo"',
                f'{front}/backend = "{back}"',
                f'{front}/state = "4"',
                f'{back}/frontend = "{front}"',
                f'{back}/state = "4"',
            ):
                assert line in shown
            for node in ("event-channel", "ring-ref", "buffer-ref", "epoch"):
                assert re.search(rf'{front}/{node} = "\d+"', shown)
        assert f"{front} =" not in xenstore(path, "ls", "-f").stdout
        machine.shutdown("echo")
        assert "/local/domain/1" not in xenstore(path, "ls", "-f").stdout
    assert not path.exists()


# --- pyxs -----------------------------------------------------------------------------------------


def test_pyxs_sees_a_transaction_that_conflicts(served: tuple[Path, Ref]) -> None:
    path, _ = served
    with Client(unix_socket_path=str(path)) as one, Client(unix_socket_path=str(path)) as two:
        one[b"/a"] = b"1"
        one.transaction()
        assert one[b"/a"] == b"1"
        one[b"/b"] = b"in the transaction"
        assert not two.exists(b"/b")
        two[b"/a"] = b"2"
        assert one.commit() is False
        assert not two.exists(b"/b")
        one.transaction()
        one[b"/b"] = one[b"/a"]
        assert one.commit() is True
        assert two[b"/b"] == b"2"


def test_pyxs_monitors_and_asks_of_domains(served: tuple[Path, Ref]) -> None:
    path, store = served
    store.ask(Introduce(3, {"name": "disk"}))
    with Client(unix_socket_path=str(path)) as client:
        assert client.get_domain_path(3) == b"/local/domain/3"
        assert client.is_domain_introduced(3)
        assert not client.is_domain_introduced(4)
        assert client[b"/local/domain/3/name"] == b"disk"
        with client.monitor() as monitor:
            monitor.watch(b"@releaseDomain", b"gone")
            events = monitor.wait()
            next(events)
            store.ask(Release(3))
            assert next(events).path == b"@releaseDomain"
        assert not client.exists(b"/local/domain/3")
        with pytest.raises(PyXSError, match="No such file"):
            client.get_perms(b"/local/domain/3")


# --- clients that misbehave -----------------------------------------------------------------------


def test_the_socket_is_its_owners_alone(served: tuple[Path, Ref]) -> None:
    assert stat.S_IMODE(served[0].stat().st_mode) == 0o600


def test_a_client_that_cannot_be_understood_is_closed_alone(served: tuple[Path, Ref]) -> None:
    path, _ = served
    with dial(path) as good, dial(path) as bad:
        bad.sendall(b"\xff" * 64)
        assert bad.recv(1) == b""
        good.sendall(Packet(Op.WRITE, 1, 0, b"/a\0x").encode())
        assert replies(good, 1)[0].payload == b"OK\0"


def test_requests_may_come_in_pieces_and_many_at_once(served: tuple[Path, Ref]) -> None:
    path, _ = served
    stream = b"".join(Packet(Op.WRITE, n, 0, b"/n\0%d" % n).encode() for n in range(50))
    with dial(path) as client:
        for start in range(0, len(stream), 7):
            client.send(stream[start : start + 7])
        found = replies(client, 50)
        assert [packet.req_id for packet in found] == list(range(50))
        client.sendall(Packet(Op.READ, 99, 0, b"/n\0").encode())
        assert replies(client, 1)[0].payload == b"49"


def test_a_reply_comes_before_the_events_of_its_request(served: tuple[Path, Ref]) -> None:
    path, _ = served
    with dial(path) as client:
        client.sendall(Packet(Op.WATCH, 1, 0, pack([b"/a", b"t"])).encode())
        client.sendall(Packet(Op.WRITE, 2, 0, b"/a\0x").encode())
        kinds = [packet.type for packet in replies(client, 4)]
        assert kinds.index(Op.WATCH) < kinds.index(Op.WATCH_EVENT)
        assert sorted(kinds) == sorted([Op.WATCH, Op.WATCH_EVENT, Op.WRITE, Op.WATCH_EVENT])


def test_a_client_that_does_not_read_holds_up_nobody_and_is_closed(
    served: tuple[Path, Ref],
) -> None:
    path, store = served
    with dial(path) as deaf, dial(path) as good:
        deaf.sendall(Packet(Op.WATCH, 1, 0, pack([b"/a", b"t" * 900])).encode())
        replies(deaf, 2)
        value = {"/a/" + "x" * 1000: "v"}
        for _ in range(4000):  # about 8 MB of events
            store.ask(Put(value, []))
        good.sendall(Packet(Op.READ, 2, 0, b"/a/" + b"x" * 1000 + b"\0").encode())
        assert replies(good, 1)[0].payload == b"v"
        while deaf.recv(1 << 20):
            continue


def test_a_connection_ends_with_its_door_and_with_its_domain() -> None:
    with System() as system:
        store = system.start(StoreActor)
        store.ask(Introduce(5, {}))
        door = system.start(Recorder)
        first = store.ask(OpenStore(0, door))
        second = store.ask(OpenStore(5, system.start(Recorder)))
        store.ask(CloseStore(first))
        store.ask(OpenStore(0, door))
        door.stop()
        store.ask(Release(5))
        assert store.statistics().state == "idle"
        assert second not in (first, 0)


def test_a_path_that_is_in_use_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "store.sock"
    with System() as system:
        store = system.start(StoreActor)
        system.start(StoreSocket, store, str(path))
        with pytest.raises(StartFailed, match="SocketInUse"):
            system.start(StoreSocket, store, str(path))
        with pytest.raises(SocketInUse):
            Machine(store_socket=path)
