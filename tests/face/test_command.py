"""The command ``xenidc``: what it prints and returns, and a machine that it runs and looks at."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.sources import ROOT

pytest.importorskip("click", reason="needs the extra `cli`")

from xenidc.cli import main
from xenidc.client import Client
from xenidc.errors import ControlError

SHIPPED = sorted(
    path
    for path in (ROOT / "examples" / "topologies").glob("*.py")
    if "topology =" in path.read_text()
)
SERVICE = """\
from xenidc import Topology
topology = Topology("service")
topology.domain("echo", "tests.face.programs:Echo")
topology.channel("echo", slots=8, buffer_bytes=1 << 14)
group = topology.group("two", strategy="rest_for_one")
group.domain("a", "tests.face.programs:Echo")
group.domain("b", "tests.face.programs:Echo")
"""
FORGETFUL = """\
from xenidc import Topology
topology = Topology("forgetful")
topology.domain("it", "tests.face.programs:Forgetful")
topology.channel("it", slots=8, buffer_bytes=1 << 14)
topology.workload("tests.face.programs:counts", "it")
"""


@pytest.fixture
def service(tmp_path: Path) -> Path:
    path = tmp_path / "service.py"
    path.write_text(SERVICE)
    return path


@pytest.fixture
def forgetful(tmp_path: Path) -> Path:
    path = tmp_path / "forgetful.py"
    path.write_text(FORGETFUL)
    return path


# --- before it runs -------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_is_right_and_can_be_drawn(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(path)]) == 0
    assert "all is well" in capsys.readouterr().out
    for form, first in (("mermaid", "flowchart LR"), ("dot", "digraph"), ("svg", "<")):
        assert main(["graph", str(path), "--format", form]) == 0
        assert capsys.readouterr().out.startswith(first)


def test_there_are_four_of_them() -> None:
    assert [path.stem for path in SHIPPED] == ["first", "shared", "stack", "tower"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_topology_keeps_its_promises_whatever_happens(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", str(path), "--seeds", "5", "--set", f"path={tmp_path / 'notes'}"]) == 0
    assert "all 5 seeds are good" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["check"], "Missing argument 'TOPOLOGY'"),
        (["run", "FILE", "--placement", "moon"], "'moon' is not one of"),
        (["run", "FILE", "--set", "x"], "'x' is not of the form NAME=VALUE"),
        (["run", "FILE", "--set", "x=1"], "there is no option 'x'; there are: none"),
        (["run", "nothing.py"], "nothing.py: No such file"),
        (["test", "FILE"], "has no workload"),
        (["tree", "--machine", "/nowhere/at.all"], "no machine answers at /nowhere/at.all"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    service: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    assert main([str(service) if each == "FILE" else each for each in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert text in captured.err


def test_check_says_all_that_is_wrong_each_on_a_line(
    service: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    service.write_text(f"{SERVICE}topology.channel('x')\ntopology.channel('y')\n")
    assert main(["check", str(service)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("service.py")[1][:3] for line in lines] == [":8:", ":9:"]
    assert main(["check", str(service), "--json"]) == 2
    problems = json.loads(capsys.readouterr().out)
    assert [problem["line"] for problem in problems] == [8, 9]
    assert "channel 'x' goes to 'x'" in problems[0]["text"]
    service.write_text(SERVICE)
    assert main(["check", str(service), "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_its_help_teaches_and_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("topology.domain(", "xenidc run FILE", "Exit codes", "_XENIDC_COMPLETE"):
        assert word in text


def test_a_shell_completes_it() -> None:
    completed = subprocess.run(
        [sys.executable, "-m", "xenidc"],
        cwd=ROOT,
        env={
            **os.environ,
            "_XENIDC_COMPLETE": "bash_complete",
            "COMP_WORDS": "xenidc gr",
            "COMP_CWORD": "1",
        },
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert completed == "plain,graph\n"


def test_without_its_extra_it_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "hidden.py").write_text("import sys\nsys.modules['click'] = None\n")
    code = "import hidden, sys; from xenidc.__main__ import main; sys.exit(main())"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr == "xenidc: the command needs its extra: pip install 'xenidc[cli]'\n"


# --- what it finds --------------------------------------------------------------------------------


def test_a_driver_that_forgets_is_found_made_small_and_repeated(
    forgetful: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = str(tmp_path / "run.json")
    assert main(["test", str(forgetful), "--kill", "it", "--rate", "0.05", "--save", saved]) == 1
    out = capsys.readouterr().out
    assert "it has forgotten" in out
    assert "faults: crash_domain of it (" in out
    assert out.splitlines()[-1].endswith(f"xenidc test {forgetful} --replay {saved}")
    assert main(["test", str(forgetful), "--replay", saved]) == 1
    assert "it has forgotten" in capsys.readouterr().out


def test_what_is_to_be_killed_has_to_be_there(
    forgetful: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["test", str(forgetful), "--kill", "that"]) == 2
    assert "no domain 'that' to kill; there are it" in capsys.readouterr().err


def test_real_processes_are_killed_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["test", str(SHIPPED[0]), "--real", "--seeds", "1", "--set", f"path={tmp_path}/notes"]
    assert main(command) == 0
    assert "all is well" in capsys.readouterr().out


def test_a_workload_that_fails_is_exit_code_1(
    forgetful: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    forgetful.write_text(FORGETFUL.replace(":counts", ":fails"))
    assert main(["run", str(forgetful), "--placement", "simulated"]) == 1
    assert "workload 'fails': ValueError: two and two are five" in capsys.readouterr().err


# --- a running machine ----------------------------------------------------------------------------


@contextmanager
def served(service: Path, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    path = str(service.parent / "control.sock")
    command = [sys.executable, "-m", "xenidc", "run", str(service), "--control", path, *options]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            for line in process.stderr:
                if line.startswith("control socket"):
                    break
            yield path, process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def rows_of(capsys: pytest.CaptureFixture[str], *command: str) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main([*command, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_a_running_machine_is_looked_at_and_acted_on(
    service: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with served(service) as (path, process):
        assert os.stat(path).st_mode & 0o777 == 0o600
        which = ["--machine", path]
        rows = rows_of(capsys, "tree", *which)
        assert [(row["name"], row["depth"], row.get("state")) for row in rows] == [
            ("service", 0, None),
            ("echo", 1, "running"),
            ("two", 1, None),
            ("a", 2, "running"),
            ("b", 2, "running"),
        ]
        assert main(["restart", *which, "echo"]) == 0
        (again,) = [row for row in rows_of(capsys, "tree", *which) if row["name"] == "echo"]
        assert again["restarts"] == 1
        assert main(["pause", *which, "a"]) == 0
        assert main(["tree", *which]) == 0
        assert "paused" in capsys.readouterr().out
        assert main(["unpause", *which, "a"]) == 0
        assert main(["kill", *which, "a"]) == 0
        assert main(["top", *which, "--count", "1"]) == 0
        assert "echo" in capsys.readouterr().out
        assert main(["store", "ls", "/local", *which]) == 0
        assert capsys.readouterr().out == "domain\n"
        assert main(["log", *which, "b"]) == 0
        assert main(["tree", "--actors", *which]) == 0
        assert "rest_for_one, intensity 1 in 5 s" in capsys.readouterr().out
        actors = {row["name"]: row for row in rows_of(capsys, "tree", "--actors", *which)}
        assert (actors["store"]["state"], actors["store"]["depth"]) == ("idle", 0)
        for command in (["kill", "nobody"], ["store", "read", "/nowhere"]):
            assert main([*command, *which]) == 2
            assert capsys.readouterr().err.count("\n") == 1
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert not os.path.exists(path)


def test_ctrl_c_while_a_workload_runs_ends_it_cleanly_and_is_exit_code_130(service: Path) -> None:
    service.write_text(f"{SERVICE}topology.workload('tests.face.programs:for_ever', 'echo')\n")
    with served(service, "--placement", "thread") as (path, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 130
    assert not os.path.exists(path)


def test_a_machine_that_gives_up_is_exit_code_1_and_says_why(service: Path) -> None:
    service.write_text(SERVICE.replace('"service"', '"service", intensity=0'))
    with served(service, "--placement", "thread") as (path, process):
        assert main(["kill", "--machine", path, "echo"]) == 0
        assert process.wait() == 1
        assert process.stderr is not None
        assert "given up: child 'echo' had to be restarted" in process.stderr.read()


def test_who_speaks_no_json_is_let_go_alone(service: Path) -> None:
    with (
        served(service, "--placement", "thread") as (path, _),
        Client(path) as other,
        socket.socket(socket.AF_UNIX) as rude,
    ):
        rude.connect(path)
        rude.sendall(b"nonsense\n")
        assert rude.recv(1) == b""
        for request, text in (("fly", "no request 'fly'"), ("kill", "has the fields domain")):
            with pytest.raises(ControlError, match=text):
                other.ask(request)
        assert len(other.ask("tree")) == 5


def test_nobody_else_may_use_the_folder_of_the_control_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert main(["tree"]) == 2
    assert "no machine is running" in capsys.readouterr().err
    (tmp_path / "xenidc").chmod(0o755)
    assert main(["tree"]) == 2
    assert "yours alone" in capsys.readouterr().err
