"""The steps of the workflow as a graph: boxes in layers, and lines from each step to those that read its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    Args:
        phases: the steps, in an order in which none reads a later one.
    """
    reads = {phase.title: phase.reads for phase in phases}
    below = dict.fromkeys(reads, 0)
    for title in reversed(reads):
        for source in reads[title]:
            below[source] = max(below[source], below[title] + 1)
    layers: list[list[Phase]] = [[] for _ in range(max(below.values(), default=-1) + 1)]
    for phase in phases:
        layers[-1 - below[phase.title]].append(phase)
    width = max((len(layer) for layer in layers), default=0) * (WIDTH + GAP) - GAP
    boxes = {
        phase.title: Box(phase, (width - len(layer) * (WIDTH + GAP) + GAP) / 2 + place * (WIDTH + GAP), y)
        for y, layer in zip(range(0, len(layers) * (HEIGHT + RISE), HEIGHT + RISE), layers, strict=True)
        for place, phase in enumerate(layer)
    }
    lines = [_line(boxes[source], boxes[title]) for title in reads for source in _direct(title, reads)]
    return Graph(max(width, 0), max(len(layers) * (HEIGHT + RISE) - RISE, 0), list(boxes.values()), lines)


def _direct(title: str, reads: Mapping[str, Sequence[str]]) -> list[str]:
    """What a step reads, without what it also reads through others."""
    return [one for one in reads[title] if not any(_reaches(one, other, reads) for other in reads[title])]


def _reaches(source: str, title: str, reads: Mapping[str, Sequence[str]]) -> bool:
    return any(one == source or _reaches(source, one, reads) for one in reads[title])


def _line(start: Box, end: Box) -> str:
    x, y, to_x, to_y = start.x + WIDTH / 2, start.y + HEIGHT, end.x + WIDTH / 2, end.y
    middle = (y + to_y) / 2
    return f"M{x:g} {y:g}C{x:g} {middle:g} {to_x:g} {middle:g} {to_x:g} {to_y:g}"
