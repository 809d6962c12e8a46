"""Table 1 of the paper: the comparison on RSITMD."""

from __future__ import annotations

from cmer.registry import TABLES
from cmer.reporting.benchmark import Benchmark


@TABLES.register("table1")
class Table1(Benchmark):
    """Systems by recall, beside those that the paper prints on RSITMD."""

    number = 1
    printed = (1,)
