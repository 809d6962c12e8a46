"""A table: the run with the best mR."""

import pandas as pd

from cmer.registry import TABLES
from cmer.reporting.base import Table
from cmer.reporting.measured import summarise
from cmer.reporting.metrics import read_metrics


@TABLES.register("best")
class Best(Table):
    reads = ("metrics",)

    def build(self, spec, files):
        metrics = read_metrics(files.metrics)
        rows = [summarise(metrics, run, protocol, spec.seeds) for run in spec.runs for protocol in spec.protocols]
        return pd.DataFrame([max(rows, key=lambda row: row.mr).cells()])
