"""What each command does, as a function of its arguments that returns the exit code.

    0  all is well
    1  the run has failed: a workload, the machine, a test
    2  it could not begin: a wrong option, a wrong topology, no such machine, a refusal
  130  it was ended by Ctrl-C or SIGTERM while a workload was running

Results go to standard output, everything else to standard error. Errors are raised: the command
line makes one line of each (cli.py).
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from actors import Failure
from hypervisor import Machine
from xenidc import show, trial
from xenidc.check import check as check_topology
from xenidc.client import Client, socket_of
from xenidc.control import ControlSocket, control_directory
from xenidc.errors import ControlError, FaceError, MachineEnded, TopologyError
from xenidc.extras import record_spans, serve_metrics
from xenidc.figures import figures
from xenidc.live import Drawn, Lines, can_draw
from xenidc.load import load_topology
from xenidc.picture import dot, mermaid
from xenidc.running import running
from xenidc.screen import interactive
from xenidc.svg import svg
from xenidc.topology import Topology

GOOD, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130


def check(topology: str, values: dict[str, str], placement: str, *, as_json: bool) -> int:
    """Say what is wrong with a topology, each problem on a line; nothing is started."""
    try:
        made = load_topology(topology, values)
        check_topology(made, placement)
    except TopologyError as error:
        if as_json:
            problems = [(each.place, each.text) for each in error.problems]
            print(json.dumps([{**asdict(place), "text": text} for place, text in problems]))
        else:
            for problem in error.problems:
                print(problem, file=sys.stderr)
        return WRONG
    if as_json:
        print("[]")
        return GOOD
    counts = [
        f"{len(made.domains)} domains",
        f"{len(made.groups)} groups",
        f"{len(made.channels)} channels",
        f"{len(made.workloads)} workloads",
    ]
    print(f"{made.name}: {', '.join(counts)}: all is well")
    return GOOD


def graph(topology: str, values: dict[str, str], form: str, output: str | None) -> int:
    """Draw a topology: as Mermaid, as graphviz's language, or as SVG."""
    made = load_topology(topology, values)
    check_topology(made)
    text = {"mermaid": mermaid, "dot": dot, "svg": _svg}[form](made)
    if output is None:
        sys.stdout.write(text)
    else:
        Path(output).write_text(text)
    return GOOD


def _svg(topology: Topology) -> str:
    """By graphviz where it is there, else our own."""
    program = shutil.which("dot")
    if program is None:
        return svg(topology)
    drawn = subprocess.run(
        [program, "-Tsvg"], input=dot(topology), stdout=subprocess.PIPE, text=True, check=True
    )
    return drawn.stdout


def run(
    topology: str,
    values: dict[str, str],
    placement: str,
    control: str | None,
    metrics: str | None,
    *,
    spans: bool,
    stay: bool,
) -> int:
    """Run a topology: to the end of its workloads, or until Ctrl-C."""
    made = load_topology(topology, values)
    if metrics is not None and placement == "simulated":
        raise FaceError("a simulated machine serves no metrics: it has no outside")
    with contextlib.ExitStack() as stack:
        interrupted = stack.enter_context(_signals())
        try:
            live = stack.enter_context(running(made, placement, started=_report))
            system = live.machine.system
            if system.simulation is None:
                path = control or os.path.join(control_directory(), f"{made.name}.sock")
                system.start(ControlSocket, live, path, name="control")
                print(f"control socket: {path}", file=sys.stderr, flush=True)
                if metrics is not None:
                    url = serve_metrics(live.machine, live.channels, metrics)
                    print(f"metrics: {url}", file=sys.stderr, flush=True)
            if spans:
                record_spans(live.machine, live.channels)
            if can_draw(sys.stderr):
                live.machine.hear_domains(system.start(Drawn, live, name="live"))
            with interrupted.held():
                begun = live.begin()
            live.wait(begun)
            if made.workloads:
                print("the workloads have ended well", flush=True)
            if system.simulation is None and (stay or not made.workloads):
                made.workloads.clear()
                reason = live.machine.wait().reason
                print(f"xenidc: the machine has given up: {reason.text}", file=sys.stderr)
                return FAILED
        except KeyboardInterrupt:
            return INTERRUPTED if made.workloads else GOOD
        finally:
            interrupted.clear()
    return GOOD


