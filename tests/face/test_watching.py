"""What ``xenidc`` shows of a running machine as it happens: trace, top, store watch."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sources import ROOT

pytest.importorskip("click", reason="needs the extra `cli`")

from actors import System
from xenidc import MachineEnded, Running, Topology, running, streams
from xenidc.board import SORTS, Board, Do, End
from xenidc.cli import main
from xenidc.client import Client
from xenidc.control import ControlSocket
from xenidc.errors import ControlError
from xenidc.figures import figures
from xenidc.operation import operation_of

ECHO = "tests.face.programs:Echo"


def topology() -> Topology:
    made = Topology("watched", intensity=50)
    made.domain("echo", ECHO, placement="thread")
    made.domain("once", ECHO, placement="thread", restart="temporary")
    made.domain("device", "tests.transport.device:Device", placement="thread")
    made.domain("near", "tests.transport.drivers:Relay", "echo", placement="thread", uses="echo")
    for name in ("echo", "once", "device", "near"):
        made.channel(name, slots=8, buffer_bytes=1 << 14)
    return made


@pytest.fixture
def live() -> Iterator[Running]:
    with running(topology(), "thread") as made:
        yield made


@pytest.fixture
def path(live: Running, tmp_path: Path) -> str:
    path = str(tmp_path / "control.sock")
    live.machine.system.start(ControlSocket, live, path, name="control")
    return path


@pytest.fixture
def follow(path: str) -> Iterator[Callable[..., Iterator[dict[str, Any]]]]:
    """Begins a stream: when it returns the machine has begun it."""
    clients = []

    def begin(do: str, **fields: str) -> Iterator[dict[str, Any]]:
        client = Client(path)
        clients.append(client)
        client.ask(do, **fields)
        return client.items()

    yield begin
    for client in clients:
        client.close()


def trace(channel: str, **fields: str) -> dict[str, str]:
    return {"channel": channel, "operation": "", "outcome": "", "slower": "", **fields}


# --- trace ----------------------------------------------------------------------------------------


def test_each_request_is_a_line_with_its_phases(live: Running, follow: Any) -> None:
    items = follow("trace", **trace("device"))
    live.channels["device"].call(("mirror", 40), send=bytes(100), receive=bytearray(100))
    item = next(items)
    assert (item["operation"], item["bytes"], item["outcome"]) == ("mirror", 200, "ok")
    assert sum(each["bytes"] for each in item["phases"]) == 200
    assert item["submitted"] <= item["pushed"] <= item["phases"][0]["time"] <= item["ended"]


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"operation": "served"}, ["served"]),
        ({"outcome": "failed"}, ["raise"]),
        ({"outcome": "failed,ok", "operation": "pid"}, ["pid"]),
        ({"slower": "1000"}, []),
    ],
)
def test_only_what_is_wanted_comes(
    live: Running, follow: Any, fields: dict[str, str], wanted: list[str]
) -> None:
    items = follow("trace", **trace("device", **fields))
    device = live.channels["device"]
    device.call("pid")
    device.call("served")
    device.submit(("raise", "no"))
    device.call("upper")
    live.machine.destroy("device")
    found = list(items)
    assert [item["operation"] for item in found[:-1]] == wanted
    assert found[-1] == {"end": "channel 'device' has ended"}


def test_a_slow_reader_loses_requests_and_is_told_how_many(
    live: Running, follow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "LIMIT", 2)
    items = follow("trace", **trace("echo"))
    echo = live.channels["echo"]
    made, text = 0, "x" * 150
    while made < 20_000:  # far more than a socket's buffers hold
        for _ in range(8):
            echo.submit(text, callback=lambda _: None)
            made += 1
        echo.push()
        while echo.credits < 8:
            echo.wait()
            echo.reap()
    live.machine.destroy("echo")
    found = list(items)
    lost = sum(item.get("lost", 0) for item in found)
    assert lost > 0
    assert lost + sum("operation" in item for item in found) == made
    assert "end" in found[-1]


def test_tracing_ends_with_its_reader_and_the_channel_goes_on(
    live: Running, follow: Any, path: str
) -> None:
    with Client(path) as client:
        client.ask("trace", **trace("echo"))
        live.channels["echo"].call("seen")
        assert next(client.items())["operation"] == "seen"
        (connection,) = _connections(live.machine.system)
    live.machine.system.wait(connection)
    assert live.channels["echo"]._watched is None
    assert live.channels["echo"].call("again") == "again"


def _connections(system: System) -> list[Any]:
    from actors import Ref

    control = next(cell for cell in system.top() if cell.name == "control")
    return [Ref(cell) for cell in control.children]


def test_a_connection_that_streams_takes_no_other_request(path: str) -> None:
    with Client(path) as client:
        client.ask("trace", **trace("echo"))
        with pytest.raises(MachineEnded):
            client.ask("tree")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        (trace("ecko"), "no channel 'ecko' of the machine's own; there are: echo, once, device"),
        (trace("echo", outcome="good"), "an outcome is one of ok, failed, unknown"),
        (trace("echo", slower="soon"), "a duration is seconds, not 'soon'"),
        ({"channel": "echo"}, "has the fields channel, operation, outcome, slower"),
    ],
)
def test_what_cannot_be_traced_is_refused(path: str, fields: dict[str, str], text: str) -> None:
    with Client(path) as client, pytest.raises(ControlError, match=text):
        client.ask("trace", **fields)


def test_a_channel_that_has_ended_cannot_be_traced(live: Running, path: str) -> None:
    live.machine.destroy("once")
    live.channels["once"].close()
    with Client(path) as client, pytest.raises(ControlError, match="channel 'once' has ended"):
        client.ask("trace", **trace("once"))


def test_the_command_prints_so_many_and_ends(
    live: Running, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Busy(live):
        assert main(["trace", "echo", "--machine", path, "--count", "2", "--json"]) == 0
        lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [line["operation"] for line in lines] == ["busy", "busy"]
        assert main(["trace", "echo", "--machine", path, "--count", "1", "--outcome", "ok"]) == 0
        assert "busy" in capsys.readouterr().out


def test_the_end_of_the_channel_ends_the_command_well(
    live: Running, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Busy(live, lambda: live.machine.destroy("once")):
        assert main(["trace", "once", "--machine", path]) == 0
    assert "xenidc: channel 'once' has ended" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "operation"),
    [
        ("read", "read"),
        (["read", 1], "read"),
        ((3, 0), "3"),
        (7, "int"),
        ([], "list"),
        (None, "NoneType"),
        ({"a": 1}, "dict"),
    ],
)
def test_an_operation_is_what_most_bodies_begin_with(body: Any, operation: str) -> None:
    assert operation_of(body) == operation


class Busy:
    """Calls ``echo`` until its end; and first does something, when a trace has begun."""

    def __init__(self, live: Running, first: Callable[[], object] | None = None) -> None:
        self._live = live
        self._first = first
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        channels = self._live.channels
        while self._first is not None and channels["once"]._watched is None:
            channels["echo"].call("not yet")
        if self._first is not None:
            self._first()
        while not self._over.is_set():
            channels["echo"].call("busy")

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


# --- store watch ----------------------------------------------------------------------------------


def test_every_change_of_the_store_is_a_line_in_order(live: Running, follow: Any) -> None:
    items = follow("store-watch", path="/x", since="")
    store = live.machine.store
    for value in range(300):
        store.write("/x/y", b"%d" % value)
    store.rm("/x/y")
    found = [next(items) for _ in range(302)]
    assert [item["value"] for item in found] == ["", *map(str, range(300)), None]
    revisions = [item["revision"] for item in found]
    assert revisions == sorted(revisions)


def test_what_came_before_can_be_asked_for(live: Running, follow: Any) -> None:
    live.machine.store.write("/x", b"1")
    since = live.machine.store.snapshot("/x").revision
    live.machine.store.write("/x", b"2")
    item = next(follow("store-watch", path="/x", since=str(since)))
    assert (item["old"], item["value"]) == ("1", "2")


def test_who_asks_for_what_is_gone_is_told_so_and_given_what_there_is(
    live: Running, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    live.machine.store.write("/x", b"1")
    command = ["store", "watch", "/x", "--machine", path, "--since", "999999", "--count", "1"]
    assert main([*command, "--json"]) == 0
    first, second = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (first["missed"], first["nodes"]) == (True, 1)
    assert (second["path"], second["value"], second["snapshot"]) == ("/x", "1", True)
    assert main(command) == 0
    assert "the log does not reach back: what there is, 1 node\n" in capsys.readouterr().out


def test_a_path_that_is_none_is_one_line(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["store", "watch", "/a b", "--machine", path]) == 2
    assert capsys.readouterr().err == "xenidc: EINVAL: '/a b' is not a path\n"


# --- top ------------------------------------------------------------------------------------------


def rows(path: str, capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert main(["top", "--machine", path, "--count", "1", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    return {row["channel"]: row for row in answer["channels"]}


def test_top_has_figures_of_the_machines_own_channels(
    live: Running, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(10):
        live.channels["echo"].call("x")
    row = rows(path, capsys)["echo"]
    assert (row["requests"], row["in_flight"], row["credits"]) == (10, 0, 8)
    assert 0 < row["p50"] <= row["p99"] < 60


def test_the_channels_of_other_domains_are_listed_without_figures(
    live: Running, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    live.channels["near"].call("x")
    row = rows(path, capsys)["near-echo-1"]
    assert (row["from"], row["to"], row["state"], row["slots"]) == ("near", "echo", "Connected", 16)
    assert row["requests"] is row["p99"] is None
    assert main(["tree", "--machine", path, "--json"]) == 0
    tree = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert [use["device"] for use in tree["near"]["uses"]] == ["echo"]
    assert tree["echo"]["used_by"] == [0, tree["near"]["domid"]]
    assert main(["tree", "--machine", path]) == 0
    assert "    -> echo: Connected, epoch" in capsys.readouterr().out


def test_a_channel_that_a_driver_should_have_and_has_not_is_listed(
    live: Running, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    live.machine.destroy("near")
    row = rows(path, capsys)["near-echo"]
    assert (row["from"], row["to"], row["state"]) == ("near", "echo", None)


def answers(**figures_of_a: Any) -> dict[str, Any]:
    row = dict.fromkeys(("requests", "bytes", "latency", "latency_seconds", "in_flight"))
    a = {**row, "requests": 0, "bytes": 0, "latency": [], "latency_seconds": 0.0, **figures_of_a}
    names = {"from": "m", "state": "Open", "domain_state": "running", "restarts": 0}
    names |= dict.fromkeys(("credits", "resent", "unknown"))
    channels = [
        {"channel": "a", "to": "x", **names, **a},
        {"channel": "b", "to": "y", **names, **row},
    ]
    return {"now": 1.0, "channels": channels}


def test_rates_and_percentiles_are_of_the_time_between() -> None:
    before = answers(requests=4, bytes=100, latency=[[0.5, 4]])
    now = answers(requests=8, bytes=300, latency=[[0.001, 4], [0.5, 4]])
    now["now"] = 3.0
    a, b = figures(now, before)
    assert (a["per_second"], a["bytes_per_second"], a["p50"], a["p99"]) == (2, 100, 0.001, 0.001)
    assert b["per_second"] is b["p50"] is None
    (first, _) = figures(now, None)
    assert (first["per_second"], first["p99"]) == (None, 0.5)


def test_keys_choose_sort_and_act_and_killing_asks_first() -> None:
    board = Board()
    board.take(figures(answers(requests=5), answers()))
    assert board.press("p") == Do("pause", "x")
    assert board.press("down") is None
    assert [line[0] for line in board.lines()[1:3]] == [" ", ">"]
    assert board.press("k") is None
    assert "kill 'y' with SIGKILL?" in board.lines()[-2]
    assert board.press("n") is None
    assert board.press("k") is None
    assert board.press("y") == Do("kill", "y")
    assert board.press("y") is None
    assert board.press("r") == Do("restart", "y")
    assert isinstance(board.press("q"), End)
    for sort in SORTS[1:]:
        board.press("s")
        assert board.lines()[-2].startswith(f"by {sort}.")


def test_what_is_sorted_by_figures_has_the_largest_first_and_the_unknown_last() -> None:
    board = Board()
    board.take(
        [dict(row, p99=p99) for row, p99 in zip(figures(answers(), None), (None, 1.0), strict=True)]
    )
    for _ in range(SORTS.index("p99")):
        board.press("s")
    assert [line[2] for line in board.lines()[1:3]] == ["b", "a"]


def test_a_paused_domain_is_unpaused_by_the_same_key() -> None:
    board = Board()
    row = figures(answers(), None)[0]
    board.take([{**row, "domain_state": "paused"}])
    assert board.press("p") == Do("unpause", "x")


def test_without_channels_keys_do_nothing() -> None:
    board = Board()
    board.take([])
    assert [board.press(key) for key in ("up", "p", "k", "r")] == [None] * 4


def test_on_a_terminal_keys_reach_the_machine(live: Running, path: str) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(ours, (24, 120))
    command = [sys.executable, "-m", "xenidc", "top", "--machine", path, "--every", "0.1"]
    with subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        try:
            shown_until(ours, "q: end")
            os.write(ours, b"k")
            shown_until(ours, "kill 'device' with SIGKILL?")
            os.write(ours, b"y")
            shown_until(ours, "kill device: done")
            os.write(ours, b"p")
            shown_until(ours, "it has no process")
            os.write(ours, b"q")
            assert process.wait() == 0
        finally:
            process.kill()
            os.close(ours)
    assert live.machine.domain("device").restarts == 1


def shown_until(terminal: int, text: str) -> None:
    shown = ""
    while text not in shown:
        select.select([terminal], [], [])
        shown = (shown + os.read(terminal, 1 << 16).decode(errors="replace"))[-10_000:]


def test_the_machines_end_ends_top_and_trace_well(tmp_path: Path) -> None:
    path = str(tmp_path / "control.sock")
    watch = ["store", "watch", "/local", "--since", "0"]
    commands = [["top", "--every", "0.1"], ["trace", "echo"], watch]
    with running(topology(), "thread") as made:
        made.machine.system.start(ControlSocket, made, path, name="control")
        ended = [
            subprocess.Popen(
                [sys.executable, "-m", "xenidc", *command, "--machine", path],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for command in commands
        ]
        while made.channels["echo"]._watched is None:
            made.channels["echo"].call("until it is traced")
        made.channels["echo"].call("traced")
        for process in ended:
            assert process.stdout is not None
            assert process.stdout.readline() != ""
    for process in ended:
        _, said = process.communicate()
        assert process.returncode == 0, said
        assert said.count("\n") == 1
        assert "has ended" in said


def test_who_listens_no_more_ends_the_command_in_silence(live: Running, path: str) -> None:
    command = [sys.executable, "-m", "xenidc", "trace", "echo", "--machine", path, "--json"]
    ours, theirs = os.pipe()
    with (
        Busy(live),
        subprocess.Popen(command, cwd=ROOT, stdout=theirs, stderr=subprocess.PIPE) as process,
    ):
        os.close(theirs)
        os.read(ours, 1)
        os.close(ours)
        assert process.stderr is not None
        assert process.stderr.read() == b""
        assert process.wait() == 0
