"""Drawings of curves with bands: recall by depth, recall by the value of an option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cmer.reporting.style import COLUMN, PAGE, PALETTE, STYLE

HEIGHT, LEGEND_ROW = 2.2, 0.14
"""Height of the panels and of a line of the legend, in inches."""
SHOWN = (1, 2, 5, 10, 20, 50)
"""Depths that the axis names."""
DASHES = ("-", "--", ":", "-.")
MARKERS = "os^DvP"
APART = 0.015
"""Distance between the bars of neighbouring lines, as a share of the axis."""


def draw_recalls(points: pd.DataFrame, directions: Mapping[str, str]) -> Figure:
    """A panel per direction, a curve per run with its interval; more runs than colours differ by their dashes."""
    runs = list(dict.fromkeys(points["run"]))
    with rc_context(STYLE):
        figure = Figure((PAGE, HEIGHT + LEGEND_ROW * -(-len(runs) // 3)), layout="constrained")
        panels = figure.subplots(1, len(directions), sharey=True)
        for axes, (direction, title) in zip(panels, directions.items(), strict=True):
            for place, run in enumerate(runs):
                curve = points[(points["run"] == run) & (points["direction"] == direction)]
                colour = PALETTE[place % len(PALETTE)]
                dashes = DASHES[place // len(PALETTE) % len(DASHES)]
                axes.plot(curve["k"], curve["recall"], color=colour, linestyle=dashes, label=run)
                axes.fill_between(curve["k"], curve["low"], curve["high"], color=colour, alpha=0.12, linewidth=0)
            axes.set_title(title, size="medium")
            axes.set_xscale("log")
            axes.set_xlim(1, points["k"].max())
            axes.xaxis.set_major_locator(FixedLocator(SHOWN))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xlabel("k, number of results")
            axes.grid(True)
        panels[0].set_ylabel("R@k, %")
        panels[0].set_ylim(0, 100)
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=min(3, len(runs)))
    return figure


def draw_options(points: pd.DataFrame, option: str, label: str) -> Figure:
    """A line per group of runs over the values of an option: one with its interval as a band, several with bars."""
    values, lines = sorted(set(points[option])), list(points.groupby("line", sort=False))
    apart = APART * (values[-1] - values[0]) if len(lines) > 1 else 0.0
    with rc_context(STYLE):
        figure = Figure((COLUMN, HEIGHT), layout="constrained")
        axes = figure.subplots()
        for place, (name, line) in enumerate(lines):
            at = line[option] + apart * (place - (len(lines) - 1) / 2)
            colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
            look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 3.5}
            bars = [line["mr"] - line["low"], line["high"] - line["mr"]]
            if apart:
                axes.errorbar(at, line["mr"], bars, elinewidth=0.6, capsize=1.5, label=str(name), **look)
            else:
                axes.plot(at, line["mr"], label=str(name), **look)
                axes.fill_between(at, line["low"], line["high"], color=colour, alpha=0.12, linewidth=0)
        axes.xaxis.set_major_locator(FixedLocator(values))
        axes.set_xlabel(label)
        axes.set_ylabel("test mR, %, plain queries")
        axes.grid(True)
        figure.legend(title="95 % intervals over test images", loc="outside lower center", ncols=3)
    return figure