def _report(machine: Machine) -> None:
    machine.hear_domains(machine.system.start(Lines, sys.stderr, name="changes"))


class _Interrupts:
    """One KeyboardInterrupt, for the first of the signals that are wanted."""

    def __init__(self) -> None:
        self._wanted = True
        self._held = self._came = False

    def handle(self, _signum: int, _frame: FrameType | None) -> None:
        if self._held:
            self._came = True
        elif self._wanted:
            self._wanted = False
            raise KeyboardInterrupt

    def clear(self) -> None:
        """No more of them."""
        self._wanted = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """It comes at the end: an actor that is started by halves would never end."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._came and self._wanted:
            self._wanted = False
            raise KeyboardInterrupt


@contextlib.contextmanager
def _signals() -> Iterator[_Interrupts]:
    """SIGTERM is what Ctrl-C is; a second one of either, while it ends, is left out."""
    interrupts = _Interrupts()
    before = {
        each: signal.signal(each, interrupts.handle) for each in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield interrupts
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def test(
    topology: str,
    values: dict[str, str],
    kill: str,
    seeds: int,
    first: int,
    rate: float,
    faults: int,
    save: str,
    replay: str | None,
    *,
    real: bool,
) -> int:
    """Run a topology's own workload while things go wrong, and say what broke."""

    def make() -> Topology:
        return load_topology(topology, values)

    made = make()
    check_topology(made)
    if not made.workloads:
        raise FaceError(f"{topology} has no workload to test")
    trial.check_kill(made, kill)
    if real:
        return _strike(make, kill, range(first, first + seeds), faults)
    if replay is not None:
        try:
            failure = trial.repeat(make, replay)
        except (OSError, ValueError) as error:
            raise FaceError(f"{replay}: {error}") from error
    else:
        options = trial.options_of(kill, rate, faults)
        wanted = _progress(range(first, first + seeds))
        failure = trial.simulate(make, wanted, options, topology)
    if failure is None:
        print(f"{made.name}: " + ("this run is good" if replay else f"all {seeds} seeds are good"))
        return GOOD
    _tell(failure, topology, values, save if replay is None else None)
    return FAILED


def _tell(failure: Failure, topology: str, values: dict[str, str], save: str | None) -> None:
    print(failure)
    if save is not None:
        failure.replay.save(save)
        settings = [word for name, value in values.items() for word in ("--set", f"{name}={value}")]
        command = ["xenidc", "test", topology, *settings, "--replay", save]
        print(f"this run again:  {shlex.join(command)}")


def _strike(make: Any, kill: str, seeds: range, kills: int) -> int:
    for seed in _progress(seeds):
        try:
            struck = trial.strike(make(), kill, seed, kills)
        except FaceError as error:
            print(f"seed {seed}, with real processes: {error}")
            return FAILED
        print(f"seed {seed}: {struck} kills, all is well", flush=True)
    return GOOD


def _progress(seeds: range) -> Iterator[int]:
    """A bar of rich's on a terminal, drawn once for each seed; elsewhere nothing."""
    if not can_draw(sys.stderr):
        yield from seeds
        return
    from rich.console import Console  # noqa: PLC0415 - only where it is there
    from rich.progress import Progress  # noqa: PLC0415

    with Progress(console=Console(stderr=True), auto_refresh=False, transient=True) as bar:
        task = bar.add_task("seeds", total=len(seeds))
        for seed in seeds:
            yield seed
            bar.update(task, advance=1, refresh=True)


# --- of a running machine -------------------------------------------------------------------------


def tree(machine: str | None, *, as_json: bool, actors: bool) -> int:
    """Show the supervision tree of a running machine."""
    with Client(socket_of(machine)) as client:
        if actors:
            found = client.ask("actor-rows" if as_json else "actors")
            _print(found, [found], as_json=as_json)
        else:
            rows = client.ask("tree")
            _print(rows, show.tree(rows), as_json=as_json)
    return GOOD


