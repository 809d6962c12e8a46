"""Drawing of embedded captions by scene."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from cmer.reporting.style import COLUMN, PAGE, PALETTE, STYLE

LOOKS: tuple[dict[str, Any], ...] = ({"marker": "o", "s": 5}, {"marker": "^", "s": 9, "facecolors": "none"})
"""Markers of as many classes each as there are colours."""
PANEL, LEGEND_ROW, REST = 2.3, 0.14, 0.5
"""Height in inches of a row of panels, of a line of the legend, and of everything else."""


def draw(points: pd.DataFrame, dataset: str) -> Figure:
    """A row of panels per run, a column per label protocol; classes differ by colour and marker."""
    runs, protocols = (list(dict.fromkeys(points[name])) for name in ("run", "label_protocol"))
    labels = sorted(set(points["label"]))
    height = PANEL * len(runs) + LEGEND_ROW * -(-len(labels) // 4) + REST
    with rc_context(STYLE):
        figure = Figure((PAGE if len(protocols) > 1 else COLUMN, height), layout="constrained")
        panels = figure.subplots(len(runs), len(protocols), squeeze=False)
        for row, run in zip(panels, runs, strict=True):
            for axes, protocol in zip(row, protocols, strict=True):
                part = points[(points["run"] == run) & (points["label_protocol"] == protocol)]
                for place, label in enumerate(labels):
                    own = part[part["label"] == label]
                    axes.scatter(own["x"], own["y"], label=label, **_look(place))
                first = part.iloc[0]
                axes.set_title(
                    f"{run}, {protocol}\nsilhouette {first['silhouette']:.2f}, "
                    f"5-NN accuracy {first['knn_accuracy']:.1f} %",
                    size="medium",
                )
                axes.set_xticks([])
                axes.set_yticks([])
        handles = panels[0][0].get_legend_handles_labels()
        title = f"test captions of {dataset}; t-SNE axes have no unit"
        figure.legend(*handles, title=title, loc="outside lower center", ncols=4, markerscale=2)
    return figure


def _look(place: int) -> dict[str, Any]:
    look, colour = LOOKS[place // len(PALETTE) % len(LOOKS)], PALETTE[place % len(PALETTE)]
    return {"facecolors": colour, "edgecolors": colour, "linewidths": 0.5} | look
