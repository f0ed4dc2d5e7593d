"""What the site shows of the code is made from the code, each time that it is built.

Into one folder go: the pictures of the topologies that ship and of the life of a channel, the help
of each command, and the texts that lie beside the code, whose links then lead to pages of the site
and whose diagrams are drawn (states.py). A link that leads to no page is an error.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from posixpath import dirname, join, normpath

import click

from docs import states
from hypervisor import xenbus
from transport import lifecycle
from xenidc import load_topology, running, svg
from xenidc.cli import group
from xenidc.cli import main as xenidc

ROOT = Path(__file__).parent.parent

PAGES = {
    "README.md": "/readme.md",
    "ARCHITECTURE.md": "/explanation/architecture.md",
    "CHANGELOG.md": "/reference/changes.md",
    "xenidc/COOKBOOK.md": "/how-to/failure-tests.md",
    "hypervisor/README.md": "/comparison/xen.md",
    "benchmarks/README.md": "/comparison/figures.md",
    "docs": "/index.md",
    "examples/usb/dice.py": "/how-to/usb-device.md",
}
"""What a text beside the code may link to -> the page that it is; so may pages of the site."""

SERVERS = {
    "block": ["serve"],
    "usb": ["serve"],
    "pci": ["list", "dump", "read", "write"],
    "framebuffer": ["serve"],
}
WIDTH = 88  # characters of a line of help


def make(folder: Path) -> None:
    """Make everything anew."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for topology in ("first", "shared", "stack"):
        path = ROOT / "examples" / "topologies" / f"{topology}.py"
        (folder / f"{topology}.svg").write_text(svg(load_topology(path)))
    for table in (xenbus, lifecycle):
        name = table.__name__.rpartition(".")[2]
        (folder / f"{name}.svg").write_text(states.svg(table.mermaid()))
    (folder / "tree.txt").write_text(tree())
    (folder / "command.md").write_text(commands())
    for name in PAGES:
        if name.endswith(".md"):
            text = included(name, (ROOT / name).read_text(), folder)
            (folder / name.replace("/", "-").lower()).write_text(text)


def tree() -> str:
    """Who runs in a machine with one driver, and who uses it."""
    with tempfile.TemporaryDirectory() as scratch:
        first = load_topology(
            ROOT / "examples" / "topologies" / "first.py", {"path": f"{scratch}/notes"}
        )
        with running(first, "simulated") as live:
            return live.machine.system.tree()


def included(name: str, text: str, folder: Path) -> str:
    """A text beside the code, as a page of the site.

    Raises:
        KeyError: one of its links leads to what is no page.
    """

    def link(found: re.Match[str]) -> str:
        path, hash_, place = found[1].partition("#")
        target = normpath(join(dirname(name), path)) if path else name
        if target.endswith((".png", ".svg")):
            shutil.copy(ROOT / target, folder)
            return f"](/made/{Path(target).name})"
        page = target.removeprefix("docs") if target.startswith("docs/") else PAGES[target]
        return f"]({page}{hash_}{place})"

    def drawing(found: re.Match[str]) -> str:
        file = f"{name.replace('/', '-').lower()}-{found.start()}.svg"
        (folder / file).write_text(states.svg(found[1]))
        return f"![which states there are, and what leads from one to another](/made/{file})"

    text = re.sub(r"\]\((?!https?:)([^)\s]+)\)", link, text)
    return re.sub(r"^```mermaid\n(.*?)^```$", drawing, text, flags=re.DOTALL | re.MULTILINE)


def commands() -> str:
    """A section for each command: its help."""
    found = [(" ".join(["xenidc", *verbs]), help_of(xenidc, *verbs)) for verbs in walk(group())]
    for name, verbs in SERVERS.items():
        main = import_module(f"examples.{name}.__main__").main
        found += [(f"xenidc {name} {verb}", help_of(main, verb)) for verb in verbs]
    return "\n".join(f"## {title}\n\n```text\n{text}\n```\n" for title, text in found)


def walk(command: click.Command, *verbs: str) -> Iterator[tuple[str, ...]]:
    """How each command of ours is called, without those of the examples."""
    yield verbs
    if isinstance(command, click.Group):
        for verb, below in command.commands.items():
            if verb not in SERVERS:
                yield from walk(below, *verbs, verb)


def help_of(main: Callable[[Sequence[str]], object], *verbs: str) -> str:
    """What ``--help`` prints."""
    printed = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(WIDTH)
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*verbs, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before
    return printed.getvalue().strip()
