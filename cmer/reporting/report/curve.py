"""The training curve of a run: loss and validation recall by epoch, with the spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmer.data.urls import data_url
from cmer.reporting.curves import Curve
from cmer.reporting.style import PAGE, PALETTE, STYLE, encoded

MEASURES = {"loss": "training loss", "val_mr": "validation mR, %"}


def curve_points(curves: Sequence[Curve]) -> pd.DataFrame:
    """Mean, lowest and highest value of the seeds at each epoch that all of them have.

    Returns:
        columns measure, epoch, mean, low and high.
    """
    entries = pd.DataFrame([entry for curve in curves for entry in curve]).reindex(columns=["epoch", *MEASURES])
    found = entries.melt("epoch", var_name="measure").dropna().groupby(["measure", "epoch"])["value"]
    points = found.agg(mean="mean", low="min", high="max", seeds="size").reset_index()
    return points[points.pop("seeds") == len(curves)]


def draw_curve(curves: Sequence[Curve]) -> str:
    """Data URL of the drawing, as SVG: the mean of the seeds in the band of their extremes; empty without curves."""
    if not any(curves):
        return ""
    points = curve_points(curves)
    with rc_context(STYLE):
        figure = Figure((PAGE, 2.1), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, (measure, label) in zip(panels, MEASURES.items(), strict=True):
            one = points[points["measure"] == measure]
            axes.plot(
                one["epoch"], one["mean"], PALETTE[0], marker="o", markersize=2, label=f"mean of {len(curves)} seeds"
            )
            if len(curves) > 1:
                axes.fill_between(
                    one["epoch"],
                    one["low"],
                    one["high"],
                    color=PALETTE[0],
                    alpha=0.2,
                    linewidth=0,
                    label="lowest to highest seed",
                )
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(curves) > 1:
            panels[0].legend()
        return data_url(encoded(figure, "svg"), "image/svg+xml")
