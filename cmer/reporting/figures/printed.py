"""The paper's numbers beside those measured under the same setting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from cmer.errors import UserError
from cmer.registry import FIGURES
from cmer.reporting.base import Figure, FigureSpec, Files, TableSpec, build_table
from cmer.reporting.paper import DATASET

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COLUMNS = ["method", "run", "backbone", "label_protocol", "paper_mr", "mr", "mr_ci_low", "mr_ci_high", "delta_mr"]


@FIGURES.register("printed")
class Printed(Figure):
    """Printed and measured mR of the systems that were run under a printed setting."""

    reads = ("metrics",)
    printed = tuple(DATASET)

    def draw(self, spec: FigureSpec, files: Files) -> tuple[Drawing, pd.DataFrame]:
        """See `Figure`."""
        from cmer.reporting.drawings.dumbbell import draw  # planning has no need of matplotlib

        title = spec.runs[0].dataset_title
        number = next((number for number, dataset in DATASET.items() if dataset == title), None)
        if number is None:
            raise UserError(
                f"the paper prints no rows on {title}; figure `printed` is for {' and '.join(DATASET.values())}"
            )
        runs = [run.model_dump() for run in spec.runs]
        given = {"kind": f"table{number}", "runs": runs, "protocols": ["none", "oracle"], "seeds": spec.seeds}
        table = build_table(TableSpec.model_validate(given), files)
        points = table.loc[(table["source"] == "measured") & (table["paper_mr"] != ""), COLUMNS]
        if points.empty:
            raise UserError("none of the figure's runs has the backbone, system and protocol of a printed row")
        return draw(points, title), points.reset_index(drop=True)
