"""Table 2 of the paper: the comparison on RSICD."""

from __future__ import annotations

from cmer.registry import TABLES
from cmer.reporting.benchmark import Benchmark


@TABLES.register("table2")
class Table2(Benchmark):
    """Systems by recall, beside those that the paper prints on RSICD."""

    number = 2
    printed = (2,)
