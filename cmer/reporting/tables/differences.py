"""Differences in mR between all pairs of runs; not a table of the paper."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from cmer.registry import TABLES
from cmer.reporting.base import Files, Table, TableSpec
from cmer.reporting.comparison import compare, difference_cells
from cmer.reporting.measured import Measured, number, read_metrics, summarise


@TABLES.register("differences")
class Differences(Table):
    """One row per pair of runs on the same dataset and label protocol, with a 95 % paired bootstrap interval.

    `supported` is yes if the interval excludes zero. Runs are paired in the order of the config.
    """

    reads = ("metrics",)

    def build(self, spec: TableSpec, files: Files) -> pd.DataFrame:
        """See `Table`."""
        metrics = read_metrics(files.metrics)
        rows = []
        for protocol in spec.protocols:
            measured = [summarise(metrics, run, protocol, spec.seeds) for run in spec.runs]
            pairs = combinations(measured, 2)
            rows += [_row(two, one) for one, two in pairs if one.run.dataset == two.run.dataset]
        return pd.DataFrame(rows)


def _row(run: Measured, other: Measured) -> dict[str, str]:
    difference, low, high, supported = difference_cells(compare(run, other))
    return {
        "dataset": run.run.dataset_title,
        "label_protocol": run.protocol,
        "run": run.run.name,
        "compared_with": other.run.name,
        "mr": number(run.mr),
        "mr_compared": number(other.mr),
        "difference": difference,
        "ci_low": low,
        "ci_high": high,
        "supported": supported,
        "seeds": " ".join(map(str, run.seeds)),
    }
