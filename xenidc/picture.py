"""A topology as a picture, in texts that others draw: Mermaid, and the language of graphviz. Pure.

What is drawn is one graph, `Graph`, so that all pictures say the same: domains, the groups around
them, the channels from the workloads and the drivers that use them, and the order that `needs` asks
for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from xenidc.topology import Topology


class Node(NamedTuple):
    """``kind``: "domain", "channel" or "workload"; ``group``: around it, or None."""

    key: str
    kind: str
    lines: tuple[str, ...]
    group: str | None = None


class Edge(NamedTuple):
    """``kind``: "uses" (a channel, or a domain by one) or "needs" (to be started before)."""

    tail: str
    head: str
    kind: str


@dataclass(frozen=True)
class Graph:
    """``groups``: key -> its title."""

    name: str
    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    groups: dict[str, str]


def graph(topology: Topology) -> Graph:
    """What there is to draw."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    for number, workload in enumerate(topology.workloads):
        nodes.append(Node(f"w{number}", "workload", (workload.name,)))
        edges += [Edge(f"w{number}", f"c_{name}", "uses") for name in workload.channels]
    for channel in topology.channels:
        nodes.append(Node(f"c_{channel.name}", "channel", (channel.name,)))
        edges.append(Edge(f"c_{channel.name}", f"d_{channel.to}", "uses"))
    for domain in topology.domains:
        program = domain.program
        name = program.rpartition(":")[2] if isinstance(program, str) else program.__name__
        words = ", ".join(word for word in (domain.placement, domain.restart) if word)
        group = None if domain.group is None else f"g_{domain.group}"
        nodes.append(Node(f"d_{domain.name}", "domain", (domain.name, name, words), group))
        edges += [
            Edge(f"d_{domain.name}", f"d_{other}", "uses" if other in domain.uses else "needs")
            for other in domain.before
        ]
    groups = {
        f"g_{each.name}": f"{each.name}: {each.strategy}, {each.intensity} in {each.period:g} s"
        for each in topology.groups
    }
    return Graph(topology.name, tuple(nodes), tuple(edges), groups)


def mermaid(topology: Topology) -> str:
    """The text of a Mermaid flowchart, as Markdown viewers draw it."""
    drawn = graph(topology)
    shapes = {"domain": '["{}"]', "channel": '(["{}"])', "workload": '>"{}"]'}
    arrows = {"uses": "-->", "needs": "-.->"}
    lines = ["flowchart LR"]
    for key, title, nodes in _clusters(drawn):
        indent = "  " if key is None else "    "
        if key is not None:
            lines.append(f'  subgraph {_key(key)}["{title}"]')
        for node in nodes:
            text = "<br>".join(line for line in node.lines if line)
            lines.append(f"{indent}{_key(node.key)}{shapes[node.kind].format(text)}")
        if key is not None:
            lines.append("  end")
    lines += [f"  {_key(e.tail)} {arrows[e.kind]} {_key(e.head)}" for e in drawn.edges]
    return "\n".join(lines) + "\n"


def dot(topology: Topology) -> str:
    """The same in the language of graphviz's ``dot``."""
    drawn = graph(topology)
    shapes = {"domain": "box", "channel": "ellipse", "workload": "note"}
    styles = {"uses": "solid", "needs": "dashed"}
    lines = [f'digraph "{drawn.name}" {{', "  rankdir=LR; fontname=sans; node [fontname=sans];"]
    for key, title, nodes in _clusters(drawn):
        if key is not None:
            lines.append(f'  subgraph "cluster_{key}" {{ label="{title}"; style=dashed;')
        for node in nodes:
            text = r"\n".join(line for line in node.lines if line)
            lines.append(f'    "{node.key}" [shape={shapes[node.kind]}, label="{text}"];')
        if key is not None:
            lines.append("  }")
    lines += [f'  "{e.tail}" -> "{e.head}" [style={styles[e.kind]}];' for e in drawn.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _clusters(drawn: Graph) -> list[tuple[str | None, str, list[Node]]]:
    """What is in no group, then group by group."""
    return [
        (key, title, [node for node in drawn.nodes if node.group == key])
        for key, title in ((None, ""), *drawn.groups.items())
    ]


def _key(key: str) -> str:
    """Mermaid takes no '-' in one."""
    return key.replace("-", "_2d_")
