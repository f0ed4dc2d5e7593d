"""A topology as an SVG picture, without anybody's help: columns from left to right. Pure.

A node stands one column to the right of the rightmost that points to it. Members of a group stand
together, in a dashed frame of their own for each column. graphviz does it better where it is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from xenidc.picture import Edge, Graph, Node, graph
from xenidc.topology import Topology

_WIDTH, _HEIGHT = 180, 64  # of a node, in pixels
_APART, _BELOW = 80, 28
_MARGIN, _LINE = 40, 16
_FILL = {"domain": "#dbe9ff", "channel": "#e6f6e0", "workload": "#fff3d0"}

_MARKER = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" '
    'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>'
)

_Place = tuple[int, int]


def svg(topology: Topology) -> str:
    """The whole file."""
    drawn = graph(topology)
    places = _places(drawn)
    width = max((x for x, _ in places.values()), default=0) + _WIDTH + _MARGIN
    height = max((y for _, y in places.values()), default=0) + _HEIGHT + _MARGIN
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
    )
    lines = [
        head,
        f"<title>{escape(drawn.name)}</title>",
        _MARKER,
        *_frames(drawn, places),
        *(_arrow(edge, places) for edge in drawn.edges),
        *(line for node in drawn.nodes for line in _box(node, places[node.key])),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _columns(drawn: Graph) -> dict[str, int]:
    column = {node.key: 0 for node in drawn.nodes}
    for _ in drawn.nodes:  # the longest path is no longer
        for edge in drawn.edges:
            column[edge.head] = max(column[edge.head], column[edge.tail] + 1)
    return column


def _places(drawn: Graph) -> dict[str, _Place]:
    column = _columns(drawn)
    order = list(drawn.groups)
    places: dict[str, _Place] = {}
    rows: dict[int, int] = {}
    for node in sorted(drawn.nodes, key=lambda node: order.index(node.group) if node.group else -1):
        at = column[node.key]
        row = rows[at] = rows.get(at, -1) + 1
        x, y = _MARGIN + at * (_WIDTH + _APART), _MARGIN + row * (_HEIGHT + _BELOW)
        places[node.key] = (x, y)
    return places


def _frames(drawn: Graph, places: dict[str, _Place]) -> Iterator[str]:
    for key, title in drawn.groups.items():
        columns: dict[int, list[int]] = {}
        for node in drawn.nodes:
            if node.group == key:
                x, y = places[node.key]
                columns.setdefault(x, []).append(y)
        for x, rows in columns.items():
            top, height = min(rows) - 10, max(rows) - min(rows) + _HEIGHT + 20
            yield (
                f'<rect x="{x - 10}" y="{top}" width="{_WIDTH + 20}" height="{height}" rx="8" '
                f'fill="none" stroke="#888" stroke-dasharray="5 4"/>'
            )
            yield f'<text x="{x - 8}" y="{top - 3}" fill="#555">{escape(title)}</text>'


def _box(node: Node, place: _Place) -> Iterator[str]:
    x, y = place
    round_ = 8 if node.kind == "domain" else _HEIGHT // 2
    yield (
        f'<rect x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}" rx="{round_}" '
        f'fill="{_FILL[node.kind]}" stroke="#333"/>'
    )
    lines = [line for line in node.lines if line]
    top = y + (_HEIGHT - _LINE * len(lines)) // 2 + 12
    for number, line in enumerate(lines):
        weight = ' font-weight="bold"' if number == 0 else ""
        yield (
            f'<text x="{x + _WIDTH // 2}" y="{top + number * _LINE}" text-anchor="middle"{weight}>'
            f"{escape(line)}</text>"
        )


def _arrow(edge: Edge, places: dict[str, _Place]) -> str:
    (x1, y1), (x2, y2) = places[edge.tail], places[edge.head]
    dashes = ' stroke-dasharray="4 4"' if edge.kind == "needs" else ""
    x1, y1, y2 = x1 + _WIDTH, y1 + _HEIGHT // 2, y2 + _HEIGHT // 2
    middle = (x1 + x2) // 2
    return (
        f'<path d="M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}" fill="none" '
        f'stroke="#333"{dashes} marker-end="url(#head)"/>'
    )