def top(machine: str | None, every: float, count: int | None, *, as_json: bool) -> int:
    """Show what the channels of a running machine do, again and again; on a terminal with keys."""
    with Client(socket_of(machine)) as client:
        client.ask("top")  # it is there
        try:
            if not as_json and sys.stdin.isatty() and sys.stdout.isatty():
                interactive(client, every, count)
            else:
                _repeat(client, every, count, as_json=as_json)
        except MachineEnded as error:
            print(f"xenidc: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            pass
    return GOOD


def _repeat(client: Client, every: float, count: int | None, *, as_json: bool) -> None:
    before: dict[str, Any] | None = None
    shown = 0
    while True:
        now = client.ask("top")
        rows = figures(now, before)
        _print({"now": now["now"], "channels": rows}, show.top(rows), as_json=as_json)
        before, shown = now, shown + 1
        if shown == count:
            return
        time.sleep(every)


def act(machine: str | None, do: str, domain: str) -> int:
    """Have something done to a domain of a running machine."""
    with Client(socket_of(machine)) as client:
        client.ask(do, domain=domain)
    return GOOD


def log(machine: str | None, domain: str, *, as_json: bool) -> int:
    """Print the last lines that a domain has written."""
    with Client(socket_of(machine)) as client:
        lines = client.ask("log", domain=domain)
    _print(lines, lines, as_json=as_json)
    return GOOD


def trace(
    machine: str | None,
    channel: str,
    operation: str,
    outcomes: Sequence[str],
    slower: float | None,
    count: int | None,
    *,
    as_json: bool,
) -> int:
    """Print each request of a channel that ends from now on."""

    def show_one(item: dict[str, Any]) -> bool:
        if "lost" in item:
            _print(item, [f"... {item['lost']} requests lost: not read in time"], as_json=as_json)
            return False
        _print(item, show.request(item), as_json=as_json)
        return True

    fields = {
        "channel": channel,
        "operation": operation,
        "outcome": ",".join(outcomes),
        "slower": "" if slower is None else str(slower),
    }
    return _follow(machine, "trace", fields, show_one, count)


def watch(
    machine: str | None, path: str, since: int | None, count: int | None, *, as_json: bool
) -> int:
    """Print each change at and below a node of the store of a running machine."""

    def show_one(item: dict[str, Any]) -> bool:
        _print(item, [show.change(item)], as_json=as_json)
        return "missed" not in item

    fields = {"path": path, "since": "" if since is None else str(since)}
    return _follow(machine, "store-watch", fields, show_one, count)


def _follow(
    machine: str | None,
    do: str,
    fields: dict[str, str],
    show_one: Callable[[dict[str, Any]], bool],
    count: int | None,
) -> int:
    """Show what comes, until so many have been shown, Ctrl-C, or the end of what is followed."""
    shown = 0
    try:
        with Client(socket_of(machine)) as client:
            for item in client.stream(do, **fields):
                if "end" in item:
                    print(f"xenidc: {item['end']}", file=sys.stderr)
                    return GOOD
                shown += show_one(item)
                if shown == count:
                    return GOOD
    except KeyboardInterrupt:
        pass
    return GOOD


def store(machine: str | None, operation: str, path: str, *, as_json: bool) -> int:
    """List or read a node of the store of a running machine."""
    with Client(socket_of(machine)) as client:
        found = client.ask(f"store-{operation}", path=path)
    _print(found, found if isinstance(found, list) else [found], as_json=as_json)
    return GOOD


def example(name: str, arguments: Sequence[str]) -> int:
    """Run the server of one of the examples."""
    import importlib.util  # noqa: PLC0415 - only here

    try:
        there = importlib.util.find_spec(f"examples.{name}.__main__") is not None
    except ModuleNotFoundError:
        there = False
    if not there:
        raise ControlError(f"the example {name!r} is not here: run this in a checkout of xenidc")
    os.execv(sys.executable, [sys.executable, "-m", f"examples.{name}", *arguments])  # noqa: S606


def _print(value: Any, lines: Sequence[str], *, as_json: bool) -> None:
    text = json.dumps(value) if as_json else "\n".join(lines)
    if as_json or lines:
        print(text, flush=True)
