"""Table 4 of the paper: the parts of CMER."""

from __future__ import annotations

from cmer.methods.cmer.options import CmerOptions
from cmer.registry import TABLES
from cmer.reporting.ablation import Ablation


@TABLES.register("table4")
class Table4(Ablation):
    """Text LoRA, Focus-Adapter, negative recycling and scene prompts, added one by one."""

    number = 4
    printed = (4,)
    keys = ("ablation", "text_lora", "focus_adapter", "negative_recycling", "scene_prompt")
    identity = 1
    variants = ("v1", "v2", "d1", "d2")
    mr = {"RSICD": "mr_rsicd", "RSITMD": "mr_rsitmd"}  # noqa: RUF012

    def values(self, options: CmerOptions) -> tuple[str, ...]:
        """See `Ablation`."""
        parts = (options.text == "lora", options.focus_adapter, options.queue_batches > 0, options.scene_prompt)
        return (options.variant, *(str(int(part)) for part in parts))
