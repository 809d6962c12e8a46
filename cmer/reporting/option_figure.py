"""Figures of mR against one option of CMER."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pandas as pd

from cmer.errors import UserError
from cmer.methods.cmer.options import CmerOptions
from cmer.reporting.base import Figure, FigureSpec, Files
from cmer.reporting.measured import formatted, summarise
from cmer.reporting.metrics import read_metrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


class OptionFigure(Figure):
    """MR of plain queries by the value of an option, with 95 % bootstrap intervals over test images.

    Class attributes:
        option: the option on the horizontal axis.
        label: its name on the axis.
        line: option of which every value has a line of its own; None: one line.
    """

    reads = ("metrics",)
    option: ClassVar[str]
    label: ClassVar[str]
    line: ClassVar[str | None] = None

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.lines import draw_options  # planning has no need of matplotlib

        metrics = read_metrics(files.metrics)
        rows = []
        for run in spec.runs:
            if not isinstance(run.options, CmerOptions):
                raise UserError(f"{run.name} is of method {run.method}, which has no {self.option}; list runs of cmer")
            found = summarise(metrics, run, "none", spec.seeds)
            group = (
                f"{self.line.replace('_', ' ')} {getattr(run.options, self.line)}" if self.line else run.dataset_title
            )
            rows.append((run.name, group, getattr(run.options, self.option), found.mr, found.mr_std, *found.interval))
        points = pd.DataFrame(rows, columns=["run", "line", self.option, "mr", "mr_std", "low", "high"])
        points = points.astype({"mr_std": float}).sort_values(["line", self.option], kind="stable", ignore_index=True)
        shown = formatted(points, ("mr", "mr_std", "low", "high"))
        return draw_options(points, self.option, self.label), shown.replace({"mr_std": {"nan": "one seed"}})
