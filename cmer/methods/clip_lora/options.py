"""Settings of clip_lora."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from cmer.config.base import Width
from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS

RANKS = {"all_maps": 16, "in_projections": 64}
"""Rank of each preset."""


@METHOD_OPTIONS.register("clip_lora")
class ClipLoraOptions(TowerOptions):
    """LoRA in both towers."""

    note: ClassVar[str] = "the paper does not print which maps are adapted; both presets have the printed parameters"

    preset: Literal["all_maps", "in_projections"] = Field(
        default="all_maps",
        description="all_maps: rank 16 on every linear map; in_projections: rank 64 on the maps to queries, keys and "
        "values only; with fused in-projections, both have the paper's counts",
    )
    lora_rank: Width | None = Field(default=None, description="rank; null: that of the preset")

    @property
    def rank(self) -> int:
        """The rank in effect."""
        return RANKS[self.preset] if self.lora_rank is None else self.lora_rank
