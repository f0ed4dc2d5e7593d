"""The documents keep their word: their snippets run, print what they say, and name what exists.

All of them are read the same way: README.md, the texts beside the code, and every page of docs/.

1. A ```python block that begins with an import, or with its file's name (``# name.py``), begins a
   program; any other goes on with the one before. A page's programs are in one folder of their own,
   with a small image called disk.img, and run in their order.
2. A ```console command that names one of them is run there, and what follows is what it prints
   (``...``: whatever). A program that no command follows is run by itself, a test by pytest.
3. Of all other commands of ours, in ```console and ```sh blocks and in `inline code`, the names,
   options and files are looked for.
"""

from __future__ import annotations

import doctest
import importlib
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sources import ROOT

pytest.importorskip("click", reason="needs the extra `cli`")

BESIDE = [
    "README.md",
    "ARCHITECTURE.md",
    "hypervisor/README.md",
    "xenidc/COOKBOOK.md",
    "benchmarks/README.md",
]
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "docs").rglob("*.md")
    if "made" not in path.relative_to(ROOT).parts
)
DOCUMENTS = [*BESIDE, *PAGES]
TEXTS = {name: (ROOT / name).read_text() for name in DOCUMENTS}
TARGETS = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

BLOCK = re.compile(r"^```(.*)\n((?s:.*?))^```$", re.MULTILINE)
OPTION = re.compile(r"(?<![-\w])--?[a-z][-a-z]*")
OURS = re.compile(r"\s*(?:python3? -m (examples\.[a-z]+)(?![.\w])|(xenidc)(?= |$))(.*)")
EXAMPLES = ("block", "usb", "pci", "framebuffer")
NAMED = re.compile(r"# (\w+\.py)\n")
RUNNERS = {
    "python": [sys.executable, "-W", "error"],
    # The plugin of machines is loaded however it is installed.
    "pytest": [
        *(sys.executable, "-W", "error", "-m", "pytest"),
        *("-p", "no:xenidc-machines", "-p", "xenidc.pytest_plugin"),
    ],
    "xenidc": [sys.executable, "-W", "error", "-m", "xenidc"],
}


def blocks(text: str, *languages: str) -> list[str]:
    return [body for language, body in BLOCK.findall(text) if language in languages]


class Step(NamedTuple):
    """Write ``source`` to ``file``, run ``words``, and see ``printed``, unless that is nothing."""

    file: str
    source: str
    words: list[str]
    printed: str = ""


def steps(text: str) -> list[Step]:
    """How a document's programs are run."""
    found: list[Step] = []
    file, source, asked = "", "", True
    known: set[str] = set()

    def by_itself() -> None:
        if not asked:
            runner = "pytest" if "\ndef test_" in source else "python"
            found.append(Step(file, source, [runner, file]))

    for language, body in BLOCK.findall(text):
        if language == "python":
            named = NAMED.match(body)
            if named or not source or re.match(r"import |from ", body):
                by_itself()
                file = named[1] if named else f"snippet{len(found)}.py"
                source = body
                known.add(file)
            else:
                source += f"\n\n{body}"
            asked = False
        elif language == "console":
            for words, printed in commands(body):
                if known.intersection(words) and words[0] in RUNNERS:
                    found.append(Step(file, source, words, printed))
                    asked = True
    by_itself()
    return found


