"""The training curve of a run: loss and validation recall by epoch, a line per seed."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmer.reporting.curves import Curve
from cmer.reporting.report.pictures import data_url
from cmer.reporting.style import PAGE, PALETTE, STYLE, encoded


def draw_curve(curves: Mapping[int, Curve]) -> str:
    """Data URL of the drawing, as SVG; empty without curves."""
    if not any(curves.values()):
        return ""
    with rc_context(STYLE):
        figure = Figure((PAGE, 2.1), layout="constrained")
        panels = figure.subplots(1, 2)
        for axes, measure, label in zip(panels, ("loss", "val_mr"), ("training loss", "validation mR, %"), strict=True):
            for colour, (seed, curve) in zip(PALETTE * len(curves), curves.items(), strict=False):
                points = [(entry["epoch"], entry[measure]) for entry in curve if measure in entry]
                axes.plot(*zip(*points, strict=True), color=colour, label=f"seed {seed}", marker="o", markersize=2)
            axes.set_xlabel("epoch")
            axes.set_ylabel(label)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if len(curves) > 1:
            panels[1].legend()
        return data_url(encoded(figure, "svg"), "image/svg+xml")
