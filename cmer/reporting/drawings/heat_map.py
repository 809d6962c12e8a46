"""Drawing of the grid of a reranker: a heat map per run."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from cmer.reporting.style import STYLE

PANEL, MARGIN, HEIGHT = 2.2, 1.0, 2.6
"""Width of a panel, of the rest, and height of the figure, in inches."""


def draw(points: pd.DataFrame) -> Figure:
    """One panel per run, all on one colour scale; the number of seeds that chose a cell is in brackets."""
    runs = list(dict.fromkeys(points["run"]))
    values = points["val_mr"].to_numpy(float)
    low, high = float(values.min()), float(values.max())
    with rc_context(STYLE):
        figure = Figure((PANEL * len(runs) + MARGIN, HEIGHT), dpi=300, layout="constrained")
        panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
        for axes, run in zip(panels, runs, strict=True):
            drawn = _panel(axes, points[points["run"] == run], low, high)
            axes.set_title(run, size="medium")
            axes.set_xlabel("γ₁, exponent of P→ (over captions)")
        panels[0].set_ylabel("γ₂, exponent of P← (over images)")
        figure.colorbar(drawn, ax=panels, label="validation mR, %", pad=0.02)
        seeds = int(points["seeds"].iloc[0])
        whose = "one seed" if seeds == 1 else f"mean of {seeds} seeds"
        figure.suptitle(f"{points['dataset'].iloc[0]}, {whose}; in brackets: chosen by n seeds", size="small")
    return figure


def _panel(axes: Axes, points: pd.DataFrame, low: float, high: float) -> AxesImage:
    table = points.pivot(index="gamma2", columns="gamma1")
    cells, chosen = table["val_mr"].to_numpy(float), table["chosen_by"].to_numpy(int)
    drawn = axes.imshow(cells, cmap="viridis", vmin=low, vmax=high, origin="lower", aspect="auto")
    for ticks, name in ((axes.set_xticks, "gamma1"), (axes.set_yticks, "gamma2")):
        values = sorted(set(points[name]))
        ticks(range(len(values)), [f"{value:g}" for value in values])
    for (row, column), value in np.ndenumerate(cells):
        text = f"{value:.1f}" + (f"\n[{times}]" if (times := chosen[row, column]) else "")
        colour = "black" if value > (low + high) / 2 else "white"
        axes.text(column, row, text, ha="center", va="center", color=colour, size=6)
    return drawn
