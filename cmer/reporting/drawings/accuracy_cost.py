"""Drawing of the accuracy and costs of runs: a row per run, a panel per measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cmer.reporting.figures.accuracy_cost import Point
from cmer.reporting.style import COLUMN, PAGE, PALETTE, STYLE

STYLES = tuple(zip(PALETTE, "os^DvP", strict=True))
"""Colour and marker of each backbone in turn."""
LONG = 24
"""Characters of a label above which the figure has the width of a page."""
ROW, REST = 0.16, 1.6
"""Height in inches of a run or a line of the legend, and of everything else."""
MEASURES = (
    "test mR, %,\nplain queries,\n95 % interval",
    "kept for the\nbackward pass,\nMB per pair",
    "training\ntime, s per\n1,000 pairs",
)
ENGINES = {"online": "frozen towers included", "stored": "from stored features"}
"""What a step does with the frozen towers, in words."""


def draw(points: Sequence[Point]) -> Figure:
    """A row per run, the most accurate at the top: its mR with the interval, its memory, its time. CMER is filled."""
    rows = sorted(points, key=lambda point: point.accuracy.mr)
    backbones = list(dict.fromkeys(point.accuracy.run.backbone_printed for point in points))
    styles = [_style(backbones.index(point.accuracy.run.backbone_printed), point.highlighted) for point in rows]
    width = PAGE if max(len(point.label) for point in points) > LONG else COLUMN
    with rc_context(STYLE):
        figure = Figure((width, REST + ROW * (len(rows) + len(backbones))), dpi=300, layout="constrained")
        panels = figure.subplots(1, 3, sharey=True)
        accuracy, memory, time = panels
        _draw_accuracies(accuracy, rows, styles)
        _draw_costs(memory, [point.megabytes for point in rows], styles)
        _draw_costs(time, [point.seconds for point in rows], styles)
        for axes, measure in zip(panels, MEASURES, strict=True):
            axes.set_xlabel(measure)
            axes.grid(axis="y", color="0.9", linewidth=0.4)
            axes.set_axisbelow(True)
            axes.tick_params(left=False)
        figure.align_xlabels()
        figure.suptitle("Accuracy and the cost of training", weight="bold", size="medium")
        legend = [Line2D([], [], linestyle="", label=name, **_style(i, True)) for i, name in enumerate(backbones)]
        figure.legend(handles=legend, title=_facts(points), loc="outside lower center", frameon=False)
    return figure


def _style(backbone: int, filled: bool) -> dict[str, Any]:
    colour, marker = STYLES[backbone % len(STYLES)]
    face, size = (colour, 5) if filled else ("white", 3.5)
    return {"color": colour, "marker": marker, "markerfacecolor": face, "markersize": size, "markeredgewidth": 0.8}


def _draw_accuracies(axes: Axes, rows: Sequence[Point], styles: Sequence[dict[str, Any]]) -> None:
    for height, (point, style) in enumerate(zip(rows, styles, strict=True)):
        axes.hlines(height, *point.accuracy.interval, color=style["color"], linewidth=0.5)
        axes.plot(point.accuracy.mr, height, **style)
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_yticks(range(len(rows)), [point.label for point in rows])
    for point, label in zip(rows, axes.get_yticklabels(), strict=True):
        label.set_fontweight("bold" if point.highlighted else "normal")


def _draw_costs(axes: Axes, costs: Sequence[float | None], styles: Sequence[dict[str, Any]]) -> None:
    """The costs that were measured, on a logarithmic axis of at least a decade."""
    measured = [cost for cost in costs if cost is not None]
    if not measured:
        axes.text(0.5, 0.5, "not timed", transform=axes.transAxes, ha="center", va="center", backgroundcolor="white")
        axes.set_xticks([])
        return
    for height, (cost, style) in enumerate(zip(costs, styles, strict=True)):
        if cost is not None:
            axes.plot(cost, height, **style)
    decades = math.log10(max(measured) / min(measured))
    shown = max(1, 1.2 * decades)
    shown = shown if shown < 1.5 else max(2, shown)  # at least two of the numbers below are in sight
    space = 10 ** ((shown - decades) / 2)
    axes.set_xscale("log")
    axes.set_xlim(min(measured) / space, max(measured) * space)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3) if shown < 1.5 else (1,), numticks=3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda cost, _: f"{cost:g}" if cost < 1000 else f"{cost / 1000:g}k"))
    axes.xaxis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=100))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _facts(points: Sequence[Point]) -> str:
    """What was measured where, in lines that a printed column has room for."""
    runs, steps = [point.accuracy for point in points], [point.cost.step for point in points]
    seeds = "one seed" if len(runs[0].seeds) == 1 else f"mean of {len(runs[0].seeds)} seeds"
    images, epochs = _span([run.images for run in runs]), _span([run.epochs for run in runs])
    precision = " or ".join(dict.fromkeys(step.precision for step in steps))
    engines = {step.engine for step in steps}
    towers = " or ".join(text for engine, text in ENGINES.items() if engine in engines)
    facts = (
        f"{runs[0].run.dataset_title}: {images} training images, {epochs} epochs, {seeds}",
        f"cost of a step of {_span([step.batch for step in steps])} pairs in {precision}, {towers},",
        f"measured on {', '.join(dict.fromkeys(point.cost.device for point in points))}",
    )
    return "\n".join(line for fact in facts for line in wrap(fact, 62))


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
