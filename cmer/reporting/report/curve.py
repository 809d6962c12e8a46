"""The training curve of a run: loss and validation recall by epoch, a line per seed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cmer.errors import UserError
from cmer.io import read_text
from cmer.reporting.report.pictures import data_url
from cmer.reporting.style import PAGE, PALETTE, STYLE, encoded

Curve = Sequence[Mapping[str, Any]]


def read_curve(path: Path) -> Curve:
    """Epochs of a training, in order.

    Raises:
        UserError: the file is damaged.
    """
    try:
        curve = [json.loads(line) for line in read_text(path).splitlines()]
        return [{"epoch": int(one["epoch"]), "loss": sum(one["loss"].values())} | _validated(one) for one in curve]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{path} is damaged; run `cmer train` again") from None


def _validated(entry: Mapping[str, Any]) -> dict[str, float]:
    return {"val_mr": float(entry["val_mr"])} if "val_mr" in entry else {}


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
