"""Table 5 of the paper: size and focus field of the adapter."""

from __future__ import annotations

from cmer.methods.cmer.options import CmerOptions
from cmer.registry import TABLES
from cmer.reporting.ablation import Ablation


@TABLES.register("table5")
class Table5(Ablation):
    """Width, focus field and heads of the side branch."""

    number = 5
    printed = (5,)
    keys = ("hidden_dim", "focus_field", "heads")
    identity = 3
    variants = ("v2",)
    varied = frozenset({"hidden", "focus_field", "heads"})

    def values(self, options: CmerOptions) -> tuple[str, ...]:
        """See `Ablation`."""
        return (str(options.hidden), str(options.focus_field), str(options.heads))
