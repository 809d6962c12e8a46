"""The paper's tables with the measured rows beside the printed ones, as data frames of ready cells.

The same input gives the same table, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from cmer.config.base import Model
from cmer.config.experiment import Protocol
from cmer.reporting.ablations import ABLATIONS, ablation
from cmer.reporting.benchmark import benchmark
from cmer.reporting.efficiency import efficiency, read_costs
from cmer.reporting.measured import TableRun, read_metrics


class TableSpec(Model):
    """Exactly what a table is made of, besides its files. Table 3 has no label protocols and no seeds."""

    number: Literal[1, 2, 3, 4, 5, 6]
    runs: list[TableRun]
    protocols: list[Protocol]
    seeds: list[int]


def build_table(spec: TableSpec, files: Iterable[Path | str]) -> pd.DataFrame:
    """Table `spec.number`: all cells are strings, recalls in percent with two decimals.

    Args:
        spec: the runs, label protocols and seeds.
        files: in any order, metrics of every run and seed; for Table 3 the profiles of the runs' backbones.

    Raises:
        UserError: what a row needs is not in the files.
    """
    if spec.number == 3:
        table = efficiency(read_costs(files), spec.runs)
    elif spec.number in ABLATIONS:
        table = ablation(spec.number, read_metrics(files), spec.runs, spec.protocols, spec.seeds)
    else:
        table = benchmark(spec.number, read_metrics(files), spec.runs, spec.protocols, spec.seeds)
    return table.astype(object).fillna("").astype(str)
