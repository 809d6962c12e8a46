"""The paper's tables with the measured rows beside the printed ones, as data frames of ready cells.

The same input gives the same table, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pandas as pd

from cmer.config import Model, Protocol
from cmer.reporting.ablations import ABLATIONS, ablation
from cmer.reporting.benchmark import benchmark
from cmer.reporting.measured import TableRun, read_metrics


class TableSpec(Model):
    """Exactly what a table is made of, besides its metrics files."""

    number: Literal[1, 2, 4, 5, 6]
    runs: list[TableRun]
    protocols: list[Protocol]
    seeds: list[int]


def build_table(spec: TableSpec, files: Iterable[Path | str]) -> pd.DataFrame:
    """Table `spec.number`: all cells are strings, recalls in percent with two decimals.

    Args:
        spec: the runs, label protocols and seeds.
        files: metrics of every run and seed, in any order.

    Raises:
        UserError: metrics are missing.
    """
    metrics = read_metrics(files)
    if spec.number in ABLATIONS:
        table = ablation(spec.number, metrics, spec.runs, spec.protocols, spec.seeds)
    else:
        table = benchmark(spec.number, metrics, spec.runs, spec.protocols, spec.seeds)
    return table.astype(object).fillna("").astype(str)
