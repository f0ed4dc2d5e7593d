"""The command line of ``xenidc``: what its commands are called, what they take, and their help.

A table: `group` makes the commands of it, with click, which also completes them in a shell. What a
command does is in commands.py. Every error is one line on standard error and exit code 2, or 1 if
something was running already.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from actors import ActorError
from hypervisor import HypervisorError
from transport import OUTCOMES, TransportError
from xenidc import commands
from xenidc.check import PLACEMENTS
from xenidc.errors import FaceError, WorkloadFailed

_EPILOG = """\b
Exit codes:
  0    all is well; also Ctrl-C where that is how a command ends
  1    what ran has failed: a workload, the machine, a test
  2    it could not begin: wrong options, a wrong topology, no such machine
  130  Ctrl-C while a workload was running

\b
Completion in bash:  eval "$(_XENIDC_COMPLETE=bash_source xenidc)"
zsh and fish:        zsh_source, fish_source
"""

_HELP = """Run topologies of domains, drivers and channels, and look at those that run.

\b
A topology is a Python file of a few lines:
  from xenidc import Topology
  topology = Topology("first")
  topology.domain("disk", "examples.block.disk:Disk", "disk.img")
  topology.channel("disk")

\b
Try:
  xenidc check FILE                  say what is wrong with it
  xenidc graph FILE                  draw it
  xenidc run FILE                    run it; Ctrl-C ends it
  xenidc tree                        in another shell: look at it
  xenidc top                         its channels, live; keys kill and pause
  xenidc trace disk                  each request, with its times
  xenidc kill disk                   SIGKILL; its clients do not notice
  xenidc test FILE --seeds 1000      have everything go wrong, and see
