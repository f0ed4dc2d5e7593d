"""The site of docs/, which `make docs` builds: it has every public name, and draws what is true."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

pytest.importorskip("click", reason="needs the extra `cli`")

from docs import made, states
from hypervisor import xenbus
from tests.sources import ROOT
from transport import lifecycle

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("package", ["actors", "hypervisor", "transport", "xenidc"])
def test_every_public_name_is_in_the_reference_once(package: str) -> None:
    page = (ROOT / "docs" / "reference" / f"{package}.md").read_text()
    shown = re.findall(r"^\.\. auto\w+:: (\w+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("diagram", [xenbus.mermaid(), lifecycle.mermaid()])
def test_a_drawing_has_each_state_and_each_arrow_of_its_table(diagram: str) -> None:
    root = ET.fromstring(states.svg(diagram))
    arrows = [line for line in diagram.splitlines() if "-->" in line and "[*]" not in line]
    assert len(root.findall(f"{SVG}path")) == len(arrows) > 10
    assert len(root.findall(f"{SVG}rect")) == diagram.count('state "') - 2
    texts = {text.text for text in root.findall(f"{SVG}text")}
    assert {line.partition(" : ")[2] for line in arrows} - {""} <= texts


@pytest.mark.parametrize("text", ["flowchart LR\n", "stateDiagram-v2\nnote right of x\n"])
def test_a_diagram_of_another_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no state diagram|what is"):
        states.svg(text)


def test_a_text_beside_the_code_leads_to_pages_of_the_site(tmp_path: Path) -> None:
    text = "[a](../README.md#usb) [b](xen.html) [c](https://x.org/) [d](#here) [e](../docs/a/b.md)"
    with pytest.raises(KeyError, match=r"hypervisor/xen\.html"):
        made.included("hypervisor/README.md", text, tmp_path)
    assert made.included(
        "hypervisor/README.md", text.replace("xen.html", "README.md"), tmp_path
    ) == (
        "[a](/readme.md#usb) [b](/comparison/xen.md) [c](https://x.org/) "
        "[d](/comparison/xen.md#here) [e](/a/b.md)"
    )


def test_the_help_of_each_command_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    text = made.commands()
    assert text.count("\n```text\nUsage: ") + text.count("\n```text\nusage: ") == text.count("## ")
    assert "## xenidc block serve" in text
    assert max(map(len, text.splitlines())) <= made.WIDTH
    assert text.replace("\n", "").isprintable()
