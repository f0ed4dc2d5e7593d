"""Plots of how cost grows, as SVG files in build/bench; without matplotlib there are none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.apart import installed

FOLDER = Path("build/bench")

Points = Sequence[tuple[float, float]]


def draw(name: str, title: str, axes: tuple[str, str], lines: Mapping[str, Points]) -> None:
    """Lines by their names, on logarithmic scales; says where it is."""
    if not installed("matplotlib"):
        return
    import matplotlib as mpl  # noqa: PLC0415 - it may not be there
    from matplotlib.figure import Figure  # noqa: PLC0415

    mpl.rcParams["svg.fonttype"] = "none"  # text as text: small, and searchable
    mpl.rcParams["svg.hashsalt"] = name  # the same figures make the same file
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    plot = figure.add_subplot(title=title, xlabel=axes[0], ylabel=axes[1])
    for line, points in lines.items():
        plot.plot(*zip(*points, strict=True), marker="o", label=line)
    plot.set_xscale("log")
    plot.set_yscale("log")
    plot.grid(visible=True, which="major", alpha=0.3)
    plot.legend()
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.svg"
    figure.savefig(path, metadata={"Date": None})
    print(f"  drawn: {path}")