"""


def _values(_context: Any, _parameter: Any, given: Sequence[str]) -> dict[str, str]:
    values = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{each!r} is not of the form NAME=VALUE")
        values[name] = value
    return values


def _topology() -> list[click.Parameter]:
    return [
        click.Argument(["topology"], type=click.Path(), metavar="TOPOLOGY"),
        click.Option(
            ["--set", "values"],
            multiple=True,
            metavar="NAME=VALUE",
            callback=_values,
            help="Set an option of the topology. May be given several times.",
        ),
    ]


def _placement() -> click.Parameter:
    return click.Option(
        ["--placement"],
        type=click.Choice(PLACEMENTS),
        default="process",
        show_default=True,
        help="Where domains run that do not say it themselves.",
    )


def _machine() -> click.Parameter:
    return click.Option(
        ["--machine"],
        metavar="NAME",
        help="Its name, or the path of its control socket; not needed if there is but one.",
    )


def _json() -> click.Parameter:
    return click.Option(["--json", "as_json"], is_flag=True, help="Print JSON.")


def _domain() -> click.Parameter:
    return click.Argument(["domain"], metavar="DOMAIN")


def _path() -> click.Parameter:
    return click.Argument(["path"], metavar="PATH")


def _act(do: str) -> Callable[..., int]:
    return lambda machine, domain: commands.act(machine, do, domain)


def _store(operation: str) -> Callable[..., int]:
    return lambda path, machine, as_json: commands.store(machine, operation, path, as_json=as_json)


def _count(what: str) -> click.Parameter:
    return click.Option(["--count"], type=click.IntRange(1), metavar="N", help=f"End after {what}.")


_PLAIN = {"help_option_names": ["--help", "-h"]}
_COMMANDS: dict[str, tuple[Callable[..., int], str, Callable[[], list[click.Parameter]]]] = {
    "check": (
        commands.check,
        (
            "Say what is wrong with TOPOLOGY, each problem on a line with its place in the file. "
            "Nothing is started."
        ),
        lambda: [*_topology(), _placement(), _json()],
    ),
    "graph": (
        commands.graph,
        "Draw TOPOLOGY: as Mermaid text, in graphviz's language, or as SVG.",
        lambda: [
            *_topology(),
            click.Option(
                ["--format", "form"],
                type=click.Choice(["mermaid", "dot", "svg"]),
                default="mermaid",
                show_default=True,
                help="SVG is graphviz's where that is installed.",
            ),
            click.Option(["--output", "-o"], type=click.Path(), help="A file, not the terminal."),
        ],
    ),
    "run": (
        commands.run,
        (
            "Run TOPOLOGY: to the end of its workloads, or, if it has none, until Ctrl-C. Shows "
            "each change of a domain; on a terminal the live supervision tree."
        ),
        lambda: [
            *_topology(),
            _placement(),
            click.Option(
                ["--control"],
                type=click.Path(),
                help="Where to make the control socket; in a folder of your own unless given.",
            ),
            click.Option(
                ["--metrics"],
                metavar="HOST:PORT",
                help="Serve metrics to Prometheus there (port 0: a free one). Needs the extra "
                "`metrics`; whoever reaches it may read it.",
            ),
            click.Option(
                ["--spans"],
                is_flag=True,
                help="Make each request of a channel a span of OpenTelemetry, by the tracer "
                "provider that is set (`opentelemetry-instrument xenidc run`). Needs the extra "
                "`otel`.",
            ),
            click.Option(["--stay"], is_flag=True, help="Go on when the workloads have ended."),
        ],
    ),
    "test": (
        commands.test,
        (
            "Run the workload of TOPOLOGY while things go wrong, under the simulation: domains "
            "crash and hang at any point, signals are lost and late, memory is revoked. Prints the "
            "first failure, made small, its trace, and the command that repeats it."
        ),
        lambda: [
            *_topology(),
            click.Option(
                ["--kill"],
                default="any",
                show_default=True,
                metavar="DOMAIN",
                help="What may go wrong: any, the name of a domain, or a pattern.",
            ),
            click.Option(
                ["--seeds"], type=click.IntRange(1), default=100, show_default=True, help="How many"
            ),
            click.Option(["--first"], type=click.IntRange(0), default=0, help="The first seed."),
            click.Option(
                ["--rate"],
                type=click.FloatRange(0, 1),
                default=0.01,
                show_default=True,
                help="Probability of a fault at each opportunity.",
            ),
            click.Option(
                ["--faults"],
                type=click.IntRange(0),
                default=3,
                show_default=True,
                help="At most so many in a run; with --real so many kills.",
            ),
            click.Option(
                ["--save"],
                type=click.Path(),
                default="xenidc-replay.json",
                show_default=True,
                help="Where to keep a failing run.",
            ),
            click.Option(["--replay"], type=click.Path(), help="Run what this file has kept."),
            click.Option(["--real"], is_flag=True, help="With real processes, and SIGKILL."),
        ],
    ),
    "tree": (
        commands.tree,
        "Show the supervision tree of a running machine: state, restarts, processes, memory.",
        lambda: [
            _machine(),
            _json(),
            click.Option(["--actors"], is_flag=True, help="Every actor, with its mailbox."),
        ],
    ),
    "top": (
        commands.top,
        (
            "Show what the channels of a running machine do, until Ctrl-C: requests and bytes per "
            "second, how long half and how long 99 of 100 of them took at most, what is in flight, "
            "and restarts of the domain that serves them. Of a channel that is another domain's "
            "own there are no figures. On a terminal keys choose a channel (up, down), sort (s), "
            "pause or unpause (p), kill (k) or restart (r) the domain that serves it, or end (q)."
        ),
        lambda: [
            _machine(),
            _json(),
            click.Option(
                ["--every"],
                type=click.FloatRange(0.1),
                default=1.0,
                show_default=True,
                metavar="SECONDS",
                help="How often.",
            ),
            _count("so many times"),
        ],
    ),
    "kill": (
        _act("kill"),
        "Crash DOMAIN: SIGKILL to its process. Its supervisor starts it again.",
        lambda: [_machine(), _domain()],
    ),
    "pause": (
        _act("pause"),
        "Stop the process of DOMAIN where it is, until it is unpaused. Its clients wait.",
        lambda: [_machine(), _domain()],
    ),
    "unpause": (_act("unpause"), "Let a paused DOMAIN go on.", lambda: [_machine(), _domain()]),
    "restart": (
        _act("restart"),
        "End DOMAIN in order, and start it again. Its clients wait, and go on.",
        lambda: [_machine(), _domain()],
    ),
    "log": (
        commands.log,
        "Print the last lines that DOMAIN has written to its output.",
        lambda: [_machine(), _json(), _domain()],
    ),
    "trace": (
        commands.trace,
        (
            "Show each request of CHANNEL, one of the machine's own, when it has ended: what it "
            "was, how long it took and how it ended; of what is sent and received without buffers "
            "also each data phase. Until Ctrl-C, or the end of the channel or of the machine. Who "
            "reads too slowly loses requests, and is told how many."
        ),
        lambda: [
            _machine(),
            _json(),
            click.Option(
                ["--operation"],
                default="",
                metavar="OP",
                help="Only these: the body, or its first part.",
            ),
            click.Option(
                ["--outcome", "outcomes"],
                multiple=True,
                type=click.Choice(OUTCOMES),
                help="Only those that end so. May be given several times.",
            ),
            click.Option(
                ["--slower"],
                type=click.FloatRange(0),
                metavar="SECONDS",
                help="Only those that take at least so long.",
            ),
            _count("so many requests"),
            click.Argument(["channel"], metavar="CHANNEL"),
        ],
    ),
}
_STORE: dict[str, tuple[Callable[..., int], str, Callable[[], list[click.Parameter]]]] = {
    "ls": (_store("ls"), "List what is below PATH.", lambda: [_machine(), _json(), _path()]),
    "read": (_store("read"), "Print the value of PATH.", lambda: [_machine(), _json(), _path()]),
    "watch": (
        commands.watch,
        (
            "Print each change at and below PATH, in order, with its revision; none is left out. "
            "Until Ctrl-C, or the end of the machine."
        ),
        lambda: [
            _machine(),
            _json(),
            click.Option(
                ["--since"],
                type=click.IntRange(0),
                metavar="REVISION",
                help="Those after it, too, not only from now on.",
            ),
            _count("so many changes"),
            _path(),
        ],
    ),
}
_EXAMPLES = ("block", "usb", "pci", "framebuffer")


def group() -> click.Group:
    """The command with all its commands."""
    made = click.Group("xenidc", help=_HELP, epilog=_EPILOG, context_settings=_PLAIN)
    store = click.Group(
        "store", help="Look into the store of a running machine.", context_settings=_PLAIN
    )
    made.add_command(store)
    for into, table in ((made, _COMMANDS), (store, _STORE)):
        for name, (callback, text, parameters) in table.items():
            into.add_command(
                click.Command(
                    name,
                    callback=_piped(callback),
                    help=text,
                    params=parameters(),
                    context_settings=_PLAIN,
                )
            )
    for name in _EXAMPLES:
        made.add_command(
            click.Command(
                name,
                callback=lambda arguments, name=name: commands.example(name, arguments),
                help=f"The {name} example's own command: its server, and more. From a checkout.",
                params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
                add_help_option=False,
                context_settings={"ignore_unknown_options": True},
            )
        )
    return made


def _piped(callback: Callable[..., int]) -> Callable[..., int]:
    """Who reads what it prints may have enough: that ends it, and is no failure."""

    def run(**arguments: Any) -> int:
        try:
            return callback(**arguments)
        except BrokenPipeError:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, sys.stdout.fileno())
            os.close(nothing)
            return commands.GOOD

    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; returns its exit code."""
    logging.getLogger("actors").addHandler(logging.NullHandler())  # it is shown by other means
    try:
        code = group().main(arguments, "xenidc", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        return commands.GOOD
    except click.Abort:
        return commands.INTERRUPTED
    except click.ClickException as error:
        return _error(error.format_message(), commands.WRONG)
    except WorkloadFailed as error:
        return _error(error, commands.FAILED)
    except (FaceError, HypervisorError, ActorError, TransportError, OSError) as error:
        return _error(error, commands.WRONG)
    return code if isinstance(code, int) else commands.GOOD


def _error(error: object, code: int) -> int:
    print(f"xenidc: {' '.join(str(error).split())}", file=sys.stderr)
    return code
