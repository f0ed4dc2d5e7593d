"""Pictures of a topology: they show all of it, each in a language that others read."""

from __future__ import annotations

import shutil
import subprocess
from xml.etree import ElementTree as ET

import pytest

from tests.face.programs import Echo, three
from xenidc import Topology, dot, mermaid, svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def topology() -> Topology:
    made = Topology("tower")
    made.domain("disk", "tests.face.programs:Echo", placement="thread")
    group = made.group("stack", strategy="rest_for_one", intensity=3)
    group.domain("a-b", Echo, needs="disk")
    group.domain("c", Echo, needs="a-b", uses=["disk", "a-b"])
    made.channel("c")
    made.workload(three, "c")
    return made


def test_mermaid_shows_domains_groups_channels_and_their_order(topology: Topology) -> None:
    assert mermaid(topology).splitlines() == [
        "flowchart LR",
        '  w0>"three"]',
        '  c_c(["c"])',
        '  d_disk["disk<br>Echo<br>thread, permanent"]',
        '  subgraph g_stack["stack: rest_for_one, 3 in 5 s"]',
        '    d_a_2d_b["a-b<br>Echo<br>permanent"]',
        '    d_c["c<br>Echo<br>permanent"]',
        "  end",
        "  w0 --> c_c",
        "  c_c --> d_c",
        "  d_a_2d_b -.-> d_disk",
        "  d_c --> d_a_2d_b",
        "  d_c --> d_disk",
    ]


def test_our_own_svg_shows_each_node_once_and_nothing_on_top_of_another(topology: Topology) -> None:
    root = ET.fromstring(svg(topology))
    boxes = [
        (float(rect.attrib["x"]), float(rect.attrib["y"]))
        for rect in root.iter(f"{SVG}rect")
        if "stroke-dasharray" not in rect.attrib
    ]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert len(boxes) == len(set(boxes)) == 5
    assert [texts.count(name) for name in ("three", "disk", "a-b")] == [1, 1, 1]
    assert texts.count("stack: rest_for_one, 3 in 5 s") == 2  # it stands in two columns
    assert len(list(root.iter(f"{SVG}path"))) == 1 + 5
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(0 <= x < width and 0 <= y < height for x, y in boxes)


def test_an_arrow_points_to_the_right(topology: Topology) -> None:
    root = ET.fromstring(svg(topology))
    for path in list(root.iter(f"{SVG}path"))[1:]:
        start, end = path.attrib["d"].split("C")
        assert float(start[1:].split()[0]) < float(end.split()[4])


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs graphviz (Debian: graphviz)")
def test_graphviz_understands_its_language(topology: Topology) -> None:
    drawn = subprocess.run(
        ["dot", "-Tsvg"], input=dot(topology), capture_output=True, text=True, check=True
    ).stdout
    texts = [each.text for each in ET.fromstring(drawn).iter(f"{SVG}text")]
    assert [texts.count(name) for name in ("three", "disk", "a-b")] == [1, 1, 1]


def test_the_language_of_graphviz_has_each_edge(topology: Topology) -> None:
    text = dot(topology)
    assert text.count("->") == 5
    assert '"d_a-b" -> "d_disk" [style=dashed];' in text
    assert '"d_c" -> "d_a-b" [style=solid];' in text
    assert 'subgraph "cluster_g_stack"' in text
