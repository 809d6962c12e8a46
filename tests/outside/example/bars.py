"""A figure: mR of every run."""

import pandas as pd

from cmer.registry import FIGURES
from cmer.reporting.base import Figure
from cmer.reporting.measured import summarise
from cmer.reporting.metrics import read_metrics


@FIGURES.register("bars")
class Bars(Figure):
    reads = ("metrics",)

    def draw(self, spec, files):
        from matplotlib.figure import Figure as Drawing

        metrics = read_metrics(files.metrics)
        shown = pd.DataFrame([summarise(metrics, run, "none", spec.seeds).cells() for run in spec.runs])
        drawing = Drawing((3.5, 2.5), layout="constrained")
        axes = drawing.subplots()
        axes.barh(shown["run"], shown["mr"].astype(float))
        axes.set_xlabel("test mR, %, plain queries")
        return drawing, shown
