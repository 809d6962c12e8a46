"""Settings of pe_rsitr."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from cmer.config.base import Rate, Weight, Width
from cmer.methods.layers.settings import TowerOptions
from cmer.registry import METHOD_OPTIONS


@METHOD_OPTIONS.register("pe_rsitr")
class PeRsitrOptions(TowerOptions):
    """One adapter for all blocks of both towers, and a hybrid loss."""

    note: ClassVar[str] = "its loss runs both towers twice per step"

    bottleneck: Width = 64
    shared: Width = Field(default=64, description="up-projection channels shared by both towers")
    dropout: Rate = Field(default=0.5, description="dropout within the adapter")
    input_dropout: Rate = Field(default=0.2, description="dropout on the input embeddings in the second pass")
    intra_weight: Weight = Field(default=1.0, description="weight of the two intra-modal losses")
