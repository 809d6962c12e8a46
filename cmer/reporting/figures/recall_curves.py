"""Recall by the number of results that a user looks at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.measured import formatted
from cmer.reporting.metrics import of_run, read_metrics
from cmer.retrieval.bootstrap import LEVELS, RESAMPLES
from cmer.retrieval.evaluate import Ranked, RanksFile, read_ranks
from cmer.retrieval.recall import expected_hits

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

DEEPEST = 50
"""Largest k of R@k."""
DIRECTIONS = {"t2i": "text → image", "i2t": "image → text"}
PROTOCOL = "none"


@FIGURES.register("recall_curves")
class RecallCurves(Figure):
    """R@1 to R@50 of plain queries in both directions, with 95 % bootstrap intervals over test images."""

    reads = ("metrics",)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.lines import draw_recalls  # planning has no need of matplotlib

        metrics = read_metrics(files.metrics)
        points = pd.concat(
            [
                _points(run.name, direction, [one["ranks"] for one in of_run(metrics, run, spec.seeds)])
                for direction in DIRECTIONS
                for run in spec.runs
            ],
            ignore_index=True,
        )
        return draw_recalls(points, DIRECTIONS), formatted(points, ("recall", "low", "high"))


def _points(run: str, direction: str, files: Sequence[RanksFile]) -> pd.DataFrame:
    """R@k of a run, percent, the mean over seeds, and its interval over test images, the mean of the seeds' bounds."""
    curves = np.array([_curve(read_ranks(file, PROTOCOL), direction) for file in files]).mean(axis=0)
    return pd.DataFrame(
        {"run": run, "direction": direction, "k": range(1, DEEPEST + 1)}
        | dict(zip(("recall", "low", "high"), curves, strict=True))
    )


def _curve(found: Ranked, direction: str) -> NDArray[np.float64]:
    """R@k, lower and upper bound [3, k]; an image is resampled together with its captions."""
    ranks, owner = (found.t2i, found.owner) if direction == "t2i" else (found.i2t, np.arange(len(found.ids)))
    n = len(found.ids)
    hits = np.stack([np.bincount(owner, expected_hits(ranks, k), n) for k in range(1, DEEPEST + 1)], axis=1)
    queries = np.bincount(owner, minlength=n)
    draws = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    resampled = draws @ hits / (draws @ queries)[:, None]
    return 100 * np.stack([hits.sum(axis=0) / queries.sum(), *np.percentile(resampled, LEVELS, axis=0)])
