"""The validation recall of every setting of similarity-matrix reweighting."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import pandas as pd

from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.measured import number
from cmer.reporting.metrics import TableRun, of_run, read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COLUMNS = ["run", "dataset", "gamma1", "gamma2", "val_mr", "seeds", "chosen_by"]


@FIGURES.register("smr_grid")
class SmrGrid(Figure):
    """A heat map per run: validation mR by the exponents of both softmaxes, the mean over seeds."""

    reads = ("metrics",)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.heat_map import draw  # planning has no need of matplotlib

        points = pd.concat([grid_of(files, run, spec.seeds) for run in spec.runs], ignore_index=True)
        return draw(points), points.astype({"gamma1": str, "gamma2": str}).assign(val_mr=points["val_mr"].map(number))


def grid_of(files: Files, run: TableRun, seeds: Sequence[int]) -> pd.DataFrame:
    """Validation mR in percent of every pair of exponents, averaged over seeds, and how many seeds chose the pair.

    Raises:
        UserError: the run is not reranked by SMR, or its metrics are missing.
    """
    if run.reranker is None or run.reranker.kind != "smr":
        raise UserError(f"{run.name} is not reranked by SMR; list runs such as {run.name}.<name of a reranker>")
    found = [one["record"]["reranking"] for one in of_run(read_metrics(files.metrics), run, seeds)]
    cells: dict[tuple[float, float], list[float]] = {}
    for setting in (setting for one in found for setting in one["grid"]):
        cells.setdefault((setting["gamma1"], setting["gamma2"]), []).append(setting["val_mr"])
    chosen = Counter((one["chosen"]["gamma1"], one["chosen"]["gamma2"]) for one in found)
    rows = [
        (run.name, run.dataset_title, *exponents, fmean(values), len(seeds), chosen[exponents])
        for exponents, values in cells.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)
