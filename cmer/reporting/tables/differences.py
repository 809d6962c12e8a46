"""Differences in mR between all pairs of runs; not a table of the paper."""

from __future__ import annotations

from itertools import combinations

import pandas as pd

from cmer.registry import TABLES
from cmer.reporting.base import Files, Table, TableSpec
from cmer.reporting.comparison import difference_cells
from cmer.reporting.measured import Measured, number, summarise
from cmer.reporting.metrics import read_metrics

COLUMNS = [
    *("dataset", "label_protocol", "run", "compared_with", "mr", "mr_compared"),
    *("difference", "ci_low", "ci_high", "supported", "seeds"),
]


@TABLES.register("differences")
class Differences(Table):
    """Each run minus every earlier one in the config, on the same dataset and label protocol, by paired bootstrap.

    `supported` is yes if the 95 % interval excludes zero. Intervals are not corrected for the number of pairs.
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
        return pd.DataFrame(rows, columns=COLUMNS)


def _row(run: Measured, other: Measured) -> dict[str, str]:
    difference, low, high, supported = difference_cells(run, other)
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
