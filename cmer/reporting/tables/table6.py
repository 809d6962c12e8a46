"""Table 6 of the paper: length of the negative queue."""

from __future__ import annotations

from cmer.methods.cmer.options import CmerOptions
from cmer.registry import TABLES
from cmer.reporting.ablation import Ablation


@TABLES.register("table6")
class Table6(Ablation):
    """Length of the negative queue, in batches."""

    number = 6
    printed = (6,)
    keys = ("queue_length_batches",)
    identity = 1
    variants = ("v2", "d1")
    varied = frozenset({"queue_batches"})

    def values(self, options: CmerOptions) -> tuple[str, ...]:
        """See `Ablation`."""
        return (str(options.queue_batches),)
