"""The steps of the workflow as a graph: boxes in layers, and lines from each step to those that read its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from cmer.reporting.report.statistics import Phase

WIDTH, HEIGHT = 170, 44
"""Size of a box, in units of the drawing."""
GAP, RISE = 24, 34
"""Distance of boxes within a layer, and of layers."""


class Box(NamedTuple):
    """A step, with its upper left corner."""

    phase: Phase
    x: float
    y: float


class Graph(NamedTuple):
    """A drawing: its size, its boxes, and its lines as SVG paths."""

    width: float
    height: float
    boxes: list[Box]
    lines: list[str]


def graph(phases: Sequence[Phase]) -> Graph:
    """Lay out the steps from top to bottom, each right above the first step that reads its results.

    A line to a lower layer than the next has a place of its own in the layers between, so that it passes no box.

    Args:
        phases: the steps, in an order in which none reads a later one.
    """
    reads = {phase.title: phase.reads for phase in phases}
    below = dict.fromkeys(reads, 0)
    for title in reversed(reads):
        for source in reads[title]:
            below[source] = max(below[source], below[title] + 1)
    joined = [(source, title) for title in reads for source in _direct(title, reads)]
    layers: list[list[tuple[str, ...]]] = [[] for _ in range(max(below.values(), default=-1) + 1)]
    for title in reads:
        layers[below[title]].append((title,))
    for source, title in joined:
        for level in range(below[title] + 1, below[source]):
            layers[level].append((source, title))
    width = max((len(layer) for layer in layers), default=0) * (WIDTH + GAP) - GAP
    corners = {
        (level, key): (
            (width - len(layer) * (WIDTH + GAP) + GAP) / 2 + place * (WIDTH + GAP),
            (len(layers) - 1 - level) * (HEIGHT + RISE),
        )
        for level, layer in enumerate(layers)
        for place, key in enumerate(layer)
    }
    boxes = [Box(phase, *corners[below[phase.title], (phase.title,)]) for phase in phases]
    lines = []
    for source, title in joined:
        between = [corners[level, (source, title)] for level in range(below[source] - 1, below[title], -1)]
        lines.append(_line([corners[below[source], (source,)], *between, corners[below[title], (title,)]]))
    return Graph(max(width, 0), max(len(layers) * (HEIGHT + RISE) - RISE, 0), boxes, lines)


def _direct(title: str, reads: Mapping[str, Sequence[str]]) -> list[str]:
    """What a step reads, without what it also reads through others."""
    return [one for one in reads[title] if not any(_reaches(one, other, reads) for other in reads[title])]


def _reaches(source: str, title: str, reads: Mapping[str, Sequence[str]]) -> bool:
    return any(one == source or _reaches(source, one, reads) for one in reads[title])


def _line(corners: Sequence[tuple[float, float]]) -> str:
    """A path from the lower edge of the first place to the upper edge of the last one, straight through the others."""
    path = ""
    for (x, y), (to_x, to_y) in pairwise((x + WIDTH / 2, y) for x, y in corners):
        start, middle = y + HEIGHT, y + HEIGHT + RISE / 2
        path += f"V{start:g}" if path else f"M{x:g} {start:g}"
        path += f"C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
    return path
