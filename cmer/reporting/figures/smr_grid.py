"""The validation recall of every setting of similarity-matrix reweighting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from cmer.data.frames import GRID, read_frame
from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.measured import TableRun, number, of_run, read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COLUMNS = ["run", "dataset", "gamma1", "gamma2", "val_mr", "seeds", "chosen_by"]


@FIGURES.register("smr_grid")
class SmrGrid(Figure):
    """A heat map per run: validation mR by the exponents of both softmaxes, the mean over seeds."""

    reads = ("metrics",)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.heat_map import draw  # planning imports this module, and has no need of matplotlib

        points = pd.concat([grid_of(files, run, spec.seeds) for run in spec.runs], ignore_index=True)
        return draw(points), points.astype({"gamma1": str, "gamma2": str}).assign(val_mr=points["val_mr"].map(number))


def grid_of(files: Files, run: TableRun, seeds: Sequence[int]) -> pd.DataFrame:
    """Validation mR in percent of every pair of exponents, averaged over seeds, and how many seeds chose the pair.

    Raises:
        UserError: the run is not reranked by SMR, or a file is missing.
    """
    if run.reranker is None or run.reranker.kind != "smr":
        raise UserError(f"{run.name} is not reranked by SMR; list runs such as {run.name}.<name of a reranker>")
    found = of_run(read_metrics(files.metrics), run, seeds)
    grids = [read_frame(one["ranks"].path.with_suffix("").with_suffix(".grid.csv"), GRID) for one in found]
    whole = pd.concat(grids).astype(float).groupby(["gamma1", "gamma2"], as_index=False)["val_mr"].mean()
    chosen = [one["record"]["reranking"]["chosen"] for one in found]
    picked = [(pair["gamma1"], pair["gamma2"]) for pair in chosen]
    whole["chosen_by"] = [picked.count(pair) for pair in zip(whole["gamma1"], whole["gamma2"], strict=True)]
    return whole.assign(run=run.name, dataset=run.dataset_title, seeds=len(seeds))[COLUMNS]
