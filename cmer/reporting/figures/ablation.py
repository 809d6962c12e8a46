"""What each part of CMER adds, and what the true labels in the queries add."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.comparison import compare
from cmer.reporting.measured import number, signed, summarise
from cmer.reporting.metrics import read_metrics
from cmer.reporting.naming import printed_name
from cmer.reporting.paper import printed_methods

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LABELS = "true labels in the queries"


@FIGURES.register("ablation")
class AblationFigure(Figure):
    """The change in mR from each run to the next, and what the last one owes to true labels in the test queries."""

    reads = ("metrics",)
    printed = (1,)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.waterfall import draw  # planning has no need of matplotlib

        metrics = read_metrics(files.metrics)
        rows = [summarise(metrics, run, "none", spec.seeds) for run in spec.runs]
        rows.append(summarise(metrics, spec.runs[-1], "oracle", spec.seeds))
        names = [printed_name(run.method, run.options, printed_methods()) for run in spec.runs]
        points = []
        for place, (row, name) in enumerate(zip(rows, [*names, LABELS], strict=True)):
            step = compare(row, rows[place - 1]) if place else None
            points.append(
                {
                    "step": name,
                    "run": row.run.name,
                    "label_protocol": row.protocol,
                    "mr": row.mr,
                    "delta": step.estimate if step else float("nan"),
                    "low": step.low if step else float("nan"),
                    "high": step.high if step else float("nan"),
                }
            )
        table = pd.DataFrame(points)
        shown = table.assign(mr=table["mr"].map(number))
        for column in ("delta", "low", "high"):
            shown[column] = [signed(value) if value == value else "" for value in table[column]]
        return draw(table, spec.runs[0].dataset_title), shown.astype(str)
