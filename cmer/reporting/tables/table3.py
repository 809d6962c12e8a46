"""Table 3 of the paper: what a training step costs."""

from __future__ import annotations

from cmer.registry import TABLES
from cmer.reporting.efficiency import Efficiency


@TABLES.register("table3")
class Table3(Efficiency):
    """Memory, arithmetic and time of a training step."""
