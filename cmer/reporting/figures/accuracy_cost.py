"""The figure of accuracy against the cost of training: memory on the left, time on the right."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from sklearn.isotonic import isotonic_regression

from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.efficiency import MB, Cost, costs_of, read_costs, significant
from cmer.reporting.measured import BUDGET, Measured, read_metrics, summarise
from cmer.reporting.naming import printed_name
from cmer.reporting.paper import printed

SETTING = "today"
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"))
"""Colour (Okabe and Ito's, told apart by the colour-blind) and marker of each backbone in turn."""

FONT, TEXT = "DejaVu Sans", 6.8  # points
LINE = 1.3 * TEXT / 72
"""Height of a line of text. This and all lengths below are in inches."""

COLUMN = 3.5  # a printed column
LEFT, RIGHT, TOP, BOTTOM = 0.44, 0.12, 0.06, 0.55  # around the two panels and the labels between them
PANEL, LOWEST = 0.9, 2.3  # no panel is smaller
DPI = 300
LINK: dict[str, Any] = {"color": "0.65", "linewidth": 0.4}


@dataclass(frozen=True)
class Point:
    """A run's accuracy and what its training costs.

    Attributes:
        label: its method as the tables call it; with the run's name where others on its backbone are called the same.
        accuracy: under plain queries.
        cost: under setting `today` at the larger batch size.
    """

    label: str
    accuracy: Measured
    cost: Cost

    @property
    def weight(self) -> str:
        """CMER is highlighted."""
        return "bold" if self.accuracy.run.method == "cmer" else "normal"

    @property
    def megabytes(self) -> float | None:
        """Kept for the backward pass, per pair; None where a step did not fit the memory."""
        kept = self.cost.saved.bytes_per_pair
        return None if kept is None else kept / MB

    @property
    def seconds(self) -> float | None:
        """Training time per 1,000 pairs; None where only counts were taken."""
        speed = self.cost.step.pairs_per_second
        return None if speed is None else 1000 / speed


@FIGURES.register("accuracy_cost")
class AccuracyCost(Figure):
    """A point per run: accuracy against memory and time, with intervals."""

    reads = ("metrics", "efficiency")
    printed = (1,)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        points = read_points(spec, files)
        return draw(points), as_table(points)


def read_points(spec: FigureSpec, files: Files) -> list[Point]:
    """The points, in the order of the spec's runs.

    Raises:
        UserError: a run's metrics or costs are missing.
    """
    measured, costs = read_metrics(files.metrics), read_costs(files.efficiency)
    names = printed(1)["method"].tolist()
    called = [(printed_name(run.method, run.options, names), run.backbone_printed) for run in spec.runs]
    times = Counter(called)
    points = []
    for run, (label, backbone) in zip(spec.runs, called, strict=True):
        found = [cost for cost in costs_of(costs, run) if cost.step.setting == SETTING]
        if not found:
            raise UserError(f"{run.name} was not profiled under setting {SETTING!r}; add it to profile.settings")
        label += f" ({run.name})" if times[label, backbone] > 1 else ""
        cost = max(found, key=lambda cost: cost.step.batch)
        points.append(Point(label, summarise(measured, run, "none", spec.seeds), cost))
    return points


def as_table(points: Sequence[Point]) -> pd.DataFrame:
    """The points as a table of ready cells, so that each can be read; a megabyte is 10^6 bytes."""
    kept = ("run", "options", "dataset", "backbone", "label_protocol", "params_m", "mr", "mr_ci_low", "mr_ci_high")
    rows = []
    for point in points:
        cells, cost = point.accuracy.cells(), point.cost
        rows.append(
            {"method": point.label}
            | {name: cells[name] for name in kept}
            | {
                "saved_mb_per_pair": significant(point.megabytes),
                "seconds_per_1000_pairs": significant(point.seconds),
                "setting": cost.step.setting,
                "batch": str(cost.step.batch),
                "precision": cost.step.precision,
                "device": cost.device,
                "threads": str(cost.threads),
            }
            | {name: cells[name] for name in BUDGET}
        )
    return pd.DataFrame(rows)


def draw(points: Sequence[Point]) -> Drawing:
    """Two panels with one accuracy axis, and between them the labels, each tied to its points. CMER is filled.

    The figure is one printed column wide; wider where long labels need it, and the taller the more labels there are.
    """
    backbones = list(dict.fromkeys(point.accuracy.run.backbone_printed for point in points))
    styles = dict(zip(backbones, cycle(STYLES)))
    with rc_context({"font.family": FONT, "font.size": TEXT, "axes.linewidth": 0.6}):
        legend = [
            Line2D([], [], color=colour, marker=marker, linestyle="", markersize=4, label=backbone)
            for backbone, (colour, marker) in styles.items()
        ]
        figure, middle, left, right = _frame(points, _title(points), len(legend))
        _panel(left, points, [point.megabytes for point in points], styles)
        _panel(right, points, [point.seconds for point in points], styles)
        _tie(middle, (left, right), points, styles)
        left.set_xlabel("kept for backward\npass, MB per pair")
        right.set_xlabel("training time,\ns per 1,000 pairs")
        left.set_ylabel("test mR, %, plain queries; 95 % interval", labelpad=2)
        right.tick_params(labelleft=False)
        figure.legend(handles=legend, loc="lower center", frameon=False, borderpad=0.2, labelspacing=0.2)
    return figure


def _frame(points: Sequence[Point], title: Sequence[str], legend: int) -> tuple[Drawing, Axes, Axes, Axes]:
    """An empty figure under its title with room for `legend` lines; its middle for the labels, and its two panels."""
    middle = max(_width(point) for point in points) + 0.12
    side = max(PANEL, (COLUMN - LEFT - middle - RIGHT) / 2)
    height = max(LOWEST, 1.3 * LINE * len(points))
    bottom = BOTTOM + LINE * legend
    width, whole = LEFT + side + middle + side + RIGHT, bottom + height + LINE * len(title) + TOP
    figure = Drawing((width, whole), dpi=DPI)
    for index, line in enumerate(title):
        y = 1 - (TOP / 2 + index * LINE) / whole
        figure.text(0.5, y, line, ha="center", va="top", weight="normal" if index else "bold")

    def axes(start: float, wide: float) -> Axes:
        return figure.add_axes((start / width, bottom / whole, wide / width, height / whole), facecolor="none")

    # The middle first: its lines lie under the panels' points.
    return figure, axes(LEFT + side, middle), axes(LEFT, side), axes(LEFT + side + middle, side)


def _width(point: Point) -> float:
    """Of its label."""
    font = FontProperties(family=FONT, weight=point.weight)
    return float(TextPath((0, 0), point.label, size=TEXT, prop=font).get_extents().width) / 72


def _title(points: Sequence[Point]) -> list[str]:
    runs, steps = [point.accuracy for point in points], [point.cost.step for point in points]
    seeds = "one seed" if len(runs[0].seeds) == 1 else f"mean of {len(runs[0].seeds)} seeds"
    images, epochs = _span([run.images for run in runs]), _span([run.epochs for run in runs])
    precision = " or ".join(dict.fromkeys(step.precision for step in steps))
    facts = (
        f"{runs[0].run.dataset_title}: {images} training images, {epochs} epochs, {seeds}",
        f"cost of a step of {_span([step.batch for step in steps])} pairs in {precision}, frozen towers included,",
        f"measured on {', '.join(dict.fromkeys(point.cost.device for point in points))}",
    )
    return ["Accuracy against the cost of training", *(line for fact in facts for line in wrap(fact, 62))]


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _panel(
    axes: Axes, points: Sequence[Point], costs: Sequence[float | None], styles: dict[str, tuple[str, str]]
) -> None:
    """The points whose cost was measured, on a logarithmic axis."""
    for point, cost in zip(points, costs, strict=True):
        if cost is not None:
            colour, marker = styles[point.accuracy.run.backbone_printed]
            bold = point.weight == "bold"
            axes.vlines(cost, *point.accuracy.interval, color=colour, linewidth=0.5)
            axes.plot(
                cost,
                point.accuracy.mr,
                color=colour,
                marker=marker,
                markersize=5 if bold else 3.5,
                markerfacecolor=colour if bold else "white",
                markeredgewidth=0.8,
            )
    shown = [cost for cost in costs if cost is not None]
    if not shown:
        axes.text(0.5, 0.5, "not timed", transform=axes.transAxes, ha="center")
        axes.set_xticks([])
        return
    decades = math.log10(max(shown) / min(shown))
    space = 10 ** max(0.1, 0.08 * decades, (0.72 - decades) / 2)  # an axis of 0.72 decades has two ticks at least
    low, high = min(shown) / space, max(shown) * space
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.set_xticks(_ticks(low, high))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}" if value < 1e4 else f"{value / 1e3:g}k"))
    axes.xaxis.set_minor_locator(LogLocator(subs=range(1, 10), numticks=100))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _ticks(low: float, high: float) -> list[float]:
    """At most four round numbers between the two, for so many have room."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits, every in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        ticks = [digit * 10.0**decade for decade in decades[::every] for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 4:
            break
    return ticks


def _tie(middle: Axes, panels: Sequence[Axes], points: Sequence[Point], styles: dict[str, tuple[str, str]]) -> None:
    """Write each label at its points' height, or as near to it as the others leave room, and draw lines to them."""
    bounds = np.array([point.accuracy.interval for point in points])
    margin = max(0.05 * np.ptp(bounds), 0.1)  # where all recalls are 0 or 100, the bounds are one
    low, high = bounds.min() - margin, bounds.max() + margin
    for axes in (middle, *panels):
        axes.set_ylim(low, high)
    middle.set_xlim(-1, 1)
    middle.set_axis_off()
    points = sorted(points, key=lambda point: point.accuracy.mr)
    line = LINE * DPI / middle.bbox.height * (high - low)
    steps = line * np.arange(len(points))
    wanted = np.array([point.accuracy.mr for point in points])
    # The least squares fit whose steps are no smaller than a line.
    heights = steps + isotonic_regression(wanted - steps, y_min=low + line / 2, y_max=high - line / 2 - steps[-1])
    for point, height in zip(points, heights, strict=True):
        middle.text(
            0,
            height,
            point.label,
            ha="center",
            va="center_baseline",
            weight=point.weight,
            color=styles[point.accuracy.run.backbone_printed][0],
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
        )
        for axes, side, cost in zip(panels, (-1, 1), (point.megabytes, point.seconds), strict=True):
            if cost is not None:
                start, end = (side, height), (cost, point.accuracy.mr)
                middle.plot([0, side], [height, height], **LINK)
                middle.add_artist(ConnectionPatch(start, end, middle.transData, axes.transData, **LINK))
