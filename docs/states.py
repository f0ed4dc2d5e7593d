"""A Mermaid state diagram as an SVG picture, without anybody's help. Pure.

It reads the part of that language that the tables of this project are written in: composite states
that are machines of their own, their states, and arrows with labels. Each machine is drawn as its
states in a row; arrows to the right go above it, those to the left below it. Arrows to one state
that say the same have one colour, and their text once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT, _APART = 104, 34, 66  # of a state, and between two, in pixels
_RISE = 27  # pixels that an arrow rises for each state that it passes
_LEFT, _MARGIN = 20, 16
_COLOURS = ("#1f5fa8", "#a8461f", "#2c7a3d", "#7a3d91", "#8a6d00", "#00707a", "#a3245e", "#444")


@dataclass
class Machine:
    """``states``: key -> label; ``arrows``: (from, to, label); ``first``: where it begins."""

    title: str
    states: dict[str, str] = field(default_factory=dict)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)
    first: str = ""
    last: str = ""


def parse(text: str) -> list[Machine]:
    """The machines of a state diagram.

    Raises:
        ValueError: a line is not of the language that is known here.
    """
    head, *lines = text.splitlines()
    if head != "stateDiagram-v2":
        raise ValueError(f"no state diagram begins with {head!r}")
    machines: list[Machine] = []
    for line in map(str.strip, lines):
        if found := re.fullmatch(r'state "(.*)" as \w+ \{', line):
            machines.append(Machine(found[1]))
        elif found := re.fullmatch(r'state "(.*)" as (\w+)', line):
            machines[-1].states[found[2]] = found[1]
        elif found := re.fullmatch(r"\[\*\] --> (\w+)", line):
            machines[-1].first = found[1]
        elif found := re.fullmatch(r"(\w+) --> \[\*\]", line):
            machines[-1].last = found[1]
        elif found := re.fullmatch(r"(\w+) --> (\w+)(?: : (.*))?", line):
            machines[-1].arrows.append((found[1], found[2], found[3] or ""))
        elif line not in ("}", ""):
            raise ValueError(f"what is {line!r}?")
    return machines


def svg(text: str) -> str:
    """The whole file."""
    body: list[str] = []
    top, width = 0, 0
    for machine in parse(text):
        lines, high = _drawn(machine, top)
        body += lines
        top += high
        count = len(machine.states)
        width = max(width, 2 * _LEFT + count * _WIDTH + (count - 1) * _APART)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" '
        f'viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="13">'
    )
    markers = (
        f'<marker id="head{at}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        f'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for at, colour in enumerate(_COLOURS)
    )
    return "\n".join([head, f"<defs>{''.join(markers)}</defs>", *body, "</svg>"]) + "\n"


def _drawn(machine: Machine, top: int) -> tuple[list[str], int]:
    """Its lines, and how high it is."""
    order = list(machine.states)
    spans = [order.index(head) - order.index(tail) for tail, head, _ in machine.arrows]
    above = 44 + _RISE * max([0, *spans])
    below = 30 + _RISE * max([0, *(-span for span in spans)])
    row = top + above
    lines = [f'<text x="{_LEFT}" y="{top + 22}" font-weight="bold">{escape(machine.title)}</text>']
    lines += _arrows(machine, order, row)
    for at, (key, label) in enumerate(machine.states.items()):
        x = _LEFT + at * (_WIDTH + _APART)
        stroke = 3 if key == machine.first else 1
        lines.append(
            f'<rect x="{x}" y="{row}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" '
            f'fill="#dbe9ff" stroke="#333" stroke-width="{stroke}"/>'
        )
        lines.append(
            f'<text x="{x + _WIDTH // 2}" y="{row + 22}" text-anchor="middle">'
            f"{escape(label)}</text>"
        )
    return lines, above + _HEIGHT + below + _MARGIN


def _arrows(machine: Machine, order: list[str], row: int) -> Iterator[str]:
    """All lines, then all texts, so that no line crosses one."""
    colours: dict[tuple[str, str], int] = {}
    longest: dict[tuple[str, str, bool], int] = {}
    for tail, head, label in machine.arrows:
        span = order.index(head) - order.index(tail)
        colours.setdefault((head, label), len(colours) % len(_COLOURS))
        way = (head, label, span > 0)
        longest[way] = max(longest.get(way, 0), abs(span))
    texts = []
    for tail, head, label in machine.arrows:
        start, end = order.index(tail), order.index(head)
        span, number = end - start, colours[head, label]
        path, tip = _curve(start, end, row)
        yield (
            f'<path d="{path}" fill="none" stroke="{_COLOURS[number]}" stroke-width="1.3" '
            f'marker-end="url(#head{number})"/>'
        )
        if label and longest[head, label, span > 0] == abs(span):
            x, y = (_middle(start) + _middle(end)) // 2, tip - 4 if span > 0 else tip + 13
            texts.append(
                f'<text x="{x}" y="{y}" text-anchor="middle" fill="{_COLOURS[number]}" '
                f'font-size="11" stroke="#fff" stroke-width="3" paint-order="stroke">'
                f"{escape(label)}</text>"
            )
    yield from texts


def _curve(start: int, end: int, row: int) -> tuple[str, int]:
    """From one place in the row to another, and how high or low it gets."""
    x1, x2, span = _middle(start), _middle(end), end - start
    if span == 0:
        y, tip = row + _HEIGHT, row + _HEIGHT + 24
        return f"M{x1 - 18} {y}C{x1 - 18} {tip + 8} {x1 + 18} {tip + 8} {x1 + 18} {y + 2}", tip
    side = 12 if span > 0 else -12  # where it leaves and arrives, off the middle
    y = row if span > 0 else row + _HEIGHT
    rise = (18 + _RISE * abs(span)) * (-1 if span > 0 else 1)
    bend = f"C{x1 + side * 2} {y + rise} {x2 - side * 2} {y + rise} {x2 - side} {y}"
    return f"M{x1 + side} {y}{bend}", y + rise * 3 // 4


def _middle(at: int) -> int:
    return _LEFT + at * (_WIDTH + _APART) + _WIDTH // 2