def commands(body: str) -> Iterator[tuple[list[str], str]]:
    """The commands of a console block: (words, what is said to be printed)."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        line, _, printed = part.partition("\n")
        yield shlex.split(line, comments=True), printed


def code(text: str) -> str:
    """All that could be typed."""
    prose = BLOCK.sub("", text)
    shown = "\n".join(blocks(text, "console", "sh"))
    inline = [" ".join(each.split()) for each in re.findall(r"`([^`]+)`", prose)]
    return "\n".join([shown, *inline])


def perform(step: Step, folder: Path) -> None:
    (folder / step.file).write_text(step.source)
    done = subprocess.run(
        [*RUNNERS[step.words[0]], *step.words[1:]],
        cwd=folder,
        # Of control sockets each worker has a folder of its own, with a path that is short enough.
        env={**os.environ, "PYTHONPATH": str(ROOT), "XDG_RUNTIME_DIR": str(folder.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    said = f"{' '.join(step.words)}: {done.returncode}\n{done.stdout}{done.stderr}"
    if step.printed:
        checker = doctest.OutputChecker()
        assert checker.check_output(step.printed, done.stdout, doctest.ELLIPSIS), said
    else:
        assert done.returncode == 0, said


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if steps(TEXTS[name])])
def test_the_snippets_run_as_they_stand(name: str, tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(os.urandom(1 << 20))
    for step in steps(TEXTS[name]):
        perform(step, tmp_path)


def test_there_is_a_readme_with_a_driver_in_it() -> None:
    assert steps(TEXTS["README.md"]), "README.md has no python snippet"


def test_there_are_eight_failure_tests_in_the_cookbook() -> None:
    recipes = re.split(r"^## \d\. ", TEXTS["xenidc/COOKBOOK.md"], flags=re.MULTILINE)[1:]
    assert len(recipes) == 8
    assert all("def test_" in recipe for recipe in recipes)


# --- what is only named ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_make_target_that_is_named_exists(name: str) -> None:
    assert set(re.findall(r"\bmake ([a-z]+)\b", code(TEXTS[name]))) <= TARGETS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_module_that_is_to_be_run_exists(name: str) -> None:
    for module in re.findall(r"python3? -m (examples[\w.]*)", code(TEXTS[name])):
        base = ROOT / module.replace(".", "/")
        assert (base / "__main__.py").exists() or base.with_suffix(".py").exists(), module


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_of_ours_that_is_named_exists_with_its_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = [
        f"{' '.join(words)}: there is no {lost}"
        for words in ours(code(TEXTS[name]))
        for lost in missing(words, capsys)
    ]
    assert not wrong, "\n".join(wrong)


def ours(text: str) -> Iterator[list[str]]:
    """Commands that are ``xenidc`` or a module of the project, as words from that on."""
    for line in text.splitlines():
        for part in re.split(r"[|;&]", line.removeprefix("$ ")):
            if found := OURS.match(part):
                yield [found[1] or found[2], *shlex.split(found[3], comments=True)]


def missing(words: list[str], capsys: pytest.CaptureFixture[str]) -> Iterator[str]:
    """Which of them are not there: the command, options by its help, files of the examples."""
    module, *rest = words
    verbs = list(itertools.takewhile(str.isalpha, rest))
    if module == "xenidc" and verbs and verbs[0] in EXAMPLES:
        yield from missing([f"examples.{verbs[0]}", *rest[1:]], capsys)
        return
    name = "xenidc.cli" if module == "xenidc" else f"{module}.__main__"
    try:
        code = importlib.import_module(name).main([*verbs, "--help"])
    except SystemExit as end:  # argparse
        code = end.code
    if code:
        yield f"command {verbs}"
    known = OPTION.findall(capsys.readouterr().out)
    for word in rest:
        if word.startswith("-") and word.partition("=")[0] not in known:
            yield word
        if word.startswith("examples/") and not (ROOT / word).exists():
            yield f"file {word}"


def test_the_makefile_explains_every_target() -> None:
    printed = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for target in ("demo", "test", "check", "docs", "bench", "stress", "clean"):
        assert f"make {target} " in printed


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("xenidc dance", "command ['dance']"),
        ("xenidc run examples/topologies/first.py --plaecment thread", "--plaecment"),
        ("xenidc check examples/topologies/none.py", "file examples/topologies/none.py"),
        ("make x && python -m examples.block serve disk.img --sokcet s | cat", "--sokcet"),
        ("xenidc usb serve --dsik disk.img", "--dsik"),
    ],
)
def test_a_wrong_command_is_found(line: str, lost: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert [each for words in ours(line) for each in missing(words, capsys)] == [lost]


def test_the_steps_of_a_document() -> None:
    text = (
        "```{include} x\n```\n```python\nimport a\n```\n```python\nb()\n```\n"
        "```python\n# c.py\nimport c\n```\n"
        "```console\n$ python c.py --fast  # soon\n1 ...\n```\n```python\ndef test_d(): pass\n```\n"
        "```python\n# e.py\n```\n```console\n$ pytest c.py\n```\n"
    )
    assert steps(text) == [
        Step("snippet0.py", "import a\n\n\nb()\n", ["python", "snippet0.py"]),
        Step("c.py", "# c.py\nimport c\n", ["python", "c.py", "--fast"], "1 ...\n"),
        Step("c.py", "# c.py\nimport c\n\n\ndef test_d(): pass\n", ["pytest", "c.py"]),
        Step("e.py", "# e.py\n", ["pytest", "c.py"]),
    ]
