"""Drawing of printed and measured recalls."""

from __future__ import annotations

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from cmer.reporting.style import COLUMN, PALETTE, STYLE

ROW, REST = 0.2, 0.9
"""Height in inches of a row, and of everything else."""


def draw(points: pd.DataFrame, dataset: str) -> Figure:
    """A row per run: the printed recall, the measured one with its interval, and a line between the two."""
    numbers = points[["paper_mr", "mr", "mr_ci_low", "mr_ci_high"]].astype(float)
    rows = numbers.sort_values("paper_mr")
    labels = (
        points["method"]
        + ", "
        + points["backbone"]
        + points["label_protocol"].map(lambda protocol: "" if protocol == "none" else f", {protocol}")
    )
    with rc_context(STYLE):
        figure = Figure((COLUMN, REST + ROW * len(rows)), layout="constrained")
        axes = figure.subplots()
        for height, (_, row) in enumerate(rows.iterrows()):
            axes.plot([row["paper_mr"], row["mr"]], [height, height], color="0.7", linewidth=2.5, zorder=1)
            axes.hlines(height, row["mr_ci_low"], row["mr_ci_high"], color=PALETTE[0], linewidth=0.7)
        heights = range(len(rows))
        axes.scatter(rows["paper_mr"], heights, color=PALETTE[1], marker="s", s=16, label="printed", zorder=2)
        axes.scatter(rows["mr"], heights, color=PALETTE[0], s=16, label="measured, 95 % interval", zorder=2)
        axes.set_yticks(heights, labels.loc[rows.index].tolist())
        axes.set_xlabel(f"test mR on {dataset}, %")
        axes.grid(axis="x")
        figure.legend(loc="outside lower center", ncols=2)
    return figure
